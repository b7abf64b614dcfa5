"""Times and batches: a time is a number, a 0-d tensor, or one value per sample, (B,)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pidlearn.utils.validation import as_real, check_batch

__all__ = ["as_batch", "as_float64_time", "expand_like", "jvp_in_time", "noise_level"]


def expand_like(t: Any, x: Tensor) -> Tensor:
    """Return a scalar or (B,) t with x's dtype and device, shaped to broadcast against x (B, *event)."""
    t = _as_time(t, x)
    if t.ndim and t.numel() not in (1, *x.shape[:1]):
        raise _wrong_number(t, x)
    return t.reshape(-1, *[1] * (x.ndim - 1)) if t.ndim else t


def as_batch(t: Any, x: Tensor) -> Tensor:
    """Return a scalar or (B,) t as (B,) with x's dtype and device.

    Raises:
        ValueError: another shape.
    """
    return _per_sample(_as_time(t, check_batch(x)), x)


def noise_level(sigma: Any, x: Tensor) -> Tensor:
    """Return a standard deviation of noise as `as_batch`, after checking that it is at least 0.

    Raises:
        ValueError: a negative value or NaN.
    """
    sigma = as_batch(sigma, x)
    if sigma.numel() and not sigma.amin() >= 0:
        raise ValueError(f"got sigma = {sigma.min().item():g}, but a noise level must be at least 0")
    return sigma


def as_float64_time(t: Any, x: Tensor) -> Tensor:
    """Return a scalar or (B,) t as (B,) on x's device; a number becomes float64, a floating tensor keeps its dtype.

    1 - t/T loses its digits near T in float32.
    """
    check_batch(x, "z")
    t = t if isinstance(t, Tensor) and t.is_floating_point() and not t.is_meta else as_real("a time", t, torch.float64)
    return _per_sample(t.to(x.device), x)


def jvp_in_time(
    path: Callable[..., tuple[Tensor, ...]], *times: Tensor
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return ``path(*times)``, one value per time, and the time derivatives, by forward-mode AD (`torch.func.jvp`)."""
    # Each value depends on its own time alone, so the tangents of all times can be 1 in a single pass.
    values, slopes = torch.func.jvp(path, times, tuple(torch.ones_like(t) for t in times))[:2]
    return values, slopes


def _as_time(t: Any, x: Tensor) -> Tensor:
    """t as a tensor with x's dtype and device; tensors, as in training, are not inspected further."""
    if not isinstance(t, Tensor) or t.is_complex() or t.is_meta != x.is_meta:
        t = as_real("a time or noise level", t, x.dtype)
    return t.to(x.device, x.dtype)


def _per_sample(t: Tensor, x: Tensor) -> Tensor:
    if t.ndim > 1 or (t.ndim and len(t) not in (1, len(x))):
        raise _wrong_number(t, x)
    return t.expand(len(x))


def _wrong_number(t: Tensor, x: Tensor) -> ValueError:
    return ValueError(
        f"got {tuple(t.shape)}, but a time or noise level must be a number or one value per sample, "
        f"{tuple(x.shape[:1])}: repeat or reshape it"
    )
