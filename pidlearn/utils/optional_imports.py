"""Packages that stand on torchvision, imported when they are first needed, also beside a torch of another build.

torchvision's compiled operators fit one build of torch. Beside another, such as a CPU build, they do not load, and
``import torchvision`` then fails as it describes an operator that does not exist. Two operators are described there;
declaring both lets the import pass. They belong to object detection, and nothing here calls them.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

import torch

__all__ = ["package"]

_DECLARED: list[torch.library.Library] = []
"""Kept, because the declarations live as long as this."""


def package(name: str, use: str) -> ModuleType:
    """The package of that name, which needs torchvision.

    Raises:
        ImportError: if it or torchvision is not installed, with what to install.
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
