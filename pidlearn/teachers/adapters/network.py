"""Any third-party network as a denoiser, given how it sees the noisy sample, its level and the prediction.

    parametrization    predicts               input                            time
    "edm"              EDM's F                x / sqrt(sigma^2 + sigma_data^2)  ln(sigma) / 4
    "vp"               noise n                x / sqrt(1 + sigma^2)             999 t(sigma), as Score-SDE's VP
    "ve"               score -n / sigma       x                                sigma, as Score-SDE's VE
    "flow"             velocity n - x0        x / (1 + sigma)                  sigma / (1 + sigma), data at 0
    alphas_cumprod     noise n                x / sqrt(1 + sigma^2)             timestep k(sigma), from 0

for x = x0 + sigma n. `pidlearn.nets.noise_parametrization`, `pidlearn.teachers.adapters.diffusers` and
`pidlearn.teachers.adapters.flow` derive them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pidlearn.nets.noise_parametrization import EDM, VP, Coefficients, NoiseParametrization
from pidlearn.teachers.adapters.base import AdaptedDenoiser, ThirdPartyNetwork, attributes_of
from pidlearn.teachers.adapters.diffusers import VariancePreserving, finite_span
from pidlearn.teachers.adapters.flow import FlowMatching
from pidlearn.teachers.adapters.score import NoiseFromScore, VarianceExploding
from pidlearn.utils.arguments import NOISE_LEVEL, check_arguments, number, optional
from pidlearn.utils.validation import as_real

__all__ = ["from_network"]

NAMES = ("edm", "vp", "ve", "flow")


@check_arguments(sigma_data=number(positive=True), sigma_min=optional(number(0)), sigma_max=optional(NOISE_LEVEL))
def from_network(
    network: Callable[..., Any],
    parametrization: str | Tensor | Sequence[float] | NoiseParametrization,
    *,
    event_shape: int | Sequence[int] | None = None,
    label_dim: int | None = None,
    sigma_data: float = 0.5,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
) -> AdaptedDenoiser:
    """Return a third-party network as a denoiser D(x, sigma, class_labels=None), for `distill`.

    On images the student starts as a copy of the network, which a denoiser D(x, sigma) that the user wraps around it
    does not allow.

    Args:
        network: the bare network F(x, time) or F(x, time, class_labels), without its preconditioning, called with
            x (B, *event) and time (B,) in the dtype of its weights (the time in float32 if these have half precision
            and the network takes it) and class_labels int64 (B,). If it has twice as many output as input channels (a
            learned variance), the first half is the prediction; of an output object with ``sample``, as diffusers
            returns, that is the prediction. Wrap a network with another time, such as 1000 t, or one-hot labels in a
            module that converts them.
        parametrization: "edm" | "vp" | "ve" | "flow", the table in this module's docstring; a table alphas_cumprod
            (K,), decreasing, of a network that predicts the noise at K timesteps; or a function of sigma (B,) that
            returns c_skip, c_out, c_in and c_noise.
        event_shape: shape of one sample; by default the network's attribute of that name, if it has one.
        label_dim: number of classes, 0 for none; by default the network's attribute of that name, or 0.
        sigma_data: standard deviation of the data.
        sigma_min: smallest noise level of the network's training; by default that of "vp" or of the table, else 0.
        sigma_max: largest one; by default that of "vp" or of the table, else infinity.

    Raises:
        TypeError: for a network that is not callable.
        ValueError: for an unknown parametrization, or an invalid shape, number of classes or noise level.
    """
    if not callable(network) or isinstance(network, type):
        raise TypeError(
            f"got a network of type {type(network).__name__}; expected a torch.nn.Module F(x, time), such as the U-Net "
            f"inside a denoiser or pipeline"
        )
    module: ThirdPartyNetwork = PlainNetwork(network)
    noise = _noise_parametrization(parametrization, sigma_data)
    if isinstance(noise, VarianceExploding):
        module = NoiseFromScore(module)
    # Outside the training levels the network would extrapolate, so distillation stays within them.
    low, high = (
        finite_span(network, noise)
        if isinstance(noise, VariancePreserving)
        else getattr(noise, "span", (0.0, math.inf))
    )
    low, high = low if sigma_min is None else sigma_min, high if sigma_max is None else sigma_max
    if not 0 <= low < high:
        raise ValueError(f"got noise levels from sigma_min = {low} to sigma_max = {high}; expected 0 <= min < max")
    return AdaptedDenoiser(
        module,
        noise,
        **attributes_of(network, event_shape, label_dim),
        sigma_data=sigma_data,
        sigma_min=low,
        sigma_max=high,
    )


def _noise_parametrization(value: Any, sigma_data: float) -> NoiseParametrization:
    """The noise parametrization of that name or table, or the user's own."""
    if isinstance(value, str) and value in NAMES:
        made: dict[str, NoiseParametrization] = {
            "edm": EDM(sigma_data),
            "vp": VP(),
            "ve": VarianceExploding(),
            "flow": FlowMatching(0),
        }
        return made[value]
    if callable(value):
        return OwnFunctions(value)
    try:
        table = as_real("parametrization", value, torch.float64)
    except ValueError:
        table = torch.zeros(())  # no table, reported below
    if table.ndim != 1:
        raise ValueError(
            f"got parametrization = {value!r:.80}; expected {', '.join(map(repr, NAMES))}, a decreasing table of "
            f"alphas_cumprod, or a function of sigma that returns c_skip, c_out, c_in and c_noise"
        )
    # (K,) alphas_cumprod; its timesteps become real numbers.
    return VariancePreserving(table, "epsilon")


@dataclass(frozen=True)
class OwnFunctions:
    """Noise parametrization from the user's function of sigma, whose four results may be any tuple."""

    function: Callable[[Tensor], Sequence[Tensor]]

    def __call__(self, sigma: Tensor) -> Coefficients:
        """Return the coefficients at noise levels (B,)."""
        return Coefficients(*self.function(sigma))


class PlainNetwork(ThirdPartyNetwork):
    """A network as F(x, time, class_labels=None), without an output object and without a learned variance."""

    def call(self, x: Tensor, c_noise: Tensor, labels: tuple[Tensor, ...]) -> Tensor:
        """Return the prediction, (B, *event)."""
        out: Any = super().call(x, c_noise, labels)
        out = getattr(out, "sample", out)  # (B, C or 2 C, H, W) for images
        # Two images per input: the second is a learned variance, which the probability flow does not need.
        learned_variance = isinstance(out, Tensor) and out.ndim == x.ndim > 2 and out.shape[1] == 2 * x.shape[1]
        return out[:, : x.shape[1]] if learned_variance else out
