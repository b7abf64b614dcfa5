"""Where a run's figures go besides the bar: callbacks of a `Step` that write them down."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pidlearn.training.history import Step
from pidlearn.utils.files import write_atomically

__all__ = ["TRACKERS", "check", "jsonl", "tracker"]

TRACKERS = ("tensorboard", "wandb")

Callback = Callable[[Step], None]

Figures = Callable[[Step], dict[str, float]]
"""What else was found out at a step, mostly nothing."""


def nothing(step: Step) -> dict[str, float]:
    """No further figures."""
    return {}


def jsonl(path: str | Path, every: int = 1, further: Figures = nothing) -> Callback:
    """Append a line of JSON to a file for every so many steps, at once: nothing is lost when a run is killed.

    A step with ``further`` figures has a line, too. A run that is continued takes back the lines of steps that it does
    again, so that each is there once. Where the file cannot be written it warns, for a run is worth more than its log.
    """
    path, begun = Path(path), False
    path.parent.mkdir(parents=True, exist_ok=True)

    def write(step: Step) -> None:
        nonlocal begun
        figures = further(step)
        try:
            if not begun:
                _cut(path, step.number)
                begun = True
            if figures or _due(step, every):
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(step) | figures) + "\n")
        except OSError as error:
            warnings.warn(f"the log {path} lacks steps, for it could not be written: {error}", RuntimeWarning, 2)

    return write


def _due(step: Step, every: int) -> bool:
    return step.number % every == 0 or step.number == step.steps


def _cut(path: Path, number: int) -> None:
    """Keep the lines of a log that are whole and of steps before that one, and no others."""
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    kept = [line for line in lines if _is_step_before(number, line)]
    if len(kept) < len(lines):
        write_atomically(path, b"".join(kept))


def _is_step_before(number: int, line: bytes) -> bool:
    try:
        return line.endswith(b"\n") and bool(json.loads(line)["number"] < number)
    except (ValueError, TypeError, LookupError):  # what a crash or somebody else left there
        return False


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


def tracker(
    kind: str, name: str, folder: str | Path, config: dict[str, Any], every: int = 10, further: Figures = nothing
) -> Callback:
    """Send figures of every so many steps, as `jsonl` does, to "tensorboard" or "wandb", by Accelerate's trackers.

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
        figures = further(step)
        if figures or _due(step, every):
            found.log({"loss": step.loss, "lr": step.lr, "samples": step.samples} | figures, step=step.number)

    return write
