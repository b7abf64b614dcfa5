"""Weights of the loss over time: t (B,) float64 to (B,)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["Weight", "weights"]

Weight = Callable[[Tensor], Tensor]
"""t (B,) float64 to a weight (B,)."""


def weights(sigma_data: float) -> dict[str, Weight]:
    """The weightings by the names of the official code, for data of that standard deviation."""
    return {
        "uniform": torch.ones_like,
        "snr": lambda t: t**-2,
        "karras": lambda t: t**-2 + sigma_data**-2,
        "truncated_snr": lambda t: (t**-2).clamp(min=1),
    }
