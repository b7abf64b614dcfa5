"""Modules around modules, which compile them or spread them over devices without changing what they compute."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

__all__ = ["WRAPPERS", "bare_name", "renamed_for", "unwrapped"]

WRAPPERS = {"module", "_orig_mod"}
"""The names under which DataParallel, torch's averaged models and torch.compile keep the module that they wrap."""


def unwrapped(part: Any) -> Any:
    """Return a module without the wrappers `torch.compile`, `DataParallel` and `DistributedDataParallel`, at any depth.

    The weights are shared, their names in ``state_dict`` those of the plain module. The module itself is not changed,
    and it is returned as it is if nothing in it is wrapped. So is anything that is not a module.
    """
    if not isinstance(part, nn.Module):
        return part
    parts: Any = part._modules
    if "_orig_mod" in parts:  # of torch.compile, whose class is slow to import
        return unwrapped(parts["_orig_mod"])
    if isinstance(part, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return unwrapped(part.module)
    plain = {name: unwrapped(inner) for name, inner in parts.items()}
    if all(plain[name] is inner for name, inner in parts.items()):
        return part
    without = copy.copy(part)
    without._modules = plain
    return without


def bare_name(name: str) -> str:
    """Return the name of a weight without the names of wrappers."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def renamed_for(module: nn.Module, weights: dict[str, Any]) -> dict[str, Any]:
    """Rename weights that were saved from another wrapping of a module's kind to the module's own names."""
    own = list(module.state_dict())
    names = {bare_name(name): name for name in own}
    if len(names) < len(own) or weights.keys() == set(own):
        return weights
    return {names.get(bare_name(name), name): value for name, value in weights.items()}
