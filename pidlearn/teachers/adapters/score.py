"""Score-SDE's variance-exploding networks: s(x, sigma) = -n / sigma for x = x0 + sigma n, so D = x + sigma^2 s."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pidlearn.nets.noise_parametrization import Coefficients
from pidlearn.teachers.adapters.base import ThirdPartyNetwork

__all__ = ["NoiseFromScore", "VarianceExploding"]


class NoiseFromScore(ThirdPartyNetwork):
    """A network of the score -n / sigma, with sigma as its time, as one of the noise -n.

    The noise has unit variance at every level, so that a student can start from it.
    """

    module: ThirdPartyNetwork

    def forward(self, x: Tensor, c_noise: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """Return sigma times the score, in the dtype of x."""
        sigma = c_noise.reshape(-1, *[1] * (x.ndim - 1))  # (B, 1, ..., 1)
        return (sigma * self.module(x, c_noise, class_labels)).to(x.dtype)  # sigma s = -n

    @property
    def name(self) -> str:
        """Name of the score network."""
        return self.module.name


@dataclass(frozen=True)
class VarianceExploding:
    """Noise parametrization of a `NoiseFromScore`: D = x + sigma^2 score(x, sigma)."""

    def __call__(self, sigma: Tensor) -> Coefficients:
        """Return the coefficients at noise levels (B,)."""
        one = torch.ones_like(sigma)
        return Coefficients(c_skip=one, c_out=sigma, c_in=one, c_noise=sigma)  # D = x + sigma (sigma s)
