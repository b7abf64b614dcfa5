"""The standard deviation of a denoiser's data, from which spans and checks take their unit."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from pidlearn.utils.validation import describe_tensor, summary

__all__ = ["LOW_DIMENSIONAL", "SIGMA_DATA", "is_usual", "stated", "stated_std"]

T = TypeVar("T")

SIGMA_DATA = 0.5
"""Standard deviation of images in [-1, 1], for teachers that do not state their own (Karras et al. 2022)."""

LOW_DIMENSIONAL = 16
"""Problems of up to this many dimensions get the students, recipes and checks of the toys."""


def stated(teacher: Any, name: str, read: Callable[[Any], T], expected: str) -> T | None:
    """Return ``read`` of a teacher's attribute, or None if the attribute is missing or None.

    Raises:
        ValueError: an attribute that ``read`` cannot take, or makes NaN of: ``expected`` says what it must be.
    """
    value = getattr(teacher, name, None)
    if value is None:
        return None
    try:
        result: T | None = read(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):  # a method, a text, a tensor on meta
        result = None
    if result is None or (isinstance(result, float) and math.isnan(result)):
        received = describe_tensor(value) if isinstance(value, Tensor) else summary(value)
        raise ValueError(
            f"the teacher's attribute {name} is {received}, but must be {expected}: set it, or rename an attribute "
            f"with another meaning"
        )
    return result


def stated_std(denoiser: Any) -> float | None:
    """Return ``std`` or ``sigma_data`` of a denoiser, the first that is there and not 0, or None.

    Of one standard deviation per channel or coordinate it is the root mean square.

    Raises:
        ValueError: an attribute that is no such number.
    """
    for name in ("std", "sigma_data"):
        if std := stated(denoiser, name, _root_mean_square, "the standard deviation of the data, a finite number"):
            return std
    return None


def _root_mean_square(value: Any) -> float:
    std = torch.as_tensor(value, dtype=torch.float64).square().mean().sqrt().item()
    return std if math.isfinite(std) else math.nan


def is_usual(std: float) -> bool:
    """Whether EDM's span and the recipes, chosen for ``SIGMA_DATA``, suit data of that standard deviation."""
    return 0.1 <= std / SIGMA_DATA <= 10
