"""Preconditioning: a denoiser D(x, sigma) from a network F whose input has unit scale.

    D(x, sigma) = c_skip(sigma) x + c_out(sigma) F(c_in(sigma) x; c_noise(sigma))

`pidlearn.nets.noise_parametrization` lists the four functions; `Preconditioned` has EDM's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pidlearn.nets.noise_parametrization import EDM, Coefficients, NoiseParametrization
from pidlearn.nets.summary import summarize
from pidlearn.utils.arguments import MODULE, check_arguments, number
from pidlearn.utils.validation import as_real, check_batch, check_not_complex, describe_tensor
from pidlearn.utils.wrappers import unwrapped

__all__ = ["Preconditioned", "check_noise_levels", "precondition"]


def precondition(
    network: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    coefficients: Coefficients,
    compute_dtype: torch.dtype | None = None,
) -> Tensor:
    """Return D = c_skip x + c_out F(c_in x; c_noise), of the shape and dtype of x.

    Args:
        network: F, called with the scaled x (B, *event) and c_noise (B,) or (1,).
        x: (B, *event), in float32 or float64.
        coefficients: of x's dtype, each (B,) or (1,).
        compute_dtype: dtype of the network's input, if not that of x. Everything else stays in the dtype of x, c_noise
            too: in bfloat16 neighbouring noise levels could no longer be distinguished.

    Raises:
        ValueError: if the network returns another shape than x has, or complex values.
    """
    c_skip, c_out, c_in = (c.reshape(-1, *[1] * (x.ndim - 1)) for c in coefficients[:3])  # (B or 1, 1, ..., 1)
    # Scaled before the cast: c_in x is of order one (except for VE), while x grows with sigma.
    out = network((c_in * x).to(compute_dtype or x.dtype), coefficients.c_noise)
    if not isinstance(out, Tensor) or out.shape != x.shape:
        raise ValueError(
            f"the network returned {describe_tensor(out)}, but must keep the shape of x, {tuple(x.shape)}: return one "
            f"such tensor"
        )
    check_not_complex("the network", out)
    # Summed in x's dtype: at small sigma c_out F is a correction of x that bfloat16 would round away.
    return c_skip * x + c_out * out.to(x.dtype)


def check_noise_levels(denoiser: Any, sigma: Tensor) -> None:
    """Check that a denoiser with a ``noise_parametrization`` has an answer for noise levels, of any shape.

    Levels on a GPU, as training passes them, are not looked at: that would wait for it at each step.

    Raises:
        ValueError: a level that is negative, infinite or NaN, or 0 where the network's time is not finite.
    """
    if torch.compiler.is_compiling() or sigma.device.type != "cpu" or not sigma.numel():
        return
    low, high = (end.item() for end in sigma.detach().aminmax())  # NaN if there is one
    # At 0, VP's D is x; EDM's time is ln 0.
    if 0 < low <= high < math.inf or (low == 0 and high < math.inf and _has_zero(denoiser.noise_parametrization)):
        return
    span = f"{getattr(denoiser, 'sigma_min', 0.0):g} to {getattr(denoiser, 'sigma_max', math.inf):g}"
    raise ValueError(
        f"got sigma = {high if low > 0 else low:g}, but a noise level must be positive and finite, for this teacher "
        f"from {span}: pass one of that range"
    )


def _has_zero(noise_parametrization: NoiseParametrization) -> bool:
    return bool(noise_parametrization(torch.zeros(1, dtype=torch.float64)).c_noise.isfinite().all())


class Preconditioned(nn.Module):
    """A denoiser D(x, sigma, class_labels=None) from any network F(x, c_noise, class_labels), with EDM's coefficients.

    x is (B, *event) with any event shape; sigma is positive, with one element or B. The result has the shape of x. It
    is computed in float64 if x is float64, otherwise in float32. F takes c_noise of shape (B,) or (1,), and the class
    labels unchanged. `event_shape` and `label_dim` are the network's, if it has them.
    """

    compute_dtype: torch.dtype | None = None
    """Dtype that the network computes in, if not that of the result. Everything around it keeps the result's dtype."""

    @check_arguments(network=MODULE, sigma_data=number(positive=True))
    def __init__(self, network: nn.Module, sigma_data: float = 0.5) -> None:
        super().__init__()
        self.model = network
        self.sigma_data = sigma_data
        self.noise_parametrization: NoiseParametrization = EDM(sigma_data)
        plain = unwrapped(network)  # a wrapper has none of its attributes
        self.label_dim: int = getattr(plain, "label_dim", 0)
        if hasattr(plain, "event_shape"):
            self.event_shape: tuple[int, ...] = tuple(plain.event_shape)

    def forward(self, x: Tensor, sigma: Tensor | float, class_labels: Tensor | None = None) -> Tensor:
        """Return D(x, sigma), in the shape of x."""
        return self._denoise(x, sigma, lambda x_in, c_noise: self.model(x_in, c_noise, class_labels))

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """Return c_skip, c_out, c_in and c_noise at noise levels sigma, each of its shape and dtype."""
        return self.noise_parametrization(sigma)

    def _denoise(self, x: Tensor, sigma: Tensor | float, network: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        check_batch(x)
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        x = x.to(dtype)
        s = sigma if isinstance(sigma, Tensor) and not sigma.is_complex() else as_real("sigma", sigma, dtype)
        if s.is_meta != x.is_meta or s.layout != torch.strided:
            raise ValueError(f"got sigma {describe_tensor(s)}, but it must be a dense tensor where x is: convert it")
        if s.numel() not in (1, len(x)):
            raise ValueError(
                f"got sigma of shape {tuple(s.shape)}; expected a number, or one for each of {len(x)} samples"
            )
        s = s.reshape(-1).to(dtype)  # (B,) or (1,)
        check_noise_levels(self, s)
        return precondition(network, x, self.coefficients(s.to(x.device)), self.compute_dtype)

    def __repr__(self) -> str:
        return summarize(self, type(self.model).__name__)
