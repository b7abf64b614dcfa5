"""One table of networks and one of denoisers, by class name, with the options that each object was built with.

A student or teacher file names a class and its options, and is rebuilt from these tables. A new network class is one
module with one decorator, imported in `pidlearn.nets`:

    @register_network
    class MyNetwork(nn.Module):
        def __init__(self, event_shape: int | Sequence[int], depth: int = 4, label_dim: int = 0) -> None: ...

Readers of files take options of the types that `pidlearn.teachers.files.build` lists. An option for the number of
layers is called ``depth``, or ``num_blocks`` for each entry of ``channel_mult``, because a reader compares it with the
number of tensors in the file before it builds anything.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Sequence
from typing import Any, TypeVar

from torch import nn

__all__ = ["DENOISERS", "NETWORKS", "check_option", "register_denoiser", "register_network"]

Class = TypeVar("Class", bound=type[nn.Module])

ADDED = ("times", "directions")
"""Options that networks got later. While they are off they are not recorded: descriptions of the same student in older
checkpoints stay the same."""

NETWORKS: dict[str, type[nn.Module]] = {}
"""Networks F(x, time, class_labels=None) by class name."""

DENOISERS: dict[str, type[nn.Module]] = {}
"""Denoisers D(x, sigma, class_labels=None) by class name: a network with its preconditioning."""


def register_network(cls: Class) -> Class:
    """Class decorator: enter a network in `NETWORKS`, and record the arguments of its constructor in ``self.options``.

    Raises:
        ValueError: if another class of that name is registered.
    """
    return _register(NETWORKS, cls)


def register_denoiser(cls: Class) -> Class:
    """Class decorator: enter a denoiser in `DENOISERS`, and record the arguments of its constructor in
    ``self.options``.

    Raises:
        ValueError: if another class of that name is registered.
    """
    return _register(DENOISERS, cls)


def _register(table: dict[str, type[nn.Module]], cls: Class) -> Class:
    known = table.get(cls.__name__, cls)
    # Running a notebook's cell again defines the same class once more.
    if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        raise ValueError(
            f"cannot register {cls.__module__}.{cls.__qualname__}: {known.__module__} has registered another "
            f"{cls.__name__}, and files find a class by its name. Rename the new class"
        )
    _record_options(cls)
    table[cls.__name__] = cls
    return cls


def _record_options(cls: type[nn.Module]) -> None:
    """Have the constructor keep its arguments by name in ``self.options``, defaults filled in."""
    original = cls.__init__
    signature = inspect.signature(original)

    @functools.wraps(original)
    def init(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        _, *arguments = bound.arguments.items()  # without self
        options: dict[str, Any] = {}
        for name, value in arguments:
            is_kwargs = signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD
            if name not in ADDED or value:
                options |= value if is_kwargs else {name: value}
        object.__setattr__(self, "options", options)

    type.__setattr__(cls, "__init__", init)


def check_option(name: str, value: str, allowed: Sequence[str]) -> None:
    """Raise ValueError unless an option has one of the allowed values."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"got {name} = {value!r}, but {name} must be one of {', '.join(allowed)}")
