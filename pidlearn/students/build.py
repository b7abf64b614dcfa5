"""Defaults that work: for each kind of problem the choices, and a student to go with them."""

from __future__ import annotations

import copy
import math
import warnings
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from pidlearn.config import RECIPE, Config
from pidlearn.equations.ode import DenoiserODE
from pidlearn.equations.problem import Problem
from pidlearn.nets import MLP, ChebyshevMLP, Preconditioned
from pidlearn.nets.adapted import AdaptedStudent
from pidlearn.nets.edm import NoisePredictor
from pidlearn.nets.unets import UNet
from pidlearn.students.trajectory import Student, Trajectory, Windows
from pidlearn.teachers.adapters.base import AdaptedDenoiser
from pidlearn.utils.validation import NotFiniteError

__all__ = ["config_for", "student_for"]

SMALL = 16
"""Up to so many dimensions a problem counts as a toy."""

WINDOWS, FEWEST_STEPS, MOST_STEPS = 40, 12, 48
"""Of an ODE's span: at least so many windows, each of so many equal steps."""
ENOUGH_STEPS = 7680
"""No finer mesh than this is tried."""

DIFFUSION: dict[str, Any] = {
    "warmup": 0.02,
    "n": 250,
    "windows": 1,
    "derivative": "forward",
    "stop_gradient": True,
    "index": "lognormal",
}
TOY: dict[str, Any] = {**DIFFUSION, "steps": 7000, "batch_size": 256, "lr": 6e-3}
IMAGES: dict[str, Any] = {**DIFFUSION, "steps": 7500, "batch_size": 128, "lr": 4e-3}
OF_AN_MLP: dict[str, Any] = {**IMAGES, "lr": 2.5e-3}  # 4e-3 diverges without norms
COPIED: dict[str, Any] = {**IMAGES, "lr": 1e-3}
# A velocity's residual needs its gradient through f, a second-order scheme and short windows.
VELOCITY: dict[str, Any] = {
    "steps": 9500,
    "batch_size": 128,
    "lr": 1e-2,
    "warmup": 0.2,
    "derivative": "trapezoid",
    "stop_gradient": False,
    "index": "uniform",
}


def config_for(problem: Problem, config: Config | None = None) -> Config:
    """What ``config`` says, and for all that it leaves to the recipe, the recipe of such a problem."""
    config = config or Config()
    choices = {**_recipe(problem), "t_max": problem.t_start, "t_min": problem.t_end}
    if problem.sigma_data is None and RECIPE in (config.n, config.windows):
        choices |= _mesh(problem, config)
    return replace(config, **{name: choice for name, choice in choices.items() if getattr(config, name) is RECIPE})


def student_for(problem: Problem, config: Config) -> Student:
    """A student to train; of a teacher with a convolutional network it is a copy."""
    if problem.sigma_data is None:
        return _windows(problem, config)
    teacher = _network_of(problem)
    if teacher is not None and not isinstance(teacher, MLP):
        network = _copy(teacher, problem, config.init)
    else:
        network = _mlp(problem, teacher)
    return as_trajectory(network, problem)


def _recipe(problem: Problem) -> dict[str, Any]:
    if problem.sigma_data is None:
        return VELOCITY
    if math.prod(problem.event_shape) <= SMALL:
        return TOY
    teacher = _network_of(problem)
    if teacher is None:
        return IMAGES
    return OF_AN_MLP if isinstance(teacher, MLP) else COPIED


def _mesh(problem: Problem, config: Config) -> dict[str, Any]:
    """Windows and grid points enough for a second-order scheme to follow the field within one per cent."""
    start = problem.draw(32, torch.Generator().manual_seed(0))
    if not problem.ode.velocity(start, problem.t_start).isfinite().all():
        raise NotFiniteError(
            f"the teacher returned NaN or infinity where its paths start, at t = {problem.t_start:g}: check it there"
        )
    windows = WINDOWS if config.windows is RECIPE else config.windows
    steps = windows * (FEWEST_STEPS if config.n is RECIPE else config.n - 1)
    while (error := problem.coarse_error(steps)) > 0.01 and steps < ENOUGH_STEPS:
        steps *= 2
    if error > 0.01:
        warnings.warn(
            f"{steps} steps may be too few to follow this field from t = {problem.t_start:g} to "
            f"{problem.t_end:g}: check result.evaluate(), and take a shorter span, or larger windows= and n=",
            stacklevel=2,
        )
    if config.windows is RECIPE:
        windows = max(WINDOWS, math.ceil(steps / (MOST_STEPS if config.n is RECIPE else config.n - 1)))
    return {"windows": windows, "n": math.ceil(steps / windows) + 1}


