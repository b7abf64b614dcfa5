"""The standard deviation of a denoiser's data, from which spans and checks take their unit."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pidlearn.utils.validation import describe_tensor, summary

__all__ = ["LOW_DIMENSIONAL", "SIGMA_DATA", "is_usual", "stated_std"]

SIGMA_DATA = 0.5
"""Standard deviation of images in [-1, 1], for teachers that do not state their own (Karras et al. 2022)."""

LOW_DIMENSIONAL = 16
"""Problems of up to this many dimensions get the students, recipes and checks of the toys."""


def stated_std(denoiser: Any) -> float | None:
    """Return ``std`` or ``sigma_data`` of a denoiser, the first that is there and not 0, or None.

    Of one standard deviation per channel or coordinate it is the root mean square.

    Raises:
        ValueError: an attribute that is no such number.
    """
    for name in ("std", "sigma_data"):
        value = getattr(denoiser, name, None)
        if value is None:
            continue
        try:
            std = torch.as_tensor(value, dtype=torch.float64).square().mean().sqrt().item()
        except (TypeError, ValueError, RuntimeError):  # a method, a text, a tensor on meta
            std = math.nan
        if not math.isfinite(std):
            received = describe_tensor(value) if isinstance(value, Tensor) else summary(value)
            raise ValueError(
                f"the teacher's attribute {name} is {received}, but must be the standard deviation of the data, a "
                f"finite number: set it, or rename an attribute with another meaning"
            )
        if std:
            return std
    return None


def is_usual(std: float) -> bool:
    """Whether EDM's span and the recipes, chosen for ``SIGMA_DATA``, suit data of that standard deviation."""
    return 0.1 <= std / SIGMA_DATA <= 10
