"""A zoo of ordinary differential equations, each with its initial values, time span and reference solver.

A student of one of these is a *solution operator*: one network for all initial values that the prior draws.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pidlearn.equations.ode import VelocityODE
from pidlearn.equations.solvers import solve
from pidlearn.utils.arguments import BATCH, GENERATOR, check_argument, check_arguments, number, size
from pidlearn.utils.validation import as_real

__all__ = ["SYSTEMS", "System", "system"]


@dataclass(frozen=True)
class System:
    """An initial value problem: dx/dt = f(x, t) with initial values uniform in a box.

    Attributes:
        f: the vector field, x (B, d) and t (B,) to (B, d).
        low: lower corner of the box, d numbers.
        high: upper corner.
        t_start: time of the initial values.
        t_end: time at which paths end.
        names: names of the d coordinates.
        stiff: whether the reference solution needs an implicit method.
    """

    f: Callable[[Tensor, Tensor], Tensor]
    low: tuple[float, ...]
    high: tuple[float, ...]
    t_start: float
    t_end: float
    names: tuple[str, ...]
    stiff: bool = False

    def __post_init__(self) -> None:
        check_argument("f", self.f, (callable, "a function f(x, t) that returns dx/dt"))
        for name in ("t_start", "t_end"):
            check_argument(name, getattr(self, name), number())
        corners = [as_real(name, getattr(self, name), torch.float64) for name in ("low", "high")]
        texts = isinstance(self.names, list | tuple) and all(isinstance(name, str) for name in self.names)
        if not texts or not self.names or any(corner.shape != (len(self.names),) for corner in corners):
            raise ValueError(
                f"got low = {self.low}, high = {self.high}, names = {self.names}, but they must have one entry for "
                f"each of the d coordinates"
            )
        if not all(corner.isfinite().all() for corner in corners) or (corners[0] > corners[1]).any():
            raise ValueError(
                f"got low = {self.low}, high = {self.high}, but low must be finite and not above high: swap them"
            )
        if self.t_start == self.t_end:
            raise ValueError(f"got t_start = t_end = {self.t_start}, but they must differ: a path needs a span of time")

    @property
    def ode(self) -> VelocityODE:
        """The equation."""
        return VelocityODE(self.f)

    @check_arguments(n=size(), generator=GENERATOR)
    def prior(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Return n initial values (n, d), uniform in the box."""
        low, high = torch.tensor(self.low), torch.tensor(self.high)
        return low + (high - low) * torch.rand(n, len(self.low), generator=generator)

    @check_arguments(x=BATCH)
    def reference(self, x: Tensor, grid: Tensor) -> Tensor:
        """Return SciPy's path from x (B, d) at the times of grid, at rtol 1e-10 in float64: (len(grid), B, d)."""
        return solve(self.ode, x.double(), grid, "scipy", integrator="Radau" if self.stiff else "DOP853")

    def __repr__(self) -> str:
        name = getattr(self.f, "__name__", type(self.f).__name__)
        return f"{type(self).__name__}({name}: {', '.join(self.names)}; t from {self.t_start:g} to {self.t_end:g})"


def pendulum(x: Tensor, t: Tensor) -> Tensor:
    """Damped pendulum: angle' = rate, rate' = -9.81 sin(angle) - 0.2 rate."""
    angle, rate = x.unbind(1)
    return torch.stack([rate, -9.81 * angle.sin() - 0.2 * rate], 1)


def lotka_volterra(x: Tensor, t: Tensor) -> Tensor:
    """Prey p and predators q: p' = 1.5 p - p q, q' = p q - 3 q."""
    p, q = x.unbind(1)
    return torch.stack([1.5 * p - p * q, p * q - 3 * q], 1)


def van_der_pol(x: Tensor, t: Tensor) -> Tensor:
    """Relaxation oscillator: x'' = 2 (1 - x^2) x' - x."""
    y, v = x.unbind(1)
    return torch.stack([v, 2 * (1 - y**2) * v - y], 1)


def lorenz(x: Tensor, t: Tensor) -> Tensor:
    """Lorenz's convection with his parameters 10, 28, 8/3: chaotic, so its time span is one Lyapunov time."""
    a, b, c = x.unbind(1)
    return torch.stack([10 * (b - a), a * (28 - c) - b, a * b - 8 / 3 * c], 1)


def logistic(x: Tensor, t: Tensor) -> Tensor:
    """Logistic growth x' = x (1 - x)."""
    return x * (1 - x)


def stiff(x: Tensor, t: Tensor) -> Tensor:
    """Prothero and Robinson's problem x' = -1000 (x - cos t) - sin t: after a brief transient, x = cos t."""
    return -1000 * (x - t[:, None].cos()) - t[:, None].sin()


SYSTEMS: dict[str, System] = {
    "pendulum": System(pendulum, (-2.5, -2.0), (2.5, 2.0), 0.0, 10.0, ("angle", "rate")),
    "lotka_volterra": System(lotka_volterra, (0.5, 0.5), (2.5, 2.5), 0.0, 7.0, ("prey", "predators")),
    "van_der_pol": System(van_der_pol, (-2.0, -2.0), (2.0, 2.0), 0.0, 10.0, ("x", "v")),
    "lorenz": System(lorenz, (-15.0, -15.0, 10.0), (15.0, 15.0, 40.0), 0.0, 1.1, ("a", "b", "c")),
    "logistic": System(logistic, (0.05,), (2.0,), 0.0, 8.0, ("x",)),
    "stiff": System(stiff, (0.0,), (2.0,), 0.0, 6.0, ("x",), stiff=True),
}


def system(name: str) -> System:
    """Return a system of the zoo by name: pendulum, lotka_volterra, van_der_pol, lorenz, logistic or stiff.

    Raises:
        ValueError: for another name.
    """
    if not isinstance(name, str) or name not in SYSTEMS:
        raise ValueError(f"got {name!r}, but system must be one of {sorted(SYSTEMS)}")
    return SYSTEMS[name]
