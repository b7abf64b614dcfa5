"""Times beside batches: a time is a number, a 0-d tensor, or one a sample, (B,)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["expand", "per_sample"]


def expand(t: Any, x: Tensor) -> Tensor:
    """A scalar or (B,) t with x's dtype and device, shaped to broadcast against x (B, *event)."""
    t = torch.as_tensor(t, dtype=x.dtype, device=x.device)
    return t.reshape(-1, *[1] * (x.ndim - 1)) if t.ndim else t


def per_sample(t: Any, x: Tensor) -> Tensor:
    """A scalar or (B,) t as (B,) with x's dtype and device."""
    return torch.as_tensor(t, dtype=x.dtype, device=x.device).expand(x.shape[0])
