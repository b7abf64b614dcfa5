"""Networks of other makes as denoisers.

Other makes see the noise in other coordinates, predict other things and count time otherwise, but each is a denoiser
of variance-exploding noise, x = x0 + sigma n, up to four functions of sigma:

    D(x, sigma) = c_skip(sigma) x + c_out(sigma) F(c_in(sigma) x, time(sigma))

`pidlearn.teachers.adapters.diffusers` and `pidlearn.teachers.adapters.flow` say which.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pidlearn.nets.adapted import AdaptedStudent
from pidlearn.nets.noise_parametrization import Coordinates
from pidlearn.utils.broadcast import expand, per_sample
from pidlearn.utils.validation import check_shape

__all__ = ["AdaptedDenoiser", "ForeignNetwork"]


class ForeignNetwork(nn.Module):
    """F(x, time, class_labels=None) of another make: x goes in as its weights' dtype and comes out as it was.

    Args:
        module: called as ``module(x, time)``, and with ``class_labels`` where there are any.
    """

    def __init__(self, module: Callable[..., Tensor]) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor, time: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """F(x, time), of x's dtype."""
        dtype = next(self.parameters(), x).dtype
        return self.call(x.to(dtype), time, () if class_labels is None else (class_labels,)).to(x.dtype)

    def call(self, x: Tensor, time: Tensor, labels: tuple[Tensor, ...]) -> Tensor:
        """The module's own answer; time has the dtype that x came in."""
        return self.module(x, time.to(x.dtype), *labels)


class AdaptedDenoiser(nn.Module):
    """A denoiser D(x, sigma, class_labels=None) made of a network of another make.

    x is (B, *event), sigma a scalar or (B,), class_labels int64 (B,) or None. The result has the shape and dtype of x.
    The network runs in the dtype of its own weights, everything around it in that of x, but float32 at least.
    ``sigma_min`` and ``sigma_max`` bound what the network knows: `distill` keeps its span within them, the call does
    not check.
    """

    def __init__(
        self,
        network: ForeignNetwork,
        coordinates: Coordinates,
        *,
        event_shape: int | Sequence[int] | None,
        label_dim: int = 0,
        sigma_data: float = 0.5,
        sigma_min: float = 0.0,
        sigma_max: float = math.inf,
    ) -> None:
        super().__init__()
        if not 0 < sigma_data < math.inf:
            raise ValueError(f"sigma_data, the standard deviation of the data, must be positive; got {sigma_data}")
        if not isinstance(label_dim, int) or label_dim < 0:
            raise ValueError(f"label_dim is the number of classes, 0 for none; got {label_dim}")
        self.network = network
        self.coordinates = coordinates
        self.event_shape = None if event_shape is None else check_shape(event_shape)
        self.label_dim = label_dim
        self.sigma_data = sigma_data
        self.sigma_min, self.sigma_max = sigma_min, sigma_max

    def forward(self, x: Tensor, sigma: Any, class_labels: Tensor | None = None) -> Tensor:
        """D(x, sigma), in the shape and dtype of x."""
        work = x.to(torch.promote_types(x.dtype, torch.float32))
        at = self.coordinates(per_sample(sigma, work))
        out = self.network(expand(at.c_in, work) * work, at.time, class_labels)
        if out.shape != x.shape:
            raise ValueError(f"the network must keep the shape of x, {tuple(x.shape)}; it returned {tuple(out.shape)}")
        return (expand(at.c_skip, work) * work + expand(at.c_out, work) * out).to(x.dtype)

    def as_student(self, t_max: float) -> AdaptedStudent:
        """Its network as a student's F, on the same weights: copy it to train it."""
        return AdaptedStudent(self.network, self.coordinates, t_max, self.sigma_data, self.label_dim)
