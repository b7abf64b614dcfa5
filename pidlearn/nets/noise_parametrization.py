"""Noise parametrizations: the preconditioning functions c_skip, c_out, c_in and c_noise of sigma.

They turn a network F into a denoiser of x = x0 + sigma n (Karras et al. 2022, arXiv 2206.00364, Eq. 7 and table 1):

    D(x, sigma) = c_skip(sigma) x + c_out(sigma) F(c_in(sigma) x; c_noise(sigma))

           c_skip                      c_out                             c_in                        c_noise
    EDM    sd^2 / (sigma^2 + sd^2)     sigma sd / sqrt(sigma^2 + sd^2)   1 / sqrt(sigma^2 + sd^2)    ln(sigma) / 4
    VP     1                           -sigma                            1 / sqrt(sigma^2 + 1)       (M - 1) t(sigma)
    VE     1                           sigma                             1                           ln(sigma / 2)
    IDDPM  1                           -sigma                            1 / sqrt(sigma^2 + 1)       index of the level

sd is the standard deviation of the data. With EDM's functions, input and training target of F have unit variance at
every noise level. The networks of the other three predict the noise, up to its sign. All four functions are smooth in
sigma, so that a student can be differentiated in time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pidlearn.utils.arguments import check_argument
from pidlearn.utils.settings import Rule, is_whole, plain

__all__ = [
    "EDM",
    "IDDPM",
    "NOISE_PARAMETRIZATIONS",
    "VE",
    "VP",
    "Coefficients",
    "LogSigmaTable",
    "NoiseParametrization",
]


LEVELS: Rule = (lambda v: is_whole(plain(v)) and 2 <= plain(v) <= 2**16, "a number of noise levels from 2 to 65536")


class Coefficients(NamedTuple):
    """The four functions at given noise levels, each of the shape of sigma, in the order of Karras et al., table 1."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor


NoiseParametrization = Callable[[Tensor], Coefficients]
"""sigma (B,) to `Coefficients` of its dtype and device."""


class LogSigmaTable:
    """A network's discrete noise levels as a continuous scale: 0 at the smallest, 1 at the next, reals between.

    Args:
        log_sigma: (K,) float64, strictly increasing, with K >= 2.
    """

    def __init__(self, log_sigma: Tensor) -> None:
        self.log_sigma = log_sigma
        self._cache: dict[Any, Tensor] = {}

    @property
    def span(self) -> tuple[float, float]:
        """The smallest and the largest sigma."""
        low, high = self.log_sigma[[0, -1]].exp().tolist()
        return low, high

    def position(self, sigma: Tensor) -> Tensor:
        """Return the position of sigma, of any shape, on the scale: linear in ln(sigma), clamped to [0, K - 1]."""
        table = self._cached(sigma)
        s = sigma.log().clamp(table[0], table[-1])  # constant beyond the table, so zero slope there
        # First level >= s, at least 1 so that it has a lower neighbour; an index has no derivative, hence the detach.
        above = torch.searchsorted(table, s.detach().contiguous()).clamp(1, len(table) - 1)
        low, high = table[above - 1], table[above]
        # The index is a constant; the derivative with respect to sigma comes from the fraction.
        return above - 1 + (s - low) / (high - low)

    def _cached(self, sigma: Tensor) -> Tensor:
        """The table in the dtype and on the device of sigma, converted once for each."""
        key = (sigma.dtype, sigma.device)
        if key not in self._cache:
            # A tensor created in inference mode could never take part in a backward pass later.
            with torch.inference_mode(False):
                self._cache[key] = self.log_sigma.to(sigma)
        return self._cache[key]


@dataclass(frozen=True)
class EDM:
    """EDM's own functions (Karras et al. 2022, section 5), for data of standard deviation ``sigma_data``."""

    sigma_data: float = 0.5

    def __call__(self, sigma: Tensor) -> Coefficients:
        """Return the coefficients at noise levels of any shape."""
        scale = (sigma**2 + self.sigma_data**2).sqrt()  # the standard deviation of x = x0 + sigma n
        return Coefficients(
            c_skip=(self.sigma_data / scale) ** 2,  # E[x0 | x] = c_skip x for Gaussian data N(0, sd^2): F is the rest
            c_out=sigma * self.sigma_data / scale,  # the std of x0 - c_skip x, so that F's target has unit variance
            c_in=1 / scale,  # c_in x has unit variance
            c_noise=sigma.log() / 4,  # 80 becomes 1.10, and 0.002 becomes -1.55
        )


