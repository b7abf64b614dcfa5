"""The loop around a training: a bar, checkpoints, limits and signals. Whatever ends it, what there is stays."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import numpy as np

from pidlearn.training.loop import COUNT, Step, Trainer, is_number
from pidlearn.training.progress import bar

__all__ = ["INTERRUPTED", "TERMINATED", "UNSAVED", "Callback", "terminating", "until_stopped"]

Callback = Callable[[Step], Any]
"""Called after every step; returning True stops the run."""

INTERRUPTED = "interrupted"
TERMINATED = "the process was asked to terminate"
UNSAVED = "a checkpoint could not be written"
"""How the reasons begin of a run that a signal or a full disk ended."""


class Training(Protocol):
    """What is trained here: an iterator over its `Trainer`'s steps that can save itself."""

    trainer: Trainer

    def __iter__(self) -> Iterator[Step]: ...

    def save(self, folder: str | Path) -> None:
        """Everything that the rest of the training depends on, written by the first process."""


def until_stopped(
    training: Training,
    name: str,
    *,
    progress: bool = True,
    checkpoints: str | Path | None = None,
    save_every: int = 500,
    max_time: float | None = None,
    since: float | None = None,
    max_images: int | None = None,
    callbacks: Sequence[Callback] = (),
    follow: Callable[[Step], dict[str, float]] | None = None,
) -> str | None:
    """Train to the end, or until something stops it; what is not told here is as in `distill`.

    ``max_time`` counts from ``since`` of `time.monotonic`, or from now, and one step is always done. ``follow`` finds
    further figures of a step for the bar of that ``name``. A checkpoint that cannot be written ends the run,
    too: what is in memory can still be kept, and the checkpoint before it stays.

    Returns:
        Why not all steps were done, or None.

    Raises:
        ValueError: for limits that are none; DivergedError, when the loss becomes NaN.
    """
    for what, value in (("save_every", save_every), ("max_images", max_images)):
        if value is not None and not COUNT[0](value):
            raise ValueError(f"{what} must be {COUNT[1]}, got {value!r}")
    if max_time is not None and not (is_number(max_time) and max_time > 0):
        raise ValueError(f"max_time must be a positive number of seconds, got {max_time!r}")
    o = training.trainer.optimisation
    since = time.monotonic() if since is None else since
    first = training.trainer.team.rank == 0
    with terminating() as signals, bar(o.steps, name, progress and first, training.trainer.number) as show:
        end = _End(training, checkpoints, max_time, since, max_images, signals)
        stopped = end.why() if end.enough() else None  # one that is continued may have reached its limit before
        try:
            for step in () if stopped else training:
                show(step, **(follow(step) if follow else {}))
                due = step.number % save_every == 0 or step.number == step.steps
                unsaved = end.save() if due else None
                # Every callback hears of every step, also when an earlier one has asked to stop.
                answers = [callback(step) for callback in callbacks] if first else []
                stopped = unsaved or end.why(any(isinstance(a, bool | np.bool_) and a for a in answers))
                if stopped:
                    if not due:
                        stopped = end.save() or stopped
                    break
        except KeyboardInterrupt:
            stopped = f"{INTERRUPTED} at step {training.trainer.number}"
    lost = (stopped or "").startswith(UNSAVED)
    return None if training.trainer.number == o.steps and not lost else stopped


@dataclass(frozen=True)
class _End:
    """What may end a training, asked by all processes together: each answer is the same for all."""

    training: Training
    checkpoints: str | Path | None
    max_time: float | None
    since: float
    max_images: int | None
    signals: list[int]

    def enough(self) -> bool:
        """Whether all images that were allowed have been seen."""
        trainer = self.training.trainer
        return self.max_images is not None and trainer.number * trainer.optimisation.batch_size >= self.max_images

    def why(self, asked: bool = False) -> str | None:
        """The first reason to stop, or None; ``asked``: a callback wants it."""
        late = self.max_time is not None and time.monotonic() - self.since >= self.max_time
        reasons = {
            "a callback stopped the run": asked,
            f"max_time, {self.max_time} s, was over": late,
            f"max_images, {self.max_images}, were done": self.enough(),
            TERMINATED: signal.SIGTERM in self.signals,
            INTERRUPTED: signal.SIGINT in self.signals,
        }
        return self._agreed(next((reason for reason, holds in reasons.items() if holds), None))

    def save(self) -> str | None:
        """Save what there is; why that failed, or None."""
        if self.checkpoints is None:
            return None
        trouble = None
        try:
            self.training.save(self.checkpoints)
        except OSError as error:
            trouble = f"{UNSAVED} ({error}; mend that, and the same call goes on from the newest one that is there)"
        return self._agreed(trouble)

    def _agreed(self, mine: str | None) -> str | None:
        trainer = self.training.trainer
        if not trainer.team.any(mine is not None):
            return None
        return f"{mine or 'another process stopped the run'} at step {trainer.number}"


@contextmanager
def terminating() -> Iterator[list[int]]:
    """A list that SIGTERM fills, as a cluster sends it before it takes the machine away, and Ctrl-C: time to save and
    end. A second Ctrl-C interrupts at once.

    Only the main thread may listen to signals; in others the list stays empty. Who has a handler of their own keeps it.
    """
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def hear(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and number in asked:
            raise KeyboardInterrupt
        asked.append(number)

    usual = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    before = {n: signal.signal(n, hear) for n, handler in usual.items() if signal.getsignal(n) is handler}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
