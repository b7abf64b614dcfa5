"""Weights of the loss over time: t (B,) float64 to (B,)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pidlearn.utils.validation import describe_tensor, extremes, reraise_from_function

__all__ = ["Weight", "checked_weight", "weights", "weights_for"]

Weight = Callable[[Tensor], Tensor]
"""t (B,) float64 to a weight (B,)."""


def weights(sigma_data: float) -> dict[str, Weight]:
    """The weightings by their names, those of the official code among them, for data of that standard deviation."""
    return {
        "uniform": torch.ones_like,  # as in the official recipe
        "snr": lambda t: t**-2,  # the signal-to-noise ratio of data of unit variance
        "karras": lambda t: t**-2 + sigma_data**-2,  # = 1 / c_out^2, EDM's weight of a squared denoising error
        "sqrt_karras": lambda t: (t**-2 + sigma_data**-2).sqrt(),  # the same of a distance that is a norm
        "truncated_snr": lambda t: (t**-2).clamp(min=1),  # snr, but at least 1: large t still counts
    }


def weights_for(student: Any) -> dict[str, Weight]:
    """The weightings for a student's own sigma_data; EDM's 0.5 for a callable that has none."""
    return weights(getattr(student, "sigma_data", 0.5))


def checked_weight(function: Weight, t: Tensor) -> Tensor:
    """The weight at each time: one finite value of at least 0, (B,)."""
    with reraise_from_function("weight function", "weight(t)"):
        values = function(t)
    if not isinstance(values, Tensor) or values.shape != t.shape or values.is_complex():
        raise ValueError(
            f"the weight function returned {describe_tensor(values)}, but must return one value per time, "
            f"real and of shape {tuple(t.shape)}"
        )
    low, high = extremes(values)
    if not (low >= 0 and high < math.inf):
        usable = values.isfinite() & (values >= 0)
        raise ValueError(
            f"the weight is {values[~usable][0].item():g} at t = {t[~usable][0].item():g}: choose one that is finite "
            f"and at least 0 on the whole grid, such as 'uniform'"
        )
    return values
