"""Calls in chunks, and the one way in which students are called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pidlearn.utils.broadcast import as_float64_time
from pidlearn.utils.validation import reraise_with_context

__all__ = ["call_student", "chunk_size", "in_chunks"]

ROWS, NUMBERS, CPU_NUMBERS = 1024, 2**18, 2**16
"""Samples in a chunk, and their numbers: 85 images of CIFAR-10, of which a U-Net keeps hundreds of channels.

A CPU has fewer: for activations above 32 MB, malloc maps new memory at each layer, which takes time.
"""


def call_student(student: Callable[..., Tensor], z: Tensor, t: Any, class_labels: Tensor | None = None) -> Tensor:
    """Return x(z, t) of any student, called as training calls it: t (B,) float64, and labels only if there are any."""
    labels, t = () if class_labels is None else (class_labels,), as_float64_time(t, z)
    with reraise_with_context("student", student, z, t, class_labels):
        return student(z, t, *labels)


def chunk_size(z: Tensor, copies: int = 1) -> int:
    """How many samples like those of z (B, *event) fit into a chunk on its device, copies included."""
    numbers = CPU_NUMBERS if z.device.type == "cpu" else NUMBERS
    return max(1, min(ROWS, numbers // max(1, z[:1].numel())) // copies)


@torch.no_grad()
def in_chunks(f: Callable[..., Tensor], z: Tensor, class_labels: Tensor | None, copies: int = 1) -> Tensor:
    """Apply f, which works on ``copies`` of each sample at once, to z and class_labels in chunks: (B, *event).

    Raises:
        ValueError: labels that are neither one for each sample nor one for all.
    """
    if class_labels is not None and len(class_labels) != len(z):
        if len(class_labels) != 1:
            raise ValueError(
                f"got {len(class_labels):,} class_labels for {len(z):,} samples: pass one for each, or one for all"
            )
        class_labels = class_labels.expand(len(z), *class_labels.shape[1:])
    size = chunk_size(z, copies)
    if 0 < len(z) <= size:  # solvers come here at each step of small batches
        return f(z, class_labels)
    chunks = z.split(size)
    labels = [None] * len(chunks) if class_labels is None else class_labels.split(size)
    return torch.cat([f(*chunk) for chunk in zip(chunks, labels, strict=True)])
