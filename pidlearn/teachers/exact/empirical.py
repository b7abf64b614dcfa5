"""The denoiser of a data set itself: the optimum that a diffusion model would reach with no training error.

With data y_1..y_M, each blurred by a standard deviation h (0 for the bare points), the density is a mixture of M equal
Gaussians, and E[x0 | x] is a softmax-weighted mean of the data. It is computed in chunks, so that 60,000 images and a
batch never meet in one array.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pidlearn.utils.broadcast import expand, noise_level

__all__ = ["EmpiricalDenoiser"]


class EmpiricalDenoiser:
    """E[x0 | x] over a data set.

    Args:
        data: (M, *event) floating.
        bandwidth: standard deviation h of the kernel about each datum; 0 for the data themselves.
        chunk: how many data are compared with a batch at once.
    """

    def __init__(self, data: Tensor, bandwidth: float = 0.0, chunk: int = 4096) -> None:
        data = torch.as_tensor(data)
        if data.ndim < 2 or not len(data) or not data.is_floating_point():
            raise ValueError(f"data must be floating (M, *event), got {tuple(data.shape)} {data.dtype}")
        if not data.isfinite().all():
            raise ValueError("data holds NaN or infinity")
        if not bandwidth >= 0 or chunk < 1:
            raise ValueError(f"expected bandwidth >= 0 and chunk >= 1, got {bandwidth} and {chunk}")
        self.data, self.bandwidth, self.chunk = data, float(bandwidth), chunk
        # About the mean of the data, or the digits of squared distances are spent on where they lie.
        self._centre = data.mean(0).flatten()

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one datum."""
        return tuple(self.data.shape[1:])

    @property
    def device(self) -> torch.device:
        """Where the data are, and fastest compared."""
        return self.data.device

    @property
    def std(self) -> float:
        """Standard deviation of a coordinate about the data mean, over all coordinates."""
        spread = self.data.double().var(0, correction=0).mean().item()
        return math.sqrt(spread + self.bandwidth**2)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """(n, *event) draws with replacement, plus the kernel's noise."""
        picked = self.data[torch.randint(len(self.data), (n,), generator=generator)]
        noise = torch.randn(picked.shape, dtype=picked.dtype, generator=generator)
        return picked + self.bandwidth * noise.to(picked.device)

    def denoise(self, x: Tensor, sigma: Any, class_labels: Tensor | None = None) -> Tensor:
        """E[x0 | x0 + sigma n = x], (B, *event) -> (B, *event); sigma is a scalar or (B,), > 0 if bandwidth = 0.

        Raises:
            ValueError: shapes that do not fit, or labels: this density has no classes.
        """
        if class_labels is not None:
            raise ValueError("an EmpiricalDenoiser is unconditional: leave class_labels out")
        if x.shape[1:] != self.event_shape:
            raise ValueError(f"x must be (B, {', '.join(map(str, self.event_shape))}), got {tuple(x.shape)}")
        variance = noise_level(sigma, x).square() + self.bandwidth**2
        if not variance.amin() > 0:
            raise ValueError("sigma = 0 asks for the data themselves: take sigma > 0, or a bandwidth")
        centre = self._centre.to(x)
        flat = x.flatten(1) - centre
        # A running softmax: the sums so far are rescaled whenever a chunk raises the largest logit.
        top = torch.full_like(flat[:, 0], -math.inf)
        total, mean = torch.zeros_like(top), torch.zeros_like(flat)
        for some in self.data.flatten(1).split(self.chunk):
            # |x - y|^2 but for |x|^2, which is the same for all data.
            part = some.to(x) - centre
            logits = (flat @ part.T - 0.5 * part.square().sum(1)) / variance[:, None]
            new_top = torch.maximum(top, logits.amax(1))
            shrink, weights = (top - new_top).exp(), (logits - new_top[:, None]).exp()
            mean = mean * shrink[:, None] + weights @ part
            total, top = total * shrink + weights.sum(1), new_top
        mean = (mean / total[:, None] + centre).reshape(x.shape)
        kept = expand(self.bandwidth**2 / variance, x)
        return mean + kept * (x - mean)

    __call__ = denoise
