"""Weights of the loss over time: t (B,) float64 to (B,)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["Weight", "weights", "weights_for"]

Weight = Callable[[Tensor], Tensor]
"""t (B,) float64 to a weight (B,)."""


def weights(sigma_data: float) -> dict[str, Weight]:
    """The weightings by the names of the official code, for data of that standard deviation."""
    return {
        "uniform": torch.ones_like,  # as in the official recipe
        "snr": lambda t: t**-2,  # the signal-to-noise ratio of data of unit variance
        "karras": lambda t: t**-2 + sigma_data**-2,  # = 1 / c_out^2, EDM's weight of a denoising error
        "truncated_snr": lambda t: (t**-2).clamp(min=1),  # snr, but at least 1: large t still counts
    }


def weights_for(student: Any) -> dict[str, Weight]:
    """The weightings for a student's own sigma_data; EDM's 0.5 for a callable that has none."""
    return weights(getattr(student, "sigma_data", 0.5))
