"""Imports of optional packages that depend on torchvision, on first use and with any build of torch.

torchvision's compiled operators fit one build of torch. With another, such as a CPU build, they do not load, and
``import torchvision`` fails when it describes an operator that does not exist. It describes two; declaring both lets
the import pass. They belong to object detection, and nothing here calls them.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

import torch

__all__ = ["package"]

_DECLARED: list[torch.library.Library] = []
"""Keeps the declarations alive."""


def package(name: str, use: str) -> ModuleType:
    """Import the package ``name``, which needs torchvision.

    Args:
        name: the package.
        use: what needs it, for the error message.

    Raises:
        ImportError: if it or torchvision is not installed, naming what to install.
    """
    try:
        _import_torchvision()
        return import_module(name)
    except ImportError as error:
        raise ImportError(
            f"{use} needs the packages torchvision and {name} ({error}): pip install 'pidlearn[images]' {name}"
        ) from error


def _import_torchvision() -> None:
    try:
        import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::" not in str(error) or _DECLARED:
            raise
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _DECLARED.append(library)
        import_module("torchvision")
