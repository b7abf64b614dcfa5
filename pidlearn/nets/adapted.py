"""Students made of teachers whose networks see noise in coordinates of their own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from pidlearn.nets.noise_parametrization import Coordinates

__all__ = ["AdaptedStudent"]


class AdaptedStudent(nn.Module):
    """A teacher's network in its own coordinates as the F(u, ln(t)/4, class_labels=None) of a `Trajectory` from t_max.

    u = z / sqrt(sigma_data^2 + t_max^2) is scaled to what the network knows as noise of level t_max, and what comes out
    is read as the image D(z, t_max) that the teacher sees in it: there the student starts. Where the network predicts
    noise, that image is t_max times a small difference of two noises, which is no scale to learn in; the student then
    starts as the difference alone, D(z, t_max) / t_max. Times are told to it in the numbers that its embedding was
    trained on, and between iDDPM's levels in what lies between: a student is differentiated in time.
    """

    def __init__(
        self, network: nn.Module, coordinates: Coordinates, t_max: float, sigma_data: float, label_dim: int
    ) -> None:
        super().__init__()
        self.network = network
        self.coordinates = coordinates
        self.label_dim = label_dim
        self.t_max, self.sigma_data = t_max, sigma_data
        unit = math.hypot(sigma_data, t_max)
        c_in, c_skip, c_out, _ = (float(c) for c in coordinates(torch.tensor([t_max], dtype=torch.float64)))
        scale = max(1.0, abs(c_out))
        self.scales = c_in * unit, c_skip * unit / scale, c_out / scale

    def forward(self, u: Tensor, time: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """F(u, time), of u's shape."""
        told = self.coordinates((4 * time).exp()).time
        c_in, c_skip, c_out = self.scales
        with differentiable(told):
            return c_skip * u + c_out * self.network(c_in * u, told, class_labels)


@contextmanager
def differentiable(time: Tensor) -> Iterator[None]:
    """Where time carries a tangent, have other people's networks do only what has a forward-mode derivative."""
    if forward_ad.unpack_dual(time).tangent is None:
        yield
        return
    with sdpa_kernel(SDPBackend.MATH), _ContiguousNorms():  # no fused attention has one
        yield


class _ContiguousNorms(TorchFunctionMode):
    """The derivative of a group norm takes a view of its input, which must therefore be contiguous."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is nn.functional.group_norm:
            args = (args[0].contiguous(), *args[1:])
        return func(*args, **(kwargs or {}))