def _network_of(problem: Problem) -> nn.Module | None:
    """The network within a teacher, as a student's: where it is one of ours, or an adapted one that sees images."""
    teacher = problem.ode.denoiser if isinstance(problem.ode, DenoiserODE) else None
    if isinstance(teacher, AdaptedDenoiser | NoisePredictor):
        return teacher.as_student(problem.t_start) if len(problem.event_shape) > 1 and _has_weights(teacher) else None
    return teacher.model if isinstance(teacher, Preconditioned) else None


def _copy(teacher: nn.Module, problem: Problem, init: str) -> nn.Module:
    """A teacher's network as a student's, which starts as ``init`` says.

    The student's network puts out an image, EDM's F what D(z, T) = c_skip z + c_out F is made of. c_skip z is a
    three-hundredth of the data's scale there, so that F times c_out is D.
    """
    network = copy.deepcopy(teacher).requires_grad_(True)
    body = network.network if isinstance(network, AdaptedStudent) else network
    if not isinstance(body, UNet):  # of another make, or of one's own: nothing is known of its last layer
        if init != "teacher" and body is not network:
            raise ValueError(f'a network of another make starts as init="teacher" says, not {init!r}')
        return network
    body.keep_outputs(body.event_shape[0])  # and leave iDDPM's variance out
    if init == "random":
        return type(body)(**body.options).to(next(body.parameters()))
    if init == "teacher" and body is network:
        at = torch.tensor([problem.t_start], dtype=torch.float64)
        body.scale_output(problem.ode.denoiser.coefficients(at).c_out.item())  # type: ignore[attr-defined]  # of a Preconditioned
    return body if init == "official" else network


def _has_weights(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _mlp(problem: Problem, teacher: MLP | None) -> MLP:
    """A new MLP; of an MLP teacher, a larger one that reads its input at the teacher's frequencies.

    Those are where the teacher can turn, and in many dimensions a student with others errs a fifth more, while the
    teacher's weights are worth nothing beside them (python -m benchmarks.images).
    """
    options: dict[str, Any] = {"label_dim": problem.label_dim}
    if math.prod(problem.event_shape) > SMALL:
        options |= {"width": 384, "depth": 4, "norm": teacher is None}
    if teacher is None:
        return MLP(problem.event_shape, **options)
    network = MLP(problem.event_shape, fourier=teacher.frequencies.shape[1], **options)
    network.frequencies.copy_(teacher.frequencies)
    return network


def as_trajectory(network: nn.Module, problem: Problem) -> Trajectory:
    """A network F(x, time, class_labels=None) as a student of the problem."""
    if problem.sigma_data is None:
        return Trajectory(network, problem.t_start, t_min=problem.t_end, boundary="increment", time="linear", c_in=1.0)
    return Trajectory(
        network,
        problem.t_start,
        t_min=problem.t_end,
        sigma_data=problem.sigma_data,
        event_shape=problem.event_shape,
    )


def _windows(problem: Problem, config: Config) -> Windows:
    edges = torch.linspace(problem.t_start, problem.t_end, config.windows + 1, dtype=torch.float64).tolist()
    mean, scale = problem.location.flatten(), problem.spread.flatten()
    windows = []
    for one, two in pairwise(edges):
        network = ChebyshevMLP(problem.event_shape)
        network.standardise(mean, scale, scale / abs(two - one))
        windows.append(Trajectory(network, one, t_min=two, boundary="increment", time="linear", c_in=1.0))
    student = Windows(windows)
    if (size := sum(p.numel() for p in student.parameters())) > 20e6:
        warnings.warn(
            f"the default student of an ODE of shape {problem.event_shape} has {size / 1e6:.0f} million weights: it is "
            f"made for few dimensions; pass a network of your own as student, or, if it is a flow-matching model's "
            f"velocity, distil pidlearn.teachers.from_flow(velocity) in its place",
            stacklevel=2,
        )
    return student
