"""Checks of `pid_loss`: each raises an error that says what was received, what was expected and what to do."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor

from pidlearn.equations.ode import ODE, DenoiserODE
from pidlearn.methods.pid.derivatives import Path, Scheme
from pidlearn.utils.validation import (
    NotFiniteError,
    check_labels,
    check_not_complex,
    check_real,
    describe_tensor,
    extremes,
    reraise_from_function,
)


def finite(lhs: Tensor, rhs: Tensor, t: Tensor) -> None:
    """Raise if either side of the residual is not finite, and name the side."""
    if (lhs.sum() + rhs.sum()).isfinite():  # a single pass, because this runs in every training step
        return
    if not lhs.isfinite().all():
        raise NotFiniteError("the student returned NaN or infinity: check its weights")
    if rhs.isfinite().all():
        return
    bad = ~rhs.isfinite().flatten(1).all(1)
    raise NotFiniteError(
        f"the teacher returned NaN or infinity for {int(bad.sum())} of {len(bad)} samples, first at "
        f"t = {t[bad][0].item():.4g}: check it at that time"
    )


def linear(ode: ODE, t: Tensor) -> None:
    """Raise if the path's side is not linear at times t (N,): the loss applies it to the terms of a student."""
    name = f"{type(ode).__name__}.lhs"
    x, dxdt = torch.linspace(-1, 2, len(t)).to(t), torch.linspace(3, -2, len(t)).to(t)
    try:
        one, three = (ode.lhs(k * x, k * dxdt, t) for k in (1, 3))
    except (RuntimeError, ValueError, IndexError) as error:
        reason = str(error).partition("\n")[0][:150]
        raise ValueError(
            f"{name} failed for x and dxdt of shape ({len(t)},) ({reason}), but must take them: the loss applies it to "
            f"one number per sample, a(t). Use the same factor for all coordinates"
        ) from error
    if not torch.allclose(three, 3 * one, equal_nan=True):
        raise ValueError(
            f"{name}(3 x, 3 dxdt, t) must be 3 {name}(x, dxdt, t), since the loss applies it to the terms of a "
            f"student one by one, but it is not: move what is constant to rhs, and what is not linear to the distance"
        )


