"""What `pid_loss` checks. Each function raises a ValueError that says what came and what to do."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor

from pidlearn.equations.ode import ODE, DenoiserODE
from pidlearn.utils.validation import NotFiniteError, check_labels, check_real, extremes, what


def finite(lhs: Tensor, rhs: Tensor, t: Tensor) -> None:
    """Raise if either side of the residual is not finite, and say whose fault it is."""
    if (lhs.sum() + rhs.sum()).isfinite():  # one pass, for this is asked at every step
        return
    if not lhs.isfinite().all():
        raise NotFiniteError("the student returned NaN or infinity: its weights are damaged, or it has diverged")
    if rhs.isfinite().all():
        return
    bad = ~rhs.isfinite().flatten(1).all(1)
    raise NotFiniteError(
        f"the teacher returned NaN or infinity for {int(bad.sum())} of {len(bad)} samples, first at "
        f"t = {t[bad][0].item():.4g}: check it at that time"
    )


def one_each(loss: Tensor, index: Tensor) -> Tensor:
    """A distance's result, once it is one number a sample."""
    if loss.shape != index.shape:
        raise ValueError(f"a distance returns one number a sample, {tuple(index.shape)}; got {tuple(loss.shape)}")
    return loss


def weight(values: Tensor, t: Tensor) -> Tensor:
    """A weighting's result at the times t, once it is one usable number each."""
    if not isinstance(values, Tensor) or values.shape != t.shape:
        raise ValueError(f"a weight returns one number for each time, {tuple(t.shape)}; got {what(values)}")
    low, high = extremes(values)
    if not (low >= 0 and high < math.inf):
        usable = values.isfinite() & (values >= 0)
        raise ValueError(
            f"the weight is {values[~usable][0].item():g} at t = {t[~usable][0].item():g}: choose one that is finite "
            f"and not negative on the whole grid, such as 'uniform'"
        )
    return values


def student_output(values: tuple[Tensor, ...], z: Tensor, grid: Tensor, body: torch.dtype | None = None) -> None:
    """Raise if the student changes the shape; warn if what it computes differences of is in half precision."""
    for y in values:
        if not isinstance(y, Tensor):
            raise ValueError(f"the student must return a tensor of the shape of z, but returned {what(y)}")
        if y.shape != z.shape:
            raise ValueError(f"the student must return the shape of z, {tuple(z.shape)}, but returned {tuple(y.shape)}")
    dtype = body or values[0].dtype
    if len(values) > 1 and torch.finfo(dtype).bits < 32:
        _warn_of_rounding(dtype, grid)


def usable(
    trajectory: Any,
    ode: ODE,
    z: Tensor,
    grid: Tensor,
    index: Tensor,
    last: str,
    class_labels: Tensor | None,
) -> Tensor:
    """The grid as float64 on z's device, once everything fits."""
    if not hasattr(trajectory, "t_max"):
        raise TypeError("a trajectory needs an attribute t_max, the time at which x(z, t_max) = z")
    if not isinstance(z, Tensor) or not z.is_floating_point() or z.ndim < 2 or not len(z):
        raise ValueError(f"z must be a floating (B, *event) tensor with B >= 1, got {what(z)}")
    if not hasattr(ode, "lhs"):
        raise TypeError(f"ode must be a DenoiserODE, a VelocityODE or one of their shape, got {type(ode).__name__}")
    check_real(z=z)
    grid = check_grid(grid, ode, trajectory.t_max).to(z.device)
    if not isinstance(index, Tensor) or index.dtype != torch.int64 or index.shape != z.shape[:1]:
        raise ValueError(f"index must be an int64 tensor of shape ({len(z)},), got {what(index)}")
    check_labels(class_labels, len(z), getattr(trajectory, "label_dim", 0))
    for name, given in (("index", index), ("class_labels", class_labels)):
        if given is not None and given.device != z.device:
            raise ValueError(f"{name} is on {given.device} but z is on {z.device}")
    if not z.isfinite().all():
        raise ValueError("z holds NaN or infinity")
    if last not in ("drop", "backward"):
        raise ValueError(f'last must be "drop" or "backward", got {last!r}')
    top = len(grid) - (2 if last == "drop" else 1)
    low, high = extremes(index)
    if low < 0 or high > top:
        raise ValueError(f'with N = {len(grid)} and last="{last}", index must lie in 0..{top}; got {low}..{high}')
    return grid


def check_grid(grid: Tensor, ode: ODE, t_max: float) -> Tensor:
    """A usable grid as float64: (N >= 2,), strictly monotone away from t_max, positive for a denoiser.

    Warns if it starts beyond t_max.
    """
    if not isinstance(grid, Tensor) or not grid.is_floating_point() or grid.ndim != 1 or len(grid) < 2:
        raise ValueError(f"a grid is a floating tensor of N >= 2 times, got {what(grid)}")
    check_real(grid=grid)
    grid = grid.double()
    step = grid.diff()
    if not ((step < 0).all() or (step > 0).all()):
        raise ValueError("a grid must be finite and strictly monotone, from the prior to the sample end")
    start, end = grid[0].item(), grid[-1].item()
    beyond = math.copysign(1.0, end - start) * (start - t_max)
    slack = 1e-6 * max(abs(t_max), abs(end - start))  # a grid may come in float32
    if beyond < -slack:
        raise ValueError(
            f"a grid starts at t_max, where x(z, t_max) = z, and leads away from it; this one runs from {start:g} to "
            f"{end:g}, and t_max = {t_max:g}" + ("; flip it" if abs(end - t_max) < slack else "")
        )
    if isinstance(ode, DenoiserODE) and not (end > 0 and start > end):
        raise ValueError(f"a denoiser's grid falls from t_max to a t_min > 0; this one runs from {start:g} to {end:g}")
    if beyond > slack:
        warnings.warn(
            f"the grid starts at {start:g}, the paths at t_max = {t_max:g}: nothing holds the student in between",
            stacklevel=4,
        )
    return grid


def _warn_of_rounding(dtype: torch.dtype, grid: Tensor) -> None:
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
