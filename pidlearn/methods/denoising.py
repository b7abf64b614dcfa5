"""Denoising score matching: how a diffusion teacher of one's own is trained (Karras et al. 2022, section 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pidlearn.methods.base import Batch, Method, TrainingContext
from pidlearn.nets.preconditioning import Preconditioned
from pidlearn.utils.broadcast import expand_like

__all__ = ["Denoising"]

P_MEAN, P_STD = -1.2, 1.2
"""Mean and standard deviation of ln(sigma) in training (Karras et al. 2022, table 1)."""


@dataclass
class Denoising(Method[TrainingContext]):
    """Minimise lambda(sigma) |D(y + n) - y|^2 over data y, noise levels sigma and noise n ~ N(0, sigma^2).

    The network in training is a `Preconditioned` one, which is not a student: this method is used by
    `pidlearn.train_denoiser`, not by `pidlearn.distill`.

    Args:
        data: (M, *event) on the CPU, in the dtype of the network's weights.
        class_labels: (M,) int64, or None.
    """

    data: Tensor
    class_labels: Tensor | None = None

    needs: ClassVar[str] = "data"

    def check(self, context: TrainingContext) -> None:
        """Refuse a student: what this method trains is a teacher."""
        raise ValueError("got Denoising, but it trains teachers: use pidlearn.train_denoiser")

    def draw(self, context: TrainingContext, n: int, generator: torch.Generator) -> Batch:
        """Clean data y (n, *event), noise levels (n,), standard normal noise (n, *event) and labels (n,)."""
        index = torch.randint(len(self.data), (n,), generator=generator)
        y = self.data[index]
        # ln(sigma) ~ N(-1.2, 1.2^2): half of the levels lie between 0.13 and 0.68.
        sigma = (P_MEAN + P_STD * torch.randn(n, generator=generator)).exp().to(y)
        noise = torch.randn(y.shape, generator=generator).to(y)
        return y, sigma, noise, None if self.class_labels is None else self.class_labels[index]

    def loss(self, context: TrainingContext, batch: Batch) -> Tensor:
        """EDM's Eq. 2 with the weights lambda of its table 1, (B,)."""
        denoiser = context.student
        assert isinstance(denoiser, Preconditioned)
        device = next(denoiser.parameters()).device
        y, sigma, noise, *labels = (x.to(device) for x in batch if x is not None)
        error = denoiser(y + expand_like(sigma, y) * noise, sigma, *labels) - y
        # lambda = 1 / c_out^2 gives the training target of F unit weight at every noise level.
        # lambda |D - y|^2 = |F - (y - c_skip x) / c_out|^2 with x = y + n (Eq. 8).
        weight = (sigma**2 + denoiser.sigma_data**2) / (sigma * denoiser.sigma_data) ** 2
        return weight * error.square().flatten(1).mean(1)
