"""Options of networks: checked, and remembered so that a file can make the network again."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Sequence
from typing import Any, TypeVar

from torch import nn

__all__ = ["check_option", "remembers_options"]

Network = TypeVar("Network", bound=type[nn.Module])


def remembers_options(cls: Network) -> Network:
    """Class decorator: ``self.options`` holds the constructor's arguments by name, defaults filled in."""
    original = cls.__init__
    signature = inspect.signature(original)

    @functools.wraps(original)
    def init(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        _, *named = bound.arguments.items()
        options: dict[str, Any] = {}
        for name, value in named:
            further = signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD
            options |= value if further else {name: value}
        object.__setattr__(self, "options", options)

    type.__setattr__(cls, "__init__", init)
    return cls


def check_option(name: str, value: str, allowed: Sequence[str]) -> None:
    """Raise unless an option has one of the allowed values."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
