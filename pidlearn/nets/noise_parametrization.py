"""How networks see noise: the four functions of sigma that make a denoiser of each.

    D(x, sigma) = c_skip(sigma) x + c_out(sigma) F(c_in(sigma) x, time(sigma))

These are Score-SDE's and iDDPM's (Karras et al. 2022, arXiv 2206.00364, table 1); all of them predict the noise, up to
its sign. Each is smooth in sigma, so that a student can be differentiated in time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["COORDINATES", "IDDPM", "VE", "VP", "Coefficients", "Coordinates", "Levels"]


class Coefficients(NamedTuple):
    """The four functions at some noise levels, each (B,)."""

    c_in: Tensor
    c_skip: Tensor
    c_out: Tensor
    time: Tensor


Coordinates = Callable[[Tensor], Coefficients]
"""sigma (B,) to `Coefficients` of its dtype and device."""


class Levels:
    """Noise levels that a network knows, as a scale: 0 at the least, 1 at the next, and real numbers between.

    Args:
        log_sigma: (K,) float64, rising strictly, of at least two levels.
    """

    def __init__(self, log_sigma: Tensor) -> None:
        self.log_sigma = log_sigma
        self._cache: dict[Any, Tensor] = {}

    @property
    def span(self) -> tuple[float, float]:
        """The least and the largest sigma."""
        low, high = self.log_sigma[[0, -1]].exp().tolist()
        return low, high

    def position(self, sigma: Tensor) -> Tensor:
        """Where sigma, of any shape, lies, linear in its logarithm from level to level; beyond them the nearest end."""
        table = self._cached(sigma)
        s = sigma.log().clamp(table[0], table[-1])
        above = torch.searchsorted(table, s.detach().contiguous()).clamp(1, len(table) - 1)
        low, high = table[above - 1], table[above]
        return above - 1 + (s - low) / (high - low)

    def _cached(self, sigma: Tensor) -> Tensor:
        """The levels, converted once for each dtype and device."""
        key = (sigma.dtype, sigma.device)
        if key not in self._cache:
            with torch.inference_mode(False):  # or no gradient could pass it ever after
                self._cache[key] = self.log_sigma.to(sigma)
        return self._cache[key]


@dataclass(frozen=True)
class VP:
    """Variance-preserving Score-SDE (Song et al. 2021, arXiv 2011.13456): sigma^2 + 1 = exp(beta_d t^2/2 + beta_min t).

    The network is told (M - 1) t, for t from ``epsilon_t`` to 1.
    """

    beta_d: float = 19.9
    beta_min: float = 0.1
    M: int = 1000
    epsilon_t: float = 1e-5

    @property
    def span(self) -> tuple[float, float]:
        """sigma where t begins and ends."""
        times = (self.epsilon_t, 1.0)
        low, high = (math.sqrt(math.expm1(self.beta_d * t * t / 2 + self.beta_min * t)) for t in times)
        return low, high

    def __call__(self, sigma: Tensor) -> Coefficients:
        """Of noise levels of any shape."""
        t = ((self.beta_min**2 + 2 * self.beta_d * (sigma**2).log1p()).sqrt() - self.beta_min) / self.beta_d
        return Coefficients((sigma**2 + 1).rsqrt(), torch.ones_like(sigma), -sigma, (self.M - 1) * t)


@dataclass(frozen=True)
class VE:
    """Variance-exploding Score-SDE: the network sees x as it is, and is told ln(sigma / 2)."""

    def __call__(self, sigma: Tensor) -> Coefficients:
        """Of noise levels of any shape."""
        one = torch.ones_like(sigma)
        return Coefficients(one, one, sigma, (sigma / 2).log())


@dataclass(frozen=True)
class IDDPM:
    """iDDPM (Nichol & Dhariwal 2021, arXiv 2102.09672): M noise levels, of which the network is told the number."""

    C_1: float = 0.001
    C_2: float = 0.008
    M: int = 1000

    def __post_init__(self) -> None:
        if not 2 <= self.M <= 2**16:
            raise ValueError(f"M is a number of noise levels, 2 to 65536; got {self.M!r:.80}")

    @cached_property
    def sigmas(self) -> list[float]:
        """The levels, rising from 0: M + 1 of them."""

        def alpha_bar(j: int) -> float:
            return math.sin(math.pi / 2 * j / (self.M * (self.C_2 + 1))) ** 2

        u = [0.0]
        for j in range(self.M, 0, -1):
            u.append(math.sqrt((u[-1] ** 2 + 1) / max(alpha_bar(j - 1) / alpha_bar(j), self.C_1) - 1))
        return u

    @cached_property
    def levels(self) -> Levels:
        """Those above 0."""
        return Levels(torch.tensor(self.sigmas[1:], dtype=torch.float64, device="cpu").log())

    def __call__(self, sigma: Tensor) -> Coefficients:
        """Of noise levels of any shape."""
        one = torch.ones_like(sigma)
        return Coefficients((sigma**2 + 1).rsqrt(), one, -sigma, self.levels.position(sigma))


COORDINATES: dict[str, type[Any]] = {"VP": VP, "VE": VE, "IDDPM": IDDPM}
"""Those that a file can name."""
