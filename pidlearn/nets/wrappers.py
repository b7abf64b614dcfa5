"""Modules around modules, which compile them or spread them over devices without changing what they compute."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

__all__ = ["unwrapped"]


def unwrapped(module: nn.Module) -> nn.Module:
    """Return a module without the wrappers `torch.compile`, `DataParallel` and `DistributedDataParallel`, at any depth.

    The weights are shared, their names in ``state_dict`` those of the plain module. The module itself is not changed,
    and it is returned as it is if nothing in it is wrapped.
    """
    parts: Any = module._modules
    if "_orig_mod" in parts:  # of torch.compile, whose class is slow to import
        return unwrapped(parts["_orig_mod"])
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return unwrapped(module.module)
    plain = {name: None if part is None else unwrapped(part) for name, part in parts.items()}
    if all(plain[name] is part for name, part in parts.items()):
        return module
    without = copy.copy(module)
    without._modules = plain
    return without
