"""The dtypes that a function computes in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["LeastPrecise"]


class LeastPrecise(TorchFunctionMode):
    """Record in ``epsilon`` the largest epsilon of a dtype that anything is computed in while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.epsilon = 0.0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.is_floating_point():
            self.epsilon = max(self.epsilon, torch.finfo(result.dtype).eps)
        return result
