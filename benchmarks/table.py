"""Tables that can be made again: rows as JSON with the facts of their run, and as Markdown beside it.

A row is written as soon as it is there, and a row that is there is not computed again: an interrupted command,
repeated, continues.
"""

from __future__ import annotations

import json
import multiprocessing
import platform
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch

__all__ = ["RESULTS", "Store", "Task", "spread"]

RESULTS = Path(__file__).parent / "results"
CPU = torch.device("cpu")

Row = dict[str, Any]
Task = tuple[Any, ...]
"""A function that returns a row, and its arguments."""


class Store:
    """The rows of one table, by name, in ``folder/name.json``.

    Args:
        folder: where; made if it is not there.
        name: of the table.
        command: what makes the whole table.
        device: where; of a GPU the facts tell the name in place of the processor's.
        facts: what else the rows depend on: rows of other facts are not mixed with these.

    Raises:
        ValueError: if the file holds rows of other facts.
    """

    def __init__(self, folder: Path, name: str, command: str, device: torch.device = CPU, **facts: Any) -> None:
        self.path = folder / f"{name}.json"
        machine = {"gpu": torch.cuda.get_device_name(device)} if device.type == "cuda" else {"cpu": _cpu()}
        told = {"command": command, **facts, "torch": torch.__version__, **machine, "threads": 1}
        self.facts = json.loads(json.dumps(told))  # as the file will tell them
        self.rows = self._kept()

    def _kept(self) -> dict[str, Row]:
        """The rows of the file."""
        if not self.path.exists():
            return {}
        found = json.loads(self.path.read_text())
        if found["facts"] != self.facts:
            raise ValueError(f"{self.path} holds rows of {found['facts']}, not {self.facts}: move it, or use --out")
        rows: dict[str, Row] = found["rows"]
        return rows

    def add(self, key: str, row: Row) -> None:
        """Keep a row, on the disk too, beside those that another command has put there since."""
        self.rows = {**self._kept(), **self.rows, key: row}
        _write(self.path, json.dumps({"facts": self.facts, "rows": self.rows}, indent=1) + "\n")

    def fill(self, tasks: dict[str, Task], jobs: int) -> None:
        """Do each task that has no row yet, in processes of one thread each."""
        missing = {key: task for key, task in tasks.items() if key not in self.rows}
        started = time.perf_counter()
        with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _one_thread) as pool:
            futures = {pool.submit(*task): key for key, task in missing.items()}
            try:
                for count, future in enumerate(as_completed(futures), 1):
                    self.add(futures[future], future.result())
                    left = (time.perf_counter() - started) / count * (len(missing) - count) / 60
                    print(f"{count}/{len(missing)}, {left:.0f} min left: {futures[future]}", flush=True)
            finally:
                pool.shutdown(cancel_futures=True)

    def publish(self, title: str, text: str, sections: dict[str, list[dict[str, str]]]) -> None:
        """`write`, and print it."""
        print(self.write(title, text, sections))

    def write(self, title: str, text: str, sections: dict[str, list[dict[str, str]]]) -> str:
        """The table as Markdown beside the rows, a section each."""
        where = f"torch {self.facts['torch']}, {self.facts.get('gpu') or self.facts['cpu']}, one thread a run"
        parts = [f"# {title}", f"`{self.facts['command']}` ({where}; all choices are in `{self.path.name}`)", text]
        for heading, lines in sections.items():
            parts += [f"## {heading}", _markdown(lines)]
        document = "\n\n".join(parts) + "\n"
        _write(self.path.with_suffix(".md"), document)
        return document


def spread(values: Sequence[float], digits: int, percent: bool = False) -> str:
    """The mean over seeds, ± half of what lies between the least and the greatest."""
    factor, unit = (100, " %") if percent else (1, "")
    mean = f"{factor * sum(values) / len(values):.{digits}f}"
    half = factor * (max(values) - min(values)) / 2
    return f"{mean}{unit}" if len(values) == 1 else f"{mean} ± {half:.{digits}f}{unit}"


def _one_thread() -> None:
    """Small networks are fastest on one thread, and CPU seconds then mean what they say."""
    torch.set_num_threads(1)


def _markdown(lines: list[dict[str, str]]) -> str:
    rows = [list(lines[0]), ["---"] * len(lines[0]), *(list(line.values()) for line in lines)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(path.suffix + ".part")
    part.write_text(text)
    part.replace(path)


def _cpu() -> str:
    """The processor's name, as far as the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
