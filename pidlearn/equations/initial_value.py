"""Any ODE from random initial values, in either direction of time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import torch
from torch import Tensor

from pidlearn.equations.diffusion import device_of
from pidlearn.equations.ode import ODE
from pidlearn.equations.problem import Prior, Problem, Spacing
from pidlearn.equations.solvers import solve, walk
from pidlearn.utils.random import seeded
from pidlearn.utils.validation import NotFiniteError, describe_tensor

__all__ = ["InitialValueProblem", "initial_value"]


@dataclass(frozen=True, repr=False)
class InitialValueProblem(Problem):
    """dx/dt = f(x, t) from values that the prior draws at ``t_start``.

    Attributes:
        integrator: SciPy's method for the reference solution.
    """

    integrator: str = "DOP853"

    @property
    def data_scale(self) -> float:
        """1, and unused by the recipes, which sample the times of an ODE uniformly."""
        return 1.0

    @cached_property
    def mean(self) -> Tensor:
        """Mean of each coordinate over the paths, (*event)."""
        return self._path_points.mean(0)

    @cached_property
    def std(self) -> Tensor:
        """Standard deviation of each coordinate over the paths, (*event); never zero."""
        # A coordinate that stays constant is measured in a thousandth of the others' size.
        least = 1e-3 * self._path_points.flatten(1).norm(dim=1).mean()
        return torch.maximum(self._path_points.std(0), least).clamp(min=1e-12)

    @cached_property
    def _path_points(self) -> Tensor:
        """Points (n, *event) along a few coarsely solved paths; the prior's own where no path stays bounded."""
        start = self.sample_prior(128, torch.Generator().manual_seed(0))
        for finer in (1, 4, 16):
            if self.coarse_error(400 * finer) < 0.1:
                grid = torch.linspace(self.t_start, self.t_end, 400 * finer + 1, dtype=torch.float64)
                path = torch.stack(list(islice(walk(self.ode, start, grid, "heun"), 0, None, finer)))
                if path.abs().max() < 1e4 * (1 + start.abs().max()):
                    return path.flatten(0, 1)
        return self.sample_prior(4096, torch.Generator().manual_seed(0))

    def coarse_error(self, steps: int) -> float:
        """Relative RMSE between Heun's paths with ``steps`` equal steps and with twice as many; inf if they explode."""
        start = self.sample_prior(32, torch.Generator().manual_seed(0)).to(self.exact_dtype)
        grid = torch.linspace(self.t_start, self.t_end, 2 * steps + 1, dtype=torch.float64)
        coarse, fine = walk(self.ode, start, grid[::2], "heun"), islice(walk(self.ode, start, grid, "heun"), 0, None, 2)
        # Squares are summed about the mean start: of values far from 0 they would lose the digits that vary.
        middle = start.double().mean(0)
        moments = []  # per time: mean (a - b)^2, mean b, mean b^2, each (*event)
        try:
            for one, two in zip(coarse, fine, strict=True):
                a, b = one.double() - middle, two.double() - middle
                moments.append(torch.stack([(a - b).square().mean(0), b.mean(0), b.square().mean(0)]))
        except NotFiniteError:
            return math.inf
        error, mean, square = torch.stack(moments).mean(0)
        # Per coordinate, since each may have units of its own; the clamp keeps constant ones from dividing by zero.
        variance = (square - mean.square()).clamp(min=1e-12 * (1e-300 + square.max().item()))
        return (error / variance).mean().sqrt().item()

    @cached_property
    def exact_dtype(self) -> torch.dtype:
        """float64 where the field accepts it, else the prior's dtype."""
        start = self.sample_prior(1, torch.Generator().manual_seed(0))
        try:
            self.ode.velocity(start.double(), self.t_start)
        except (ValueError, RuntimeError):
            return start.dtype
        return torch.float64

    def time_grid(self, n: int, spacing: Spacing) -> Tensor:
        """n equally spaced times: no end of the span is singular, so ``spacing`` is not used."""
        return self.plot_grid(n)

    def plot_grid(self, n: int) -> Tensor:
        """n equally spaced times, in either direction."""
        return torch.linspace(self.t_start, self.t_end, n, dtype=torch.float64)

    def residual_unit(self, grid: Tensor) -> Tensor:
        """One standard deviation of each coordinate per length of the grid, (*event): the residual is a velocity."""
        return self.std / (grid[-1] - grid[0]).abs().item()

    def reference(self, z: Tensor, grid: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """SciPy's path, in float64 where the field accepts it."""
        atol = 1e-8 * self.std.min().item()
        z = z.to(self.exact_dtype)
        return solve(self.ode, z, grid, "scipy", integrator=self.integrator, rtol=1e-8, atol=atol)

    def reference_samples(self, z: Tensor, grid: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """The end of SciPy's path, (B, *event)."""
        return self.reference(z, grid[[0, -1]])[-1]

    def probes(self, z: Tensor) -> list[tuple[Tensor, float]]:
        """The initial values themselves, at equal steps of time."""
        return [(z, self.t_start + share * (self.t_end - self.t_start)) for share in (0.25, 0.5, 0.75)]


def initial_value(
    ode: ODE, prior: Prior | None, t_start: float | None, t_end: float | None, integrator: str = "DOP853"
) -> InitialValueProblem:
    """Any ODE from prior-distributed values at t_start to t_end, in either direction of time.

    Raises:
        ValueError: a missing prior or span, or a prior that does not return floating (n, *event) finite values.
    """
    if prior is None or t_start is None or t_end is None:
        raise ValueError(
            "a bare ODE needs prior=, a function (n, generator=None) -> (n, *event) of initial values, and its span "
            "t_start=, t_end="
        )
    if not (math.isfinite(t_start) and math.isfinite(t_end)) or t_start == t_end:
        raise ValueError(f"got t_start = {t_start}, t_end = {t_end}, but a span needs two different, finite times")
    shape = _event_shape(prior)
    if not _is_reproducible(prior):
        prior = _seeded_by_generator(prior)
    if not _is_reproducible(prior):
        raise ValueError(
            "prior(2, generator=g) differs from call to call with the same g, so no run could be repeated or resumed: "
            "draw from the generator that is passed, as in torch.randn(n, 2, generator=generator)"
        )
    device = device_of(getattr(ode, "f", None))
    return InitialValueProblem(ode, prior, float(t_start), float(t_end), shape, ode, device, integrator=integrator)


def _event_shape(prior: Prior) -> tuple[int, ...]:
    try:
        probe = prior(2, generator=torch.Generator().manual_seed(0))
    except TypeError as error:
        raise ValueError(f"prior must be a function (n, generator=None) -> (n, *event): {error}") from error
    usable = isinstance(probe, Tensor) and probe.is_floating_point() and probe.ndim >= 2 and len(probe) == 2
    if not usable or not probe.isfinite().all():
        raise ValueError(
            f"prior(2) returned {describe_tensor(probe)}, but must return 2 finite floating values (2, *event)"
        )
    return tuple(probe.shape[1:])


def _is_reproducible(prior: Prior) -> bool:
    return torch.equal(*(prior(2, generator=torch.Generator().manual_seed(0)) for _ in range(2)))


def _seeded_by_generator(prior: Prior) -> Prior:
    """A prior that ignores its generator, made to depend on it, so that runs can be repeated."""

    def draw(n: int, generator: torch.Generator | None = None) -> Tensor:
        seed = int(torch.randint(2**62, (), generator=generator))
        with seeded(seed):
            return prior(n, generator=generator)

    return draw
