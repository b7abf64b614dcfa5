"""Students made from teachers whose networks use a noise parametrization other than EDM's."""

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

from pidlearn.nets.noise_parametrization import NoiseParametrization
from pidlearn.nets.summary import summarize

__all__ = ["AdaptedStudent"]


class AdaptedStudent(nn.Module):
    """A teacher's network as the F(u, ln(t)/4, class_labels=None) of a `Trajectory` from t_max.

    u = z / sqrt(sigma_data^2 + t_max^2) is rescaled to the network's input at noise level t_max, and the output is
    turned into the image D(z, t_max) that the teacher predicts from it: the student starts there. If the network
    predicts noise, that image is t_max times a small difference of two noises, too large a factor to learn with; the
    student then starts at the difference itself, D(z, t_max) / t_max. Times are converted to the noise embedding that
    the network was trained with, interpolated between the levels of a discrete schedule, because a student is
    differentiated in time.
    """

    def __init__(
        self,
        network: nn.Module,
        noise_parametrization: NoiseParametrization,
        t_max: float,
        sigma_data: float,
        label_dim: int,
    ) -> None:
        super().__init__()
        self.network = network
        self.noise_parametrization = noise_parametrization
        self.label_dim = label_dim
        self.t_max, self.sigma_data = t_max, sigma_data
        unit = math.hypot(sigma_data, t_max)  # z = unit * u
        c_skip, c_out, c_in, _ = map(float, noise_parametrization(torch.tensor([t_max], dtype=torch.float64)))
        scale = max(1.0, abs(c_out))  # t_max for a network that predicts noise, else 1
        # Factors of u on its way in, of u in the output, and of the network's output. Student files compare them.
        self.scales = c_in * unit, c_skip * unit / scale, c_out / scale

    def forward(self, u: Tensor, time: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """Return F(u, time), of the shape of u."""
        c_noise = self.noise_parametrization((4 * time).exp()).c_noise  # time = ln(t) / 4
        scale_in, scale_skip, scale_out = self.scales
        with forward_mode_kernels(c_noise):
            return scale_skip * u + scale_out * self.network(scale_in * u, c_noise, class_labels)

    def __repr__(self) -> str:
        network = getattr(self.network, "name", type(self.network).__name__)  # a third-party network has a name
        return summarize(self, network, repr(self.noise_parametrization))


@contextmanager
def forward_mode_kernels(time: Tensor) -> Iterator[None]:
    """While time carries a tangent, restrict third-party networks to kernels with a forward-mode derivative."""
    if forward_ad.unpack_dual(time).tangent is None:
        yield
        return
    with sdpa_kernel(SDPBackend.MATH), _ContiguousNorms():  # fused attention has no forward-mode derivative
        yield


class _ContiguousNorms(TorchFunctionMode):
    """Make inputs of group norms contiguous: the forward-mode derivative takes a view of its input."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is nn.functional.group_norm:
            args = (args[0].contiguous(), *args[1:])
        return func(*args, **(kwargs or {}))
