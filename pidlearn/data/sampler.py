"""Real data as a function that draws from them, for the methods that need data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pidlearn.utils.validation import describe_tensor

__all__ = ["sampler_of"]


def sampler_of(data: Any, teacher: Any, device: torch.device) -> Callable[..., Tensor]:
    """A function ``(n, generator=None) -> (n, *event)`` that draws from the data, on that device.

    Args:
        data: such a function; a tensor (M, *event), drawn from with replacement; or None for a teacher that is an exact
            density and can be sampled from itself.
        teacher: the teacher.
        device: where the samples are needed.

    Raises:
        ValueError: no data, and a teacher that cannot be sampled from; or something else than the above.
    """
    if data is None:
        data = getattr(teacher, "sample", None)
        if data is None:
            raise ValueError(
                "got no data, but this method needs them: pass data=, a tensor (M, *event) or a function (n, "
                "generator=None)"
            )
    if isinstance(data, Tensor):
        if data.ndim < 2 or not len(data) or not data.is_floating_point():
            raise ValueError(f"got data {describe_tensor(data)}, but data must be a floating tensor (M, *event)")
        return lambda n, generator=None: data[torch.randint(len(data), (n,), generator=generator)].to(device)
    if not callable(data):
        raise ValueError(
            f"got data of type {type(data).__name__}, but data is a tensor or a function (n, generator=None)"
        )
    return lambda n, generator=None: data(n, generator=generator).to(device)
