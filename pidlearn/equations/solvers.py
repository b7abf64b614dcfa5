"""Solvers of dx/dt = f(x, t), written for reading: each is a class with one step, and one loop serves all.

A solver has one method, ``step(f, x, t, t_next)``. `walk` takes the steps along a grid; `solve` also keeps the path.
With h = t_next - t, which is negative from prior to sample:

    euler    x + h f(x, t)                                    order 1, one call of f per step
    heun     x + h (f(x, t) + f(x', t_next)) / 2              order 2, two calls (Karras et al. 2022)
             with x' = x + h f(x, t)
    dpm      x + h f(x_mid, t_mid)                            order 2, two calls (DPM-Solver-2, Lu et al. 2022)
             with t_mid = sqrt(t t_next), x_mid = x + (t_mid - t) f(x, t)
    dpm++    (t_next / t) (x - D_mid) + D_mid                 order 2, one call (DPM-Solver++(2M), Lu et al. 2022)
             with D = x - t f(x, t), extrapolated to mid-step from this step and the one before
    dopri5   Dormand and Prince's 5(4), with a step size      to a tolerance, see `pidlearn.equations.adaptive`
             of its own for each sample
    scipy    `scipy.integrate.solve_ivp`                      to a tolerance, all samples as one system
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from pidlearn.equations.adaptive import dopri5
from pidlearn.equations.grids import warn_of_coarse_times
from pidlearn.equations.ode import ODE
from pidlearn.utils.arguments import FUNCTION, check_argument, one_of
from pidlearn.utils.batching import call_student, in_chunks
from pidlearn.utils.broadcast import expand_like
from pidlearn.utils.validation import (
    NotFiniteError,
    as_real,
    check_labels,
    check_real,
    describe_tensor,
    reraise_from_function,
    summary,
)

__all__ = ["SOLVERS", "Solver", "checked_times", "solve", "solve_end", "walk"]

Field = Callable[[Tensor, Tensor], Tensor]


class Solver(Protocol):
    """One step of a method. Each solve makes a new instance, so a multi-step method can keep earlier values."""

    @property
    def nfe(self) -> int:
        """Number of function evaluations, calls of f, per step."""
        ...

    def step(self, f: Field, x: Tensor, t: Tensor, t_next: Tensor) -> Tensor:
        """Return x at t_next, (B, *event) like x at t; t and t_next are float64, 0-d or one per sample, (B,)."""
        ...


class Euler:
    """Euler's method: follow the tangent at the start of the step."""

    nfe = 1

    def step(self, f: Field, x: Tensor, t: Tensor, t_next: Tensor) -> Tensor:
        """x + h f(x, t)."""
        # For a denoiser this is (t_next / t) x + (1 - t_next / t) D: x moves a share of the way towards D.
        return x + expand_like(t_next - t, x) * f(x, t)


class Heun:
    """Heun's method: follow the mean of the tangents at both ends, with the far end predicted by Euler's method."""

    nfe = 2

    def step(self, f: Field, x: Tensor, t: Tensor, t_next: Tensor) -> Tensor:
        """x + h (f(x, t) + f(x', t_next)) / 2."""
        h, slope = expand_like(t_next - t, x), f(x, t)
        if t_next.ndim == 0 and t_next == 0:
            return x + h * slope  # the probability flow (x - D) / t is singular at t = 0, so EDM ends with Euler
        return x + h * (slope + f(x + h * slope, t_next)) / 2  # the trapezoidal rule, with x' for x(t_next)


class DPM:
    """DPM-Solver-2 for variance-exploding noise: the midpoint rule, with the midpoint in ln t."""

    nfe = 2

    def step(self, f: Field, x: Tensor, t: Tensor, t_next: Tensor) -> Tensor:
        """x + h f(x_mid, t_mid), with t_mid = sqrt(t t_next)."""
        # The geometric mean is about h^2 / (8 t) below the arithmetic one: the midpoint rule keeps its order, 2.
        t_mid = (t * t_next).sqrt()  # ln t_mid is half-way between ln t and ln t_next
        x_mid = x + expand_like(t_mid - t, x) * f(x, t)
        return x + expand_like(t_next - t, x) * f(x_mid, t_mid)


