"""One-line descriptions of networks and denoisers, in place of PyTorch's full module tree."""

from __future__ import annotations

from torch import nn

__all__ = ["summarize"]


def summarize(module: nn.Module, *parts: str) -> str:
    """Return ``Class(parts, shape of a sample, classes, number of parameters)``, for a ``__repr__``.

    Shape and classes are the module's ``event_shape`` and ``label_dim``, if it has them.
    """
    shape, classes = getattr(module, "event_shape", None), getattr(module, "label_dim", 0)
    texts = list(parts)
    if shape is not None:
        texts.append("x".join(map(str, shape)) if len(shape) > 1 else f"{shape[0]} dimensions")
    if classes:
        texts.append(f"{classes} classes")
    texts.append(f"{_rounded(sum(p.numel() for p in module.parameters()))} parameters")
    return f"{type(module).__name__}({', '.join(texts)})"


def _rounded(count: int) -> str:
    """A count in three significant digits: 120, 12.3 k, 55.7 M."""
    for factor, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if count >= factor:
            return f"{count / factor:.3g}{unit}"
    return str(count)
