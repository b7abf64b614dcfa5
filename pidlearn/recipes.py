"""Defaults that work: for each kind of problem the choices, and a student to go with them."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from pidlearn.config import RECIPE, Config
from pidlearn.nets import MLP, ChebyshevMLP, Preconditioned
from pidlearn.ode import DenoiserODE
from pidlearn.problem import Problem
from pidlearn.trajectory import Student, Trajectory, Windows

__all__ = ["config_for", "student_for"]

SMALL = 16
"""Up to so many dimensions a problem counts as a toy."""


DIFFUSION: dict[str, Any] = {
    "warmup": 0.02,
    "n": 250,
    "derivative": "forward",
    "stop_gradient": True,
    "index": "lognormal",
}
TOY: dict[str, Any] = {**DIFFUSION, "steps": 7000, "batch_size": 256, "lr": 6e-3}
IMAGES: dict[str, Any] = {**DIFFUSION, "steps": 7500, "batch_size": 128, "lr": 4e-3}
# A velocity's residual needs its gradient through f, a second-order scheme and short windows.
VELOCITY: dict[str, Any] = {
    "steps": 9500,
    "batch_size": 128,
    "lr": 1e-2,
    "warmup": 0.2,
    "n": 13,
    "derivative": "trapezoid",
    "stop_gradient": False,
    "index": "uniform",
}


def config_for(problem: Problem, config: Config | None = None) -> Config:
    """What ``config`` says, and for all that it leaves to the recipe, the recipe of such a problem."""
    config = config or Config()
    small = math.prod(problem.event_shape) <= SMALL
    recipe = VELOCITY if problem.sigma_data is None else TOY if small else IMAGES
    choices = {**recipe, "t_max": problem.t_start, "t_min": problem.t_end}
    return replace(config, **{name: choice for name, choice in choices.items() if getattr(config, name) is RECIPE})


def student_for(problem: Problem, config: Config) -> Student:
    """A student to train; for a teacher with a convolutional network it starts from a copy of that network."""
    if problem.sigma_data is None:
        return _windows(problem, config)
    small = math.prod(problem.event_shape) <= SMALL
    teacher = problem.ode.denoiser if isinstance(problem.ode, DenoiserODE) else None
    if isinstance(teacher, Preconditioned) and not isinstance(teacher.model, MLP):
        network = copy.deepcopy(teacher.model).requires_grad_(True)
    else:
        # For an MLP teacher a larger student is worth more than a warm start (python -m benchmarks.images).
        size: dict[str, Any] = {} if small else {"width": 384, "depth": 4, "norm": True}
        network = MLP(problem.event_shape, label_dim=problem.label_dim, **size)
    return as_trajectory(network, problem)


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
    return Windows(windows)
