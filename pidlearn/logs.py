"""Where a run's figures go besides the bar: callbacks of a `Step` that write them down."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pidlearn.checkpoint import write_atomically
from pidlearn.train import Step

__all__ = ["TRACKERS", "check", "jsonl", "tracker"]

TRACKERS = ("tensorboard", "wandb")

Callback = Callable[[Step], None]


def jsonl(path: str | Path, every: int = 1) -> Callback:
    """Append a line of JSON to a file for every so many steps, at once: nothing is lost when a run is killed.

    A run that is continued takes back the lines of steps that it does again, so that each is there once.
    """
    path, begun = Path(path), False
    path.parent.mkdir(parents=True, exist_ok=True)

    def write(step: Step) -> None:
        nonlocal begun
        if not begun:
            _cut(path, step.number)
            begun = True
        if step.number % every == 0 or step.number == step.steps:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(step)) + "\n")

    return write


def _cut(path: Path, number: int) -> None:
    """Keep the lines of a log that are whole and of steps before that one."""
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    kept = [line for line in lines if line.endswith(b"\n") and json.loads(line)["number"] < number]
    if len(kept) < len(lines):
        write_atomically(path, b"".join(kept))


def check(kind: str) -> None:
    """Say what a tracker lacks, before anything is spent on a run that it should follow.

    Raises:
        ImportError: if Accelerate or the tracker's own package is not installed.
        ValueError: if there is no such tracker.
    """
    if kind not in TRACKERS:
        raise ValueError(f"a tracker is one of {', '.join(TRACKERS)}; got {kind!r}")
    if not (find_spec("accelerate") and find_spec(kind)):
        raise ImportError(f"{kind} needs accelerate and {kind}: pip install 'pidlearn[images]' {kind}")


def tracker(kind: str, name: str, folder: str | Path, config: dict[str, Any], every: int = 10) -> Callback:
    """Send loss and learning rate of every so many steps to "tensorboard" or "wandb", by Accelerate's trackers.

    Raises:
        ImportError: see `check`.
        ValueError: see `check`.
    """
    check(kind)
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    PartialState()
    cls = LOGGER_TYPE_TO_CLASS[kind]
    where = {"logging_dir" if cls.requires_logging_directory else "dir": str(folder)}
    found = cls(name, **where)
    if hasattr(found, "start"):  # older ones start by themselves
        found.start()
    found.store_init_configuration(
        {key: value for key, value in config.items() if isinstance(value, int | float | str)}
    )

    def write(step: Step) -> None:
        if step.number % every == 0 or step.number == step.steps:
            found.log({"loss": step.loss, "lr": step.lr, "samples": step.samples}, step=step.number)

    return write
