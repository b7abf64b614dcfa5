"""The probability flow of a denoiser as a problem: from noise at t_max down to samples at t_min."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from pidlearn.equations.data_scale import SIGMA_DATA, is_usual, stated, stated_std
from pidlearn.equations.grids import karras_grid
from pidlearn.equations.ode import DenoiserODE
from pidlearn.equations.problem import CPU, Problem, Spacing
from pidlearn.equations.solvers import solve, solve_end
from pidlearn.equations.teacher_checks import warn_of_denoiser
from pidlearn.utils.broadcast import expand_like
from pidlearn.utils.settings import plain
from pidlearn.utils.validation import check_shape, describe_tensor, reraise_from_function
from pidlearn.utils.wrappers import unwrapped

__all__ = ["Diffusion", "default_span", "diffusion", "noise_levels"]

EXACT_STEPS = 250
"""Their error is below a tenth of that of as many Euler steps; on the ring, tests/test_refinement.py measures both."""


@dataclass(frozen=True, repr=False)
class Diffusion(Problem):
    """The probability flow dx/dt = (x - D(x, t)) / t from z ~ N(0, t_start^2).

    Attributes:
        sigma_data: standard deviation of the data.
    """

    ode: DenoiserODE
    sigma_data: float = SIGMA_DATA

    @property
    def data_scale(self) -> float:
        """``sigma_data``."""
        return self.sigma_data

    def to(self, device: torch.device) -> Diffusion:
        """The same problem on another device; noise is then drawn there, too."""
        return replace(self, device=device, rng_device=device)

    def check_teacher(self, steps: int) -> None:
        """See `pidlearn.equations.teacher_checks.warn_of_denoiser`."""
        warn_of_denoiser(self)

    def time_grid(self, n: int, spacing: Spacing) -> Tensor:
        """``spacing`` from ``t_start`` down to ``t_end``."""
        with reraise_from_function("function spacing=", "spacing(n=, t_min=, t_max=)"):
            grid = spacing(n=n, t_min=self.t_end, t_max=self.t_start)
        if not isinstance(grid, Tensor) or not grid.is_floating_point() or grid.shape != (n,):
            raise ValueError(
                f"the function spacing= returned {describe_tensor(grid)}, but must return a grid of n real times, "
                f"floating-point ({n},): use for example pidlearn.karras_grid(n, t_min, t_max)"
            )
        return grid.double()

    def plot_grid(self, n: int) -> Tensor:
        """EDM's grid."""
        return karras_grid(n, self.t_end, self.t_start)

    def residual_unit(self, grid: Tensor) -> float:
        """1: both sides of the denoiser form are images."""
        return 1.0

    @property
    def rhs_scale(self) -> float:
        """``sigma_data``: the right-hand side is a denoised sample."""
        return self.sigma_data

    def _rounding(self, times: Tensor, rounding: float) -> Tensor:
        """Where D = x - sigma F cancels an x of size sigma, that of sigma F, since F is of size 1."""
        # Below sigma_data, sigma F is no larger than the data, whose rounding is counted already.
        return max(1e-5, rounding) * torch.where(times > self.sigma_data, times, 0.0)

    def reference(self, z: Tensor, grid: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """Euler's path on ``grid``, which a student of zero residual reproduces (Theorem 1)."""
        return solve(self.ode, z, grid, "euler", class_labels)

    def reference_samples(self, z: Tensor, grid: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """The end of Euler's path, (B, *event), computed in chunks of samples."""
        return solve_end(self.ode, z, grid, "euler", class_labels)

    def exact_samples(self, z: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """The end of the exact path, (B, *event), by EXACT_STEPS steps of DPM-Solver++(2M)."""
        return solve_end(self.ode, z, karras_grid(EXACT_STEPS + 1, self.t_end, self.t_start), "dpm++", class_labels)

    def probes(self, z: Tensor) -> list[tuple[Tensor, float]]:
        """Points on the straight lines from z to the origin, at equal steps of ln t."""
        # t_start^(1 - share) t_end^share.
        times = [self.t_start * (self.t_end / self.t_start) ** share for share in (0.25, 0.5, 0.75)]
        return [(z * (t / self.t_start), t) for t in times]  # z t / T has standard deviation t, the noise level

    @torch.no_grad()
    def coarse_paths(self) -> tuple[Tensor, Tensor]:
        """Euler's paths on five of EDM's times: four evaluations of the teacher."""
        grid, labels = karras_grid(5, self.t_end, self.t_start), self._probe_labels()
        path = [self._starts(4 if labels is None else len(labels))]  # (P, *event) each
        for t, t_next in pairwise(grid):
            # Not `walk`, which raises where a path is not finite: such a teacher has a fingerprint, too.
            path.append(path[-1] + expand_like(t_next - t, path[-1]) * self.ode.velocity(path[-1], t, labels))
        return grid, torch.stack(path)


def diffusion(teacher: Any, t_max: float, t_min: float, event_shape: Sequence[int] | None = None) -> Diffusion:
    """The probability flow of a denoiser, from z ~ N(0, t_max^2) down to t_min.

    Args:
        teacher: a callable D(x, sigma, class_labels=None), or a `DenoiserODE`. These attributes are read where they
            exist: ``event_shape``, ``std`` or ``sigma_data`` (0.5 otherwise), ``label_dim``, ``sigma_min``,
            ``sigma_max``.
        t_max: prior end.
        t_min: sample end.
        event_shape: shape of one sample; needed if the teacher has no such attribute.

    Raises:
        ValueError: an unknown event shape, or a span outside the teacher's noise levels.
    """
    ode = teacher if isinstance(teacher, DenoiserODE) else DenoiserODE(teacher)
    denoiser = unwrapped(ode.denoiser)  # wrappers hide its attributes; what is called stays as it was passed
    shape = event_shape if event_shape is not None else getattr(denoiser, "event_shape", None)
    if shape is None:
        raise ValueError("the teacher has no event_shape: pass event_shape=, such as (3, 32, 32) for images")
    shape = check_shape(shape)
    sigma_data = stated_std(denoiser) or SIGMA_DATA
    _check_span(t_max, t_min, sigma_data, noise_levels(teacher))
    label_dim = stated(denoiser, "label_dim", _count, "the number of classes, a whole number of at least 0") or 0
    device = device_of(denoiser)
    prior = partial(_gaussian, scale=t_max, shape=shape)
    return Diffusion(ode, prior, t_max, t_min, shape, unwrapped(teacher), device, device, label_dim, sigma_data)


def default_span(teacher: Any) -> tuple[float, float]:
    """EDM's span, 80 to 0.002, or as much of it as lies within the teacher's noise levels: (t_max, t_min).

    It is chosen for a standard deviation of 0.5, and wide enough for a tenth of that to ten times as much.
    For data of any other size it is scaled, so that t_max / sigma_data and t_min / sigma_data stay EDM's.
    """
    std = stated_std(unwrapped(getattr(teacher, "denoiser", teacher))) or SIGMA_DATA
    scale = 1.0 if is_usual(std) else std / SIGMA_DATA
    lowest, highest = noise_levels(teacher)
    return min(80.0 * scale, highest), max(0.002 * scale, lowest)  # EDM's 80 and 0.002 are 160 and 0.004 times 0.5


def noise_levels(teacher: Any) -> tuple[float, float]:
    """The smallest and the largest sigma that a denoiser declares."""
    denoiser = unwrapped(getattr(teacher, "denoiser", teacher))
    lowest, highest = (stated(denoiser, name, float, "a noise level, a number") for name in ("sigma_min", "sigma_max"))
    return 0.0 if lowest is None else lowest, math.inf if highest is None else highest


def device_of(module: Any) -> torch.device:
    """The device of a module's weights, of an object with a ``device``, or the CPU."""
    weight = next(module.parameters(), None) if isinstance(module, nn.Module) else None
    if weight is not None:
        return weight.device
    return stated(module, "device", torch.device, 'a torch.device or its name, such as "cpu"') or CPU


def _gaussian(n: int, generator: torch.Generator | None = None, *, scale: float, shape: tuple[int, ...]) -> Tensor:
    """z ~ N(0, scale^2), (n, *shape) float32."""
    device = generator.device if generator is not None else CPU
    # The density at t_max is that of data + N(0, t_max^2); the prior neglects the data.
    return scale * torch.randn(n, *shape, generator=generator, device=device)


def _check_span(t_max: float, t_min: float, sigma_data: float, levels: tuple[float, float]) -> None:
    if not 0 < t_min < t_max < math.inf:
        raise ValueError(
            f"got t_max = {t_max} (t_start), t_min = {t_min} (t_end), but a diffusion runs from a finite t_max down to "
            f"t_min > 0"
        )
    if t_max < sigma_data:
        raise ValueError(
            f"t_max = {t_max:g} is below the standard deviation of the data, {sigma_data:.3g}: paths must start from "
            f"noise that drowns the data; EDM takes 80"
        )
    if t_max < 5 * sigma_data:
        # data + N(0, T^2) is wider than the prior N(0, T^2) by sqrt(1 + (sigma_data / T)^2): 2 % at T = 5 sigma_data.
        warnings.warn(
            f"at t_max = {t_max:g} the data (standard deviation {sigma_data:.3g}) are still visible in the noise: "
            f"expect biased samples, or raise t_max to {5 * sigma_data:.3g}",
            stacklevel=4,
        )
    if t_min > sigma_data / 5:
        # x(t_min) has the density of data + N(0, t_min^2), which widens samples by 2 % at t_min = sigma_data / 5.
        warnings.warn(
            f"at t_min = {t_min:g} noise still hides the data (standard deviation {sigma_data:.3g}): expect samples "
            f"that are too wide, or lower t_min to {sigma_data / 250:.3g}",
            stacklevel=4,
        )
    lowest, highest = levels
    if t_min < lowest or t_max > highest:
        raise ValueError(
            f"the span {t_min:g} to {t_max:g} exceeds the teacher's noise levels, {lowest:g} to {highest:g}: choose "
            f"t_min and t_max within them"
        )


def _count(value: Any) -> int | None:
    """The value as a number of classes, or None if it is no such number."""
    number = plain(value)
    return int(number) if isinstance(number, int | float) and number >= 0 and number == int(number) else None
