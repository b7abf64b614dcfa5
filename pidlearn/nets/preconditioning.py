"""Preconditioning: a denoiser D(x; sigma) from a network F that sees inputs of unit scale.

    D(x; sigma) = c_skip x + c_out F(c_in x; c_noise)

    c_skip = sd² / (sigma² + sd²)          c_out = sigma sd / sqrt(sigma² + sd²)
    c_in   = 1 / sqrt(sigma² + sd²)        c_noise = ln(sigma) / 4

with sd = `sigma_data`, the standard deviation of the data: input and training target of F then
have unit variance at every noise level (Karras et al. 2022, arXiv 2206.00364, section 5, table 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn


class Preconditioned(nn.Module):
    """A denoiser D(x, sigma, class_labels=None) made of any network F(x, c_noise, class_labels).

    x is (B, *event) of any event shape; sigma is positive, with one element or B. The result has
    the shape of x. It is computed in float64 if x is float64, else in float32. F gets c_noise of
    shape (B,) or (1,), and the class labels unchanged. `event_shape` is what the network says of
    itself, if it does.
    """

    body: torch.dtype | None = None
    """What the network computes in, if not in the dtype of the result. Everything around it stays in that."""

    def __init__(self, network: nn.Module, sigma_data: float = 0.5) -> None:
        super().__init__()
        if not 0 < sigma_data < math.inf:
            raise ValueError(f"sigma_data, the standard deviation of the data, must be positive; got {sigma_data}")
        self.model = network
        self.sigma_data = sigma_data
        self.label_dim: int = getattr(network, "label_dim", 0)
        if hasattr(network, "event_shape"):
            self.event_shape: tuple[int, ...] = tuple(network.event_shape)  # type: ignore[arg-type]  # a module of ours

    def forward(self, x: Tensor, sigma: Tensor | float, class_labels: Tensor | None = None) -> Tensor:
        """D(x; sigma), in the shape of x."""
        return self._denoise(x, sigma, lambda x_in, c: self.model(x_in, c, class_labels))

    def coefficients(self, s: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """c_skip, c_out, c_in, c_noise of noise levels s, each of its shape and dtype."""
        scale = (s**2 + self.sigma_data**2).sqrt()
        return (self.sigma_data / scale) ** 2, s * self.sigma_data / scale, 1 / scale, s.log() / 4

    def _denoise(self, x: Tensor, sigma: Tensor | float, network: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        x = x.to(dtype)
        s = torch.as_tensor(sigma, dtype=dtype, device=x.device)
        if s.numel() not in (1, len(x)):
            raise ValueError(f"sigma is a number, or one for each of {len(x)} samples; got {tuple(s.shape)}")
        s = s.reshape(-1, *[1] * (x.ndim - 1))

        c_skip, c_out, c_in, c_noise = self.coefficients(s)
        out = network((c_in * x).to(self.body or dtype), c_noise.reshape(-1)).to(dtype)
        if out.shape != x.shape:
            raise ValueError(f"the network must keep the shape of x, {tuple(x.shape)}; it returned {tuple(out.shape)}")
        return c_skip * x + c_out * out
