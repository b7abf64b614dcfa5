"""A distillation under way: what `steps` returns and `distill` drives.

A long span is trained window by window, each starting from where the ones before it, by then frozen, have carried a
pool of starts. A diffusion has one window and draws fresh noise for every batch.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pidlearn.config import RECIPE, Config
from pidlearn.equations.problem import Prior, modules_of, problem_of
from pidlearn.evaluation.metrics import rmse
from pidlearn.losses.distances import DISTANCES, Distance
from pidlearn.losses.time_sampling import DENSITIES, draw_index
from pidlearn.methods.pid import checks
from pidlearn.methods.pid.loss import Weight, boundary_loss, pid_loss, weights
from pidlearn.nets.unets import UNet
from pidlearn.result import Result
from pidlearn.students import build, files
from pidlearn.students.trajectory import Trajectory, Windows
from pidlearn.training import checkpoints
from pidlearn.training.distributed import assembled
from pidlearn.training.execution import switched, switches, tf32
from pidlearn.training.loop import Batch, Objective, Stage, Step, Trainer
from pidlearn.utils.batching import ask
from pidlearn.utils.broadcast import exact_time
from pidlearn.utils.fingerprint import digest, identity
from pidlearn.utils.random import seeded
from pidlearn.utils.validation import choose, explained, what

__all__ = ["Run"]


@dataclass(frozen=True)
class RunStage:
    """What one window trains on, from step ``first`` on."""

    window: Any
    first: int
    grid: Tensor
    density: Tensor
    pool: Tensor | None


class Run(Iterator[Step]):
    """A distillation under way: each `Step` that is taken from it is an update.

    Attributes:
        problem: what is solved.
        config: all the choices.
        student: what is trained, in place.
    """

    FOLLOW_TIMES = 40
    POOL = 8192
    FIRST, LATER_RATE = 12, 0.3
    """The first window learns from nothing: so many times the steps, and the full learning rate."""

    def __init__(
        self,
        teacher: Any,
        student: nn.Module | None,
        config: Config | None,
        chosen: dict[str, Any],
        prior: Prior | None,
        event_shape: Sequence[int] | None,
    ) -> None:
        wanted = _with(config, chosen)
        if student is not None:
            windows = len(student.windows) if isinstance(student, Windows) else 1
            if wanted.windows not in (RECIPE, windows):
                raise ValueError(f"windows = {wanted.windows}, but the student has {windows}: leave windows out")
            wanted = replace(wanted, windows=windows)
        self.team = assembled()
        if self.team.device is not None:
            for module in modules_of(teacher):
                module.to(self.team.device)
        self.problem = problem_of(teacher, wanted.t_max, wanted.t_min, prior, event_shape)
        where = self.team.device or _home(student)
        if where is not None and not modules_of(teacher):
            self.problem = self.problem.at(where)  # a formula can be asked anywhere
        self.config = build.config_for(self.problem, wanted)
        # Our own windows start from the one before; those of a student that was passed keep their weights.
        self.warm = student is None
        if student is None:
            with seeded(self.config.seed):
                student = build.student_for(self.problem, self.config).to(self.problem.draw(1).dtype)
        self.student = self._accepted(student)
        if self.problem.device.type == "cuda":
            for module in (self.student, *modules_of(self.problem.teacher)):
                if any(isinstance(part, UNet) for part in module.modules()):
                    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # as tensor cores like
        self.team.align(self.student)
        self.windows: list[Any] = self.student.windows if isinstance(self.student, Windows) else [self.student]
        self.lengths = _split(self.config.steps, len(self.windows), self.FIRST if self.warm else 1)
        rates = [1.0] + [self.LATER_RATE if self.warm else 1.0] * (len(self.windows) - 1)
        stages = [Stage(*part) for part in zip(self.windows, self.lengths, rates, strict=True)]
        objective = Objective(self._draw, self._losses)
        self.trainer = Trainer(self.student, objective, self.config, stages, self.team, self.problem.random)
        self.errors: list[tuple[int, float]] = []
        self._current: RunStage | None = None
        self._loop = iter(self.trainer)
        self._try_distance()
        self.switches = switches(self.config, self.windows, modules_of(self.problem.teacher))

    def __next__(self) -> Step:
        with switched(self.switches):
            return self._next()

    def _next(self) -> Step:
        try:
            return next(self._loop)
        except BaseException:
            self._loop = iter(self.trainer)  # an interrupted loop can be taken up again
            raise

    def _accepted(self, student: Any) -> nn.Module:
        """The student to train, once it is one: on the teacher's device, with its boundary condition met."""
        problem, generator = self.problem, torch.Generator().manual_seed(0)
        z, labels = problem.draw(8, generator), problem.draw_labels(8, generator)
        if not isinstance(student, nn.Module):
            raise TypeError(f"a student is a torch.nn.Module, got {type(student).__name__}")
        if not hasattr(student, "t_max"):
            student = build.as_trajectory(student, problem)
        if not any(p.requires_grad for p in student.parameters()):
            raise ValueError("the student has no weights to train: none of its parameters requires a gradient")
        if problem.label_dim and getattr(getattr(student, "network", None), "label_dim", None) == 0:
            raise ValueError(
                f"the teacher tells {problem.label_dim} classes apart and the student's network knows none: make it "
                f"with label_dim={problem.label_dim}"
            )
        if any(p.is_meta for p in student.parameters()):
            raise ValueError("the student is on the meta device and holds no numbers: give it weights first")
        # In eval mode: dropout would make x(z, t) random, and its differences in t noise.
        student = student.to(problem.device).eval()
        t = exact_time(problem.t_start, z)
        with torch.no_grad(), explained("student", student, z, t):
            start = ask(student, z, t, labels)
        if not isinstance(start, Tensor) or start.shape != z.shape:
            raise ValueError(f"the student must return the shape of z, {tuple(z.shape)}; got {what(start)}")
        if not start.isfinite().all():
            raise ValueError("the student returns NaN or infinity before any training: check its weights")
        if student.t_max != problem.t_start:
            raise ValueError(f"the student starts at t_max = {student.t_max:g}, the paths at {problem.t_start:g}")
        if not self.config.boundary_weight and (start - z).abs().max() > 1e-4 * z.abs().max():
            raise ValueError(
                f"the student does not start at z: x(z, {problem.t_start:g}) is off by {(start - z).abs().max():.3g}. "
                f"Use a Trajectory with a hard boundary, or set boundary_weight"
            )
        if problem.sigma_data is not None and (isinstance(student, Windows) or self.config.windows != 1):
            raise ValueError("a diffusion is solved in one window: leave windows out, or make the student a Trajectory")
        if getattr(student, "t_min", problem.t_end) != problem.t_end:
            raise ValueError(f"the student ends at t_min = {student.t_min:g}, the paths at {problem.t_end:g}")
        if problem.sigma_data is not None and isinstance(student, Trajectory):
            student.event_shape = problem.event_shape  # now that it is known, the student can draw its own noise
        return student

    def trial(self, steps: int) -> float:
        """Seconds of a step, the median of so many, which are taken back; one more before them warms up."""
        current = self._current
        try:
            with switched(self.switches):
                return self.trainer.trial(steps)
        finally:
            self._current = current  # or a window whose first step was taken back would not start from the one before

    def _try_distance(self) -> None:
        """Ask the distance once, of zeros: a perceptual one finds its weights here, or says why it cannot work."""
        distance: Distance = choose("distance", self.config.distance, DISTANCES)
        if isinstance(distance, nn.Module):
            distance.to(self.problem.device)
        zeros = torch.zeros_like(self.problem.draw(2, torch.Generator().manual_seed(0)))
        with torch.no_grad():
            checks.one_each(distance(zeros, zeros), torch.arange(2))

    def _stage(self, number: int) -> RunStage:
        """The stage of step ``number``, made from the frozen windows alone: the same again when a run is resumed."""
        ends = list(accumulate(self.lengths))
        which = bisect_right(ends, number)
        first = ends[which] - self.lengths[which]
        if self._current is not None and self._current.first == first:
            return self._current
        window, problem, config = self.windows[which], self.problem, self.config
        if number == first and which > 0 and self.warm:
            window.load_state_dict(self.windows[which - 1].state_dict())
        grid = self._grid(window.t_max, getattr(window, "t_min", problem.t_end))
        asked = grid if config.last == "backward" else grid[:-1]
        weight: Weight = choose("weight", config.weight, weights(getattr(window, "sigma_data", 0.5)))
        checks.weight(weight(asked), asked)
        density = choose("index", config.index, DENSITIES)(asked, problem.sigma_data or 1.0)
        if density.shape != asked.shape or not ((density >= 0) & density.isfinite()).all() or not density.sum() > 0:
            raise ValueError(f"index must give each of {len(asked)} times a finite number >= 0, and not only zeros")
        pool = self._reached(which) if len(self.windows) > 1 else None
        self._current = RunStage(window, first, grid, density, pool)
        return self._current

    def _grid(self, t_max: float, t_min: float) -> Tensor:
        """The grid of a diffusion; of an ODE, n equal steps over one window, in either direction."""
        if self.problem.sigma_data is not None:
            return self.config.grid()
        return torch.linspace(t_max, t_min, self.config.n, dtype=torch.float64)

    @torch.no_grad()
    def _reached(self, which: int) -> Tensor:
        """A pool of starts as the windows before ``which`` have carried them on."""
        if self._current is None or self._current.pool is None:
            pool, done = self.problem.draw(self.POOL, torch.Generator().manual_seed(self.config.seed)), 0
        else:
            pool, done = self._current.pool, self.windows.index(self._current.window)
        for window in self.windows[done:which]:
            pool = ask(window, pool, window.t_min)
        return pool

    def _draw(self, number: int, generator: torch.Generator) -> Batch:
        """Starts, grid points and labels of a batch; no grid points where every start is asked at all of them."""
        stage, problem, size = self._stage(number), self.problem, self.config.batch_size
        if stage.pool is None:
            z = problem.draw(size, generator)
        else:
            z = stage.pool[torch.randint(len(stage.pool), (size,), generator=generator)]
        labels = problem.draw_labels(size, generator)
        index = None if _reads(stage.window) else draw_index(stage.density, size, generator).to(z.device)
        return z, index, labels

    def _losses(self, number: int, batch: Batch) -> Tensor:
        stage, config = self._stage(number), self.config
        z, index, labels = batch
        assert z is not None
        window, start = stage.window, z
        if index is None:
            # The network reads a start once for all times.
            points = len(stage.density)
            window, index = window.started(z), torch.arange(points, device=z.device).repeat_interleave(len(z))
            z = z.repeat(points, *[1] * (z.ndim - 1))
        loss = pid_loss(
            window,
            self.problem.ode,
            z,
            stage.grid,
            index,
            derivative=config.derivative,
            distance=self._distance(stage),
            weight=config.weight,
            stop_gradient=config.stop_gradient,
            last=config.last,
            class_labels=labels,
        )
        if config.boundary_weight:
            loss = loss + config.boundary_weight * boundary_loss(stage.window, start, labels)
        return loss

    def _distance(self, stage: RunStage) -> Distance:
        """The configured distance, of velocities counted in starting spreads a window so that units cancel."""
        distance: Distance = choose("distance", self.config.distance, DISTANCES)
        if self.problem.sigma_data is not None:
            return distance
        unit = self.problem.spread / (stage.grid[-1] - stage.grid[0]).abs().item()
        return lambda a, b: distance(a / unit, b / unit)

    def follow(self, n: int) -> Callable[[Step], dict[str, float]]:
        """A function of the step that tells the latest error of n samples to the teacher's own solver."""
        problem, generator = self.problem, torch.Generator().manual_seed(self.config.seed + 1)
        if self.team.rank:  # the first process tells
            return lambda step: {}
        z, labels = problem.draw(n, generator), problem.draw_labels(n, generator)
        target = problem.reference_ends(z, self._grid(problem.t_start, problem.t_end), labels)
        every = max(1, self.config.steps // self.FOLLOW_TIMES)

        def latest(step: Step) -> dict[str, float]:
            if step.number % every == 0 or step.number == step.steps:
                self.errors.append((step.number, rmse(problem.student_ends(self.trainer.best, z, labels), target)))
            return {"error": self.errors[-1][1]} if self.errors else {}

        return latest

    def save(self, folder: str | Path) -> None:
        """Everything that the rest of the run depends on, written by the first process."""
        if self.team.rank == 0:
            checkpoints.save(folder, self.trainer.number, self._state())

    def _state(self) -> dict[str, Any]:
        return {
            "choices": self._choices(),
            "teacher": self._fingerprint(),
            "trainer": self.trainer.state_dict(),
            "errors": self.errors,
        }

    def resume(self, folder: str | Path) -> None:
        """Continue the run of that folder, if there is one and it is this one."""
        state = checkpoints.load_run(folder, self._choices())
        if state is None:
            return
        # Not to the last bit: the run may go on on another machine.
        answers = state["teacher"].double(), self._fingerprint().double()
        if not torch.allclose(*answers, rtol=1e-3, atol=1e-4, equal_nan=True):
            raise ValueError(f"{folder} holds a run with another teacher, though one of its kind: take another folder")
        checkpoints.restore(self.trainer, state, folder)
        self.errors = [(int(number), float(error)) for number, error in state["errors"]]

    def _fingerprint(self) -> Tensor:
        """The teacher's, alike on every device."""
        with switched(tf32(False)):
            return self.problem.fingerprint

    def _choices(self) -> dict[str, str]:
        """The configuration as text, functions by what they do, and what tells one problem from another."""
        chosen = {name: value for name, value in vars(self.config).items() if name not in self.config.MACHINE}
        choices = {name: identity(value) for name, value in chosen.items()}
        teacher, shape, scale = self.problem.teacher, self.problem.event_shape, self.problem.sigma_data or 1.0
        description = str(files.describe(self.student)).encode()
        choices["student"] = f"{type(self.student).__qualname__} {digest(description)}"
        return {**choices, "teacher": f"{type(teacher).__name__} of shape {shape} and scale {scale:.6g}"}

    def result(self, stopped: str | None = None) -> Result:
        """What there is now: of a run that is under way, or done."""
        if stopped is None and self.trainer.number < self.config.steps:
            stopped = f"taken at step {self.trainer.number} of {self.config.steps}"
        history = self.trainer.history
        if self.errors:
            numbers, errors = zip(*self.errors, strict=True)
            history |= {"error_step": np.array(numbers), "error": np.array(errors)}
        averages = dict(zip(self.config.ema, self.trainer.averages, strict=True))
        return Result(self.trainer.best, averages, history, self.config, self.problem, stopped)


def _home(student: Any) -> torch.device | None:
    """Where a student's weights are, if it has any."""
    weight = next(student.parameters(), None) if isinstance(student, nn.Module) else None
    return None if weight is None or weight.is_meta else weight.device


def _reads(window: Any) -> bool:
    """Whether the network reads a start once for all times, so that each start is asked at every one."""
    return hasattr(getattr(window, "network", None), "encode")


def _split(steps: int, windows: int, first: int) -> list[int]:
    """Steps of each window, the first one ``first`` times the others'."""
    later = steps // (first + windows - 1)
    if windows > 1 and later < 1:
        raise ValueError(f"{steps} steps cannot train {windows} windows; take more steps or fewer windows")
    return [steps - later * (windows - 1)] + [later] * (windows - 1)


def _with(config: Any, chosen: dict[str, Any]) -> Config:
    """The configuration with single choices replaced, once `Config` knows them."""
    if not isinstance(config, Config | None):
        raise TypeError(f"config is a pidlearn.Config, got {type(config).__name__}")
    known = [field.name for field in fields(Config)]
    unknown = sorted(chosen.keys() - set(known))
    if unknown:
        raise ValueError(f"unknown choice {', '.join(unknown)}: besides distill's own arguments there are {known}")
    return replace(config or Config(), **chosen)
