"""How quick the app is: its start, its pages, its pictures, and its answers while others train.

    python -m benchmarks.app

Needs a browser: Debian's `chromium`. Everything runs on this machine, the browser too, which draws without a GPU.
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

from benchmarks.table import RESULTS, Store
from tests.browser import ask, chromium, wait

ROOT = Path(__file__).parents[1]
PAGES = ["", "residual", "break-it", "train", "more-steps", "any-ode", "images"]
PORT = 8765
ADDRESS = f"http://127.0.0.1:{PORT}"


@contextlib.contextmanager
def server(**environment: str) -> Iterator[float]:
    """The app's server: seconds until it answers."""
    begun = time.perf_counter()
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
        yield time.perf_counter() - begun
    finally:
        os.killpg(process.pid, 15)
        process.wait(10)


def visited(browser: Any, path: str) -> tuple[Any, float]:
    """A page in a fresh browser context, and the seconds until its first picture (its button, on Train)."""
    page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    begun = time.perf_counter()
    page.goto(f"{ADDRESS}/{path}")
    if path.startswith("train"):
        page.get_by_role("button", name="Train", exact=True).wait_for()
    else:
        wait(page)
    return page, time.perf_counter() - begun


def frames_a_second(page: Any, seconds: float = 3.0) -> float:
    """Of the viewer while it plays."""
    wait(page, "v.playing")
    before, begun = ask(page, "v.drawn"), time.perf_counter()
    time.sleep(seconds)
    return (ask(page, "v.drawn") - before) / (time.perf_counter() - begun)


def answer(page: Any) -> float:
    """Seconds from a click on another preset to its picture."""
    begun = time.perf_counter()
    page.get_by_text("Checkerboard", exact=True).click()
    wait(page, "v.scene.title.startsWith('Checkerboard')")
    return time.perf_counter() - begun


def measure(browser: Any, empty: str) -> Iterator[tuple[str, float, str]]:
    """What is measured, the figure, and its unit."""
    browser.new_page().close()  # the browser's own start is not the app's
    with server(PYTHONPYCACHEPREFIX=empty) as up:
        page, first = visited(browser, "")
        page.context.close()
        yield "first start, no compiled bytecode: until the server answers", up, "s"
        yield "first start, no compiled bytecode: from there to the first picture", first, "s"
    with server() as up:
        yield "warm start: until the server answers", up, "s"
        for path in PAGES:
            for visit in ("first", "second"):
                page, seconds = visited(browser, path)
                yield f"{path or 'watch'}: first picture, {visit} visit", seconds, "s"
                if path == "" and visit == "second":
                    yield "watch: 400 points x 61 frames playing", frames_a_second(page), "frames/s"
                page.context.close()
        for data in ("Ring+of+8", "Moons", "Spiral"):
            page, _ = visited(browser, f"train?steps=12%2C000&data={data}")
            page.get_by_role("button", name="Train", exact=True).click()
            wait(page, timeout=60_000)
        others = [visited(browser, "?v=1&play=0")[0] for _ in range(7)]
        yield "ten sessions, three training: slowest answer to the other seven", max(map(answer, others)), "s"


def main() -> None:
    """Measure, print, and write `results/app.json` and `results/app.md`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS)
    out = parser.parse_args().out
    (out / "app.json").unlink(missing_ok=True)  # one run, one machine
    store = Store(out, "app", "python -m benchmarks.app")
    with chromium() as browser, tempfile.TemporaryDirectory() as empty:
        for name, value, unit in measure(browser, empty):
            store.add(name, {"value": value, "unit": unit})
    lines = [{"measured": name, "": f"{row['value']:.1f} {row['unit']}"} for name, row in store.rows.items()]
    store.publish(
        "The app's speed", "Server, workers and a headless Chromium without a GPU share the machine.", {"": lines}
    )


if __name__ == "__main__":
    main()
