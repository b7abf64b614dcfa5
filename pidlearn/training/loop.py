"""One training loop, for distillation and for denoisers alike: a generator that yields after every step.

What is minimised comes in as a function, so the loop knows nothing of diffusion. Everything that a run's future
depends on is in `Trainer.state_dict`: a run that was stopped and continued ends with the bits of one that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, fields
from itertools import accumulate
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pidlearn.training.distributed import Team
from pidlearn.utils.random import mixed, seeded
from pidlearn.utils.validation import NotFiniteError

__all__ = ["Batch", "DivergedError", "Objective", "Optimisation", "Stage", "Step", "Trainer"]

Batch = tuple[Tensor | None, ...]
"""Tensors with a row for each sample of a batch."""


@dataclass(frozen=True)
class Objective:
    """What is minimised: the mean of ``losses`` over batches.

    Attributes:
        draw: (steps done, random numbers) to the whole next batch.
        losses: (steps done, some rows of it) to their losses. No random numbers of the generator are left for it.
    """

    draw: Callable[[int, torch.Generator], Batch]
    losses: Callable[[int, Batch], Tensor]


class DivergedError(ValueError):
    """Training cannot go on, mostly because the loss became NaN; the weights were put back to the last good ones."""


@dataclass(frozen=True)
class Optimisation:
    """How a network is trained.

    Attributes:
        steps: optimiser steps, in all.
        batch_size: samples a step.
        lr: peak learning rate.
        warmup: share of a stage over which the rate rises linearly; it then falls to zero along a cosine.
        constant: keep the rate after the warm-up instead (the official recipe).
        beta2: Adam's second-moment decay.
        optimizer: "adam" or "radam", or a function of (parameters, this) that returns a `torch.optim.Optimizer`.
        ema: decay rates of the averaged copies of the weights, kept side by side; the first is the one returned. Of a
            chain of windows the last one alone is averaged: it was trained from where the others' own weights lead.
        seed: of everything random.
        micro_batch: samples in memory at a time, of each process; their gradients are summed up. None for all at once.
    """

    steps: int = 6000
    batch_size: int = 256
    lr: float = 4e-3
    warmup: float = 0.02
    constant: bool = False
    beta2: float = 0.99
    optimizer: str | Callable[[Any, Optimisation], torch.optim.Optimizer] = "adam"
    ema: tuple[float, ...] = ()
    seed: int = 0
    micro_batch: int | None = None

    def __post_init__(self) -> None:
        for spec in fields(self):
            object.__setattr__(self, spec.name, _plain(getattr(self, spec.name)))
        for name, (fits, expected) in self._rules().items():
            value = getattr(self, name)
            if not fits(value):
                raise ValueError(f"{name} must be {expected}, got {value!r}")

    def _rules(self) -> dict[str, tuple[Callable[[Any], bool], str]]:
        """What each field must satisfy, and how to say it."""
        return {
            "steps": COUNT,
            "batch_size": COUNT,
            "lr": (lambda v: is_number(v) and v > 0, "a positive number"),
            "warmup": (lambda v: is_number(v) and 0 <= v < 1, "a share of the steps, 0 <= warmup < 1"),
            "constant": FLAG,
            "beta2": (lambda v: is_number(v) and 0 <= v < 1, "a decay rate, 0 <= beta2 < 1"),
            "optimizer": (
                lambda v: v in OPTIMIZERS if isinstance(v, str) else callable(v) and not isinstance(v, type),
                f"one of {sorted(OPTIMIZERS)} or a function of (parameters, config)",
            ),
            "ema": (
                lambda v: isinstance(v, tuple) and all(is_number(rate) and 0 <= rate < 1 for rate in v),
                "a tuple of decay rates in [0, 1), such as (0.999,)",
            ),
            "seed": (lambda v: _whole(v) and 0 <= v < 2**63, "a whole number from 0 to 2^63 - 1"),
            "micro_batch": (lambda v: v is None or COUNT[0](v), "a whole number of at least 1, or None"),
        }


def _plain(value: Any) -> Any:
    """Numbers of numpy and torch as plain ones, and lists as tuples: what can be compared and written to a file."""
    if isinstance(value, (list, tuple)):
        return tuple(map(_plain, value))
    return value.item() if isinstance(value, np.generic) or (isinstance(value, Tensor) and not value.ndim) else value


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether it is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


FLAG: tuple[Callable[[Any], bool], str] = (lambda v: isinstance(v, bool), "True or False")
COUNT: tuple[Callable[[Any], bool], str] = (lambda v: _whole(v) and v >= 1, "a whole number of at least 1")


OPTIMIZERS: dict[str, Callable[[Any, Optimisation], torch.optim.Optimizer]] = {
    "adam": lambda parameters, o: torch.optim.Adam(parameters, o.lr, (0.9, o.beta2), fused=True),
    "radam": lambda parameters, o: torch.optim.RAdam(parameters, o.lr, (0.9, o.beta2), foreach=True),
}


@dataclass(frozen=True)
class Step:
    """What one step was.

    Attributes:
        number: steps done so far, from 1.
        steps: steps in all.
        loss: mean loss of the batch, before the update.
        lr: learning rate of the update.
        samples: samples seen so far.
        seconds: time spent training so far, resumed runs included.
    """

    number: int
    steps: int
    loss: float
    lr: float
    samples: int
    seconds: float


@dataclass(frozen=True)
class Stage:
    """A stretch of a run that trains one part of the module, with an optimiser and a schedule of its own.

    Attributes:
        part: what is trained.
        steps: for how long.
        rate: factor of the learning rate.
    """

    part: nn.Module
    steps: int
    rate: float = 1.0


class Trainer:
    """Minimise an objective over the parameters of ``module``; iterate to train.

    Args:
        module: what is trained, in place.
        objective: what is minimised.
        optimisation: how.
        stages: the run's stages, one after another; a single one over all of ``module`` if not given.
        team: the processes that share each batch.
        device: where batches are drawn.
    """

    SNAPSHOT_EVERY = 20

    def __init__(
        self,
        module: nn.Module,
        objective: Objective,
        optimisation: Optimisation,
        stages: Sequence[Stage] | None = None,
        team: Team | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if not torch.is_grad_enabled():
            raise ValueError("gradients are switched off: train outside of torch.no_grad() and torch.inference_mode()")
        self.module, self.objective, self.optimisation = module, objective, optimisation
        self.team = team or Team()
        if optimisation.batch_size < self.team.size:
            raise ValueError(
                f"batch_size = {optimisation.batch_size} leaves some of {self.team.size} processes without a sample: "
                f"take more samples or fewer processes"
            )
        self.generator = torch.Generator(device).manual_seed(optimisation.seed)
        self.stages = list(stages or [Stage(module, optimisation.steps)])
        self.optimizer = self._new_optimizer(self.stages[0].part)
        self._averages = [deepcopy(module) for _ in optimisation.ema]
        self._due = 0  # updates done, until the averages have taken up the last of them
        # Listed once: to walk through the modules of a U-Net costs more than to average its weights.
        self._numbers: list[tuple[list[Tensor], list[Tensor]]] = [
            (list(m.parameters()), list(m.buffers())) for m in (module, *self._averages)
        ]
        self.factors = _factors(optimisation, self.stages)
        self.starts = dict(zip(accumulate([0] + [s.steps for s in self.stages]), self.stages, strict=False))
        self.losses: list[float] = []
        self.rates: list[float] = []
        self.times: list[float] = []
        # What is left of a run that diverges: the averages, which take up weights once their loss is known, or a copy.
        self._good = {} if self._averages else _copy(module)

    @property
    def number(self) -> int:
        """Steps done."""
        return len(self.losses)

    @property
    def averages(self) -> list[nn.Module]:
        """The averaged copies, the last update among what they average."""
        if self._due and all(p.isfinite().all() for p in self._numbers[0][0]):
            self._average()
        return self._averages

    @property
    def best(self) -> nn.Module:
        """The first averaged copy, or the module itself where none is kept."""
        return self.averages[0] if self.averages else self.module

    @property
    def history(self) -> dict[str, np.ndarray]:
        """Arrays over the steps done: loss, lr, seconds."""
        columns = {"loss": self.losses, "lr": self.rates, "seconds": self.times}
        return {name: np.array(column, dtype=np.float64) for name, column in columns.items()}

    def __iter__(self) -> Iterator[Step]:
        o = self.optimisation
        spent = self.times[-1] if self.times else 0.0
        started = time.perf_counter()
        while self.number < o.steps:
            self._advance()
            self.times[-1] = spent + time.perf_counter() - started
            yield Step(
                self.number, o.steps, self.losses[-1], self.rates[-1], self.number * o.batch_size, self.times[-1]
            )

    def trial(self, steps: int) -> float:
        """Seconds of a step, the median of so many, which are taken back; one more before them warms up."""
        before, seconds = _kept_aside(self.state_dict()), []
        try:
            for _ in range(min(steps + 1, self.optimisation.steps - self.number)):
                started = time.perf_counter()
                self._advance()
                seconds.append(time.perf_counter() - started)
        finally:
            self.load_state_dict(before)
        return median(seconds[1:] or seconds or [0.0])

    def _advance(self) -> None:
        if self.number in self.starts:
            self.optimizer = self._new_optimizer(self.starts[self.number].part)
        factor = self.factors[self.number]
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        loss = self._step()
        self.losses.append(loss)
        self.rates.append(self.optimisation.lr * factor)
        self.times.append(self.times[-1] if self.times else 0.0)

    def _new_optimizer(self, part: nn.Module) -> torch.optim.Optimizer:
        parameters = [p for p in part.parameters() if p.requires_grad]
        make = self.optimisation.optimizer
        optimizer = (OPTIMIZERS[make] if isinstance(make, str) else make)(parameters, self.optimisation)
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        return optimizer

    def _step(self) -> float:
        """One update; the loss before it."""
        self.optimizer.zero_grad()
        loss = self._loss(updated=self.number > 0)
        if self._due:
            self._average()
        if self._good and self.number % self.SNAPSHOT_EVERY == 0:
            _write(self.module.state_dict(), self._good)
        gradients = [p.grad for p in self._weights() if p.grad is not None]
        if not gradients:
            raise ValueError("the loss does not depend on the weights: the student or the distance cuts the gradient")
        self.team.add(gradients)
        self.optimizer.step()
        self._due = self.number + 1
        if self._due == self.optimisation.steps:
            # No later step will tell whether the last one was good. Gradients stay switched on: without them networks
            # would be compiled anew.
            self.optimizer.zero_grad()
            self._loss(updated=True, learn=False)
        return loss

    @torch.no_grad()
    def _average(self) -> None:
        """Move the averages towards the weights; after a stage's first update all the way, to average anew."""
        (weights, buffers), *averages = self._numbers
        for rate, (slow, slow_buffers) in zip(self.optimisation.ema, averages, strict=True):
            torch._foreach_lerp_(slow, weights, 1.0 if self._due - 1 in self.starts else 1 - rate)
            for old, new in zip(slow_buffers, buffers, strict=True):
                old.copy_(new)
        self._due = 0

    def _weights(self) -> list[Tensor]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def _loss(self, *, updated: bool, learn: bool = True) -> float:
        """The mean loss of the next batch, finite, its gradient added to the weights' where they ``learn``.

        Else, once weights have changed, the last good ones are put back.
        """
        total, trouble = 0.0, None
        try:
            total = self._sum_of_parts(learn)
            if not math.isfinite(total):
                raise NotFiniteError("the loss became NaN or infinite")
        except ValueError as error:
            trouble = error
        troubled, loss = self.team.sums(float(trouble is not None), total)
        if not troubled:
            return loss
        trouble = trouble or NotFiniteError("another process met an error, which it tells")
        if not updated:
            raise trouble
        self._due = 0
        self.module.load_state_dict(self._good or self.best.state_dict())
        hint = "; a smaller lr usually mends it" if isinstance(trouble, NotFiniteError) else ""
        kept = "the averaged ones" if self.averages else f"those of at most {self.SNAPSHOT_EVERY} steps before"
        raise DivergedError(
            f"training stopped at step {self.number + 1}: {trouble}. The weights are {kept}{hint}"
        ) from trouble

    def _sum_of_parts(self, learn: bool) -> float:
        """This process's share of the mean loss, part by part of its rows."""
        size = self.optimisation.batch_size
        with seeded(self.optimisation.seed, self.number):  # of a prior that asks for no generator
            batch = self.objective.draw(self.number, self.generator)
        mine = self.team.rows(size)
        at_once = self.optimisation.micro_batch or size
        total = 0.0
        for first in range(mine.start, mine.stop, at_once):
            rows = slice(first, min(first + at_once, mine.stop))
            part = tuple(None if x is None else x[rows] for x in batch)
            # Dropout's numbers belong to the rows, whichever process has them and whenever the run was continued.
            with seeded(self.optimisation.seed, self.number, first + 1):
                losses = self.objective.losses(self.number, part)
            loss = losses.mean() * ((rows.stop - rows.start) / size)
            total += loss.item()
            if learn and loss.requires_grad and math.isfinite(total):
                # Into these weights alone: a teacher that the loss is differentiated through keeps its own .grad.
                loss.backward(inputs=self._weights())
        return total

    def state_dict(self) -> dict[str, Any]:
        """All that the rest of the run depends on: tensors, numbers and strings only."""
        return {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "averages": [average.state_dict() for average in self.averages],
            "generator": self.generator.get_state(),
            "good": self._good,
            "history": [self.losses, self.rates, self.times],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self.module.load_state_dict(state["module"])
        begun = [start for start in self.starts if start < len(state["history"][0])]
        self.optimizer = self._new_optimizer(self.starts[max(begun, default=0)].part)
        self.optimizer.load_state_dict(state["optimizer"])
        self._lay_out_moments()
        for average, saved in zip(self.averages, state["averages"], strict=True):
            average.load_state_dict(saved)
        self._due = 0
        _write(state["good"], self._good)
        self.losses, self.rates, self.times = (list(column) for column in state["history"])
        if len(state["generator"]) == len(self.generator.get_state()):
            self.generator.set_state(state["generator"])
        else:  # of another kind of device, which draws other numbers
            self.generator.manual_seed(mixed(self.optimisation.seed, self.number))

    def _lay_out_moments(self) -> None:
        """Give the optimiser's tensors the layout of their weights, which is not the same on every device.

        Fused kernels go through all of them in the order of memory.
        """
        for weight, moments in self.optimizer.state.items():
            for name, moment in moments.items():
                if isinstance(moment, Tensor) and moment.shape == weight.shape and moment.stride() != weight.stride():
                    moments[name] = torch.empty_like(weight, dtype=moment.dtype, device=moment.device).copy_(moment)


def _factors(o: Optimisation, stages: Sequence[Stage]) -> list[float]:
    """The learning rate of every step, relative to the peak."""

    def schedule(share: float) -> float:
        if share < o.warmup:
            return share / o.warmup
        return 1.0 if o.constant else 0.5 * (1 + math.cos(math.pi * (share - o.warmup) / (1 - o.warmup)))

    return [s.rate * schedule((i + 1) / (s.steps + 1)) for s in stages for i in range(s.steps)]


def _kept_aside(state: Any) -> Any:
    """A copy of nested containers with their tensors on the CPU, where they take no room from training."""
    if isinstance(state, Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        return {key: _kept_aside(value) for key, value in state.items()}
    return type(state)(map(_kept_aside, state)) if isinstance(state, (list, tuple)) else state


def _write(source: dict[str, Any], target: dict[str, Any]) -> None:
    """Numbers of one state into the tensors of another, which take no more room for it."""
    for name, value in source.items():
        if isinstance(value, Tensor):
            target[name].copy_(value)
        else:
            target[name] = deepcopy(value)


def _copy(module: nn.Module) -> dict[str, Tensor]:
    state = module.state_dict().items()
    return {name: value.detach().clone() if isinstance(value, Tensor) else deepcopy(value) for name, value in state}
