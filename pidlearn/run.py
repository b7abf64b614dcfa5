"""A distillation under way: what `steps` returns and `distill` drives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pidlearn.config import Config, resolve_settings
from pidlearn.data.sampler import Sampler, sampler_of
from pidlearn.equations.from_teacher import modules_of, problem_from_teacher
from pidlearn.equations.problem import Prior, Problem
from pidlearn.evaluation.tracking import ErrorTracker
from pidlearn.losses.distances import DISTANCES, Distance, checked_distance
from pidlearn.losses.time_sampling import DENSITIES
from pidlearn.losses.weighting import weights_for
from pidlearn.methods import Context, Method, settings_of
from pidlearn.nets.preconditioning import Preconditioned
from pidlearn.result import Result
from pidlearn.students import files
from pidlearn.students.base import calibration_of
from pidlearn.students.piecewise import PiecewiseTrajectory
from pidlearn.students.validate import prepare_student
from pidlearn.training.checkpoints import OtherRunError
from pidlearn.training.distributed import current_processes
from pidlearn.training.driver import Training
from pidlearn.training.execution import overrides, use_channels_last
from pidlearn.training.stopping import Stop, StopReason
from pidlearn.training.trainer import Trainer
from pidlearn.utils.arguments import check_argument, size
from pidlearn.utils.fingerprint import digest, identity
from pidlearn.utils.random import seeded
from pidlearn.utils.settings import UNSET
from pidlearn.utils.validation import resolve, summary
from pidlearn.utils.wrappers import unwrapped

__all__ = ["Run"]


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
        self.config, method = resolve_settings(self.problem, config)
        # A denoiser of `train_denoiser` is not checked. It has the right form by construction, but at noise levels that
        # its training rarely visits its output varies: by 0.66 sigma_data on digits (python -m benchmarks.demo).
        if type(unwrapped(getattr(self.problem.ode, "denoiser", None))) is not Preconditioned:
            self.problem.check_teacher(self.config.windows * (self.config.n - 1))
        is_new = student is None
        if student is None:
            with seeded(self.config.seed):
                student = method.student(self.problem, self.config.init, self.config.windows)
                student = student.to(self.problem.sample_prior(1).dtype)
        self.student = prepare_student(student, self.problem, method.wrap)
        context = self._context(method, is_new, data)
        method.check(context)
        networks = modules_of(self.problem.ode)  # as they are called: compiled or wrapped
        if self.problem.device.type == "cuda":
            use_channels_last([self.student, *networks])
        self.processes.broadcast_weights(self.student)
        calibration_of(self.student).clear()  # of the weights before
        trainer = Trainer(
            self.student, method, context, self.config, processes=self.processes, device=self.problem.rng_device
        )
        parts = [stage.part for stage in trainer.stages]
        auxiliaries = [stage.auxiliary for stage in trainer.stages if stage.auxiliary is not None]
        computed_anew = self.config.recompute or self.config.compile is not None
        with seeded(self.config.seed):  # a scheme is tried, which may draw random numbers
            forward_mode = computed_anew and method.forward_mode(context)
        self._start(trainer, overrides(self.config, forward_mode, parts, networks, auxiliaries))
        self.errors: list[tuple[int, float]] = []

    def _context(self, method: Method, is_new: bool, data: Any) -> Context:
        """The parts that the settings name, for the method to use."""
        config, problem = self.config, self.problem
        distance: Distance = resolve("distance", config.distance, DISTANCES)
        if isinstance(distance, nn.Module):
            distance.to(problem.device)
        # Call the distance once, so that a missing weights file is reported before training.
        zeros = torch.zeros_like(problem.sample_prior(2, torch.Generator().manual_seed(0)))
        with torch.no_grad():
            checked_distance(distance, zeros, zeros)
        return Context(
            self.student,
            is_new,
            config.seed,
            problem=problem,
            n=config.n,
            spacing=config.spacing_function,
            distance=distance,
            weight=resolve("weight", config.weight, weights_for(self.student)),
            time_sampling=resolve("time_sampling", config.time_sampling, DENSITIES),
            data=_data_for(method, data, problem),
        )

    def track_error(self, n: int) -> list[ErrorTracker]:
        """Trackers of the error of n samples to the reference solution; in the first process only."""
        check_argument("track_error", n, size(0))
        if self.processes.rank or n < 1:
            return []
        grid = self.problem.time_grid(self.config.reference_n, self.config.spacing_function)
        return [ErrorTracker(self.problem, lambda: self.trainer.best, n, grid, self.config.seed + 1, self.errors)]

    def settings(self) -> dict[str, str]:
        """Settings, student and kind of teacher as text; functions are identified by a hash of their code."""
        fixed = {name: value for name, value in vars(self.config).items() if name not in self.config.EXECUTION}
        settings = {name: identity(value) for name, value in fixed.items()}
        method = self.trainer.method  # the same whether it was passed by name or as an object
        own = {name: getattr(method, name) for name in settings_of(method)}
        settings["method"] = f"{type(method).__qualname__} {identity(own)}"
        teacher, shape, scale = self.problem.teacher, self.problem.event_shape, self.problem.data_scale
        student = unwrapped(self.student)  # a wrapper changes nothing that is computed
        description = str(files.describe(student)).encode()
        settings["student"] = f"{type(student).__qualname__} {digest(description)}"
        return {**settings, "teacher": f"{type(teacher).__name__} of shape {shape} and scale {scale:.6g}"}

    def state_dict(self) -> dict[str, Any]:
        """What the rest of the run depends on, and the teacher's identity."""
        return {**super().state_dict(), "teacher": self.problem.identity(), "errors": self.errors}

    def load_state_dict(self, state: dict[str, Any], folder: str | Path) -> None:
        """Restore what `state_dict` returned, if the teacher is the same."""
        if state["teacher"]["fingerprint"].shape[1:] != self.problem.event_shape:
            raise ValueError(f"{folder} holds a record of a teacher that does not fit: use another folder")
        if not self.problem.has_identity(state["teacher"]):
            raise OtherRunError(f"{folder} holds a run with another teacher of the same kind: use another folder")
        super().load_state_dict(state, folder)
        self.errors[:] = [(int(number), float(error)) for number, error in state["errors"]]

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


def _data_for(method: Method, data: Any, problem: Problem) -> Sampler | None:
    """The data that a method needs, as a function that draws from them."""
    if method.needs == "data":
        shape, dtype = problem.event_shape, problem.exact_dtype
        return sampler_of(data, problem.teacher, shape, problem.label_dim, problem.device, dtype)
    if data is not None:
        raise ValueError(f"got data, but {type(method).__name__} needs none: leave data out")
    return None
