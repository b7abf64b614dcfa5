"""Checks of the samples that are compared, and of what a user's function makes of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pidlearn.utils.validation import describe_tensor, reraise_from_function

__all__ = ["apply", "flat", "paired", "real"]


def real(x: Any, name: str) -> Tensor:
    """Return samples (B, ...) as they are, after checking that they are real numbers of any dtype."""
    if not isinstance(x, Tensor) or x.is_complex() or not x.ndim or x.layout != torch.strided or x.is_meta:
        raise ValueError(
            f"got {describe_tensor(x)} for {name}, but {name} must be a dense tensor (B, *event) of real numbers: "
            f"convert it first"
        )
    return x


def flat(x: Any, name: str) -> Tensor:
    """Return samples (B, *event) as (B, d) float64."""
    if real(x, name).ndim < 2:
        raise ValueError(
            f"got {describe_tensor(x)} for {name}, but {name} must be samples (B, *event): reshape numbers to (B, 1)"
        )
    return x.flatten(1).double()


def paired(a: Any, b: Any) -> tuple[Tensor, Tensor]:
    """Return two samples of one shape in float64: differences of bytes wrap, and those of halves overflow."""
    a, b = real(a, "a"), real(b, "b")
    if a.shape != b.shape or not len(a):
        raise ValueError(
            f"got {tuple(a.shape)} and {tuple(b.shape)}, but two batches of the same shape are compared: pair each "
            f"sample with its reference"
        )
    return a.double(), b.double()


def apply(name: str, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Call the user's function, and check that it returns a row per sample, (B, k)."""
    with reraise_from_function(f"{name} function", f"{name}(x) with x {describe_tensor(x)}"):
        out = function(x)
    if not isinstance(out, Tensor) or not out.ndim or len(out) != len(x):
        raise ValueError(
            f"{name} returned {describe_tensor(out)} for {len(x)} samples: return one row per sample, ({len(x)}, k)"
        )
    return out
