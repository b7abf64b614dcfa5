"""Errors that say what came, what was expected and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

__all__ = ["choose", "explained", "what"]


@contextmanager
def explained(role: str, module: Any, x: Tensor) -> Iterator[None]:
    """Turn torch's complaint about mixed dtypes or devices into one that names the part and what to do."""
    try:
        yield
    except RuntimeError as error:
        weight = next(module.parameters(), x) if isinstance(module, nn.Module) else x
        if (weight.dtype, weight.device) == (x.dtype, x.device):
            raise
        raise ValueError(
            f"the {role}'s weights are {weight.dtype} on {weight.device} but it was given {x.dtype} on {x.device}: "
            f"move or convert one of them"
        ) from error


def choose(kind: str, given: Any, table: dict[str, Any]) -> Any:
    """The part of that name, or the part itself if it is one already."""
    if callable(given):
        return given
    if given not in table:
        raise ValueError(f"{kind} must be one of {sorted(table)} or a function, got {given!r}")
    return table[given]


def what(x: Any) -> str:
    """Shape and dtype of a tensor, or else the type."""
    return f"{tuple(x.shape)} {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
