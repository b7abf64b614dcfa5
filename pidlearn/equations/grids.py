"""Time grids: the times at which solvers step and at which the residual is evaluated.

A grid is a one-dimensional float64 tensor that decreases from the prior end ``t_max`` to the sample end ``t_min`` and
contains both exactly. Its spacing determines the error of Euler steps and finite differences. The paths of a
diffusion model bend where the noise is about as large as details of the data, which may be fine: EDM's steps are
nearly proportional to t.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from numbers import Integral

import torch
from torch import Tensor

from pidlearn.utils.arguments import check_argument, number
from pidlearn.utils.validation import summary

__all__ = ["GRIDS", "karras_grid", "linear_grid", "log_grid", "warn_of_coarse_times"]


def karras_grid(n: int = 250, t_min: float = 0.002, t_max: float = 80.0, rho: float = 7.0) -> Tensor:
    """EDM's grid: equal steps in t^(1/rho) (Karras et al. 2022, Eq. 5; PID section 4.3).

    Args:
        n: number of points, at least 2.
        t_min: last time (sample end), > 0.
        t_max: first time (prior end), > t_min.
        rho: 1 gives equal steps in t; the larger it is, the closer the steps are to equal steps in ln t.

    Returns:
        (n,) float64, decreasing from exactly ``t_max`` to exactly ``t_min``.

    Raises:
        ValueError: fewer than 2 points, or times that are not positive, finite and decreasing.
    """
    _check(n, t_min, t_max, positive=True)
    check_argument("rho", rho, number())
    if not rho >= 0.1:
        raise ValueError(
            f"got rho = {rho}, but rho must be finite and at least 0.1 (EDM uses 7; log_grid is the limit of large rho)"
        )
    # t_i = (T^(1/rho) + i/(n-1) (t_min^(1/rho) - T^(1/rho)))^rho, i = 0 .. n-1 (Karras et al. 2022, Eq. 5).
    top, bottom = t_max ** (1 / rho), t_min ** (1 / rho)
    # With u = t^(1/rho), dt = rho u^(rho-1) du: steps are proportional to t^(1 - 1/rho), for rho = 7 nearly to t.
    return _pinned(_ramp(n, top, bottom) ** rho, t_max, t_min)


def linear_grid(n: int = 250, t_min: float = 0.002, t_max: float = 80.0) -> Tensor:
    """Grid of equal steps in t; ``t_min`` may be zero or negative. Arguments and result as in `karras_grid`."""
    _check(n, t_min, t_max, positive=False)
    return _pinned(_ramp(n, t_max, t_min), t_max, t_min)  # t_i = T + i/(n-1) (t_min - T)


def log_grid(n: int = 250, t_min: float = 0.002, t_max: float = 80.0) -> Tensor:
    """Grid of equal steps in ln t. Arguments and result as in `karras_grid`."""
    _check(n, t_min, t_max, positive=True)
    bounds = torch.tensor([t_max, t_min], dtype=torch.float64).log()
    # t_i = T (t_min / T)^(i/(n-1)): all steps are the same share of t.
    return _pinned(_ramp(n, *bounds.tolist()).exp(), t_max, t_min)


GRIDS: dict[str, Callable[..., Tensor]] = {"karras": karras_grid, "linear": linear_grid, "log": log_grid}


def warn_of_coarse_times(grid: Tensor, x: Tensor, field: Callable[[Tensor, Tensor], Tensor], stacklevel: int) -> None:
    """Warn if steps of a grid (N,) are not resolved by a vector field f(x, t), which takes t in the dtype of x.

    Args:
        grid: times of the path; the field is not evaluated outside them.
        x: (b, *event), values at ``grid[0]``.
        field: the vector field, as a function of x and one time ().
        stacklevel: as of `warnings.warn`, counted from the caller.
    """
    dtype = x.dtype
    steps = grid.diff().abs()  # (N - 1,)
    # Upper bound on the distance between neighbouring numbers of the dtype: eps |t|, at the larger end of each step.
    spacing = torch.finfo(dtype).eps * torch.maximum(grid[:-1].abs(), grid[1:].abs())
    i = (spacing / steps).argmax()
    # Rounding then shifts the time by up to a twentieth of a step. The steps of a diffusion shrink as t does: EDM's
    # 1000 steps are 1e5 spacings of float32 each.
    if spacing[i] > 0.1 * steps[i]:
        advice = "measure time from the start of the span"
        try:
            depends = _depends_on_time(grid, spacing[i], x, field)
            advice += ", or start from float64 values (a prior that returns float64)"
        except Exception:  # a field that takes no float64, for whatever reason
            depends = _depends_on_rounded_time(grid, spacing[i], x, field)
        if depends:
            warnings.warn(
                f"times near {grid[i]:g} are {spacing[i]:.2g} apart in {dtype}, too coarse for steps of "
                f"{steps[i]:.2g}: {advice}",
                stacklevel=stacklevel + 1,
            )


def _depends_on_time(grid: Tensor, spacing: Tensor, x: Tensor, field: Callable[[Tensor, Tensor], Tensor]) -> bool:
    """Whether f(x, t) at x (b, *event), rounded to the dtype of x, changes as t does by so much within the grid."""
    span = grid[-1] - grid[0]
    # In float64, since all times of the span may be one number of the dtype. The shifts are no whole fraction of the
    # span, which may be a period.
    shift = torch.sign(span) * torch.minimum(spacing, span.abs() / 3.7)
    first, *others = (field(x.double(), grid[0] + k * shift).to(x.dtype) for k in (0, 1, 3))
    return not all(torch.equal(first, other) for other in others)


def _depends_on_rounded_time(
    grid: Tensor, spacing: Tensor, x: Tensor, field: Callable[[Tensor, Tensor], Tensor]
) -> bool:
    """Whether f(x, t) depends on t, as far as a field of x's dtype shows it within the grid."""
    span = grid[-1] - grid[0]
    times = [grid[0] + torch.sign(span) * torch.minimum(k * spacing, span.abs()) for k in (0, 1, 3)]
    if len({t.to(x.dtype).item() for t in times}) > 1:
        first, *others = (field(x, t) for t in times)
        return not all(torch.equal(first, other) for other in others)
    # The field is only ever called at this one time, so that its values do not tell; whether they have a gradient with
    # respect to t does. Without an answer, as from a field under no_grad, a warning would be a guess.
    try:
        with torch.enable_grad():
            x, t = x.detach().requires_grad_(), times[0].clone().requires_grad_()
            (slope,) = torch.autograd.grad(field(x, t).sum(), t, allow_unused=True)
    except Exception:
        return False
    return slope is not None