def points(scheme: Scheme, path: Path, grid: Tensor, index: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """The points (t, y, dy/dt) of a derivative scheme."""
    with reraise_from_function("function derivative=", "derivative(path, grid, index)"):
        values = scheme(path, grid, index)
    if not isinstance(values, list | tuple) or not all(isinstance(v, list | tuple) and len(v) == 3 for v in values):
        raise ValueError(
            f"the function derivative= returned {describe_tensor(values)}, but must return a list of (t, y, dy/dt), as "
            f"the schemes in pidlearn.derivative do"
        )
    return values


def student_output(
    values: tuple[Tensor, ...], z: Tensor, grid: Tensor, compute_dtype: torch.dtype | None = None
) -> None:
    """Check that the student's values are real, of the shape of z; warn of differences of half-precision numbers."""
    for y in values:
        if not isinstance(y, Tensor):
            raise ValueError(f"the student returned {describe_tensor(y)}, but must return a tensor of the shape of z")
        if y.shape != z.shape:
            raise ValueError(f"the student returned {tuple(y.shape)}, but must return the shape of z, {tuple(z.shape)}")
        check_not_complex("the student", y)
    dtype = compute_dtype or values[0].dtype
    if len(values) > 1 and torch.finfo(dtype).bits < 32:
        _warn_of_rounding(dtype, grid)


def validate_inputs(
    trajectory: Any,
    ode: ODE,
    z: Tensor,
    grid: Tensor,
    index: Tensor,
    last_interval: str,
    class_labels: Tensor | None,
) -> Tensor:
    """Check the inputs of `pid_loss`; returns the grid as float64 on z's device."""
    if not hasattr(trajectory, "t_max"):
        raise TypeError(
            f"got a {type(trajectory).__name__} without t_max, but a trajectory needs an attribute t_max, the time at "
            f"which x(z, t_max) = z"
        )
    if not isinstance(z, Tensor) or not z.is_floating_point() or z.ndim < 2 or not len(z) or z.layout != torch.strided:
        raise ValueError(f"got {describe_tensor(z)} for z, but z must be a floating (B, *event) tensor with B >= 1")
    if not hasattr(ode, "lhs"):
        raise TypeError(
            f"got {type(ode).__name__} for ode, but ode must be a DenoiserODE, a VelocityODE or have their methods"
        )
    check_real(z=z)
    grid = check_grid(grid, ode, trajectory.t_max).to(z.device)
    indices = isinstance(index, Tensor) and index.dtype == torch.int64 and index.layout == torch.strided
    if not indices or index.shape != z.shape[:1]:
        raise ValueError(
            f"got {describe_tensor(index)} for index, but index must be an int64 tensor of shape ({len(z)},)"
        )
    check_labels(class_labels, len(z), getattr(trajectory, "label_dim", 0))
    for name, given in (("index", index), ("class_labels", class_labels)):
        if given is not None and given.device != z.device:
            raise ValueError(f"{name} is on {given.device} but z is on {z.device}: move one of them")
    if not z.isfinite().all():
        raise ValueError("z holds NaN or infinity: pass finite samples")
    if not isinstance(last_interval, str) or last_interval not in ("drop", "backward"):
        raise ValueError(f'got last_interval = {last_interval!r}, but last_interval must be "drop" or "backward"')
    top = len(grid) - (2 if last_interval == "drop" else 1)
    low, high = extremes(index)
    if low < 0 or high > top:
        raise ValueError(
            f'got index {low}..{high}, but with N = {len(grid)} and last_interval="{last_interval}" it must lie in '
            f"0..{top}"
        )
    return grid


def check_grid(grid: Tensor, ode: ODE, t_max: float) -> Tensor:
    """Check a grid, and return it as float64: (N >= 2,), strictly monotone away from t_max, positive for a denoiser.

    Warns if it starts beyond t_max.
    """
    times = isinstance(grid, Tensor) and grid.is_floating_point() and grid.layout == torch.strided
    if not times or grid.ndim != 1 or len(grid) < 2:
        raise ValueError(f"got {describe_tensor(grid)}, but a grid must be a floating tensor of N >= 2 times")
    check_real(grid=grid)
    grid = grid.double()
    step = grid.diff()
    if not ((step < 0).all() or (step > 0).all()):
        raise ValueError(
            "got times that turn around, repeat or are not finite, but a grid must be finite and strictly monotone, "
            "from the prior to the sample end"
        )
    start, end = grid[0].item(), grid[-1].item()
    beyond = math.copysign(1.0, end - start) * (start - t_max)
    slack = 1e-6 * max(abs(t_max), abs(end - start))  # a grid may come in float32
    if beyond < -slack:
        raise ValueError(
            f"got a grid from {start:g} to {end:g}, but it must start at t_max = {t_max:g}, where x(z, t_max) = z, and "
            f"lead away from it" + ("; flip it" if abs(end - t_max) < slack else "")
        )
    if isinstance(ode, DenoiserODE) and not (end > 0 and start > end):
        raise ValueError(f"got a grid from {start:g} to {end:g}, but a denoiser's must fall from t_max to a t_min > 0")
    if beyond > slack:
        warnings.warn(
            f"the grid starts at {start:g} but the paths at t_max = {t_max:g}: the student is not constrained in "
            f"between",
            stacklevel=4,
        )
    return grid


def _warn_of_rounding(dtype: torch.dtype, grid: Tensor) -> None:
    # With the hard boundary the denoiser form's lhs is F - t (1 - t/T) dF/dt. Its forward difference is
    # F_{i+1} + beta_i (F_{i+1} - F_i) with beta_i = t_{i+1} (1 - t_i/T) / (t_i - t_{i+1}), which amplifies the rounding
    # of F by up to 2 beta_i + 1.
    t, t_next = grid[:-1], grid[1:]
    much = "much"
    if grid[0] > grid[-1] > 0:  # a diffusion's
        beta = t_next * (1 - t / grid[0]) / (t - t_next)
        factor = (2 * beta + 1).mean().item()
        much = f"by about {factor:.0f}, to {factor * torch.finfo(dtype).eps:.0%} of the signal"
    warnings.warn(
        f"the student computes in {dtype}, and differences on a grid of {len(grid)} points multiply its rounding "
        f"{much}: run the student in float32, or use derivative='exact', which does not amplify",
        stacklevel=4,
    )
