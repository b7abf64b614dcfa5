"""Times and batches: a time is a number, a 0-d tensor, or one value per sample, (B,)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["as_batch", "as_float64_time", "expand_like", "jvp_in_time", "noise_level"]


def expand_like(t: Any, x: Tensor) -> Tensor:
    """Return a scalar or (B,) t with x's dtype and device, shaped to broadcast against x (B, *event)."""
    t = torch.as_tensor(t, dtype=x.dtype, device=x.device)
    return t.reshape(-1, *[1] * (x.ndim - 1)) if t.ndim else t


def as_batch(t: Any, x: Tensor) -> Tensor:
    """Return a scalar or (B,) t as (B,) with x's dtype and device.

    Raises:
        ValueError: another shape.
    """
    return _per_sample(torch.as_tensor(t, dtype=x.dtype, device=x.device), x)


def noise_level(sigma: Any, x: Tensor) -> Tensor:
    """Return a standard deviation of noise as `as_batch`, after checking that it is at least 0.

    Raises:
        ValueError: a negative value or NaN.
    """
    sigma = as_batch(sigma, x)
    if not sigma.amin() >= 0:
        raise ValueError(f"a noise level must be at least 0, got {sigma.min().item():g}")
    return sigma


def as_float64_time(t: Any, x: Tensor) -> Tensor:
    """Return a scalar or (B,) t as (B,) on x's device; a number becomes float64, a floating tensor keeps its dtype.

    1 - t/T loses its digits near T in float32.
    """
    t = t if isinstance(t, Tensor) and t.is_floating_point() else torch.as_tensor(t, dtype=torch.float64)
    return _per_sample(t.to(x.device), x)


def jvp_in_time(
    path: Callable[..., tuple[Tensor, ...]], *times: Tensor
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return ``path(*times)``, one value per time, and the time derivatives, by forward-mode AD (`torch.func.jvp`)."""
    # Each value depends on its own time alone, so the tangents of all times can be 1 in a single pass.
    values, slopes = torch.func.jvp(path, times, tuple(torch.ones_like(t) for t in times))[:2]
    return values, slopes


def _per_sample(t: Tensor, x: Tensor) -> Tensor:
    if t.ndim > 1 or (t.ndim and len(t) not in (1, len(x))):
        raise ValueError(
            f"a time or noise level must be a number or one value per sample, ({len(x)},); got {tuple(t.shape)}"
        )
    return t.expand(len(x))
