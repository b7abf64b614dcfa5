"""Settings of PID that work, for each kind of problem; measured by the benchmarks."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import torch

from pidlearn.equations.initial_value import InitialValueProblem
from pidlearn.equations.problem import Problem
from pidlearn.nets import MLP
from pidlearn.students.build import network_of
from pidlearn.utils.settings import UNSET
from pidlearn.utils.validation import NotFiniteError

__all__ = ["recipe"]

DIFFUSION: dict[str, Any] = {
    "warmup": 0.02,
    "n": 250,
    "windows": 1,
    "derivative": "forward",
    "stop_gradient": True,
    "time_sampling": "lognormal",
}
TOY: dict[str, Any] = {**DIFFUSION, "optimizer": "muon", "steps": 5500, "batch_size": 256, "lr": 3e-3}
IMAGES: dict[str, Any] = {**DIFFUSION, "steps": 7500, "batch_size": 128, "lr": 4e-3}
MLP_TEACHER: dict[str, Any] = {**IMAGES, "lr": 2.5e-3}  # without layer norms, 4e-3 diverges
COPIED_NETWORK: dict[str, Any] = {**IMAGES, "lr": 1e-3}
# The residual of a velocity needs its gradient through f, a second-order scheme and short windows.
VELOCITY: dict[str, Any] = {
    "optimizer": "muon",
    "steps": 7500,
    "batch_size": 128,
    "lr": 4e-3,
    "warmup": 0.2,
    "derivative": "trapezoid",
    "stop_gradient": False,
    "time_sampling": "uniform",
}

MIN_WINDOWS, MIN_STEPS, MAX_STEPS = 40, 12, 48
"""An ODE's span is cut into at least MIN_WINDOWS windows, of MIN_STEPS to MAX_STEPS equal steps each."""
MAX_TOTAL_STEPS = 7680
"""Finer grids over the whole span are not tried."""
MAX_MESH_ERROR, WARN_MESH_ERROR = 0.004, 0.01
"""The mesh is refined until the scheme's own relative error is below the first; above the second, users are warned."""
TOY_ADAM_LR, VELOCITY_ADAM_LR = 6e-3, 1e-2
"""Learning rates of other optimisers, where Muon is the default."""


def recipe(problem: Problem, given: Mapping[str, Any]) -> dict[str, Any]:
    """Values for the settings that are not ``given``."""
    if isinstance(problem, InitialValueProblem):
        windows, n = given.get("windows", UNSET), given.get("n", UNSET)
        return _for_optimizer(VELOCITY, VELOCITY_ADAM_LR, given) | (
            _mesh(problem, windows, n) if UNSET in (windows, n) else {}
        )
    if problem.is_low_dimensional:
        return _for_optimizer(TOY, TOY_ADAM_LR, given)
    teacher = network_of(problem)
    if teacher is None:
        return IMAGES
    return MLP_TEACHER if isinstance(teacher, MLP) else COPIED_NETWORK


def _for_optimizer(settings: dict[str, Any], adam_lr: float, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of Muon with a rate for the ``given`` steps, or with Adam's if another optimiser is given."""
    if given.get("optimizer", "muon") != "muon":
        return {**settings, "lr": adam_lr}
    # Its updates have a fixed size, so fewer of them have to be larger: the rate goes with steps^(-1/2), within bounds
    # beyond which nothing was tried.
    factor = math.sqrt(settings["steps"] / given.get("steps", settings["steps"]))
    return {**settings, "lr": settings["lr"] * min(max(factor, 0.5), 4.0)}


def _mesh(problem: InitialValueProblem, windows: Any, n: Any) -> dict[str, int]:
    """Enough windows and grid points for a second-order scheme to follow the field."""
    start = problem.sample_prior(32, torch.Generator().manual_seed(0))
    if not problem.ode.velocity(start, problem.t_start).isfinite().all():
        raise NotFiniteError(
            f"the teacher returned NaN or infinity where its paths start, at t = {problem.t_start:g}: check it there"
        )
    count = MIN_WINDOWS if windows is UNSET else windows
    steps = count * (MIN_STEPS if n is UNSET else n - 1)
    # Heun's error is of order h^2, like the trapezoid scheme's: it shows how many steps the scheme needs.
    while (error := problem.coarse_error(steps)) > MAX_MESH_ERROR and steps < MAX_TOTAL_STEPS:
        steps *= 2
    if error > WARN_MESH_ERROR:
        warnings.warn(
            f"{steps} steps may be too few to follow this field from t = {problem.t_start:g} to {problem.t_end:g}: "
            f"check result.evaluate(), and use a shorter span, or larger windows= and n=",
            stacklevel=2,
        )
    if windows is UNSET:
        # At most MAX_STEPS steps per window: a finer mesh means more windows, not longer ones.
        count = max(MIN_WINDOWS, math.ceil(steps / (MAX_STEPS if n is UNSET else n - 1)))
    return {"windows": count, "n": math.ceil(steps / count) + 1}  # n points make n - 1 steps
