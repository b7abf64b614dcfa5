"""Callbacks that record the metrics of every `Step`: as JSON lines, in TensorBoard or in Weights & Biases."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pidlearn.training.history import Step
from pidlearn.utils.arguments import PATH, check_arguments, count
from pidlearn.utils.files import write_atomically
from pidlearn.utils.validation import summary

__all__ = ["TRACKERS", "check", "jsonl", "tracker"]

TRACKERS = ("tensorboard", "wandb")
NAME = (lambda v: isinstance(v, str), "the name of the run")
CONFIG = (lambda v: isinstance(v, Mapping), "a dictionary of settings by name")

Callback = Callable[[Step], None]


@check_arguments(path=PATH, every=count())
def jsonl(path: str | Path, every: int = 1) -> Callback:
    """Append a line of JSON to a file every ``every`` steps, and at each step with metrics.

    Each line is written at once, so that nothing is lost if the process is killed. When a run is resumed, the lines of
    the steps that it repeats are removed, so that each step has one line. A file that cannot be written is a warning
    and not an error: the run is worth more than its log.

    Raises:
        ValueError: an ``every`` that is not a whole number of at least 1.
    """
    path, started = Path(path).absolute(), False  # a callback may change the working directory
    path.parent.mkdir(parents=True, exist_ok=True)

    def write(step: Step) -> None:
        nonlocal started
        record = asdict(step)
        metrics = record.pop("metrics")
        try:
            if not started:
                _truncate(path, step.number)
                started = True
            if metrics or _is_due(step, every):
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(record | metrics) + "\n")
        except OSError as error:
            warnings.warn(f"the log {path} misses steps, because it cannot be written: {error}", RuntimeWarning, 2)

    return write


def _is_due(step: Step, every: int) -> bool:
    return step.number % every == 0 or step.number == step.steps


def _truncate(path: Path, number: int) -> None:
    """Keep the complete lines of steps before ``number``, and nothing else."""
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []  # not of a FIFO, which would wait
    kept = [line for line in lines if _is_step_before(number, line)]
    if len(kept) < len(lines):
        write_atomically(path, b"".join(kept))


def _is_step_before(number: int, line: bytes) -> bool:
    try:
        return line.endswith(b"\n") and bool(json.loads(line)["number"] < number)
    except (ValueError, TypeError, LookupError):  # a line cut short by a crash, or not written by `jsonl`
        return False


def check(kind: str) -> None:
    """Raise if a tracker is unknown or not installed, so that a run can fail before it costs anything.

    Raises:
        ImportError: Accelerate or the tracker's own package is not installed.
        ValueError: there is no such tracker.
    """
    if not isinstance(kind, str) or kind not in TRACKERS:
        raise ValueError(f"there is no tracker {summary(kind)}: expected one of {', '.join(TRACKERS)}")
    if not (find_spec("accelerate") and find_spec(kind)):
        raise ImportError(f"{kind} needs the packages accelerate and {kind}: pip install 'pidlearn[images]' {kind}")


@check_arguments(name=NAME, folder=PATH, config=CONFIG, every=count())
def tracker(kind: str, name: str, folder: str | Path, config: dict[str, Any], every: int = 10) -> Callback:
    """Send the metrics of the same steps as `jsonl` to "tensorboard" or "wandb", through Accelerate's trackers.

    Raises:
        ImportError: see `check`.
        ValueError: see `check`.
    """
    check(kind)
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    PartialState()  # Accelerate's trackers read it to find the main process
    cls = LOGGER_TYPE_TO_CLASS[kind]
    directory = {"logging_dir" if cls.requires_logging_directory else "dir": str(Path(folder).absolute())}
    sink = cls(name, **directory)
    if hasattr(sink, "start"):  # older versions of Accelerate start in the constructor
        sink.start()
    sink.store_init_configuration({key: value for key, value in config.items() if isinstance(value, int | float | str)})

    def write(step: Step) -> None:
        if step.metrics or _is_due(step, every):
            sink.log({"loss": step.loss, "lr": step.lr, "samples": step.samples} | step.metrics, step=step.number)

    return write
