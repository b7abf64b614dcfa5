"""Real data as a function that draws from them, for the methods that need data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pidlearn.utils.settings import is_whole, plain
from pidlearn.utils.validation import check_labels, describe_tensor, reraise_from_function, summary

__all__ = ["Sampler", "sampler_of"]

Sampler = Callable[[int, torch.Generator], tuple[Tensor, Tensor | None]]
"""``(n, generator) -> (x, class_labels)``: data (n, *event), and their labels (n,) int64 or None."""

KINDS = (
    "a floating-point tensor (M, *event), a pair (tensor, class labels (M,)), a data set of such items, or a function "
    "(n, generator=None) that returns one of the first two for n samples"
)


def sampler_of(
    data: Any,
    teacher: Any,
    event_shape: tuple[int, ...],
    label_dim: int,
    device: torch.device,
    dtype: torch.dtype,
) -> Sampler:
    """A function that draws from the data, on that device and in that dtype.

    Args:
        data: a tensor (M, *event), or a pair of one and class labels (M,) int64, drawn from with replacement; a
            map-style data set of x or (x, label); a function ``(n, generator=None)`` that returns x or (x, labels); or
            None for a teacher that is an exact density and can be sampled from itself.
        teacher: the teacher.
        event_shape: shape of one sample.
        label_dim: number of classes of the teacher, 0 for none.
        device: where the samples are needed.
        dtype: what the student computes in; data may have another.

    Raises:
        ValueError: no data, and a teacher that cannot be sampled from; or something else than the above.
    """
    if data is None:
        data = getattr(teacher, "sample", None)
        if data is None:
            raise ValueError(f"got no data, but this method needs them: pass data=, {KINDS}")
    draw = data if callable(data) else _drawn_from(data, event_shape, label_dim)

    def sample(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        if generator.device.type != "cpu":  # data, and functions that draw them, are rarely on a GPU
            seed = torch.randint(2**62, (), generator=generator, device=generator.device)
            generator = torch.Generator().manual_seed(int(seed))
        with reraise_from_function("function data=", "data(n, generator=None)"):
            drawn = draw(n, generator=generator)
        x, labels = drawn if isinstance(drawn, tuple | list) and len(drawn) == 2 else (drawn, None)
        if not isinstance(x, Tensor) or not x.is_floating_point() or x.shape != (n, *event_shape):
            raise ValueError(f"got data {describe_tensor(x)} for {n} samples of shape {event_shape}: pass {KINDS}")
        if label_dim and labels is None:
            raise ValueError(
                f"got data without labels, but the teacher is class-conditional ({label_dim} classes): pass "
                f"data=(x, class_labels), or a function that returns both"
            )
        check_labels(labels, n, label_dim)
        _check_finite(x)
        return x.to(device, dtype), labels.to(device) if label_dim and labels is not None else None

    sample(1, torch.Generator().manual_seed(0))  # reported before anything is trained
    return sample


def _check_finite(x: Tensor) -> None:
    if not x.isfinite().all():
        raise ValueError("got data that hold NaN or infinite values, but data must be finite: leave those samples out")


def _drawn_from(data: Any, event_shape: tuple[int, ...], label_dim: int) -> Callable[..., Any]:
    """A function that draws from a tensor, a pair of tensors or a data set, with replacement."""
    parts = data if isinstance(data, tuple | list) else (data,)
    if all(isinstance(part, Tensor) for part in parts) and len(parts) in (1, 2):
        x = parts[0]
        if x.ndim < 2 or not len(x) or x.is_meta or any(part.shape[:1] != x.shape[:1] for part in parts):
            received = " and ".join(map(describe_tensor, parts))
            raise ValueError(f"got data {received}, but data must be {KINDS}")
        if x.shape[1:] != event_shape or not x.is_floating_point():
            shape = ", ".join(map(str, ("M", *event_shape)))
            raise ValueError(
                f"got data {describe_tensor(x)}, but this teacher's are a floating tensor ({shape}): pass such data, "
                f"bytes of images as x.float() / 127.5 - 1"
            )
        _check_finite(x)  # all of them, before anything is trained
        if label_dim and len(parts) == 2:
            check_labels(parts[1], len(x), label_dim)

        def rows(n: int, generator: torch.Generator | None = None) -> Any:
            which = torch.randint(len(x), (n,), generator=generator)
            return tuple(part[which.to(part.device)] for part in parts) if len(parts) == 2 else x[which.to(x.device)]

        return rows
    if not (hasattr(data, "__getitem__") and hasattr(data, "__len__") and len(data)) or isinstance(data, str | bytes):
        raise ValueError(f"got data of type {type(data).__name__}, but data must be {KINDS}")

    def items(n: int, generator: torch.Generator | None = None) -> Any:
        drawn = [data[i] for i in torch.randint(len(data), (n,), generator=generator).tolist()]
        x = [item[0] if isinstance(item, tuple | list) and item else item for item in drawn]
        if not all(isinstance(item, Tensor) and item.shape == x[0].shape for item in x):
            received = " and ".join(sorted({describe_tensor(item) for item in x}))
            raise ValueError(f"got data whose items are {received}, but data must be {KINDS}")
        labels = [plain(item[1]) for item in drawn if isinstance(item, tuple | list) and len(item) > 1]
        if not label_dim or not labels:  # what a data set says of its items may be a name, or nothing at all
            return torch.stack(x)
        if strange := [label for label in labels if not is_whole(label)]:
            raise ValueError(
                f"got data with the class label {summary(strange[0])}, but the teacher has {label_dim} classes: give "
                f"each item a whole number in 0..{label_dim - 1}"
            )
        return torch.stack(x), torch.tensor(labels)

    return items
