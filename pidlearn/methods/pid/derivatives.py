"""Derivative schemes: how the time derivative of a path is computed from the path.

A scheme is a function ``(path, grid, index) -> [(t, y, dy/dt), ...]``. ``path(t_0, t_1, ...)`` evaluates the path at
several times at once, each (B,), and returns as many values (B, *event). The residual is averaged over the points
that a scheme returns; all but `trapezoid` return one. With h = t_i - t_{i+1}:

    forward     (y_i - y_{i+1}) / h                                order 1: zero residual is Euler's method
    central     the parabola through y_i and two neighbours        order 2
    exact       forward-mode automatic differentiation             no grid needed
    can         (y_i - y_{i+1}) / h + (y'_i - y'_{i+1}) / 2        order 2, couples neighbours and their derivatives
    trapezoid   (y_i - y_{i+1}) / h at both ends of the interval   order 2: in velocity form, zero residual is the
                                                                   trapezoidal rule

The last grid point has no next one: there the differences go backwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

import torch
from torch import Tensor
from torch.autograd import forward_ad

from pidlearn.utils.broadcast import expand_like, jvp_in_time

__all__ = ["SCHEMES", "Path", "Scheme", "can", "central", "exact", "forward", "trapezoid"]

Path = Callable[..., tuple[Tensor, ...]]
Scheme = Callable[[Path, Tensor, Tensor], list[tuple[Tensor, Tensor, Tensor]]]


def needs_forward_mode(scheme: Scheme, grid: Tensor, event_shape: Sequence[int]) -> bool:
    """Whether a scheme differentiates the path by forward-mode automatic differentiation, seen by trying it.

    Compiled networks then compute value and derivative together, and activation checkpointing, which loses tangents, is
    refused.
    """
    path = _Straight(event_shape)
    with suppress(Exception):  # a scheme that fails here fails in the first step of the training, which reports it
        scheme(path, grid, torch.arange(len(grid) - 1))
    return path.is_differentiated


class _Straight:
    """The path x(t) = t in every coordinate, (B, *event) at each time (B,), noting whether it is differentiated."""

    def __init__(self, event_shape: Sequence[int]) -> None:
        self.event_shape, self.is_differentiated = event_shape, False

    def __call__(self, *times: Tensor) -> tuple[Tensor, ...]:
        self.is_differentiated |= any(forward_ad.unpack_dual(t).tangent is not None for t in times)
        return tuple(t.reshape(-1, *[1] * len(self.event_shape)).expand(-1, *self.event_shape) for t in times)

    def jvp(self, *times: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        self.is_differentiated = True
        values = self(*times)
        return values, tuple(map(torch.ones_like, values))


def forward(path: Path, grid: Tensor, index: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Forward difference towards the next grid point (PID's choice, section 4.2)."""
    t, t_next = grid[index], grid[_next(grid, index)]
    y, y_next = path(t, t_next)
    # In Eq. 9 with the hard boundary: lhs = F_{i+1} + beta (F_{i+1} - F_i), beta = t_{i+1} (1 - t_i / T) / h,
    # about 21 on average at N = 250 and 85 at N = 1000: rounding of F is amplified by up to 2 beta + 1.
    return [(t, y, _quotient(y, y_next, t, t_next))]


def central(path: Path, grid: Tensor, index: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Slope at t_i of the parabola through y_i and its two neighbours, on any grid.

    At either end of the grid the two nearest points on the inner side are used. On a grid of two points it is the
    forward difference.
    """
    if len(grid) == 2:
        return forward(path, grid, index)
    last = len(grid) - 1
    # s = t_{i+1} and r = t_{i-1}; at either end of the grid the two nearest points on the inner side.
    before = torch.where(index == 0, 2, torch.where(index == last, last - 2, index - 1))
    t, s, r = grid[index], grid[_next(grid, index)], grid[before]
    y, y_s, y_r = path(t, s, r)
    to_s, to_r = _quotient(y, y_s, t, s), _quotient(y, y_r, t, r)  # (B, *event) each
    # Newton's divided differences: the slope is linear in the distance to t, and wanted at distance 0.
    # The weights sum to 1; both are 1/2 where the two neighbours are equally far away.
    dydt = expand_like((r - t) / (r - s), y) * to_s + expand_like((t - s) / (r - s), y) * to_r
    return [(t, y, dydt)]


def exact(path: Path, grid: Tensor, index: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Forward-mode automatic differentiation (`torch.func.jvp`) at t_i alone."""
    t = grid[index]
    (y,), (dydt,) = path_jvp(path, t)  # (B, *event) each: no neighbour, so no amplified rounding
    return [(t, y, dydt)]


def can(path: Path, grid: Tensor, index: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Coupled automatic-numerical differentiation (CAN-PINN, Chiu et al. 2022, second-order upwind form).

    The automatic derivatives carry the path from t_i to t_i + h/2 and from t_{i+1} to t_{i+1} + h/2, which lie h apart
    with t_i in the middle; the difference quotient is [(y_i + y'_i h/2) - (y_{i+1} + y'_{i+1} h/2)] / h.
    """
    t, t_next = grid[index], grid[_next(grid, index)]
    (y, y_next), (dydt, dydt_next) = path_jvp(path, t, t_next)
    # Taylor at t_i: the quotient is y' - (h/2) y'' + O(h^2), the second term (h/2) y'' + O(h^2): first order cancels.
    return [(t, y, _quotient(y, y_next, t, t_next) + 0.5 * (dydt - dydt_next))]


def trapezoid(path: Path, grid: Tensor, index: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """One finite difference, compared with the field at both endpoints of the interval."""
    t, t_next = grid[index], grid[_next(grid, index)]
    y, y_next = path(t, t_next)
    slope = _quotient(y, y_next, t, t_next)
    # pid_loss averages both sides over the points: in velocity form, slope = (f_i + f_{i+1}) / 2.
    return [(t, y, slope), (t_next, y_next, slope)]


SCHEMES: dict[str, Scheme] = {
    "forward": forward,
    "central": central,
    "exact": exact,
    "can": can,
    "trapezoid": trapezoid,
}


def _next(grid: Tensor, index: Tensor) -> Tensor:
    last = len(grid) - 1
    return torch.where(index < last, index + 1, index - 1)  # backwards at the last point


def _quotient(y: Tensor, y_next: Tensor, t: Tensor, t_next: Tensor) -> Tensor:
    return (y - y_next) / expand_like(t - t_next, y)


def path_jvp(path: Path, *times: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Values and time derivatives of a path; by its own ``jvp``, which may be compiled, if it has one."""
    own = getattr(path, "jvp", None)
    return own(*times) if own else jvp_in_time(path, *times)
