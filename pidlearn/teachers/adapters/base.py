"""Third-party networks as denoisers.

Third-party networks scale the noisy sample, the prediction and the time in other ways, but each is a denoiser of
variance-exploding noise, x = x0 + sigma n, up to four functions of sigma:

    D(x, sigma) = c_skip(sigma) x + c_out(sigma) F(c_in(sigma) x; c_noise(sigma))

`pidlearn.teachers.adapters.network` has a table of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pidlearn.nets.adapted import AdaptedStudent
from pidlearn.nets.noise_parametrization import NoiseParametrization
from pidlearn.nets.preconditioning import check_noise_levels, precondition
from pidlearn.nets.summary import summarize
from pidlearn.utils.arguments import check_arguments, count, number
from pidlearn.utils.broadcast import as_batch
from pidlearn.utils.validation import check_batch, check_output, check_shape
from pidlearn.utils.wrappers import unwrapped

__all__ = ["AdaptedDenoiser", "ThirdPartyNetwork", "attributes_of"]


class ThirdPartyNetwork(nn.Module):
    """A third-party network as F(x, c_noise, class_labels=None): cast x to the dtype of its weights, and its output
    back.

    Args:
        module: called as ``module(x, c_noise)``, with ``class_labels`` as a third argument if there are any.
    """

    rounds_time = False
    """Whether the time is cast to half precision with x, because the module takes no other."""

    def __init__(self, module: Callable[..., Tensor]) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor, c_noise: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """Return F(x, c_noise), in the dtype of x.

        Raises:
            ValueError: if the module returns another shape than that of x, or complex values.
        """
        dtype = next(self.parameters(), x).dtype
        out = self.call(x.to(dtype), c_noise, () if class_labels is None else (class_labels,))
        return check_output("the network", out, x).to(x.dtype)

    def call(self, x: Tensor, c_noise: Tensor, labels: tuple[Tensor, ...]) -> Tensor:
        """Return the module's own output. x is in the dtype of the weights, c_noise in that of the caller."""
        # bfloat16 would round timestep 997 to 996. Most networks embed the time in float32 and cast the embedding.
        time = c_noise.to(torch.promote_types(x.dtype, torch.float32))
        if time.dtype == x.dtype or self.rounds_time:
            return self.module(x, c_noise.to(x.dtype), *labels)
        try:
            return self.module(x, time, *labels)
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError:  # a layer of half precision on the time itself
            out = self.module(x, c_noise.to(x.dtype), *labels)
            self.rounds_time = True
            return out

    @property
    def name(self) -> str:
        """Name of the module's class, or of a plain function."""
        return getattr(self.module, "__name__", type(self.module).__name__)

    def __repr__(self) -> str:
        return summarize(self, self.name)


class AdaptedDenoiser(nn.Module):
    """A denoiser D(x, sigma, class_labels=None) made from a third-party network.

    x is (B, *event), sigma a scalar or (B,), class_labels int64 (B,) or None. The result has the shape and dtype of x.
    The network runs in the dtype of its own weights, everything around it in that of x, but float32 at least.
    ``sigma_min`` and ``sigma_max`` bound the noise levels that the network was trained on: `distill` stays within
    them, the call checks only that they are levels at all.
    """

    @check_arguments(sigma_data=number(positive=True), label_dim=count(0))
    def __init__(
        self,
        network: ThirdPartyNetwork,
        noise_parametrization: NoiseParametrization,
        *,
        event_shape: int | Sequence[int] | None,
        label_dim: int = 0,
        sigma_data: float = 0.5,
        sigma_min: float = 0.0,
        sigma_max: float = math.inf,
    ) -> None:
        super().__init__()
        self.network = network
        self.noise_parametrization = noise_parametrization
        self.event_shape = None if event_shape is None else check_shape(event_shape)
        self.label_dim = label_dim
        self.sigma_data = sigma_data
        self.sigma_min, self.sigma_max = sigma_min, sigma_max

    def forward(self, x: Tensor, sigma: Any, class_labels: Tensor | None = None) -> Tensor:
        """Return D(x, sigma), in the shape and dtype of x."""
        check_batch(x)
        work = x.to(torch.promote_types(x.dtype, torch.float32))
        # One c_noise per sample, (B,), because a third-party network may not broadcast a single one.
        levels = as_batch(sigma, work)  # (B,)
        check_noise_levels(self, sigma if isinstance(sigma, Tensor) else torch.as_tensor(sigma, dtype=torch.float64))
        coefficients = self.noise_parametrization(levels)  # four of (B,)
        out = precondition(lambda x_in, c_noise: self.network(x_in, c_noise, class_labels), work, coefficients)
        return out.to(x.dtype)

    def as_student(self, t_max: float) -> AdaptedStudent:
        """Return the network as a student's F. It shares the weights: copy it before training."""
        return AdaptedStudent(self.network, self.noise_parametrization, t_max, self.sigma_data, self.label_dim)

    def __repr__(self) -> str:
        return summarize(self, self.network.name, repr(self.noise_parametrization))


def attributes_of(network: Any, event_shape: int | Sequence[int] | None, label_dim: int | None) -> dict[str, Any]:
    """Return ``event_shape`` and ``label_dim``, the network's own where the user passed None."""
    network = unwrapped(network)  # a wrapper has none of its attributes
    return {
        "event_shape": getattr(network, "event_shape", None) if event_shape is None else event_shape,
        "label_dim": getattr(network, "label_dim", 0) if label_dim is None else label_dim,
    }
