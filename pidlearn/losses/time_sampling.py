"""Random choices: which grid points a batch visits, and random numbers that leave the caller's alone.

Uniform is the paper's choice. A student errs most where the noise is of the size of the data, so the default for toys
looks there more often: log-normal in t about sigma_data, with a floor that leaves no time unvisited.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["DENSITIES", "Density", "draw_index"]

Density = Callable[[Tensor, float], Tensor]
"""(t (N,) float64, sigma_data) -> how often each is visited (N,), up to a factor."""


def uniform(t: Tensor, sigma_data: float) -> Tensor:
    """Every point alike."""
    return torch.ones_like(t)


def lognormal(t: Tensor, sigma_data: float, width: float = 1.2, floor: float = 0.1) -> Tensor:
    """A bell in ln t about ln sigma_data, EDM's width, over a floor."""
    return floor + torch.exp(-0.5 * ((t / sigma_data).log() / width) ** 2)


DENSITIES: dict[str, Density] = {"uniform": uniform, "lognormal": lognormal}


def draw_index(density: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """n indices (n,) int64 with frequencies ``density`` (N,), stratified: one from each n-th of the distribution."""
    device = generator.device
    cumulative = density.cumsum(0)
    u = (torch.arange(n, device=device) + torch.rand(n, generator=generator, device=device)) / n
    at = torch.searchsorted((cumulative / cumulative[-1]).to(device), u.double())
    return at.clamp(max=len(density) - 1)
