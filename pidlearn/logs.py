"""Where a run's figures go besides the bar: callbacks of a `Step` that write them down."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pidlearn.train import Step

__all__ = ["TRACKERS", "jsonl", "tracker"]

TRACKERS = ("tensorboard", "wandb")

Callback = Callable[[Step], None]


def jsonl(path: str | Path, every: int = 1) -> Callback:
    """Append a line of JSON to a file for every so many steps, at once: nothing is lost when a run is killed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)

    def write(step: Step) -> None:
        if step.number % every == 0 or step.number == step.steps:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(step)) + "\n")

    return write


def tracker(kind: str, name: str, folder: str | Path, config: dict[str, Any], every: int = 10) -> Callback:
    """Send loss and learning rate of every so many steps to "tensorboard" or "wandb", by Accelerate's trackers.

    Raises:
        ImportError: if Accelerate or the tracker's own package is not installed.
    """
    try:
        from accelerate import PartialState
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        PartialState()
        cls = LOGGER_TYPE_TO_CLASS[kind]
        where = {"logging_dir": str(folder)} if cls.requires_logging_directory else {}
        found = cls(name, **where)
    except ImportError as error:
        raise ImportError(f"{kind} needs accelerate and {kind}: pip install 'pidlearn[images]' {kind}") from error
    found.store_init_configuration(
        {key: value for key, value in config.items() if isinstance(value, int | float | str)}
    )

    def write(step: Step) -> None:
        if step.number % every == 0 or step.number == step.steps:
            found.log({"loss": step.loss, "lr": step.lr, "samples": step.samples}, step=step.number)

    return write