class DPMPlusPlus:
    """DPM-Solver++(2M), a two-step method.

    With D = x - t f(x, t) and s = -ln t, the ODE is dx/ds = D - x. Its linear part is solved exactly, and only D, which
    changes slowly, is approximated.
    """

    nfe = 1

    def __init__(self) -> None:
        self.previous: tuple[Tensor, Tensor] | None = None  # D at the start of the step before, and its length in s

    def step(self, f: Field, x: Tensor, t: Tensor, t_next: Tensor) -> Tensor:
        """(t_next / t) (x - D_mid) + D_mid, the exact solution if D were constant and equal to D_mid."""
        # f = (x - D) / t, so x - t f is the denoised sample; ds > 0 is the step in s = -ln t.
        D, ds = x - expand_like(t, x) * f(x, t), (t / t_next).log()
        D_mid = D  # of the first step, which makes it an Euler step
        if self.previous is not None:
            D_previous, ds_previous = self.previous
            # D is linear in s through the starts of both steps; the middle of this one is ds / 2 further on.
            D_mid = D + expand_like(ds / (2 * ds_previous), x) * (D - D_previous)
        self.previous = D, ds
        # x(s + ds) = e^(-ds) (x - D) + D solves dx/ds = D - x for constant D, and e^(-ds) = t_next / t.
        return expand_like(t_next / t, x) * (x - D_mid) + D_mid


FIELD = (lambda v: hasattr(v, "velocity"), "a DenoiserODE, a VelocityODE or an object with their velocity(x, t)")

PROBES = 32
"""Number of starts at which a field is tried for its dependence on time: at one of them, such as 0, it may vanish."""

MAX_CALLS = 100_000
"""Calls of the vector field after which SciPy is stopped, instead of keeping the caller waiting."""

ADAPTIVE: dict[str, set[str]] = {"dopri5": set(), "scipy": {"integrator"}}
"""Methods that choose their steps themselves, with the options that they take besides rtol and atol."""

INTEGRATORS = ("DOP853", "Radau", "RK45", "RK23", "BDF", "LSODA")
"""SciPy's methods."""

IMPLICIT, MAX_IMPLICIT = ("Radau", "BDF"), 1024
"""Those that factorize matrices, and the most numbers whose matrix they factorize at once."""

SOLVERS: dict[str, Callable[[], Solver]] = {"euler": Euler, "heun": Heun, "dpm": DPM, "dpm++": DPMPlusPlus}


def solve(
    ode: ODE,
    x: Tensor,
    grid: Tensor | Sequence[float],
    method: str | Callable[[], Solver] = "euler",
    class_labels: Tensor | None = None,
    *,
    start: Callable[..., Tensor] | None = None,
    **options: Any,
) -> Tensor:
    """Solve an ODE from ``grid[0]`` to ``grid[-1]`` and return the path.

    Args:
        ode: an ODE, or any object with ``velocity(x, t, class_labels)``.
        x: (B, *event), the values at ``grid[0]``. The vector field is evaluated in its dtype.
        grid: (N,) times, N >= 2, strictly decreasing or strictly increasing.
        method: euler | heun | dpm | dpm++ | dopri5 | scipy, or a `Solver` class.
        class_labels: (B,) int64 or None.
        start: a student x(z, t). Then x is the noise z, and the path starts at the student's state at ``grid[0]``.
        options: for "dopri5" and "scipy": ``rtol`` and ``atol`` (by default 1e-10 for float64 and 1e-5 for float32;
            ``atol`` may be one number per coordinate, (*event)). For "scipy" also ``integrator``: "DOP853", or "Radau"
            for stiff systems.

    Returns:
        (N, B, *event); the first entry is x, or the student's state.

    Raises:
        ValueError: an unknown method, invalid x, grid or labels, or an integration that does not converge.
        NotFiniteError: a path that becomes NaN or infinite.
    """
    check_argument("ode", ode, FIELD)
    if start is not None:
        check_argument("start", start, FUNCTION)
        x = _state(start, x, grid, class_labels)
    if isinstance(method, str) and method in ADAPTIVE:
        times = checked_times(x, grid, class_labels)
        # An adaptive solver chooses its own steps, whatever the grid: a hundred are few.
        hundred = torch.linspace(times[0].item(), times[-1].item(), 101, dtype=torch.float64)
        warn_of_coarse_times(hundred, *_at_starts(ode, x, class_labels), stacklevel=2)
        rtol, atol = (_tolerance(options.pop(name, None), name, x) for name in ("rtol", "atol"))
        if unknown := options.keys() - ADAPTIVE[method]:
            raise ValueError(f"method = {method!r} got the unknown options {sorted(unknown)}: leave them out")
        with torch.no_grad():
            if method == "scipy":
                return _scipy_in_parts(ode, x, times, class_labels, rtol, atol, **options)
            return dopri5(ode, x, times, class_labels, rtol, atol).to(x)
    if options:
        raise ValueError(f"method = {method!r} got the options {sorted(options)}: only {[*ADAPTIVE]} take options")
    return torch.stack(list(walk(ode, x, grid, method, class_labels)))


