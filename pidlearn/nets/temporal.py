"""Temporal layers: they join the states of a sample at M times, which a network otherwise computes one by one.

A network built with ``times=M`` takes a batch (M B, ...) that holds M times of B samples: all samples at the first
time, then all at the second, and so on, as `torch.cat` joins them. A temporal layer stands after each of its blocks.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from pidlearn.utils.validation import check_memory

__all__ = ["TemporalConvolution", "temporal_layer"]


class TemporalConvolution(nn.Module):
    """h + silu(k * h), with the circular convolution k * h along the M times (Zheng et al. 2022, arXiv 2211.13449).

    The kernel k is learned in Fourier space, where the convolution is a product, R(frequency) times the transform of h.
    All M // 2 + 1 frequencies are kept, so that k is any sequence of M real matrices (C, C); a pointwise layer, whose R
    is constant, needs no weights of its own. In images it acts on each pixel.

    R is zero at first: the layer returns h, and the M times do not depend on each other.

    Args:
        channels: C.
        times: M.
    """

    def __init__(self, channels: int, times: int) -> None:
        super().__init__()
        self.times = times
        shape = (times // 2 + 1, channels, channels, 2)
        check_memory("a temporal layer", shape[0] * channels * channels * 2)
        # Real and imaginary parts (frequency, in, out, 2): fused optimizers take no complex weights.
        self.weight = nn.Parameter(torch.zeros(shape))

    def forward(self, h: Tensor) -> Tensor:
        """Map (M B, C, ...) to the same shape.

        Raises:
            ValueError: a batch that is no multiple of M.
        """
        if len(h) % self.times:
            raise ValueError(
                f"got {len(h)} rows, but a network built with times = {self.times} takes as many rows at each time: "
                f"pass all samples at the first time, then all at the second, and so on"
            )
        return h + silu(self.convolve(h))

    def convolve(self, h: Tensor) -> Tensor:
        """k * h, (M B, C, ...)."""
        real = h.to(torch.promote_types(h.dtype, torch.float32))  # half precision has no Fourier transform
        # (M B, C, H, W) -> (M, B, C, H W), or H W = 1 of points.
        split = real.reshape(self.times, len(h) // self.times, h.shape[1], math.prod(h.shape[2:]))
        R = torch.view_as_complex(self.weight.to(real.dtype))  # (M // 2 + 1, C, C)
        product = torch.einsum("fbip,fio->fbop", torch.fft.rfft(split, dim=0), R)
        return torch.fft.irfft(product, n=self.times, dim=0).reshape(h.shape).to(h.dtype)

    def extra_repr(self) -> str:
        """The layer's size."""
        return f"{self.weight.shape[1]} channels, {self.times} times"


def temporal_layer(channels: int, times: int) -> nn.Module:
    """The layer after a block; nothing for 0 or 1 times, of which there is nothing to join."""
    return TemporalConvolution(channels, times) if times > 1 else nn.Identity()
