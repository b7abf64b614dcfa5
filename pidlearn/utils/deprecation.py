"""Arguments and attributes that have new names: the old ones work for one more version, with a warning."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

__all__ = ["rename_arguments", "renamed"]


def rename_arguments(arguments: Mapping[str, Any], new_names: Mapping[str, str], stacklevel: int = 3) -> dict[str, Any]:
    """Replace old names among keyword arguments by their new ones, with a `DeprecationWarning` for each.

    Raises:
        TypeError: an argument given by both names.
    """
    renamed = dict(arguments)
    for old in arguments.keys() & new_names.keys():
        new = new_names[old]
        warnings.warn(f"the argument {old}= is now called {new}=", DeprecationWarning, stacklevel)
        if new in arguments:
            raise TypeError(f"got both {new}= and {old}=, its old name: pass {new}= alone")
        renamed[new] = renamed.pop(old)
    return renamed


def renamed(old: str, new: str) -> property:
    """An attribute of a class by its old name."""

    def get(self: Any) -> Any:
        warnings.warn(f"{type(self).__name__}.{old} is now called {new}", DeprecationWarning, stacklevel=2)
        return getattr(self, new)

    def set_(self: Any, value: Any) -> None:
        setattr(self, new, value)

    return property(get, set_)
