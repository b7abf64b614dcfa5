"""From a teacher, as the user passed it, to the problem that it poses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from os import PathLike
from pathlib import Path
from typing import Any

from torch import nn

from pidlearn.equations.diffusion import default_span, diffusion
from pidlearn.equations.initial_value import initial_value
from pidlearn.equations.ode import DenoiserODE
from pidlearn.equations.problem import Prior, Problem
from pidlearn.equations.systems import SYSTEMS, System
from pidlearn.utils.wrappers import unwrapped

__all__ = ["modules_of", "problem_from_teacher"]


TOYS = ("anisotropic", "checkerboard", "grid", "moons", "ring", "spiral")
"""Names that `pidlearn.toy` takes, for the errors of `distill("ring")`."""


def problem_from_teacher(
    teacher: Any,
    t_start: float | None = None,
    t_end: float | None = None,
    prior: Prior | None = None,
    event_shape: Sequence[int] | None = None,
) -> Problem:
    """The problem that a teacher poses: a denoiser's probability flow, or an ODE from given initial values.

    A `System` has a prior and span of its own; those that are passed replace them. A diffusion runs over
    `default_span`. Networks are put into eval mode.

    Raises:
        TypeError: a teacher that cannot be called, or is a class.
        ValueError: see `diffusion` and `initial_value`.
    """
    if isinstance(teacher, type):
        raise TypeError(
            f"got the class {teacher.__name__}, but a teacher must be an object of it: pass {teacher.__name__}(...)"
        )
    for module in modules_of(teacher):
        module.eval()
    if isinstance(teacher, System):
        t_start = teacher.t_start if t_start is None else t_start
        t_end = teacher.t_end if t_end is None else t_end
        integrator = "Radau" if teacher.stiff else "dopri5"
        return replace(initial_value(teacher.ode, prior or teacher.prior, t_start, t_end, integrator), teacher=teacher)
    plain = unwrapped(teacher)
    advice = _how_to_wrap(plain)
    if advice or not (callable(teacher) or hasattr(plain, "rhs")):
        raise TypeError(
            f"got a teacher of type {type(teacher).__name__}, but it must be a callable denoiser D(x, sigma), a System "
            f"or an ODE" + (f": {advice}" if advice else "")
        )
    if hasattr(plain, "rhs") and not isinstance(plain, DenoiserODE):
        return initial_value(plain, prior, t_start, t_end)
    if prior is not None:
        raise ValueError("a diffusion starts from N(0, t_max^2): leave prior out, or wrap the teacher in VelocityODE")
    default_start, default_end = default_span(teacher)
    t_start = default_start if t_start is None else t_start
    t_end = default_end if t_end is None else t_end
    return diffusion(teacher, t_start, t_end, event_shape)


def _how_to_wrap(teacher: Any) -> str:
    """The line that makes a teacher of what users have at hand; empty for anything else."""
    if isinstance(teacher, str | PathLike):
        if Path(teacher).exists():
            return f"pidlearn.load_teacher({str(teacher)!r})"
        functions = {**dict.fromkeys(SYSTEMS, "system"), **dict.fromkeys(TOYS, "toy")}
        if Path(teacher).suffix == "" and (close := get_close_matches(str(teacher), functions, 1)):
            return f"did you mean pidlearn.{functions[close[0]]}({close[0]!r})?"
        return f"there is no file or folder {str(teacher)!r}; pass the path of one to pidlearn.load_teacher"
    if hasattr(teacher, "unet") and hasattr(teacher, "scheduler"):
        return "pidlearn.teachers.from_diffusers(pipeline)"
    if type(teacher).__module__.startswith("diffusers.") and isinstance(teacher, nn.Module):
        return "pidlearn.teachers.from_diffusers(unet, scheduler)"
    return ""


def modules_of(teacher: Any) -> list[nn.Module]:
    """The networks inside a teacher."""
    parts = (teacher, getattr(teacher, "denoiser", None), getattr(teacher, "f", None))
    return [part for part in parts if isinstance(part, nn.Module)]
