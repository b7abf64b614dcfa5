"""Validation: errors that say what was received, what was expected and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, SupportsIndex

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
    "summary",
]


class NotFiniteError(ValueError):
    """A value that became NaN or infinite."""


@contextmanager
def reraise_with_context(role: str, module: Any, x: Tensor, t: Tensor) -> Iterator[None]:
    """Re-raise PyTorch errors from a user's module with the component's name and a hint."""
    try:
        yield
    except torch.cuda.OutOfMemoryError:
        raise
    except (RuntimeError, IndexError) as error:  # IndexError: a label beyond an embedding's rows
        weight = next(module.parameters(), x) if isinstance(module, nn.Module) else x
        if (weight.dtype, weight.device) != (x.dtype, x.device):
            raise ValueError(
                f"the {role}'s weights are {weight.dtype} on {weight.device} but its input is {x.dtype} on "
                f"{x.device}: move or convert one of them"
            ) from error
        hint = f"; if it mixes the two, convert t to {x.dtype} first" if t.dtype != x.dtype else ""
        raise ValueError(
            f"the {role} fails on x {describe_tensor(x)} with t {describe_tensor(t)}{hint}: {error}"
        ) from error


def check_labels(class_labels: Tensor | None, n: int, classes: int = 0) -> None:
    """Check that labels are (n,) int64 in 0..classes-1 (if ``classes`` is known), or None."""
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
    """Return the least and the largest entry, NaN if there is one; a GPU is synchronised only once."""
    return torch.stack(x.aminmax()).tolist()


def check_real(**tensors: Tensor) -> None:
    """Check that no tensor is on the meta device."""
    for name, tensor in tensors.items():
        if tensor.is_meta:
            raise ValueError(f"{name} is on the meta device and has no values: move it to a real device")


def check_shape(event_shape: int | Sequence[int]) -> tuple[int, ...]:
    """Return the shape of one sample as a tuple, after checking that its sizes are positive integers.

    Args:
        event_shape: the shape, or the length of a vector.
    """
    shape = tuple(event_shape) if isinstance(event_shape, Iterable) else (event_shape,)
    # An index, as numpy's integers are, is what torch takes as a size.
    if not shape or not all(isinstance(size, SupportsIndex) and size.__index__() > 0 for size in shape):
        raise ValueError(f"event_shape must hold the sizes of one sample, such as (3, 32, 32); got {shape}")
    return tuple(size.__index__() for size in shape)


def resolve(kind: str, value: Any, table: dict[str, Any]) -> Any:
    """Return the entry of that name; anything callable is returned as it is.

    Raises:
        ValueError: a name that is not in the table.
    """
    if callable(value):
        return value
    if not isinstance(value, str) or value not in table:
        raise ValueError(f"{kind} must be one of {sorted(table)} or a function, got {value!r}")
    return table[value]


def printable(text: object) -> str:
    """Escape what a file says, so that it cannot control a terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text))


def summary(x: Any) -> str:
    """Return the repr of an object if it is one short line, else the name of its class."""
    text = repr(x)
    return type(x).__name__ if "\n" in text or text.startswith("<") or len(text) > 100 else text


def describe_tensor(x: Any) -> str:
    """Return shape and dtype of a tensor; for anything else its type."""
    return f"{tuple(x.shape)} {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
