"""Networks that remember how they were made, so that a file can make them again."""

from __future__ import annotations

import functools
import inspect
from typing import Any, TypeVar

from torch import nn

__all__ = ["remembers_options"]

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
        _, *rest = bound.arguments.items()
        object.__setattr__(self, "options", dict(rest))

    type.__setattr__(cls, "__init__", init)
    return cls
