"""Solvers of dx/dt = f(x, t), as teaching objects: one step each, one loop for all.

The loop, `walk`, goes along a grid point by point, and `solve` keeps the path; a solver is a class with one method,
``step(f, x, t, t_next)``.
With h = t_next - t:

    euler    x + h f(x, t)                                                         order 1, one call of f
    heun     x + h (f(x, t) + f(x', t_next)) / 2, x' Euler's (Karras et al. 2022)  order 2, two calls
    dpm      x + h f at the point half-way in ln t (DPM-Solver-2, Lu et al. 2022)  order 2, two calls
    dpm++    two-step method on D = x - t f (DPM-Solver++(2M), Lu et al. 2022)     order 2, one call
    scipy    `scipy.integrate.solve_ivp` to a tolerance                            the reference
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from pidlearn.equations.ode import ODE
from pidlearn.utils.broadcast import expand
from pidlearn.utils.validation import NotFiniteError, check_labels, check_real, what

__all__ = ["SOLVERS", "Solver", "solve", "walk"]

Field = Callable[[Tensor, Tensor], Tensor]


class Solver(Protocol):
    """One step of a method. An instance lives for one solve, so a multi-step method may remember."""

    @property
    def nfe(self) -> int:
        """Calls of f a step."""
        ...

    def step(self, f: Field, x: Tensor, t: Tensor, t_next: Tensor) -> Tensor:
        """The value at t_next, of x's shape; t and t_next are 0-d float64."""
        ...


class Euler:
    """Follow the tangent."""

    nfe = 1

    def step(self, f: Field, x: Tensor, t: Tensor, t_next: Tensor) -> Tensor:
        """x + h f(x, t)."""
        return x + expand(t_next - t, x) * f(x, t)


class Heun:
    """Follow the mean of the tangents at both ends, the far end guessed by Euler."""

    nfe = 2

    def step(self, f: Field, x: Tensor, t: Tensor, t_next: Tensor) -> Tensor:
        """x + h (f + f') / 2; plain Euler into t = 0, where the probability flow is singular."""
        h, slope = expand(t_next - t, x), f(x, t)
        if t_next == 0:
            return x + h * slope
        return x + h * (slope + f(x + h * slope, t_next)) / 2


class DPM:
    """DPM-Solver-2 for noise of growing variance: the midpoint rule with its midpoint taken in ln t."""

    nfe = 2

    def step(self, f: Field, x: Tensor, t: Tensor, t_next: Tensor) -> Tensor:
        """x + h f(x_mid, t_mid), t_mid = sqrt(t t_next)."""
        t_mid = (t * t_next).sqrt()
        x_mid = x + expand(t_mid - t, x) * f(x, t)
        return x + expand(t_next - t, x) * f(x_mid, t_mid)


class DPMPlusPlus:
    """DPM-Solver++(2M). With s = -ln t the flow is dx/ds = D - x: linear but for D, which moves slowly."""

    nfe = 1

    def __init__(self) -> None:
        self.before: tuple[Tensor, Tensor] | None = None

    def step(self, f: Field, x: Tensor, t: Tensor, t_next: Tensor) -> Tensor:
        """The exact solution for a constant D, which is extrapolated to mid-step from the last two."""
        d, ds = x - expand(t, x) * f(x, t), (t / t_next).log()
        d_mid = d
        if self.before is not None:
            d_before, ds_before = self.before
            d_mid = d + expand(ds / (2 * ds_before), x) * (d - d_before)
        self.before = d, ds
        return expand(t_next / t, x) * (x - d_mid) + d_mid


MOST_CALLS = 100_000
"""So often SciPy may ask the field, before its caller is told rather than kept waiting."""

SOLVERS: dict[str, Callable[[], Solver]] = {"euler": Euler, "heun": Heun, "dpm": DPM, "dpm++": DPMPlusPlus}


def solve(
    ode: ODE,
    x: Tensor,
    grid: Tensor | Sequence[float],
    method: str | Callable[[], Solver] = "euler",
    class_labels: Tensor | None = None,
    **options: Any,
) -> Tensor:
    """Carry x from ``grid[0]`` to ``grid[-1]`` and keep the path.

    Args:
        ode: anything with ``velocity(x, t, class_labels)``.
        x: (B, *event) at ``grid[0]``. f is evaluated in its dtype.
        grid: (N,) strictly monotone times, N >= 2.
        method: euler | heun | dpm | dpm++ | scipy, or a `Solver` class.
        class_labels: (B,) int64 or None.
        options: for "scipy": ``integrator`` ("DOP853", or "Radau" for stiff systems), ``rtol`` and ``atol``, by
            default 1e-10 for float64 and 1e-5 for float32.

    Returns:
        (N, B, *event), the first row being x itself.

    Raises:
        ValueError: unknown method, unusable x, grid or labels, or a reference that does not converge; as a
            `NotFiniteError`, a path that leaves the finite numbers.
    """
    if method == "scipy":
        times = _usable(x, grid, class_labels)
        with torch.no_grad():
            return _scipy(ode, x, times, class_labels, **options)
    if options:
        raise ValueError(f'only method="scipy" takes options, got {sorted(options)}')
    return torch.stack(list(walk(ode, x, grid, method, class_labels)))


