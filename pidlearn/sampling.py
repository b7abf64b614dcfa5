"""Random choices: which grid points a batch visits, and random numbers that leave the caller's alone.

Uniform is the paper's choice. A student errs most where the noise is of the size of the data, so the default for toys
looks there more often: log-normal in t about sigma_data, with a floor that leaves no time unvisited.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

__all__ = ["DENSITIES", "Density", "draw_index", "seeded"]

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
    cumulative, device = density.to(generator.device).cumsum(0), generator.device
    u = (torch.arange(n, device=device) + torch.rand(n, generator=generator, device=device)) / n
    return torch.searchsorted(cumulative / cumulative[-1], u.double()).clamp(max=len(density) - 1)


@contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """torch's own random numbers as after a seed made of these, on every device; the CPU's are then as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(numbers[0] if len(numbers) == 1 else _mixed(numbers))
        yield


def _mixed(numbers: Sequence[int]) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
