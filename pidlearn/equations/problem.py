"""What is to be solved: the equation, where its paths start, and over what span, read off any kind of teacher."""

from __future__ import annotations

import math
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from pidlearn.equations.ode import ODE, DenoiserODE
from pidlearn.equations.solvers import solve, walk
from pidlearn.equations.systems import System
from pidlearn.utils.batching import ask, in_chunks
from pidlearn.utils.random import seeded
from pidlearn.utils.validation import NotFiniteError, check_shape, what

__all__ = ["Prior", "Problem", "modules_of", "problem_of"]

CPU = torch.device("cpu")
Prior = Callable[..., Tensor]
"""``prior(n, generator=None) -> (n, *event)``: values at the start of the paths."""


@dataclass(frozen=True)
class Problem:
    """An ODE with the distribution of its initial values.

    Attributes:
        ode: the equation.
        prior: draws the paths' starts.
        t_start: the prior end.
        t_end: the sample end.
        event_shape: shape of one sample.
        sigma_data: standard deviation of the data of a diffusion teacher; None for any other ODE.
        label_dim: number of classes of the teacher, 0 for none.
        device: where the teacher lives.
        random: where random numbers are drawn: beside the teacher, or on the CPU for a prior of the user's own.
        integrator: SciPy's method for the reference of an ODE.
        teacher: as the user gave it.
    """

    ode: ODE
    prior: Prior
    t_start: float
    t_end: float
    event_shape: tuple[int, ...]
    sigma_data: float | None
    label_dim: int
    device: torch.device
    teacher: Any
    random: torch.device = CPU
    integrator: str = "DOP853"

    def draw(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n starts (n, *event) on the teacher's device."""
        return self.prior(n, generator=generator).to(self.device)

    def at(self, device: torch.device) -> Problem:
        """The same on another device, for a teacher that can be asked anywhere."""
        return replace(self, device=device, random=self.random if self.sigma_data is None else device)

    @cached_property
    def location(self) -> Tensor:
        """Mean of each coordinate over the paths, (*event)."""
        return self._probe.mean(0)

    @cached_property
    def spread(self) -> Tensor:
        """Standard deviation of each coordinate over the paths, (*event); never zero."""
        least = 1e-3 * self._probe.flatten(1).norm(dim=1).mean()
        return torch.maximum(self._probe.std(0), least).clamp(min=1e-12)

    @cached_property
    def _probe(self) -> Tensor:
        """Points (n, *event) along a few coarsely solved paths, for units alone; the prior's where none is tame."""
        start = self.draw(128, torch.Generator().manual_seed(0))
        for finer in (1, 4, 16):
            if self.coarse_error(400 * finer) < 0.1:
                grid = torch.linspace(self.t_start, self.t_end, 400 * finer + 1, dtype=torch.float64)
                path = torch.stack(list(islice(walk(self.ode, start, grid, "heun"), 0, None, finer)))
                if path.abs().max() < 1e4 * (1 + start.abs().max()):
                    return path.flatten(0, 1)
        return self.draw(4096, torch.Generator().manual_seed(0))

    def coarse_error(self, steps: int) -> float:
        """Relative RMSE between Heun's paths with so many equal steps and with twice as many; inf if they explode."""
        start = self.draw(32, torch.Generator().manual_seed(0)).to(self.exact_dtype)
        grid = torch.linspace(self.t_start, self.t_end, 2 * steps + 1, dtype=torch.float64)
        coarse, fine = walk(self.ode, start, grid[::2], "heun"), islice(walk(self.ode, start, grid, "heun"), 0, None, 2)
        middle = start.double().mean(0)  # about which squares are summed, or their digits are spent on it
        rows = []
        try:
            for one, two in zip(coarse, fine, strict=True):
                a, b = one.double() - middle, two.double() - middle
                rows.append(torch.stack([(a - b).square().mean(0), b.mean(0), b.square().mean(0)]))
        except NotFiniteError:
            return math.inf
        error, mean, square = torch.stack(rows).mean(0)
        # Coordinate by coordinate, for they may have units of their own; one that rests is held to its start.
        variance = (square - mean.square()).clamp(min=1e-12 * (1e-300 + square.max().item()))
        return (error / variance).mean().sqrt().item()

    @cached_property
    def exact_dtype(self) -> torch.dtype:
        """float64 where the field can take it, else that of the prior."""
        start = self.draw(1, torch.Generator().manual_seed(0))
        try:
            self.ode.velocity(start.double(), self.t_start)
        except (ValueError, RuntimeError):
            return start.dtype
        return torch.float64

    def reference(self, z: Tensor, grid: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """The path that a student is measured against, (len(grid), B, *event).

        For a diffusion it is Euler's on ``grid``; else SciPy's, in float64 where the field can take it.
        """
        if self.sigma_data is not None:
            return solve(self.ode, z, grid, "euler", class_labels)
        atol = 1e-8 * self.spread.min().item()
        z = z.to(self.exact_dtype)
        return solve(self.ode, z, grid, "scipy", integrator=self.integrator, rtol=1e-8, atol=atol)

    def reference_ends(self, z: Tensor, grid: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """The last row of `reference`, (B, *event), without the path in memory."""
        if self.sigma_data is None:
            return self.reference(z, grid[[0, -1]])[-1]

        def end(z: Tensor, class_labels: Tensor | None) -> Tensor:
            return deque(walk(self.ode, z, grid, "euler", class_labels), maxlen=1).pop()

        return in_chunks(end, z, class_labels)

    def student_ends(self, student: Callable[..., Tensor], z: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """x(z, t_end) of a student, (B, *event)."""
        return in_chunks(lambda z, labels: ask(student, z, self.t_end, labels), z, class_labels)

    @cached_property
    def fingerprint(self) -> Tensor:
        """The teacher's answers (12, *event) to fixed questions: what tells two teachers of a kind apart."""
        generator = torch.Generator().manual_seed(0)
        z, labels = self.draw(4, generator), self.draw_labels(4, generator)
        answers = []
        for share in (0.25, 0.5, 0.75):
            t, x = self.t_start + share * (self.t_end - self.t_start), z
            if self.sigma_data is not None:
                t = self.t_start * (self.t_end / self.t_start) ** share
                x = z * (t / self.t_start)
            with torch.no_grad():
                answers.append(self.ode.rhs(x, t, labels).cpu())
        return torch.cat(answers)

    def draw_labels(self, n: int, generator: torch.Generator | None = None) -> Tensor | None:
        """n class labels (n,) int64, uniform, or None for a teacher without classes."""
        if not self.label_dim:
            return None
        device = generator.device if generator is not None else CPU
        return torch.randint(self.label_dim, (n,), generator=generator, device=device).to(self.device)


def problem_of(
    teacher: Any,
    t_max: float | None = None,
    t_min: float | None = None,
    prior: Prior | None = None,
    event_shape: Sequence[int] | None = None,
) -> Problem:
    """The problem that a teacher poses: a denoiser's probability flow, or an ODE from given initial values.

    A `System` brings its own prior and span; those that are given take their place. A diffusion runs from 80 to 0.002,
    EDM's span, or as much of it as the teacher knows.

    Raises:
        TypeError: a teacher that cannot be called.
        ValueError: see `diffusion` and `initial_value`.
    """
    for module in modules_of(teacher):
        module.eval()
    if isinstance(teacher, System):
        t_max = teacher.t_start if t_max is None else t_max
        t_min = teacher.t_end if t_min is None else t_min
        problem = initial_value(teacher.ode, prior or teacher.prior, t_max, t_min)
        return replace(problem, teacher=teacher, integrator="Radau" if teacher.stiff else "DOP853")
    if hasattr(teacher, "rhs") and not isinstance(teacher, DenoiserODE):
        return initial_value(teacher, prior, t_max, t_min)
    if prior is not None:
        raise ValueError("a diffusion starts from N(0, t_max^2): leave prior out, or wrap the teacher in VelocityODE")
    lowest, highest = _noise_levels(teacher)
    t_max = min(80.0, highest) if t_max is None else t_max
    t_min = max(0.002, lowest) if t_min is None else t_min
    return diffusion(teacher, t_max, t_min, event_shape)


def modules_of(teacher: Any) -> list[nn.Module]:
    """The networks in a teacher."""
    parts = (teacher, getattr(teacher, "denoiser", None), getattr(teacher, "f", None))
    return [part for part in parts if isinstance(part, nn.Module)]


def diffusion(teacher: Any, t_max: float, t_min: float, event_shape: Sequence[int] | None = None) -> Problem:
    """The probability flow of a denoiser, from z ~ N(0, t_max^2) down to t_min.

    Args:
        teacher: a callable D(x, sigma, class_labels=None), or a `DenoiserODE`. Read off it where it has them:
            ``event_shape``, ``std`` or ``sigma_data`` (0.5 otherwise), ``label_dim``, ``sigma_min``, ``sigma_max``.
        t_max: where the paths start.
        t_min: where they end.
        event_shape: shape of one sample, where the teacher does not say.

    Raises:
        ValueError: an unknown event shape, or a span outside what the teacher can do.
    """
    ode = teacher if isinstance(teacher, DenoiserODE) else DenoiserODE(teacher)
    denoiser = ode.denoiser
    shape = event_shape if event_shape is not None else getattr(denoiser, "event_shape", None)
    if shape is None:
        raise ValueError(
            "the teacher does not say what shape it denoises: pass event_shape, such as (3, 32, 32) for images"
        )
    shape = check_shape(shape)
    sigma_data = float(getattr(denoiser, "std", None) or getattr(denoiser, "sigma_data", None) or 0.5)
    if not 0 < t_min < t_max < math.inf:
        raise ValueError(f"a diffusion runs from t_max down to t_min > 0; got t_max = {t_max}, t_min = {t_min}")
    if t_max < sigma_data:
        raise ValueError(
            f"t_max = {t_max:g} is below the scale of the data, {sigma_data:.3g}: paths cannot start from noise that "
            f"small; EDM takes 80"
        )
    if t_max < 5 * sigma_data:
        warnings.warn(
            f"at t_max = {t_max:g} the data (scale {sigma_data:.3g}) still show through the noise that paths start "
            f"from: expect biased samples below {5 * sigma_data:.3g}",
            stacklevel=3,
        )
    lowest, highest = _noise_levels(teacher)
    if t_min < lowest or t_max > highest:
        raise ValueError(
            f"the teacher knows noise levels {lowest:g} to {highest:g}; the span {t_min:g} to {t_max:g} leaves them"
        )

    def prior(n: int, generator: torch.Generator | None = None) -> Tensor:
        device = generator.device if generator is not None else CPU
        return t_max * torch.randn(n, *shape, generator=generator, device=device)

    label_dim, device = int(getattr(denoiser, "label_dim", None) or 0), _device(denoiser)
    return Problem(ode, prior, t_max, t_min, shape, sigma_data, label_dim, device, teacher, random=device)


def _noise_levels(teacher: Any) -> tuple[float, float]:
    """The least and the largest sigma that a denoiser says it knows."""
    denoiser = getattr(teacher, "denoiser", teacher)
    return getattr(denoiser, "sigma_min", 0.0), getattr(denoiser, "sigma_max", math.inf)


def initial_value(ode: ODE, prior: Prior | None, t_start: float | None, t_end: float | None) -> Problem:
    """Any ODE from prior-distributed values at t_start to t_end, in either direction of time.

    Raises:
        ValueError: a missing prior or span, or a prior that does not give floating (n, *event) finite values.
    """
    if prior is None or t_start is None or t_end is None:
        raise ValueError(
            "a bare ODE needs prior=, a function (n, generator=None) -> (n, *event) of initial values, and its span "
            "t_start=, t_end="
        )
    if not (math.isfinite(t_start) and math.isfinite(t_end)) or t_start == t_end:
        raise ValueError(f"expected two finite, different times, got t_start = {t_start}, t_end = {t_end}")
    try:
        probe = prior(2, generator=torch.Generator().manual_seed(0))
    except TypeError as error:
        raise ValueError(f"prior must be a function (n, generator=None) -> (n, *event): {error}") from error
    usable = isinstance(probe, Tensor) and probe.is_floating_point() and probe.ndim >= 2 and len(probe) == 2
    if not usable or not probe.isfinite().all():
        raise ValueError(f"prior(2) must return 2 finite floating values (2, *event), got {what(probe)}")
    if not _repeats(prior):
        prior = _obedient(prior)
    if not _repeats(prior):
        raise ValueError(
            "prior(2, generator=g) differs from call to call with the same g, so no run could be repeated or resumed: "
            "draw from the generator that is passed, as in torch.randn(n, 2, generator=generator)"
        )
    device = _device(getattr(ode, "f", None))
    return Problem(ode, prior, float(t_start), float(t_end), tuple(probe.shape[1:]), None, 0, device, ode)


def _repeats(prior: Prior) -> bool:
    return torch.equal(*(prior(2, generator=torch.Generator().manual_seed(0)) for _ in range(2)))


def _obedient(prior: Prior) -> Prior:
    """A prior that ignores its generator, made to draw what that generator says, so that runs can be repeated."""

    def draw(n: int, generator: torch.Generator | None = None) -> Tensor:
        seed = int(torch.randint(2**62, (), generator=generator))
        with seeded(seed):
            return prior(n, generator=generator)

    return draw


def _device(module: Any) -> torch.device:
    weight = _weight(module)
    return torch.device(getattr(module, "device", CPU)) if weight is None else weight.device


def _weight(module: Any) -> Tensor | None:
    return next(module.parameters(), None) if isinstance(module, nn.Module) else None
