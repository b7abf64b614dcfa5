"""The training loop: every method, every window of an ODE and the teacher's own training go through `train`.

Everything that the rest of a run depends on is in `Trainer.state_dict`: a run that is stopped and resumed ends with
the same bits as one that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from statistics import median
from typing import Any

from torch import Tensor

from pidlearn.training.history import Step
from pidlearn.training.trainer import Trainer
from pidlearn.utils.random import seeded
from pidlearn.utils.validation import NotFiniteError, describe_tensor

__all__ = ["DivergedError", "time_steps", "train"]


class DivergedError(ValueError):
    """The loss became NaN or infinite, or could not be computed; the weights are the last good ones."""


def train(trainer: Trainer) -> Iterator[Step]:
    """Train to the last step, and yield after every update of the weights.

    Raises:
        DivergedError: a loss that is not finite, after weights have changed.
        ValueError: a first step that cannot work.
    """
    config = trainer.config
    started, seconds_before = time.perf_counter(), trainer.history.seconds
    while trainer.step < config.steps:
        trainer.enter_stage()  # at a stage's first step: a new optimiser, for the stage's part of the student
        lr = trainer.set_learning_rate()
        trainer.optimizer.zero_grad()
        loss = batch_loss(trainer)
        # A loss shows whether the update before it was good: only now are those weights averaged and kept.
        trainer.confirm_update()
        trainer.processes.all_reduce_(trainer.gradients())
        trainer.optimizer.step()
        trainer.note_update()
        trainer.method.after_update(trainer.context)
        if trainer.step + 1 == config.steps:
            check_last_update(trainer)
        trainer.history.append(loss, seconds_before + time.perf_counter() - started)
        yield Step(trainer.step, config.steps, loss, lr, trainer.step * config.batch_size, trainer.history.seconds)


def batch_loss(trainer: Trainer, backward: bool = True) -> float:
    """The mean loss of the next batch, finite; with ``backward`` its gradient is added to the weights' ``.grad``.

    Raises:
        DivergedError: a loss that is not finite, or cannot be computed, after weights have changed. The last good
            weights are put back first, in every process.
        ValueError: the same before the first update: the student, the teacher or the method cannot work.
    """
    config, size = trainer.config, trainer.config.batch_size
    total, error = 0.0, None
    # All processes draw the whole batch, from the same random numbers, and work on their own rows of it.
    with seeded(config.seed, trainer.step):  # for data and methods that use torch's global generator
        batch = draw_batch(trainer, size)
    try:
        own_rows = trainer.processes.shard(size)
        for first in range(own_rows.start, own_rows.stop, config.micro_batch or size):
            rows = slice(first, min(first + (config.micro_batch or size), own_rows.stop))
            micro_batch = tuple(None if x is None else x[rows] for x in batch)
            # Dropout's masks depend on the step and on the first row: the same after any resumption.
            with seeded(config.seed, trainer.step, first + 1):
                losses = check_losses(trainer.method.loss(trainer.context, micro_batch), rows.stop - rows.start)
            loss = losses.mean() * ((rows.stop - rows.start) / size)
            total += loss.item()
            if backward and loss.requires_grad and math.isfinite(total):
                # Only into the weights in training: a teacher that is differentiated through keeps its own .grad.
                loss.backward(inputs=trainer.weights())
        if not math.isfinite(total):
            raise NotFiniteError("the loss became NaN or infinite")
    except ValueError as raised:
        error = raised
    failed, total = trainer.processes.sum(float(error is not None), total)
    if failed:
        error = error or NotFiniteError("another process failed and reports why")
        is_updated = trainer.step > 0 or not backward
        raise roll_back(trainer, error) if is_updated else error
    return total


def draw_batch(trainer: Trainer, size: int) -> tuple[Tensor | None, ...]:
    """The batch that the method draws, a tuple of tensors (size, ...) or None.

    Raises:
        TypeError: anything else.
        ValueError: data that are used up.
    """
    try:
        batch: Any = trainer.method.draw(trainer.context, size, trainer.generator)
    except StopIteration as error:  # which a generator such as `train` may not let through
        raise ValueError(
            f"the data ended at step {trainer.step + 1}, but must last for any number of steps: draw from them anew"
        ) from error
    if isinstance(batch, tuple) and all(x is None or (isinstance(x, Tensor) and x.shape[:1] == (size,)) for x in batch):
        return batch
    received = tuple(map(describe_tensor, batch)) if isinstance(batch, tuple) else describe_tensor(batch)
    raise TypeError(f"the method drew {received}, but draw returns a tuple of tensors of {size} rows each, or None")


def check_losses(losses: Any, rows: int) -> Tensor:
    """The losses of ``rows`` samples, (rows,), or (k rows,) where k times per sample are visited.

    Raises:
        TypeError: anything else.
    """
    if isinstance(losses, Tensor) and losses.ndim == 1 and len(losses) and len(losses) % rows == 0:
        if not losses.is_floating_point():
            raise TypeError(f"the method's loss is {losses.dtype}, but must be floating-point: convert it")
        return losses
    raise TypeError(
        f"the method's loss is {describe_tensor(losses)}, but must be one value per sample, ({rows},): take the mean "
        f"over the other dimensions only"
    )


def check_last_update(trainer: Trainer) -> None:
    """Evaluate the loss once more after the last update, since no later step will show whether it was good."""
    trainer.optimizer.zero_grad()
    # The gradient graph is built all the same: compiled networks would be compiled anew without it.
    batch_loss(trainer, backward=False)


def roll_back(trainer: Trainer, cause: ValueError) -> DivergedError:
    """Put the last good weights back, and return the error that says so."""
    trainer.restore_good_weights()
    hint = "; a smaller lr usually helps" if isinstance(cause, NotFiniteError) else ""
    error = DivergedError(
        f"training stopped at step {trainer.step + 1}: {cause}. The weights are {trainer.good_weights}{hint}"
    )
    error.__cause__ = cause
    return error


def time_steps(trainer: Trainer, steps: int) -> float:
    """Seconds per step, averaged over the steps that are left; the trainer's state is restored afterwards.

    In each stage they are the median of ``steps`` steps after one warm-up step. Where a method's first steps take
    longer, as while they solve paths, as many of these are timed, too.
    """
    if not (left := trainer.config.steps - trainer.step):
        return 0.0
    trainer.enter_stage()  # so that the method has a state, which is restored as when resuming

    def median_of(start: int, steps: int, prepared: bool) -> tuple[float, int]:
        """Seconds of a step from step ``start`` on, and the number of those that prepare something."""
        seconds, before, preparing = [], _on_cpu(trainer.state_dict()), 0
        try:
            trainer.history.skip_to(start)
            trainer.enter_stage()
            if prepared:
                preparing = trainer.method.skip_preparation(trainer.config.batch_size)
            loop = train(trainer)
            for _ in range(steps):
                started = time.perf_counter()
                next(loop)
                seconds.append(time.perf_counter() - started)
        finally:
            trainer.load_state_dict(before)
        return median(seconds[1:] or seconds), preparing

    total = 0.0
    for start, end in trainer.stretches_left():
        later, preparing = median_of(start, min(steps + 1, end - start), prepared=True)
        total += later * (end - start)
        if preparing := min(preparing, end - start):
            first, _ = median_of(start, min(steps + 1, preparing), prepared=False)
            total += (first - later) * preparing
    return total / left


def _on_cpu(state: Any) -> Any:
    """A copy of nested containers with their tensors on the CPU, where they take no memory from the training."""
    if isinstance(state, Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        return {key: _on_cpu(value) for key, value in state.items()}
    return type(state)(map(_on_cpu, state)) if isinstance(state, (list, tuple)) else state
