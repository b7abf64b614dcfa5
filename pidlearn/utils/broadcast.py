"""Times beside batches: a time is a number, a 0-d tensor, or one a sample, (B,)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["as_batch", "as_float64_time", "expand_like", "jvp_in_time", "noise_level"]


def expand_like(t: Any, x: Tensor) -> Tensor:
    """A scalar or (B,) t with x's dtype and device, shaped to broadcast against x (B, *event)."""
    t = torch.as_tensor(t, dtype=x.dtype, device=x.device)
    return t.reshape(-1, *[1] * (x.ndim - 1)) if t.ndim else t


def as_batch(t: Any, x: Tensor) -> Tensor:
    """A scalar or (B,) t as (B,) with x's dtype and device.

    Raises:
        ValueError: if it is neither.
    """
    return _one_each(torch.as_tensor(t, dtype=x.dtype, device=x.device), x)


def noise_level(sigma: Any, x: Tensor) -> Tensor:
    """`as_batch` of a standard deviation, which is not negative.

    Raises:
        ValueError: if one is negative or NaN.
    """
    sigma = as_batch(sigma, x)
    if not sigma.amin() >= 0:
        raise ValueError(f"a noise level is 0 or more, got {sigma.min().item():g}")
    return sigma


def as_float64_time(t: Any, x: Tensor) -> Tensor:
    """A scalar or (B,) t as (B,) on x's device, in float64 unless it is a floating tensor: 1 - t/T needs its digits."""
    t = t if isinstance(t, Tensor) and t.is_floating_point() else torch.as_tensor(t, dtype=torch.float64)
    return _one_each(t.to(x.device), x)


def jvp_in_time(
    path: Callable[..., tuple[Tensor, ...]], *times: Tensor
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """``path(*times)``, a value for each of the times, and their derivatives: one pass of forward mode (`torch.func`).

    Each value depends on its own time alone, so all tangents may be set at once.
    """
    values, slopes = torch.func.jvp(path, times, tuple(torch.ones_like(t) for t in times))[:2]
    return values, slopes


def _one_each(t: Tensor, x: Tensor) -> Tensor:
    if t.ndim > 1 or (t.ndim and len(t) not in (1, len(x))):
        raise ValueError(f"a time, or noise level, is a number or one a sample, ({len(x)},); got {tuple(t.shape)}")
    return t.expand(len(x))
