"""Measure the explorer: its first picture, a distillation in the browser, and frames per second meanwhile.

    python -m benchmarks.explorer

It needs a browser, Debian's `chromium`, which renders without a GPU. Run it on a machine that does nothing else: the
page, its worker and the browser's drawing share the cores.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.table import RESULTS, Store
from tests.browser import chromium
from tests.explorer.site import HEART, ask, served, wait

TARGET = 0.05
"""RMSE over the samples' spread."""
DATA: dict[str, dict[str, Any]] = {
    "ring": {"preset": "ring", "points": []},
    "grid of 25": {"preset": "grid", "points": []},
    "a drawn heart": {"preset": None, "points": HEART},
}

# Frames of the page's own loop, and the longest pause between two, until the student is trained.
WATCH = """async ({ data, target }) => {
  const e = document.querySelector(".explorer").explorer;
  e.setData(data);
  const before = e.drawn;
  const began = performance.now();
  e.distil();
  let reached = null;
  await new Promise((resolve) => {
    const look = () => {
      if (reached === null && e.progress?.error <= target) reached = (performance.now() - began) / 1000;
      if (e.training) requestAnimationFrame(look);
      else resolve();
    };
    look();
  });
  const seconds = (performance.now() - began) / 1000;
  return { reached, seconds, error: e.progress.error, frames: (e.drawn - before) / seconds };
}"""


def measure(browser: Any, address: str) -> Iterator[tuple[str, float, str]]:
    """Yield the name, the value and the unit of each measurement."""
    page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    started = time.perf_counter()
    page.goto(address)
    wait(page)
    yield "first picture", time.perf_counter() - started, "s"
    frames, started = ask(page, "e.drawn"), time.perf_counter()
    time.sleep(2)
    yield (
        "teacher moves, nothing is trained",
        (ask(page, "e.drawn") - frames) / (time.perf_counter() - started),
        "frames/s",
    )
    for name, data in DATA.items():
        found = page.evaluate(WATCH, {"data": data, "target": TARGET})
        if found["reached"] is not None:
            yield f"{name}: RMSE / spread ≤ {TARGET}", found["reached"], "s"
        yield f"{name}: 1,500 steps", found["seconds"], "s"
        yield f"{name}: RMSE / spread then", found["error"], ""
        yield f"{name}: while it trains", found["frames"], "frames/s"


def main() -> None:
    """Measure, print, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the table")
    out = parser.parse_args().out
    (out / "explorer.json").unlink(missing_ok=True)  # all rows come from one run
    store = Store(out, "explorer", "python -m benchmarks.explorer")
    with chromium() as browser, tempfile.TemporaryDirectory() as folder, served(Path(folder)) as address:
        browser.new_page().close()  # the browser's own start does not count
        load = os.getloadavg()[0]
        for name, value, unit in measure(browser, address):
            store.add(name, {"value": value, "unit": unit})
    lines = [
        {"measured": name, "": f"{row['value']:.{3 if not row['unit'] else 1}f} {row['unit']}".strip()}
        for name, row in store.rows.items()
    ]
    text = (
        "Page, worker and a headless Chromium without a GPU share one machine, on whose "
        f"{os.cpu_count()} cores {load:.1f} other processes ran when the measurement began."
    )
    store.publish("The explorer's speed", text, {"": lines})


if __name__ == "__main__":
    main()
