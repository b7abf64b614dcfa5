"""Measure the explorer: its first picture, a distillation in the browser, and frames per second meanwhile.

    python -m benchmarks.explorer

It needs a browser, Debian's `chromium`, which renders without a GPU. Run it on a machine that does nothing else: the
page, its worker and the browser's drawing share the cores; where it is not, CPU times say what an idle core takes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.table import RESULTS, publish_measured
from tests.browser import chromium
from tests.explorer.site import HEART, ask, served, wait

TARGET = 0.05
"""RMSE over the samples' spread."""
DATA: dict[str, dict[str, Any]] = {
    "ring": {"preset": "ring", "points": []},
    "grid of 25": {"preset": "grid", "points": []},
    "a drawn heart": {"preset": None, "points": HEART},
}

WORKER = "DedicatedWorker"
"""How Chromium's threads of a Web Worker are called, at first."""


def cpu_seconds() -> tuple[float, float]:
    """CPU seconds so far of the browser's worker threads, and of all its others; from Linux's /proc."""
    worker, others = 0.0, 0.0
    for thread in _descendants():
        with contextlib.suppress(OSError):  # it may end meanwhile
            name, _, rest = (thread / "stat").read_text().rpartition(")")
            ticks = sum(map(int, rest.split()[11:13]))  # in user and kernel mode
            if WORKER in name:
                worker += ticks
            elif "chrom" in (thread.parents[1] / "comm").read_text():
                others += ticks
    return worker / os.sysconf("SC_CLK_TCK"), others / os.sysconf("SC_CLK_TCK")


def _descendants() -> Iterator[Path]:
    """The threads of all processes that this one has started, directly or not."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    family = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    for pid in family:
        yield from Path(f"/proc/{pid}/task").glob("*")


def measure(browser: Any, address: str) -> Iterator[tuple[str, float, str]]:
    """Yield the name, the value and the unit of each measurement."""
    page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    started = time.perf_counter()
    page.goto(address)
    wait(page)
    yield "first picture", time.perf_counter() - started, "s"
    frames, started = ask(page, "e.drawn"), time.perf_counter()
    time.sleep(2)
    yield "before training", (ask(page, "e.drawn") - frames) / (time.perf_counter() - started), "frames/s"
    for name, data in DATA.items():
        page.evaluate("data => document.querySelector('.explorer').explorer.setData(data)", data)
        wait(page, "e.rulers.length")
        (worker, others), frames = cpu_seconds(), ask(page, "e.drawn")
        started = time.perf_counter()
        ask(page, "void e.distil()")
        wait(page, f"e.progress?.error <= {TARGET} || (e.progress && !e.training)")
        if ask(page, "e.training"):
            yield f"{name}: RMSE / spread ≤ {TARGET}", time.perf_counter() - started, "s"
            yield f"{name}: until then, the worker", cpu_seconds()[0] - worker, "CPU s"
        wait(page, "!e.training")
        seconds, frames = time.perf_counter() - started, ask(page, "e.drawn") - frames
        worker, others = (now - then for now, then in zip(cpu_seconds(), (worker, others), strict=True))
        yield f"{name}: 1,500 steps", seconds, "s"
        yield f"{name}: all steps, the worker", worker, "CPU s"
        yield f"{name}: RMSE / spread then", ask(page, "e.progress.error"), ""
        yield f"{name}: while it trains", frames / seconds, "frames/s"
        yield f"{name}: a frame, with its drawing", 1000 * others / frames, "CPU ms"


def main() -> None:
    """Measure, print, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the table")
    out = parser.parse_args().out
    with chromium() as browser, tempfile.TemporaryDirectory() as folder, served(Path(folder)) as address:
        browser.new_page().close()  # the browser's own start does not count
        text = (
            "Page, worker and a headless Chromium without a GPU share one machine, on whose "
            f"{os.cpu_count()} cores {os.getloadavg()[0]:.1f} other processes ran when the measurement began. CPU "
            "seconds are those of the worker's thread, which trains; CPU milliseconds those of all other threads of "
            "the browser."
        )
        publish_measured(out, "explorer", "The explorer's speed", text, measure(browser, address))


if __name__ == "__main__":
    main()
