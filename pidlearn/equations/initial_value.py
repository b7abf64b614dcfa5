"""Any ODE from random initial values, in either direction of time."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from pidlearn.equations.diffusion import device_of
from pidlearn.equations.grids import warn_of_coarse_times
from pidlearn.equations.ode import ODE
from pidlearn.equations.problem import Prior, Problem, Spacing
from pidlearn.equations.solvers import INTEGRATORS, PROBES, solve, walk
from pidlearn.utils.arguments import check_argument, one_of
from pidlearn.utils.random import PROCESS_STATE, seeded
from pidlearn.utils.validation import NotFiniteError, describe_tensor, summary

__all__ = ["InitialValueProblem", "initial_value"]


@dataclass(frozen=True, repr=False)
class InitialValueProblem(Problem):
    """dx/dt = f(x, t) from values that the prior draws at ``t_start``.

    Attributes:
        integrator: method of the reference solution: "dopri5", or SciPy's "Radau" (for stiff fields), "DOP853", ...
        rtol: its relative tolerance.
        atol: its absolute tolerance; by default 1e-8 of each coordinate's scale.
    """

    integrator: str = "dopri5"
    rtol: float = 1e-8
    atol: float | None = None

    @property
    def data_scale(self) -> float:
        """1, and unused by the recipes, which sample the times of an ODE uniformly."""
        return 1.0

    @property
    def mean(self) -> Tensor:
        """Mean of each coordinate over the paths, (*event)."""
        return self._coarse_paths.mean

    @cached_property
    def std(self) -> Tensor:
        """Standard deviation of each coordinate over the paths, (*event) float64; never zero."""
        return _at_least_rounding(self._coarse_paths.std, self._coarse_paths.size)

    @cached_property
    def _coarse_paths(self) -> _CoarsePaths:
        """A few coarsely solved paths at 401 equally spaced times; the prior's own values where none can be solved."""
        start = self.sample_prior(128, torch.Generator().manual_seed(0)).to(self.exact_dtype)  # (128, *event)
        # Heun's error falls as h^2: with a quarter of the step it is about a sixteenth. Most fields pass at 100 steps.
        for steps in (100, 400, 1600, 6400):
            if self.coarse_error(steps) < 0.1:
                finer = max(1, steps // 400)
                grid = torch.linspace(self.t_start, self.t_end, 400 * finer + 1, dtype=torch.float64)
                # Every finer-th point: 401 times of each path, whatever the step.
                return _coarse_paths(islice(walk(self.ode, start, grid, "heun"), 0, None, finer))
        return replace(_coarse_paths([self.sample_prior(4096, torch.Generator().manual_seed(0))]), probes=None)

    def coarse_error(self, steps: int) -> float:
        """Relative RMSE between Heun's paths with ``steps`` equal steps and with twice as many; inf if they explode."""
        start = self.sample_prior(32, torch.Generator().manual_seed(0)).to(self.exact_dtype)
        grid = torch.linspace(self.t_start, self.t_end, 2 * steps + 1, dtype=torch.float64)
        # Both yield the steps + 1 times of the coarse grid; the fine paths take two steps from one to the next.
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
        error, mean, square = torch.stack(moments).mean(0)  # (times, 3, *event) -> three of (*event)
        # Per coordinate, since each may have units of its own.
        std = (square - mean.square()).clamp(min=0).sqrt()  # Var b = E b^2 - (E b)^2, which can round below 0
        # RMSE over std, a pure number per coordinate, then its RMS over the coordinates.
        return (error.sqrt() / _at_least_rounding(std, square.sqrt())).square().mean().sqrt().item()

    @cached_property
    def exact_dtype(self) -> torch.dtype:
        """float64 where the field accepts it, else the prior's dtype."""
        start = self.sample_prior(1, torch.Generator().manual_seed(0))
        try:
            self.ode.velocity(start.double(), self.t_start)
        except Exception:  # whatever a field of one dtype raises, such as its own AssertionError
            return start.dtype
        return torch.float64

    def check_teacher(self, steps: int) -> None:
        """Warn if the field, which takes the time in the dtype of x, cannot distinguish the times of a path."""
        start = self.sample_prior(PROBES, torch.Generator().manual_seed(0))
        warn_of_coarse_times(self.plot_grid(steps + 1), start, self.ode.velocity, stacklevel=4)

    def time_grid(self, n: int, spacing: Spacing) -> Tensor:
        """n equally spaced times: no end of the span is singular, so ``spacing`` is not used."""
        return self.plot_grid(n)

    def plot_grid(self, n: int) -> Tensor:
        """n equally spaced times, in either direction."""
        return torch.linspace(self.t_start, self.t_end, n, dtype=torch.float64)

    def residual_unit(self, grid: Tensor) -> Tensor:
        """One standard deviation of each coordinate per length of the grid, (*event): the residual is a velocity."""
        # A residual of 1 in this unit, kept up over the whole grid, shifts the path by one standard deviation.
        return self.std / (grid[-1] - grid[0]).abs().item()

    @property
    def rhs_scale(self) -> Tensor:
        """One standard deviation of each coordinate per length of the span."""
        return self.std / abs(self.t_end - self.t_start)

    @property
    def _scale_shape(self) -> tuple[int, ...]:
        return self.event_shape

    def reference(self, z: Tensor, grid: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """The path to a tolerance, in float64 where the field accepts it.

        Raises:
            ValueError: an integrator that is not known, or that does not get to the end of the span.
        """
        check_argument("integrator", self.integrator, one_of("dopri5", *INTEGRATORS))
        # (*event): one absolute tolerance per coordinate, since each may have units of its own.
        options: dict[str, Any] = {"rtol": self.rtol, "atol": 1e-8 * self.std if self.atol is None else self.atol}
        method = self.integrator
        if method != "dopri5":
            method, options = "scipy", {**options, "integrator": method}
        return solve(self.ode, z.to(self.exact_dtype), grid, method, **options)

    def reference_samples(self, z: Tensor, grid: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """The end of that path, (B, *event)."""
        return self.reference(z, grid[[0, -1]])[-1]  # two times suffice: the integrator chooses its own steps

    def probes(self, z: Tensor) -> list[tuple[Tensor, float]]:
        """The initial values themselves, at equal steps of time."""
        return [(z, self.t_start + share * (self.t_end - self.t_start)) for share in (0.25, 0.5, 0.75)]

    def coarse_paths(self) -> tuple[Tensor, Tensor]:
        """Four paths at 17 equally spaced times; the initial values where no path can be solved."""
        paths = self._coarse_paths.probes  # (17, 4, *event)
        paths = self._starts().expand(17, 4, *self.event_shape) if paths is None else paths
        # float64 where possible: a stiff field, -1e6 (x - cos t), amplifies the rounding of float32.
        return self.plot_grid(17), paths.to(self.exact_dtype)


@dataclass(frozen=True)
class _CoarsePaths:
    """What is kept of paths: mean, standard deviation and root mean square of each coordinate, (*event) float64.

    And four paths at every 25th time, (17, 4, *event).
    """

    mean: Tensor
    std: Tensor
    size: Tensor
    probes: Tensor | None


def _coarse_paths(points: Iterable[Tensor]) -> _CoarsePaths:
    """Summarize points (B, *event), one time after another: all of a field's would take gigabytes."""
    count, mean, scatter, square, probes = 0, torch.zeros(()), torch.zeros(()), torch.zeros(()), []
    for i, now in enumerate(points):
        x = now.double()
        n, delta = len(x), x.mean(0) - mean
        # Means are subtracted before anything is squared (Chan et al. 1979): of values far from 0, squares would lose
        # the digits that vary.
        scatter = scatter + (x - x.mean(0)).square().sum(0) + delta.square() * (count * n / (count + n))
        mean, square, count = mean + delta * (n / (count + n)), square + x.square().sum(0), count + n
        if i % 25 == 0:
            probes.append(x[:4])
    return _CoarsePaths(mean, (scatter / (count - 1)).sqrt(), (square / count).sqrt(), torch.stack(probes))


def initial_value(
    ode: ODE, prior: Prior | None, t_start: float | None, t_end: float | None, integrator: str = "dopri5"
) -> InitialValueProblem:
    """Any ODE from prior-distributed values at t_start to t_end, in either direction of time.

    Raises:
        ValueError: a missing prior or span, or a prior that does not return floating (n, *event) finite values.
    """
    if prior is None or t_start is None or t_end is None:
        raise ValueError(
            "got a bare ODE without prior or span: pass prior=, a function (n, generator=None) -> (n, *event) of "
            "initial values, and the span t_start=, t_end="
        )
    if not (math.isfinite(t_start) and math.isfinite(t_end)) or t_start == t_end:
        raise ValueError(f"got t_start = {t_start}, t_end = {t_end}, but a span needs two different, finite times")
    with PROCESS_STATE:  # a prior may draw from torch's own generator
        shape = _event_shape(prior)
        if not _is_reproducible(prior):
            prior = partial(_draw_seeded, prior)  # not a local function, so that the problem can be pickled
        reproducible = _is_reproducible(prior)
    if not reproducible:
        raise ValueError(
            "prior(2, generator=g) differs from call to call with the same g, so no run could be repeated or resumed: "
            "draw from the generator that is passed, as in torch.randn(n, 2, generator=generator)"
        )
    device = device_of(getattr(ode, "f", None))
    return InitialValueProblem(ode, prior, float(t_start), float(t_end), shape, ode, device, integrator=integrator)


def _at_least_rounding(std: Tensor, size: Tensor) -> Tensor:
    """Standard deviations (*event), in units of their own each, where they exceed the rounding of float32.

    A coordinate that stays constant is measured in the rounding of its own size; one that is zero, in that of others.
    """
    largest = size.max()
    # Never in that of others where it has a size: units may differ by more than 1e12. 1e-5 is 80 epsilons of float32.
    least = torch.where(size > 0, 1e-5 * size, 1e-12 * largest)
    # 1 where all coordinates are zero, so that quotients exist.
    return torch.maximum(std, torch.where(largest > 0, least, 1.0))


def _event_shape(prior: Prior) -> tuple[int, ...]:
    try:
        probe = prior(2, generator=torch.Generator().manual_seed(0))
    except TypeError as error:
        raise ValueError(
            f"got prior = {summary(prior)}, but prior must be a function (n, generator=None) -> (n, *event): {error}"
        ) from error
    usable = isinstance(probe, Tensor) and probe.is_floating_point() and probe.ndim >= 2 and len(probe) == 2
    if not usable or not probe.isfinite().all():
        raise ValueError(
            f"prior(2) returned {describe_tensor(probe)}, but must return 2 finite floating values (2, *event)"
        )
    return tuple(probe.shape[1:])


def _is_reproducible(prior: Prior) -> bool:
    return torch.equal(*(prior(2, generator=torch.Generator().manual_seed(0)) for _ in range(2)))


def _draw_seeded(prior: Prior, n: int, generator: torch.Generator | None = None) -> Tensor:
    """n values of a prior that ignores its generator, made to depend on it, so that runs can be repeated."""
    # The generator's state determines the seed, and the seed determines the draws of the prior.
    seed = int(torch.randint(2**62, (), generator=generator))
    with seeded(seed):
        return prior(n, generator=generator)
