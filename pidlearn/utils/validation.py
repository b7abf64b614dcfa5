"""Errors that say what came, what was expected and what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = [
    "NotFiniteError",
    "check_labels",
    "check_real",
    "check_shape",
    "describe_tensor",
    "extremes",
    "printable",
    "reraise_with_context",
    "resolve",
]


class NotFiniteError(ValueError):
    """Something became NaN or infinite."""


@contextmanager
def reraise_with_context(role: str, module: Any, x: Tensor, t: Tensor) -> Iterator[None]:
    """Turn torch's complaint about what a module was given into one that names the part and what to do."""
    try:
        yield
    except torch.cuda.OutOfMemoryError:
        raise
    except (RuntimeError, IndexError) as error:  # IndexError: an embedding of labels that it does not have
        weight = next(module.parameters(), x) if isinstance(module, nn.Module) else x
        if (weight.dtype, weight.device) != (x.dtype, x.device):
            raise ValueError(
                f"the {role}'s weights are {weight.dtype} on {weight.device} but it was given {x.dtype} on "
                f"{x.device}: move or convert one of them"
            ) from error
        hint = f"; if it mixes the two, convert t to {x.dtype} first" if t.dtype != x.dtype else ""
        raise ValueError(
            f"the {role} fails on x {describe_tensor(x)} with t {describe_tensor(t)}{hint}: {error}"
        ) from error


def check_labels(class_labels: Tensor | None, n: int, classes: int = 0) -> None:
    """Raise unless the labels are n whole numbers, below ``classes`` if that is known; or None."""
    if class_labels is None:
        return
    fits = isinstance(class_labels, Tensor) and class_labels.dtype == torch.int64 and class_labels.shape == (n,)
    if not fits:
        raise ValueError(f"class_labels must be an int64 tensor of shape ({n},), got {describe_tensor(class_labels)}")
    if classes:
        low, high = extremes(class_labels)
        if low < 0 or high >= classes:
            raise ValueError(f"class labels must lie in 0..{classes - 1}, got {low}..{high}")


def extremes(x: Tensor) -> list[Any]:
    """The least and the largest entry, NaN if there is one: for a GPU is waited once."""
    return torch.stack(x.aminmax()).tolist()


def check_real(**tensors: Tensor) -> None:
    """Raise if one is on the meta device."""
    for name, tensor in tensors.items():
        if tensor.is_meta:
            raise ValueError(f"{name} is on the meta device and holds no numbers: move it to a real one")


def check_shape(event_shape: int | Sequence[int]) -> tuple[int, ...]:
    """The shape of one sample, or its length, as a tuple, once its sizes are whole numbers from 1 on."""
    shape = (event_shape,) if isinstance(event_shape, int) else tuple(event_shape)
    if not shape or not all(isinstance(size, int) and size > 0 for size in shape):
        raise ValueError(f"event_shape holds the sizes of one sample, such as (3, 32, 32); got {shape}")
    return shape


def resolve(kind: str, given: Any, table: dict[str, Any]) -> Any:
    """The part of that name, or the part itself if it is one already."""
    if callable(given):
        return given
    if not isinstance(given, str) or given not in table:
        raise ValueError(f"{kind} must be one of {sorted(table)} or a function, got {given!r}")
    return table[given]


def printable(text: object) -> str:
    """What a stranger's file says, as text that cannot drive a terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text))


def describe_tensor(x: Any) -> str:
    """Shape and dtype of a tensor, or else the type."""
    return f"{tuple(x.shape)} {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
