"""Reproducible tables: rows as JSON, with the facts that they depend on, and as Markdown next to it.

A row is written as soon as it is computed, and existing rows are not computed again: an interrupted command continues
when it is repeated.
"""

from __future__ import annotations

import json
import multiprocessing
import platform
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch

__all__ = ["CPU", "RESULTS", "Store", "Task", "publish_measured", "spread"]

RESULTS = Path(__file__).parent / "results"
CPU = torch.device("cpu")

Row = dict[str, Any]
Task = tuple[Any, ...]
"""A function that returns a row, and its arguments."""


class Store:
    """The rows of one table by name, in ``folder/name.json``.

    Args:
        folder: folder of the table; created if missing.
        name: name of the table.
        command: the command that computes the whole table.
        device: the device that computes it; the facts name the GPU, or else the processor. None for rows that mean the
            same on any processor: those of several may stand together then, and each row names its own.
        **facts: what else the rows depend on. Rows with different facts are never mixed.

    Raises:
        ValueError: the file holds rows with other facts.
    """

    def __init__(self, folder: Path, name: str, command: str, device: torch.device | None = CPU, **facts: Any) -> None:
        self.path = folder / f"{name}.json"
        machine = _machine(device) if device else {}
        facts = {"command": command, **facts, "torch": torch.__version__, **machine, "threads": 1}
        self.facts = json.loads(json.dumps(facts))  # as they will be read back, e.g. lists for tuples
        self.rows = self._read()

    def _read(self) -> dict[str, Row]:
        """The rows of the file; none if it does not exist."""
        if not self.path.exists():
            return {}
        document = json.loads(self.path.read_text())
        if document["facts"] != self.facts:
            raise ValueError(
                f"{self.path} holds rows of {document['facts']}, but this command makes rows of {self.facts}: move the "
                f"file, or use --out"
            )
        rows: dict[str, Row] = document["rows"]
        return rows

    def add(self, key: str, row: Row) -> None:
        """Add a row and write the file, keeping rows that another command has added to it since."""
        if not _name(self.facts):
            row = {**row, **_machine(CPU)}
        self.rows = {**self._read(), **self.rows, key: row}
        _write(self.path, json.dumps({"facts": self.facts, "rows": self.rows}, indent=1) + "\n")

    def fill(self, tasks: dict[str, Task], jobs: int) -> None:
        """Compute the missing rows in ``jobs`` processes with one thread each."""
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
        """Write the table, and print it."""
        print(self.write(title, text, sections))

    def write(self, title: str, text: str, sections: dict[str, list[dict[str, str]]]) -> str:
        """Write the table as Markdown next to the rows, with one section per heading; returns the document.

        A section without a heading, "", is a table alone.
        """
        named = [self.facts] if _name(self.facts) else self.rows.values()
        machines = " and ".join(dict.fromkeys(map(_name, named)))
        where = f"torch {self.facts['torch']}, {machines}, one thread per run"
        parts = [f"# {title}", f"`{self.facts['command']}` ({where}; all settings are in `{self.path.name}`)", text]
        for heading, lines in sections.items():
            parts += [*([f"## {heading}"] if heading else []), _markdown(lines)]
        document = "\n\n".join(parts) + "\n"
        _write(self.path.with_suffix(".md"), document)
        return document


def publish_measured(
    folder: Path, name: str, title: str, text: str, measured: Iterable[tuple[str, float, str]]
) -> None:
    """Publish a table of one run of ``python -m benchmarks.NAME``: what was measured, its value and its unit."""
    (folder / f"{name}.json").unlink(missing_ok=True)  # all rows come from one run
    store = Store(folder, name, f"python -m benchmarks.{name}")
    for what, value, unit in measured:
        store.add(what, {"value": value, "unit": unit})
    lines = [
        {"measured": what, "": f"{row['value']:.{1 if row['unit'] else 3}f} {row['unit']}".strip()}
        for what, row in store.rows.items()
    ]
    store.publish(title, text, {"": lines})


def spread(values: Sequence[float], digits: int, percent: bool = False) -> str:
    """Format the mean of the values ± half of their range."""
    factor, unit = (100, " %") if percent else (1, "")
    mean = f"{factor * sum(values) / len(values):.{digits}f}"
    half = factor * (max(values) - min(values)) / 2
    return f"{mean}{unit}" if len(values) == 1 else f"{mean} ± {half:.{digits}f}{unit}"


def _one_thread() -> None:
    # Small networks are fastest on one thread, and CPU seconds can then be compared.
    torch.set_num_threads(1)


def _markdown(lines: list[dict[str, str]]) -> str:
    rows = [list(lines[0]), ["---"] * len(lines[0]), *(list(line.values()) for line in lines)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(path.suffix + ".part")
    part.write_text(text)
    part.replace(path)


def _machine(device: torch.device) -> dict[str, str]:
    return {"gpu": torch.cuda.get_device_name(device)} if device.type == "cuda" else {"cpu": _cpu()}


def _name(facts: dict[str, Any]) -> str:
    """The machine of all rows, or of one; empty if these facts name none."""
    return str(facts.get("gpu") or facts.get("cpu") or "")


def _cpu() -> str:
    """The processor's name, as far as the system reports it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
