"""The exact denoiser of a data set, the optimum of a diffusion model's training loss on it.

With data y_1..y_M, each blurred by a Gaussian kernel of standard deviation h (0 for the points themselves), the density
is a mixture of M equal Gaussians, and E[x0 | x] is a softmax-weighted mean of the data. It is computed in chunks, so
that 60,000 images are never compared with a batch in one array.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pidlearn.utils.arguments import GENERATOR, check_arguments, count, number, size
from pidlearn.utils.broadcast import expand_like, noise_level
from pidlearn.utils.validation import as_real, check_batch, describe_tensor

__all__ = ["EmpiricalDenoiser"]


class EmpiricalDenoiser:
    """The denoiser E[x0 | x] of a data set.

    Args:
        data: (M, *event) floating.
        bandwidth: standard deviation h of the kernel around each datum; 0 for the data themselves.
        chunk: number of data compared with a batch at once.

    Raises:
        ValueError: for data that are not finite floating numbers (M, *event), or another option out of range.
    """

    @check_arguments(bandwidth=number(0, 1e150), chunk=count())
    def __init__(self, data: Tensor, bandwidth: float = 0.0, chunk: int = 4096) -> None:
        data = as_real("data", data)
        if data.ndim < 2 or not data.numel() or not data.is_floating_point():
            raise ValueError(
                f"got {describe_tensor(data)}, but data must be floating (M, *event) with M >= 1: convert them"
            )
        if not data.isfinite().all():
            raise ValueError("got NaN or infinity, but data must be finite: leave such rows out")
        self.data, self.bandwidth, self.chunk = data, float(bandwidth), chunk
        # Distances are computed relative to the mean: far from 0, squares would use up the digits of a float.
        self._centre = data.mean(0).flatten()

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one datum."""
        return tuple(self.data.shape[1:])

    @property
    def device(self) -> torch.device:
        """Device of the data, where calls are fastest."""
        return self.data.device

    @property
    def std(self) -> float:
        """Standard deviation of one coordinate, averaged (as a variance) over all coordinates."""
        spread = self.data.double().var(0, correction=0).mean().item()  # each coordinate's variance, averaged
        return math.sqrt(spread + self.bandwidth**2)  # independent kernel noise adds its variance

    @check_arguments(n=size(), generator=GENERATOR)
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Return n data drawn with replacement, plus the kernel's noise, (n, *event)."""
        picked = self.data[torch.randint(len(self.data), (n,), generator=generator)]
        noise = torch.randn(picked.shape, dtype=picked.dtype, generator=generator)
        return picked + self.bandwidth * noise.to(picked.device)

    def denoise(self, x: Tensor, sigma: Any, class_labels: Tensor | None = None) -> Tensor:
        """Return E[x0 | x0 + sigma n = x], (B, *event) -> (B, *event); sigma is a scalar or (B,), > 0 if bandwidth = 0.

        Raises:
            ValueError: for an x of another shape, class labels (this density has no classes), or sigma and bandwidth 0.
        """
        if class_labels is not None:
            raise ValueError("an EmpiricalDenoiser is unconditional: leave class_labels out")
        check_batch(x, "x", self.event_shape)
        dtype, x = x.dtype, x.to(torch.promote_types(x.dtype, torch.float32))  # squares of halves overflow at 256
        variance = noise_level(sigma, x).square() + self.bandwidth**2  # (B,): h^2 + sigma^2
        if not (variance > 0).all():
            raise ValueError("E[x0 | x] is undefined for sigma = 0 and bandwidth = 0: take sigma > 0, or a bandwidth")
        centre = self._centre.to(x)
        flat = x.flatten(1) - centre  # (B, d)
        # A running softmax: the sums so far are rescaled whenever a chunk raises the largest logit.
        top = torch.full_like(flat[:, 0], -math.inf)  # (B,)
        total, mean = torch.zeros_like(top), torch.zeros_like(flat)  # (B,), (B, d)
        for rows in self.data.flatten(1).split(self.chunk):
            part = rows.to(x) - centre  # (chunk, d)
            # -|x - y|^2 / 2 without |x|^2, which is the same for all data and cancels in the softmax: (B, chunk).
            logits = (flat @ part.T - 0.5 * part.square().sum(1)) / variance[:, None]
            new_top = torch.maximum(top, logits.amax(1))
            # (B,) and (B, chunk); before the first chunk, exp(-inf) = 0.
            shrink, weights = (top - new_top).exp(), (logits - new_top[:, None]).exp()
            mean = mean * shrink[:, None] + weights @ part  # (B, chunk) @ (chunk, d)
            total, top = total * shrink + weights.sum(1), new_top
        mean = (mean / total[:, None] + centre).reshape(x.shape)  # softmax-weighted mean of the data, (B, *event)
        # Each component's denoiser is y + h^2 / (h^2 + sigma^2) (x - y), linear in y, so the mean of y is enough.
        kept = expand_like(self.bandwidth**2 / variance, x)  # h^2 / (h^2 + sigma^2), 0 without a kernel
        return (mean + kept * (x - mean)).to(dtype)

    __call__ = denoise

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.data)} data of shape {self.event_shape}, bandwidth {self.bandwidth:g})"