@torch.no_grad()
def _state(student: Callable[..., Tensor], z: Tensor, grid: Any, class_labels: Tensor | None) -> Tensor:
    """The student's state at ``grid[0]``, (B, *event)."""
    if not getattr(student, "has_path", True):
        raise ValueError(
            f"got start = {summary(student)}, which has no path x(z, t): pass a student that is defined at grid[0], "
            f"such as PID's"
        )
    time = checked_times(z, grid, class_labels)[0].item()
    x = in_chunks(lambda z, labels: call_student(student, z, time, labels), z, class_labels)
    if not isinstance(x, Tensor) or x.shape != z.shape:
        raise ValueError(
            f"start returned {describe_tensor(x)}, but must keep the shape of x, {tuple(z.shape)}: pass a student "
            f"x(z, t)"
        )
    return x


@torch.no_grad()
def walk(
    ode: ODE,
    x: Tensor,
    grid: Tensor | Sequence[float],
    method: str | Callable[[], Solver] = "euler",
    class_labels: Tensor | None = None,
) -> Iterator[Tensor]:
    """Yield the points of the path one by one, x first, without keeping the path; methods as in `solve`, but SciPy."""
    if method not in SOLVERS if isinstance(method, str) else not callable(method):
        raise ValueError(
            f"got method = {method!r}, but method must be one of {[*SOLVERS, *ADAPTIVE]} or a Solver class"
        )
    times = checked_times(x, grid, class_labels)
    warn_of_coarse_times(times, *_at_starts(ode, x, class_labels), stacklevel=3)
    if method in ("dpm", "dpm++") and not (times > 0).all():
        raise ValueError(f"got a grid with times that are not positive, but {method} steps in ln t: use heun")
    with reraise_from_function("solver", "Solver()"):
        solver = SOLVERS[method]() if isinstance(method, str) else method()
    if not hasattr(solver, "step"):
        raise ValueError(
            f"method returned {describe_tensor(solver)}, but method must make a Solver, with step(f, x, t, t_next)"
        )

    def f(x: Tensor, t: Tensor) -> Tensor:
        if t.ndim:  # of a solver that takes one time per sample
            return ode.velocity(x, t, class_labels)
        return in_chunks(lambda x, labels: ode.velocity(x, t, labels), x, class_labels)

    yield x
    for t, t_next in pairwise(times):
        x = solver.step(f, x, t, t_next)
        if not x.isfinite().all():
            raise NotFiniteError(
                f"the path became NaN or infinite between t = {t:.4g} and {t_next:.4g}: the vector field is not finite "
                f"there, or the steps are too long; check the field, or use a finer grid"
            )
        yield x


def solve_end(
    ode: ODE,
    x: Tensor,
    grid: Tensor | Sequence[float],
    method: str | Callable[[], Solver] = "euler",
    class_labels: Tensor | None = None,
) -> Tensor:
    """The last point of `walk`, (B, *event), computed in chunks of samples and without keeping the path."""

    def end(x: Tensor, class_labels: Tensor | None) -> Tensor:
        # maxlen=1 keeps only the last point in memory.
        return deque(walk(ode, x, grid, method, class_labels), maxlen=1).pop()

    return in_chunks(end, x, class_labels)


def checked_times(x: Tensor, grid: Tensor | Sequence[float], class_labels: Tensor | None) -> Tensor:
    """Check the arguments of a solver and return the grid as float64."""
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim < 2 or not len(x) or x.layout != torch.strided:
        raise ValueError(
            f"got {describe_tensor(x)} for x, but x must be a floating-point tensor (B, *event) with B >= 1"
        )
    check_real(x=x)
    times = as_real("grid", grid, torch.float64)
    if not x.isfinite().all():
        raise ValueError("x holds NaN or infinity: pass finite initial values")
    check_labels(class_labels, len(x))
    steps = times.diff() if times.ndim == 1 else times
    if times.ndim != 1 or len(times) < 2 or not ((steps > 0).all() or (steps < 0).all()):
        raise ValueError(
            f"got a grid of shape {tuple(times.shape)}, but it must hold N >= 2 times, finite and strictly monotone"
        )
    return times