@torch.no_grad()
def walk(
    ode: ODE,
    x: Tensor,
    grid: Tensor | Sequence[float],
    method: str | Callable[[], Solver] = "euler",
    class_labels: Tensor | None = None,
) -> Iterator[Tensor]:
    """The points of a solver's path one by one, x first: all of `solve` but SciPy, without the path in memory."""
    if method not in SOLVERS if isinstance(method, str) else not callable(method):
        raise ValueError(f"method must be one of {[*SOLVERS, 'scipy']} or a Solver class, got {method!r}")
    times = _usable(x, grid, class_labels)
    if method in ("dpm", "dpm++") and not (times > 0).all():
        raise ValueError(f"{method} steps in ln t and needs positive times; use heun")
    solver = SOLVERS[method]() if isinstance(method, str) else method()

    def f(x: Tensor, t: Tensor) -> Tensor:
        return ode.velocity(x, t, class_labels)

    yield x
    for t, t_next in pairwise(times):
        x = solver.step(f, x, t, t_next)
        if not x.isfinite().all():
            raise NotFiniteError(
                f"the path became NaN or infinite between t = {t:.4g} and {t_next:.4g}: the field is not finite there, "
                f"or the steps are too long for it"
            )
        yield x


def _usable(x: Tensor, grid: Tensor | Sequence[float], class_labels: Tensor | None) -> Tensor:
    """The grid as float64, once everything fits."""
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim < 2 or not len(x):
        raise ValueError(f"x must be a floating (B, *event) tensor with B >= 1, got {what(x)}")
    times = torch.as_tensor(grid, dtype=torch.float64)
    check_real(x=x, grid=times)
    if not x.isfinite().all():
        raise ValueError("x holds NaN or infinity")
    check_labels(class_labels, len(x))
    steps = times.diff() if times.ndim == 1 else times
    if times.ndim != 1 or len(times) < 2 or not ((steps > 0).all() or (steps < 0).all()):
        raise ValueError(f"solve needs N >= 2 finite, strictly monotone times, got {tuple(times.shape)}")
    return times


def _scipy(
    ode: ODE,
    x: Tensor,
    grid: Tensor,
    class_labels: Tensor | None,
    integrator: str = "DOP853",
    rtol: float | None = None,
    atol: float | None = None,
) -> Tensor:
    from scipy.integrate import solve_ivp
    from scipy.sparse import block_diag

    if any(given is not None and not given > 0 for given in (rtol, atol)):
        raise ValueError(f"tolerances are positive numbers, got rtol = {rtol}, atol = {atol}")
    calls = 0

    def f(t: float, flat: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        if calls > MOST_CALLS:
            raise ValueError(
                f"{integrator} asked the field {MOST_CALLS} times and got no further than t = {t:.4g}: it is stiff "
                f'there (try integrator="Radau"), or not smooth (loosen rtol and atol)'
            )
        at = torch.from_numpy(flat).to(x).reshape(x.shape)
        slope = ode.velocity(at, t, class_labels)
        if not slope.isfinite().all():  # SciPy would halve its step for ever
            raise NotFiniteError(f"the field is NaN or infinite at t = {t:.4g}")
        return slope.double().flatten().numpy(force=True)

    # Samples do not see each other: an implicit method needs to know, or it solves for all of them at once.
    blocks = block_diag([np.ones((x[0].numel(), x[0].numel()))] * len(x)) if integrator in ("Radau", "BDF") else None
    jacobian = {} if blocks is None else {"jac_sparsity": blocks}
    tolerance = 1e-10 if x.dtype == torch.float64 else 1e-5
    times, start = grid.numpy(force=True), x.double().flatten().numpy(force=True)
    out = solve_ivp(
        f,
        (times[0], times[-1]),
        start,
        method=integrator,
        t_eval=times,
        rtol=tolerance if rtol is None else rtol,
        atol=tolerance if atol is None else atol,
        **jacobian,
    )
    if not out.success:
        raise ValueError(
            f"{integrator} stopped before t = {times[-1]:g}, so the solution may not reach that far: {out.message}"
        )
    path = torch.from_numpy(out.y.T.copy()).to(x).reshape(-1, *x.shape)
    path[0] = x
    return path
