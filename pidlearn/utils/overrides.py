"""Attributes of objects, and switches of torch, that are set for a while and then restored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from pidlearn.utils.random import PROCESS_STATE

__all__ = ["Override", "overridden", "tf32"]

Override = tuple[Any, str, Any]
"""An object, the name of an attribute, and its value for the time being."""

ABSENT = object()


def tf32(allowed: bool) -> list[Override]:
    """Whether a GPU may round float32 to TF32 in matrix products and convolutions."""
    matmul, conv = torch.backends.cuda.matmul, torch.backends.cudnn.conv  # type: ignore[attr-defined]  # made on import
    return [(kernels, "fp32_precision", "tf32" if allowed else "ieee") for kernels in (matmul, conv)]


@contextmanager
def overridden(given: Sequence[Override]) -> Iterator[None]:
    """Set attributes, and restore them at the end; meanwhile no other thread takes a training step."""
    with PROCESS_STATE:
        yield from _set_and_restore(given)


def _set_and_restore(given: Sequence[Override]) -> Iterator[None]:
    # A module's own attribute may hide one of its class, such as forward: it is deleted afterwards, not set.
    # A module that two stages train, or whose part is another stage's, comes twice and is restored once.
    before = {
        (id(part), name): (part, vars(part).get(name, ABSENT) if isinstance(part, nn.Module) else getattr(part, name))
        for part, name, _ in given
    }
    try:
        for part, name, value in given:
            setattr(part, name, value)
        yield
    finally:
        for (_, name), (part, value) in before.items():
            if value is ABSENT:
                delattr(part, name)
            else:
                setattr(part, name, value)
