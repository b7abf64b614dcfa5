"""Driving a training: progress bar, checkpoints, limits, signals, callbacks. Whatever ends it, its result remains."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from pidlearn.training.checkpoints import claimed, resume, save
from pidlearn.training.history import Step
from pidlearn.training.loop import DivergedError, time_steps, train
from pidlearn.training.progress import bar
from pidlearn.training.stopping import Limits, Stop, StopReason, catch_signals
from pidlearn.training.trainer import Trainer
from pidlearn.utils.arguments import PATH, SHOWN, check_argument, count, optional
from pidlearn.utils.overrides import Override, overridden
from pidlearn.utils.validation import summary

__all__ = ["Callback", "Training", "drive"]

Callback = Callable[[Step], Any]
"""Called after every step; returning True stops the run."""


class Training(Iterator[Step]):
    """A training under way: taking a `Step` from it makes an update of the weights.

    Attributes:
        trainer: its state.
        overrides: attributes that are set during each step; see `pidlearn.training.execution`.
    """

    trainer: Trainer
    overrides: Sequence[Override] = ()

    def _start(self, trainer: Trainer, overrides: Sequence[Override] = ()) -> None:
        self.trainer, self.overrides = trainer, overrides
        self._steps = train(trainer)
        self._saved = trainer.step  # of the checkpoint that was saved or loaded last

    def __next__(self) -> Step:
        with overridden(self.overrides):
            try:
                return next(self._steps)
            except BaseException:
                self._steps = train(self.trainer)  # so that an interrupted training can go on
                raise

    def time_steps(self, steps: int) -> float:
        """Seconds per step of those left, from the median of ``steps`` steps; the state is restored afterwards."""
        with overridden(self.overrides):
            return time_steps(self.trainer, steps)

    def save(self, folder: str | Path) -> None:
        """Write a checkpoint; the first process does."""
        if self.trainer.processes.rank == 0:
            state = {"settings": self.settings(), **self.state_dict()}
            save(folder, self.trainer.step, state, since=self._saved)
        self._saved = self.trainer.step

    def resume(self, folder: str | Path) -> None:
        """Continue from the newest checkpoint of that folder, if there is one.

        Raises:
            ValueError: a checkpoint of another run.
        """
        resume(folder, self.settings(), lambda state: self.load_state_dict(state, folder))
        self._saved = self.trainer.step

    def settings(self) -> dict[str, str]:
        """Everything that makes this run this run, as text."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """What the rest of the training depends on."""
        return {"trainer": self.trainer.state_dict()}

    def load_state_dict(self, state: dict[str, Any], folder: str | Path) -> None:
        """Restore what `state_dict` returned; ``folder`` is where it was read, for messages."""
        self.trainer.load_state_dict(state["trainer"])


def drive(  # noqa: D417 - the others are documented in distill
    training: Training,
    name: str,
    *,
    progress: bool = True,
    checkpoints: str | Path | None = None,
    save_every: int = 500,
    max_time: float | None = None,
    since: float | None = None,
    max_images: int | None = None,
    trackers: Sequence[Callable[[Step], None]] = (),
    callbacks: Sequence[Callback] = (),
) -> Stop | None:
    """Train to the end, or until something stops it; arguments not listed here are those of `pidlearn.distill`.

    Args:
        training: what to train.
        name: label of the progress bar.
        since: time of `time.monotonic` from which ``max_time`` counts; now by default. One step is done in any case.
        trackers: functions that fill ``step.metrics``, called before the step is shown or saved.

    Returns:
        Why not all steps were done, or None. A checkpoint that cannot be written ends the run, too: its weights are
        still in memory, and the checkpoint before it remains.

    Raises:
        ValueError: limits that are not positive numbers, or a folder of another run.
        TypeError: callbacks that cannot be called.
    """
    check_argument("progress", progress, SHOWN)
    check_argument("save_every", save_every, count())
    check_argument("checkpoints", checkpoints, optional(PATH))
    callbacks = _callables(callbacks)
    # Resolved once, since a callback may change the working directory.
    checkpoints = None if checkpoints is None else Path(checkpoints).absolute()
    limits = Limits(max_time, max_images, time.monotonic() if since is None else since)
    trainer, first = training.trainer, training.trainer.processes.rank == 0
    steps, stop = trainer.config.steps, None
    with claimed(checkpoints, first):
        if checkpoints is not None:
            training.resume(checkpoints)
        with catch_signals() as signals, bar(steps, name, progress and first, trainer.step) as show:
            try:
                # A run that is resumed may have reached its limit before; one step is done otherwise.
                samples = trainer.step * trainer.config.batch_size
                if limits.images_are_done(samples):
                    stop = _agree(trainer, limits.reached(samples, signals))
                for step in () if stop else training:
                    for track in trackers:
                        track(step)
                    show(step)
                    due = step.number % save_every == 0 or step.number == steps
                    try:
                        # Logs come before the checkpoint: a run that is killed between them repeats the step, and the
                        # log removes its first line; the other way round it would never have one.
                        answers = [callback(step) for callback in callbacks] if first else []
                    finally:  # whatever a callback raises
                        unsaved = _save(training, checkpoints) if due else None
                    wanted = any(isinstance(answer, bool | np.bool_) and answer for answer in answers)
                    stop = unsaved or _agree(trainer, limits.reached(step.samples, signals, wanted))
                    if stop:
                        stop = stop if due else _save(training, checkpoints) or stop
                        break
            except KeyboardInterrupt:
                stop = Stop(StopReason.INTERRUPTED, f"interrupted at step {trainer.step}")
            except DivergedError as error:
                return Stop(StopReason.DIVERGED, str(error))
    finished = trainer.step == steps and not (stop and stop.reason is StopReason.UNSAVED)
    return None if finished else stop


def _callables(callbacks: Any) -> list[Callback]:
    """Return the callbacks as a list, after checking that each can be called."""
    several = isinstance(callbacks, Iterable) and not isinstance(callbacks, Tensor)
    listed = list(callbacks) if several else [callbacks]
    if not several or not all(map(callable, listed)):
        raise TypeError(
            f"got callbacks = {summary(callbacks)}, but callbacks must be a list of functions of a Step: pass "
            f"[function]"
        )
    return listed


def _save(training: Training, folder: str | Path | None) -> Stop | None:
    """Save a checkpoint, if there is a folder for it; why that failed in any process, or None.

    A state that no file can hold, such as an optimiser's of the user's own, ends a run like a full disk.
    """
    if folder is None:
        return None
    failure = None
    try:
        training.save(folder)
    except (OSError, ValueError) as error:
        advice = "fix the problem and rerun the same call to resume from the latest checkpoint"
        failure = Stop(StopReason.UNSAVED, f"a checkpoint could not be written ({error}; {advice})")
    return _agree(training.trainer, failure)


def _agree(trainer: Trainer, mine: Stop | None) -> Stop | None:
    """Stop where any process wants to stop, with the step in the message."""
    if not trainer.processes.any(mine is not None):
        return None
    mine = mine or Stop(StopReason.OTHER_PROCESS, "another process stopped the run")
    return replace(mine, message=f"{mine.message} at step {trainer.step}")
