"""Measure the app's speed: start, pages, frame rate, and response while others train.

    python -m benchmarks.app

It needs a browser, Debian's `chromium`. Server and browser share one machine, and the browser renders without a GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.table import RESULTS, publish_measured
from tests.browser import ask, chromium, wait

ROOT = Path(__file__).parents[1]
PAGES = ["", "residual", "break-it", "train", "more-steps", "methods", "any-ode", "images"]
PORT = 8765
ADDRESS = f"http://127.0.0.1:{PORT}"


@contextlib.contextmanager
def server(**environment: str) -> Iterator[float]:
    """Run the app's server; yields the seconds until it responds."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "streamlit", "run", "main.py", "--server.port", str(PORT), "--server.headless", "true"],
        cwd=ROOT / "app",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1", **environment},
        start_new_session=True,
    )
    while True:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{ADDRESS}/_stcore/health", timeout=1)
            break
        time.sleep(0.02)
    try:
        yield time.perf_counter() - started
    finally:
        os.killpg(process.pid, 15)
        process.wait(10)


def visit(browser: Any, path: str) -> tuple[Any, float]:
    """Open a page in a new browser context; returns it, and the seconds to its first picture (on Train: its button)."""
    page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    started = time.perf_counter()
    page.goto(f"{ADDRESS}/{path}")
    if path.startswith("train"):
        page.get_by_role("button", name="Train", exact=True).wait_for()
    else:
        wait(page)
    return page, time.perf_counter() - started


def frame_rate(page: Any, seconds: float = 3.0) -> float:
    """Frames per second of the viewer while it plays."""
    wait(page, "v.playing")
    before, started = ask(page, "v.drawn"), time.perf_counter()
    time.sleep(seconds)
    return (ask(page, "v.drawn") - before) / (time.perf_counter() - started)


def response_time(page: Any) -> float:
    """Seconds from a click on another preset to its picture."""
    started = time.perf_counter()
    page.get_by_text("Checkerboard", exact=True).click()
    wait(page, "v.scene.title.startsWith('Checkerboard')")
    return time.perf_counter() - started


def measure(browser: Any, empty: str) -> Iterator[tuple[str, float, str]]:
    """Yield the name, the value and the unit of each measurement."""
    browser.new_page().close()  # the browser's own start does not count
    with server(PYTHONPYCACHEPREFIX=empty) as up:
        page, first = visit(browser, "")
        page.context.close()
        yield "first start, no compiled bytecode: until the server answers", up, "s"
        yield "first start, no compiled bytecode: from there to the first picture", first, "s"
    with server() as up:
        yield "warm start: until the server answers", up, "s"
        for path in PAGES:
            for which in ("first", "second"):
                page, seconds = visit(browser, path)
                yield f"{path or 'watch'}: first picture, {which} visit", seconds, "s"
                if path == "" and which == "second":
                    yield "watch: 400 points x 61 frames playing", frame_rate(page), "frames/s"
                page.context.close()
        for data in ("Ring+of+8", "Moons", "Spiral"):
            page, _ = visit(browser, f"train?steps=12%2C000&data={data}")
            page.get_by_role("button", name="Train", exact=True).click()
            wait(page, timeout=60_000)
        others = [visit(browser, "?v=1&play=0")[0] for _ in range(7)]
        yield "ten sessions, three training: slowest answer to the other seven", max(map(response_time, others)), "s"


def main() -> None:
    """Measure, print, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the table")
    out = parser.parse_args().out
    text = "Server, workers and a headless Chromium without a GPU share one machine."
    with chromium() as browser, tempfile.TemporaryDirectory() as empty:
        publish_measured(out, "app", "The app's speed", text, measure(browser, empty))


if __name__ == "__main__":
    main()