def _at_starts(ode: ODE, x: Tensor, class_labels: Tensor | None) -> tuple[Tensor, Callable[[Tensor, Tensor], Tensor]]:
    """The first starts (b, *event), and their vector field as a function of x and time."""
    labels = None if class_labels is None else class_labels[:PROBES]
    return x[:PROBES], lambda x, t: ode.velocity(x, t, labels)


def _tolerance(value: Any, name: str, x: Tensor) -> Tensor:
    """A tolerance as float64: a number, or for ``atol`` also one per coordinate (*event)."""
    if value is None:
        value = 1e-10 if x.dtype == torch.float64 else 1e-5  # far above rounding: 2e-16 and 1e-7
    tolerance = as_real(name, value)
    shapes = [(), x.shape[1:]] if name == "atol" else [()]
    if tolerance.shape not in shapes or not (tolerance > 0).all():
        raise ValueError(f"got {name} = {value!r:.200}, but tolerances are positive numbers")
    return tolerance.to(x.device, torch.float64)


def _scipy_in_parts(
    ode: ODE,
    x: Tensor,
    grid: Tensor,
    class_labels: Tensor | None,
    rtol: Tensor,
    atol: Tensor,
    integrator: str = "DOP853",
) -> Tensor:
    """SciPy's solution; in chunks of starts if the integrator factorizes matrices."""
    check_argument("integrator", integrator, one_of(*INTEGRATORS))
    size = max(1, MAX_IMPLICIT // x[0].numel()) if integrator in IMPLICIT else len(x)
    starts = x.split(size)
    labels = [None] * len(starts) if class_labels is None else class_labels.split(size)
    parts = zip(starts, labels, strict=True)
    return torch.cat([_scipy(ode, chunk, grid, label, rtol, atol, integrator) for chunk, label in parts], 1)


def _scipy(
    ode: ODE,
    x: Tensor,
    grid: Tensor,
    class_labels: Tensor | None,
    rtol: Tensor,
    atol: Tensor,
    integrator: str,
) -> Tensor:
    from scipy.integrate import solve_ivp

    times = grid.numpy(force=True)
    solution = solve_ivp(
        _as_scipy_field(ode, x, class_labels, integrator),
        (times[0], times[-1]),
        x.double().flatten().numpy(force=True),  # the whole batch as one system of B * event equations
        method=integrator,
        t_eval=times,
        rtol=rtol.item(),
        atol=atol.expand(x.shape).flatten().numpy(force=True),  # (B * event,)
        **_jacobian_options(x, integrator),
    )
    if not solution.success:
        raise ValueError(
            f"{integrator} stopped before t = {times[-1]:g}, so the solution may not exist that far "
            f"({solution.message}): shorten the span"
        )
    path = torch.from_numpy(solution.y.T.copy()).to(x).reshape(-1, *x.shape)  # (B * event, N) -> (N, B, *event)
    path[0] = x  # SciPy interpolates, also at the first time
    return path


def _as_scipy_field(
    ode: ODE, x: Tensor, class_labels: Tensor | None, integrator: str
) -> Callable[[float, np.ndarray], np.ndarray]:
    """Return the vector field as a function of (t, flat float64 array), with a limit on its calls."""
    calls = 0

    def f(t: float, flat: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        if calls > MAX_CALLS:
            raise ValueError(
                f"{integrator} called the vector field {MAX_CALLS} times and did not get past t = {t:.4g}: it is stiff "
                f'there (use integrator="Radau" with rtol=1e-4, atol=1e-6), or jumps (use solve(method="dopri5") or '
                f'result.evaluate(integrator="dopri5"), which step across)'
            )
        # (B * event,) float64 -> (B, *event) in x's dtype.
        slope = ode.velocity(torch.from_numpy(flat).to(x).reshape(x.shape), t, class_labels)
        if not slope.isfinite().all():  # SciPy would halve its step forever
            raise NotFiniteError(f"the vector field is NaN or infinite at t = {t:.4g}: check it there")
        return slope.double().flatten().numpy(force=True)

    return f


def _jacobian_options(x: Tensor, integrator: str) -> dict[str, Any]:
    """The sparsity of the Jacobian, for the implicit methods, which estimate it.

    Samples do not depend on each other, so it is block-diagonal: without that, it would take one call of the field per
    entry of the batch, and linear systems of the whole batch's size.
    """
    from scipy.sparse import block_diag

    if integrator not in IMPLICIT:
        return {}
    block = np.ones((x[0].numel(), x[0].numel()))  # within a sample, any coordinate may depend on any other
    return {"jac_sparsity": block_diag([block] * len(x))}  # (B * event, B * event), sparse
