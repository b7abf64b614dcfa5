"""Validation: errors that say what was received, what was expected and what to do."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import index
from typing import Any

import torch
from torch import Tensor, nn

__all__ = [
    "NotFiniteError",
    "as_real",
    "check_batch",
    "check_labels",
    "check_memory",
    "check_not_complex",
    "check_output",
    "check_pair",
    "check_real",
    "check_shape",
    "describe_tensor",
    "extremes",
    "printable",
    "reraise_from_function",
    "reraise_with_context",
    "resolve",
    "summary",
]


class NotFiniteError(ValueError):
    """A value that became NaN or infinite."""


@contextmanager
def reraise_with_context(
    role: str, module: Any, x: Tensor, t: Tensor, class_labels: Tensor | None = None
) -> Iterator[None]:
    """Re-raise errors from a user's module as a ValueError with its role, what it was called with, and a hint."""
    try:
        yield
    except torch.cuda.OutOfMemoryError:
        raise
    # IndexError: a label beyond an embedding's rows. TypeError and AttributeError: another signature or kind of input.
    except (RuntimeError, IndexError, TypeError, AttributeError) as error:
        weight = next(module.parameters(), x) if isinstance(module, nn.Module) else x
        if (weight.dtype, weight.device) != (x.dtype, x.device):
            raise ValueError(
                f"the {role}'s weights are {weight.dtype} on {weight.device} but its input is {x.dtype} on "
                f"{x.device}: move or convert one of them"
            ) from error
        hint = f"; if it mixes the two, convert t to {x.dtype} first" if t.dtype != x.dtype else ""
        called = f"x {describe_tensor(x)} with t {describe_tensor(t)}"
        if class_labels is not None:
            called += f" and class_labels {describe_tensor(class_labels)}"
            hint += "; if it takes one-hot labels, wrap it: F.one_hot(class_labels, number of classes).to(x)"
        if "forward AD" in str(error) or "forward-mode" in str(error):
            hint += "; if it has no forward-mode derivative (compiled networks and fused attention have none), use "
            hint += 'derivative="forward"'
        raise ValueError(f"the {role} fails on {called}{hint}: {error}") from error