@dataclass(frozen=True)
class VP:
    """Variance-preserving Score-SDE (Song et al. 2021, arXiv 2011.13456): sigma^2 + 1 = exp(beta_d t^2/2 + beta_min t).

    The network takes (M - 1) t, for t from ``epsilon_t`` to 1.
    """

    beta_d: float = 19.9
    beta_min: float = 0.1
    M: int = 1000
    epsilon_t: float = 1e-5

    @property
    def span(self) -> tuple[float, float]:
        """The smallest and the largest sigma, at t = epsilon_t and t = 1."""
        times = (self.epsilon_t, 1.0)
        # expm1: exp(1e-6) - 1, the case t = epsilon_t, would lose six digits.
        low, high = (math.sqrt(math.expm1(self.beta_d * t * t / 2 + self.beta_min * t)) for t in times)
        return low, high

    def __call__(self, sigma: Tensor) -> Coefficients:
        """Return the coefficients at noise levels of any shape."""
        # The positive root t of beta_d t^2 / 2 + beta_min t = ln(1 + sigma^2).
        # log1p: in float32, 1 + sigma^2 keeps one digit of sigma^2 at sigma = 1e-3.
        t = ((self.beta_min**2 + 2 * self.beta_d * (sigma**2).log1p()).sqrt() - self.beta_min) / self.beta_d
        # F is the noise n, so x0 = x - sigma F; its input x / sqrt(1 + sigma^2) has the variance-preserving scale.
        return Coefficients(
            c_skip=torch.ones_like(sigma), c_out=-sigma, c_in=(sigma**2 + 1).rsqrt(), c_noise=(self.M - 1) * t
        )


@dataclass(frozen=True)
class VE:
    """Variance-exploding Score-SDE (Song et al. 2021): the network takes x unscaled, and ln(sigma / 2)."""

    def __call__(self, sigma: Tensor) -> Coefficients:
        """Return the coefficients at noise levels of any shape."""
        one = torch.ones_like(sigma)
        # F is sigma times the score, an estimate of -n, so D = x + sigma F = x + sigma^2 score.
        return Coefficients(c_skip=one, c_out=sigma, c_in=one, c_noise=(sigma / 2).log())


@dataclass(frozen=True)
class IDDPM:
    """iDDPM (Nichol & Dhariwal 2021, arXiv 2102.09672): M discrete noise levels; the network takes a level's index."""

    C_1: float = 0.001
    C_2: float = 0.008
    M: int = 1000

    def __post_init__(self) -> None:
        check_argument("M", self.M, LEVELS)

    @cached_property
    def sigmas(self) -> list[float]:
        """The M + 1 noise levels, increasing from 0."""

        def alpha_bar(j: int) -> float:
            # The cosine schedule with offset C_2; j counts from pure noise, 0, to the data, M.
            return math.sin(math.pi / 2 * j / (self.M * (self.C_2 + 1))) ** 2

        # 1 + sigma^2 = 1 / alpha_bar, so r is a ratio of alpha_bars. It is 0 at j = 1, where C_1 keeps u finite.
        # 1 + u[j-1]^2 = (1 + u[j]^2) / r with r = alpha_bar(j - 1) / alpha_bar(j), bounded below by C_1.
        u = [0.0]
        for j in range(self.M, 0, -1):
            u.append(math.sqrt((u[-1] ** 2 + 1) / max(alpha_bar(j - 1) / alpha_bar(j), self.C_1) - 1))
        return u

    @cached_property
    def table(self) -> LogSigmaTable:
        """The M positive noise levels."""
        # Without sigma = 0, whose logarithm is -infinity.
        return LogSigmaTable(torch.tensor(self.sigmas[1:], dtype=torch.float64, device="cpu").log())

    def __call__(self, sigma: Tensor) -> Coefficients:
        """Return the coefficients at noise levels of any shape."""
        return Coefficients(
            c_skip=torch.ones_like(sigma),
            c_out=-sigma,
            c_in=(sigma**2 + 1).rsqrt(),
            c_noise=self.table.position(sigma),
        )


NOISE_PARAMETRIZATIONS: dict[str, type[Any]] = {"VP": VP, "VE": VE, "IDDPM": IDDPM}
"""Parametrizations that a student file can name."""
