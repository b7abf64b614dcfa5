"""What a network is called with, checked: samples, times and class labels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor

from pidlearn.utils.validation import describe_tensor

__all__ = ["check_condition", "check_end_time", "check_event", "check_weight", "one_hot_labels"]


def one_hot_labels(class_labels: Tensor | None, label_dim: int, *, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Convert class labels to one float row per sample, (B or 1, label_dim).

    Integer labels (B,) become one-hot; floating labels (B, label_dim), one-hot or soft, keep their values; None becomes
    one row of zeros, which broadcasts over the batch. An integer out of range raises ValueError if checking it is free.
    Otherwise (on a GPU, under `torch.vmap`, in a compiled graph) its row is NaN.
    """
    if class_labels is None:
        return torch.zeros(1, label_dim, dtype=dtype, device=device)
    if not isinstance(class_labels, Tensor):
        raise TypeError(f"got class labels of type {type(class_labels).__name__}; expected a tensor")
    shape = tuple(class_labels.shape)
    dense = class_labels.layout == torch.strided and not class_labels.is_complex()
    if not dense or class_labels.is_meta != (device.type == "meta"):
        raise ValueError(
            f"got class labels {describe_tensor(class_labels)}; expected a dense tensor on {device}: convert them"
        )
    if class_labels.is_floating_point():
        if shape[-1:] != (label_dim,):
            raise ValueError(f"got floating class labels of shape {shape}; expected (B, {label_dim})")
        return class_labels.to(device, dtype).reshape(-1, label_dim)
    if len(shape) != 1:
        raise ValueError(f"got integer class labels of shape {shape}; expected (B,)")
    if _is_readable(class_labels) and ((class_labels < 0) | (class_labels >= label_dim)).any():
        low, high = class_labels.min().item(), class_labels.max().item()
        raise ValueError(f"got class labels {low}..{high}, but class labels must lie in 0..{label_dim - 1}")
    classes = torch.arange(label_dim, device=device)
    rows = (class_labels.to(device)[:, None] == classes).to(dtype)  # (B, label_dim)
    return rows / rows.sum(1, keepdim=True)  # 0 / 0 for a label out of range


def _is_readable(x: Tensor) -> bool:
    """Whether Python can read the values of x without waiting for a GPU or breaking a graph or a transform."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling() and not is_functorch_wrapped_tensor(x)


def check_event(x: Tensor, event_shape: tuple[int, ...]) -> None:
    """Raise ValueError unless x is a batch of samples of that shape."""
    floating = isinstance(x, Tensor) and x.is_floating_point() and x.layout == torch.strided
    if not floating or x.shape[1:] != event_shape:
        received = tuple(x.shape[1:]) if floating else describe_tensor(x)
        raise ValueError(
            f"got {received}, but the network takes samples of shape {event_shape}: reshape or convert them"
        )


def check_weight(weight: Tensor, x: Tensor, *, casts: bool = False) -> None:
    """Raise ValueError unless a weight is on x's device, and of its dtype if the network does not cast it."""
    same = casts or weight.dtype == x.dtype or torch.is_autocast_enabled(x.device.type)
    if weight.device != x.device or not same:
        raise ValueError(
            f"got {x.dtype} on {x.device}, but the network's weights are {weight.dtype} on {weight.device}: move or "
            f"convert one of them"
        )


def check_condition(name: str, values: Tensor, x: Tensor) -> None:
    """Raise ValueError unless what a network takes besides x is a dense tensor of real numbers where x is."""
    dense = isinstance(values, Tensor) and values.layout == torch.strided
    real = dense and not values.is_complex() and values.dtype != torch.bool
    if not real or values.is_meta != x.is_meta:
        raise ValueError(
            f"got {name} {describe_tensor(values)} for x {describe_tensor(x)}, but a network takes a dense tensor of "
            f"real numbers there: convert it"
        )


def check_end_time(end_time: Tensor | None, takes_it: bool) -> None:
    """Check that a network gets the second time that it was built for, and only then."""
    if (end_time is not None) != takes_it:
        raise ValueError(
            f"got {'an' if takes_it is False else 'no'} end_time, but this network takes "
            f"{'one: pass it' if takes_it else 'a single time: build it with end_time=True'}"
        )
