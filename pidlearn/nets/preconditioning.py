"""Preconditioning: a denoiser D(x, sigma) from a network F whose input has unit scale.

    D(x, sigma) = c_skip(sigma) x + c_out(sigma) F(c_in(sigma) x; c_noise(sigma))

`pidlearn.nets.noise_parametrization` lists the four functions; `Preconditioned` has EDM's.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pidlearn.nets.noise_parametrization import EDM, Coefficients, NoiseParametrization
from pidlearn.nets.summary import summarize
from pidlearn.utils.arguments import MODULE, check_arguments, number
from pidlearn.utils.validation import as_real, check_batch, check_not_complex, describe_tensor
from pidlearn.utils.wrappers import unwrapped

__all__ = ["Preconditioned", "precondition"]


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
        s = s.to(x.device, dtype)
        if s.numel() not in (1, len(x)):
            raise ValueError(
                f"got sigma of shape {tuple(s.shape)}; expected a number, or one for each of {len(x)} samples"
            )
        return precondition(network, x, self.coefficients(s.reshape(-1)), self.compute_dtype)  # sigma (B,) or (1,)

    def __repr__(self) -> str:
        return summarize(self, type(self.model).__name__)
