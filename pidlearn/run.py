"""A distillation under way: what `steps` returns and `distill` drives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pidlearn.config import Config
from pidlearn.data.sampler import sampler_of
from pidlearn.equations.diffusion import Diffusion
from pidlearn.equations.from_teacher import modules_of, problem_from_teacher
from pidlearn.equations.problem import Prior, Problem
from pidlearn.evaluation.tracking import ErrorTracker
from pidlearn.losses.distances import DISTANCES, Distance
from pidlearn.losses.time_sampling import DENSITIES
from pidlearn.losses.weighting import weights
from pidlearn.methods import PID, Context, Method, method_of
from pidlearn.methods.base import Sampler
from pidlearn.methods.pid import checks
from pidlearn.methods.pid.method import PIDConfig
from pidlearn.nets.preconditioning import Preconditioned
from pidlearn.nets.unets import UNet
from pidlearn.result import Result
from pidlearn.students import files
from pidlearn.students.piecewise import PiecewiseTrajectory
from pidlearn.students.validate import prepare_student
from pidlearn.training.checkpoints import OtherRunError
from pidlearn.training.distributed import current_processes
from pidlearn.training.driver import Training
from pidlearn.training.execution import overridden, overrides, tf32
from pidlearn.training.stopping import Stop, StopReason
from pidlearn.training.trainer import Trainer
from pidlearn.utils.arguments import check_argument, size
from pidlearn.utils.fingerprint import digest, identity
from pidlearn.utils.random import seeded
from pidlearn.utils.settings import UNSET
from pidlearn.utils.validation import reraise_from_function, resolve, summary

__all__ = ["Run", "resolve_settings"]

NEEDS = ("noise", "data")
"""What a method may need besides the teacher."""


class Run(Training):
    """A distillation under way: each `Step` that is taken from it is an update of the student.

    Arguments as in `pidlearn.distill`.

    Attributes:
        problem: what is solved.
        config: all settings, with the values that the recipe filled in.
        student: what is trained, in place.
        errors: (step, error) of the tracked error.
    """

    def __init__(
        self,
        teacher: Any,
        student: nn.Module | None,
        config: Config,
        prior: Prior | None = None,
        event_shape: Sequence[int] | None = None,
        data: Any = None,
    ) -> None:
        if student is not None:
            config = _with_windows_of(student, config)
        self.processes = current_processes()
        self.problem = _problem(teacher, student, config, prior, event_shape, self.processes.device)
        # A denoiser of `train_denoiser` has the right form, and may vary as much at noise that its training hardly
        # visits: one of digits by 0.66 sigma_data (python -m benchmarks.demo).
        if type(getattr(self.problem.ode, "denoiser", None)) is not Preconditioned:
            self.problem.check_teacher()
        self.config, method = resolve_settings(self.problem, config)
        built = student is None
        if student is None:
            with seeded(self.config.seed):
                student = method.student(self.problem, self.config.init, self.config.windows)
                student = student.to(self.problem.sample_prior(1).dtype)
        self.student = prepare_student(student, self.problem)
        context = self._context(method, built, data)
        method.check(context)
        self._use_channels_last()
        self.processes.broadcast_weights(self.student)
        trainer = Trainer(
            self.student, method, context, self.config, processes=self.processes, device=self.problem.rng_device
        )
        parts = [stage.part for stage in trainer.stages]
        networks = modules_of(self.problem.teacher)
        self._start(trainer, overrides(self.config, method.forward_mode, parts, networks))
        self.errors: list[tuple[int, float]] = []

    def _context(self, method: Method, built: bool, data: Any) -> Context:
        """The parts that the settings name, for the method to use."""
        config, problem = self.config, self.problem
        weight = resolve("weight", config.weight, weights(getattr(self.student, "sigma_data", 0.5)))
        distance: Distance = resolve("distance", config.distance, DISTANCES)
        if isinstance(distance, nn.Module):
            distance.to(problem.device)
        # Call the distance once, so that a missing weights file is reported before training.
        zeros = torch.zeros_like(problem.sample_prior(2, torch.Generator().manual_seed(0)))
        with torch.no_grad(), reraise_from_function("distance", "distance(a, b)"):
            checks.one_each(distance(zeros, zeros), torch.arange(2))
        return Context(
            self.student,
            built,
            config.seed,
            problem=problem,
            n=config.n,
            spacing=config.spacing_function,
            distance=distance,
            weight=weight,
            time_sampling=resolve("time_sampling", config.time_sampling, DENSITIES),
            data=_sampler(method, data, problem),
        )

    def _use_channels_last(self) -> None:
        """Lay out a GPU's U-Nets as tensor cores like them."""
        if self.problem.device.type == "cuda":
            for module in (self.student, *modules_of(self.problem.teacher)):
                if any(isinstance(part, UNet) for part in module.modules()):
                    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # no stub

    def track_error(self, n: int) -> list[ErrorTracker]:
        """Trackers of the error of n samples to the reference solution; in the first process only."""
        check_argument("track_error", n, size(0))
        if self.processes.rank or n < 1:
            return []
        grid = self.problem.time_grid(self.config.n, self.config.spacing_function)
        return [ErrorTracker(self.problem, lambda: self.trainer.best, n, grid, self.config.seed + 1, self.errors)]

    def settings(self) -> dict[str, str]:
        """Settings, student and kind of teacher as text; functions are identified by a hash of their code."""
        fixed = {name: value for name, value in vars(self.config).items() if name not in self.config.EXECUTION}
        settings = {name: identity(value) for name, value in fixed.items()}
        teacher, shape, scale = self.problem.teacher, self.problem.event_shape, self.problem.data_scale
        description = str(files.describe(self.student)).encode()
        settings["student"] = f"{type(self.student).__qualname__} {digest(description)}"
        return {**settings, "teacher": f"{type(teacher).__name__} of shape {shape} and scale {scale:.6g}"}

    def state_dict(self) -> dict[str, Any]:
        """What the rest of the run depends on, and the teacher's fingerprint."""
        return {**super().state_dict(), "teacher": self._fingerprint(), "errors": self.errors}

    def load_state_dict(self, state: dict[str, Any], folder: str | Path) -> None:
        """Restore what `state_dict` returned, if the teacher is the same."""
        if state["teacher"].shape != self._fingerprint().shape:
            raise ValueError(f"{folder} holds a record of a teacher that does not fit: use another folder")
        with overridden(tf32(False)):
            same = self.problem.has_fingerprint(state["teacher"])
        if not same:
            raise OtherRunError(f"{folder} holds a run with another teacher of the same kind: use another folder")
        super().load_state_dict(state, folder)
        self.errors[:] = [(int(number), float(error)) for number, error in state["errors"]]

    def _fingerprint(self) -> Tensor:
        with overridden(tf32(False)):  # the same numbers on every device
            return self.problem.fingerprint

    def result(self, stop: Stop | None = None) -> Result:
        """The result so far: of a run under way, or of a finished one."""
        trainer = self.trainer
        if stop is None and trainer.step < self.config.steps:
            stop = Stop(StopReason.UNFINISHED, f"taken at step {trainer.step} of {self.config.steps}")
        history = trainer.history.arrays()
        if self.errors:
            steps, errors = zip(*self.errors, strict=True)
            history |= {"error_step": np.array(steps), "error": np.array(errors)}
        averages = dict(zip(self.config.ema, trainer.averaged, strict=True))
        stopped, reason = (stop.message, stop.reason) if stop else (None, None)
        return Result(trainer.best, averages, history, self.config, self.problem, stopped, reason)

    def __repr__(self) -> str:
        """One line: the method, the teacher, and how far it is."""
        teacher = summary(self.problem.teacher)
        return f"Run({self.config.method}, teacher {teacher}, step {self.trainer.step:,} of {self.config.steps:,})"


