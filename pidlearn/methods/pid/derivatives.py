"""Derivative schemes: how the time derivative of a path is read off the path.

A scheme is a function ``(path, grid, index) -> [(t, y, dy/dt), ...]``. ``path(t_0, t_1, ...)`` evaluates the path at
several times at once, each (B,), and returns as many values (B, *event). The residual is averaged over the points
that a scheme returns; all but `trapezoid` return one. Writing h = t_i - t_{i+1}:

    forward     (y_i - y_{i+1}) / h                                order 1: zero residual is Euler's method
    central     the parabola through y_i and two neighbours        order 2
    exact       forward-mode automatic differentiation             no grid needed
    can         (y_i - y_{i+1}) / h + (y'_i - y'_{i+1}) / 2        order 2, couples neighbours and their derivatives
    trapezoid   (y_i - y_{i+1}) / h at both ends of the interval   order 2: zero residual is the trapezoidal rule

At the last grid point there is no next one and the differences look back.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pidlearn.utils.broadcast import expand, with_slopes

__all__ = ["SCHEMES", "Path", "Scheme", "can", "central", "exact", "forward", "trapezoid"]

Path = Callable[..., tuple[Tensor, ...]]
Scheme = Callable[[Path, Tensor, Tensor], list[tuple[Tensor, Tensor, Tensor]]]


def forward(path: Path, grid: Tensor, index: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Forward difference towards the next grid point (PID's choice, section 4.2)."""
    t, t_next = grid[index], grid[_next(grid, index)]
    y, y_next = path(t, t_next)
    return [(t, y, _quotient(y, y_next, t, t_next))]


def central(path: Path, grid: Tensor, index: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Slope at t_i of the parabola through y_i and its two neighbours, on any grid.

    At either end of the grid the two nearest points on the inner side serve. A grid of two points has no parabola;
    there it is the forward difference.
    """
    if len(grid) == 2:
        return forward(path, grid, index)
    last = len(grid) - 1
    before = torch.where(index == 0, 2, torch.where(index == last, last - 2, index - 1))
    t, s, r = grid[index], grid[_next(grid, index)], grid[before]
    y, y_s, y_r = path(t, s, r)
    to_s, to_r = _quotient(y, y_s, t, s), _quotient(y, y_r, t, r)
    # Newton's divided differences: the two slopes, extrapolated to zero distance from t.
    dydt = expand((r - t) / (r - s), y) * to_s + expand((t - s) / (r - s), y) * to_r
    return [(t, y, dydt)]


def exact(path: Path, grid: Tensor, index: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Forward-mode automatic differentiation (`torch.func.jvp`) at t_i alone."""
    t = grid[index]
    (y,), (dydt,) = _slopes(path, t)
    return [(t, y, dydt)]


def can(path: Path, grid: Tensor, index: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Coupled automatic-numerical differentiation (CAN-PINN, Chiu et al. 2022, second-order upwind form).

    The value half-way across each interval is carried there from one side by the automatic derivative, and two such
    values are differenced: (y_i + y'_i h/2) - (y_{i+1} + y'_{i+1} h/2), over h.
    """
    t, t_next = grid[index], grid[_next(grid, index)]
    (y, y_next), (dydt, dydt_next) = _slopes(path, t, t_next)
    return [(t, y, _quotient(y, y_next, t, t_next) + 0.5 * (dydt - dydt_next))]


def trapezoid(path: Path, grid: Tensor, index: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """One difference, held against the field at both of its ends."""
    t, t_next = grid[index], grid[_next(grid, index)]
    y, y_next = path(t, t_next)
    slope = _quotient(y, y_next, t, t_next)
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
    return torch.where(index < last, index + 1, index - 1)


def _quotient(y: Tensor, y_next: Tensor, t: Tensor, t_next: Tensor) -> Tensor:
    return (y - y_next) / expand(t - t_next, y)


def _slopes(path: Path, *times: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Values and automatic derivatives, as the path itself takes them, compiled perhaps, if it does."""
    own = getattr(path, "with_slopes", None)
    return own(*times) if own else with_slopes(path, *times)