def _ramp(n: int, first: float, last: float) -> Tensor:
    return torch.linspace(first, last, n, dtype=torch.float64)


def _pinned(grid: Tensor, first: float, last: float) -> Tensor:
    # Powers and logarithms round, but x(z, t_max) = z, the boundary condition, holds only at t_max to the last bit.
    grid[0], grid[-1] = first, last
    if not (grid.diff() < 0).all():
        raise ValueError(
            f"{len(grid)} points from t_max = {first} to t_min = {last} coincide after rounding: use fewer points, a "
            f"wider span, or log_grid in place of a large rho"
        )
    return grid


def _check(n: int, t_min: float, t_max: float, *, positive: bool) -> None:
    if not isinstance(n, Integral) or not 2 <= n < 2**31:
        raise ValueError(f"got n = {summary(n)}, but a grid needs n >= 2 points, a whole number below 2^31")
    check_argument("t_min", t_min, number())
    if not isinstance(t_max, float) or t_max != math.inf:
        check_argument("t_max", t_max, number())
    if not t_min < t_max < float("inf"):
        raise ValueError(
            f"got t_min = {t_min}, t_max = {t_max}, but a grid decreases from t_max to t_min: pass t_min < t_max < inf"
        )
    if positive and not t_min > 0:
        raise ValueError(
            f"got t_min = {t_min}, but this grid needs t_min > 0: use a positive t_min, or linear_grid, which accepts "
            f"any"
        )