def _with_windows_of(student: nn.Module, config: Config) -> Config:
    windows = len(student.windows) if isinstance(student, PiecewiseTrajectory) else 1
    if config.windows not in (UNSET, windows):
        raise ValueError(f"got windows = {config.windows}, but the student has {windows}: leave windows out")
    return replace(config, windows=windows)


def _problem(
    teacher: Any,
    student: nn.Module | None,
    config: Config,
    prior: Prior | None,
    event_shape: Sequence[int] | None,
    device: torch.device | None,
) -> Problem:
    """The teacher's problem, on this process's device; a formula without weights goes where the student is."""
    networks = modules_of(teacher)
    if device is not None:
        for network in networks:
            network.to(device)
    problem = problem_from_teacher(teacher, config.t_max, config.t_min, prior, event_shape)
    weight = next(student.parameters(), None) if isinstance(student, nn.Module) else None
    device = device or (None if weight is None or weight.is_meta else weight.device)
    return problem if networks or device is None else problem.to(device)


def _sampler(method: Method, data: Any, problem: Problem) -> Sampler | None:
    """The data that a method needs, as a function that draws from them."""
    if method.needs not in NEEDS:
        raise ValueError(f"{type(method).__name__}.needs is {method.needs!r}, but must be one of {NEEDS}")
    if method.needs == "data":
        return sampler_of(data, problem.teacher, problem.device)
    if data is not None:
        raise ValueError(f"got data, but {type(method).__name__} needs none: leave data out")
    return None


def resolve_settings(problem: Problem, config: Config) -> tuple[Config, Method]:
    """Fill in the unset fields from the method's recipe; returns the configuration, and a configured method."""
    method = method_of(config.method)
    # `method_of` accepts dataclasses only, which the class Method itself cannot say to a type checker.
    own_fields = fields(method)  # type: ignore[arg-type]  # a dataclass, see above
    shared = {field.name for field in own_fields if field.init} & {field.name for field in fields(Config)}
    own = {name: value for name in shared if (value := getattr(method, name)) is not UNSET}
    defaults = Config()
    twice = [name for name in own if getattr(config, name) not in (getattr(defaults, name), own[name])]
    if twice:
        raise ValueError(f"{', '.join(twice)} is set both in the method and in the configuration: set it once")
    foreign = {field.name: field.default for field in fields(PIDConfig)} if not isinstance(method, PID) else {}
    unused = [name for name, default in foreign.items() if name not in shared and getattr(config, name) != default]
    if unused:
        raise ValueError(f"got {', '.join(unused)}, which {type(method).__name__} does not use: leave it out")
    config = replace(config, **own)
    given = {name: value for name, value in vars(config).items() if name not in config.unset()}
    values: Mapping[str, Any] = {
        "t_max": problem.t_start,
        "t_min": problem.t_end,
        **method.defaults(problem, given),
    }
    config = replace(config, **{name: values[name] for name in config.unset() & values.keys()})
    if isinstance(problem, Diffusion) and config.windows != 1:
        raise ValueError(f"got windows = {config.windows}, but a diffusion is solved in one window: leave windows out")
    configured: Method = replace(method, **{name: getattr(config, name) for name in shared})  # type: ignore[type-var]  # as above
    return config, configured