@contextmanager
def reraise_from_function(role: str, call: str) -> Iterator[None]:
    """Re-raise errors from a user's function as a ValueError with its role and the call that it must take."""
    try:
        yield
    except torch.cuda.OutOfMemoryError:
        raise
    except (RuntimeError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(
            f"the {role} fails ({error!s:.300}), but must be callable as {call}: pass one that is"
        ) from error


def check_labels(class_labels: Tensor | None, n: int, classes: int = 0) -> None:
    """Check that labels are (n,) int64 in 0..classes-1 (if ``classes`` is known), or None."""
    if class_labels is None:
        return
    fits = isinstance(class_labels, Tensor) and class_labels.dtype == torch.int64 and class_labels.shape == (n,)
    if not fits or class_labels.is_meta:
        raise ValueError(
            f"got {describe_tensor(class_labels)} for class_labels, but class_labels must be an int64 tensor of shape "
            f"({n},)"
        )
    if classes:
        low, high = extremes(class_labels)
        if low < 0 or high >= classes:
            raise ValueError(f"got class labels {low}..{high}, but class labels must lie in 0..{classes - 1}")


def extremes(x: Tensor) -> list[Any]:
    """Return the least and the largest entry, NaN if there is one; a GPU is synchronised only once."""
    return torch.stack(x.aminmax()).tolist()


def as_real(name: str, values: Any, dtype: torch.dtype | None = None) -> Tensor:
    """Return numbers as a dense tensor, by default of their own dtype; check that they are real and have values."""
    received = f"{describe_tensor(values)} for {name}" if isinstance(values, Tensor) else f"{name} = {summary(values)}"
    try:
        tensor = torch.as_tensor(values)
        usable = not (tensor.is_complex() or tensor.is_meta or tensor.layout != torch.strided)
        tensor = torch.as_tensor(values, dtype=dtype) if usable else tensor
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(
            f"got {received}, but {name} must be real numbers, in a tensor, an array or nested lists"
        ) from error
    if not usable:
        raise ValueError(f"got {received}, but {name} must be real numbers in a dense tensor: convert them first")
    return tensor


def check_memory(role: str, numbers: int) -> None:
    """Check that an array of so many numbers can be in the memory of any machine.

    Raises:
        ValueError: 2^40 numbers or more, 4 TB in float32.
    """
    if numbers >= 2**40:
        raise ValueError(
            f"{role} would hold about 10^{math.log10(numbers):.0f} numbers, but memory holds at most 2^40: "
            f"choose smaller sizes"
        )


def check_batch(x: Any, name: str = "x", event_shape: Sequence[int] | None = None) -> Tensor:
    """Return x after checking that it is a batch (B, *event): dense, floating, real-valued and with values."""
    fits = isinstance(x, Tensor) and x.is_floating_point() and x.ndim >= 2 and x.layout == torch.strided
    if not fits or x.is_meta or (event_shape is not None and x.shape[1:] != tuple(event_shape)):
        shape = "*event" if event_shape is None else ", ".join(map(str, event_shape))
        raise ValueError(
            f"got {describe_tensor(x)} for {name}, but {name} must be (B, {shape}), dense and floating-point: convert "
            f"or reshape it"
        )
    return x


def check_pair(a: Any, b: Any) -> None:
    """Check that a and b are two batches (B, *event) of one shape, on one device."""
    for name, x in (("a", a), ("b", b)):
        check_batch(x, name)
    if a.shape != b.shape or a.device != b.device:
        raise ValueError(
            f"got {describe_tensor(a)} on {a.device} and {describe_tensor(b)} on {b.device}, but the two batches must "
            f"be of the same shape on one device: make them equal"
        )


def check_real(**tensors: Tensor) -> None:
    """Check that no tensor is on the meta device."""
    for name, tensor in tensors.items():
        if tensor.is_meta:
            raise ValueError(f"{name} is on the meta device and has no values: move it to a real device")


def check_output(name: str, out: Any, x: Tensor) -> Tensor:
    """Return the output of a user's network or function after checking that it is real and of x's shape."""
    if not isinstance(out, Tensor) or out.shape != x.shape:
        received = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise ValueError(
            f"{name} returned {received}, but must return the shape of x, {tuple(x.shape)}{_how_to_unwrap(out, x)}"
        )
    check_not_complex(name, out)
    return out


def check_not_complex(name: str, out: Tensor) -> None:
    """Check that an output is real: a conversion to x's dtype would drop its imaginary part."""
    if out.is_complex():
        raise ValueError(
            f"{name} returned {out.dtype}, but must return real values: give x the real and the imaginary parts as "
            f"coordinates of their own (torch.view_as_real)"
        )


def _how_to_unwrap(out: Any, x: Tensor) -> str:
    """How to take a tensor of x's shape out of what a third-party network returned, if that is known."""
    places = (place for place, part in _parts(out) if isinstance(part, Tensor) and part.shape == x.shape)
    place = next(places, "")
    return f": wrap it in a function that returns its {place}" if place else ""


def _parts(out: Any, depth: int = 3) -> Iterator[tuple[str, Any]]:
    """The parts of an output and the expressions that lead to them, nested ones after their own containers."""
    parts: dict[str, Any] = {}
    if isinstance(out, tuple | list):
        parts = {f"[{i}]": part for i, part in enumerate(out)}
    elif isinstance(out, Mapping):
        parts = {f"[{key!r}]": part for key, part in out.items()}
    elif not isinstance(out, Tensor) and hasattr(out, "__dict__"):
        parts = {f".{name}": part for name, part in vars(out).items()}
    yield from parts.items()
    if depth > 1:  # an object may contain itself
        for place, part in parts.items():
            yield from ((place + inner, leaf) for inner, leaf in _parts(part, depth - 1))


def check_shape(event_shape: int | Sequence[int]) -> tuple[int, ...]:
    """Return the shape of one sample as a tuple, after checking that its sizes are positive integers.

    Args:
        event_shape: the shape, or the length of a vector.
    """
    try:
        sizes = tuple(event_shape) if hasattr(event_shape, "__iter__") else (event_shape,)
        shape = tuple(index(size) for size in sizes)
    except (TypeError, ValueError):  # sizes that are no whole numbers
        shape = ()
    if not shape or not all(0 < size < 2**63 for size in shape):
        raise ValueError(
            f"got event_shape = {summary(event_shape)}, but event_shape must hold the sizes of one sample, such as "
            f"(3, 32, 32)"
        )
    check_memory("one sample", math.prod(shape))
    return shape


def resolve(kind: str, value: Any, table: dict[str, Any]) -> Any:
    """Return the entry of that name; anything callable is returned as it is.

    Raises:
        ValueError: a name that is not in the table.
    """
    if callable(value):
        return value
    if not isinstance(value, str) or value not in table:
        raise ValueError(f"got {kind} = {summary(value)}, but {kind} must be one of {sorted(table)} or a function")
    return table[value]


def printable(text: object) -> str:
    """Escape what a file says, so that it cannot control a terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text))


def summary(x: Any) -> str:
    """Return the repr of an object if it is one short line, else the name of its class."""
    text = repr(x)
    return type(x).__name__ if "\n" in text or text.startswith("<") or len(text) > 100 else text


def describe_tensor(x: Any) -> str:
    """Return shape and dtype of a tensor, and what is unusual about it; for anything else its type."""
    if not isinstance(x, Tensor):
        return type(x).__name__
    kind = "" if x.layout == torch.strided else " sparse"
    return f"{tuple(x.shape)} {x.dtype}{kind}" + (" on meta, without values" if x.is_meta else "")
