"""Settings: frozen dataclasses that check their own fields."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from torch import Tensor

__all__ = ["COUNT", "FLAG", "SIZE", "UNSET", "Rule", "Settings", "check_rules", "is_number", "is_whole", "plain"]

UNSET: Any = None
"""The value of a field that is left to the recipe for the problem."""

Rule = tuple[Callable[[Any], bool], str]
"""A condition on a field's value, and what to call the values that meet it."""


def is_whole(value: Any) -> bool:
    """Whether it is an int other than True and False."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether it is a finite number."""
    # Compared, since `math.isfinite` cannot convert an int beyond a float's range.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


FLAG: Rule = (lambda v: isinstance(v, bool), "True or False")
COUNT: Rule = (lambda v: is_whole(v) and v >= 1, "a whole number of at least 1")
SIZE: Rule = (lambda v: is_whole(v) and 1 <= v < 2**31, "a whole number from 1 to 2^31 - 1")


@dataclass(frozen=True)
class Settings:
    """A frozen dataclass that normalises its fields and checks them against `rules`."""

    def __post_init__(self) -> None:
        for spec in fields(self):
            object.__setattr__(self, spec.name, plain(getattr(self, spec.name)))
        check_rules(self, self.rules())

    def rules(self) -> dict[str, Rule]:
        """The rule for each field, by name."""
        return {}

    def unset(self) -> set[str]:
        """The fields that are left to the recipe."""
        return unset_fields(self)


def unset_fields(settings: Any) -> set[str]:
    """The fields of a dataclass that are left to the recipe."""
    return {
        spec.name
        for spec in fields(settings)
        if spec.init and spec.default is UNSET and getattr(settings, spec.name) is UNSET
    }


def check_rules(settings: Any, rules: Mapping[str, Rule]) -> None:
    """Check the fields of a dataclass that are set.

    Raises:
        ValueError: a value that breaks its rule.
    """
    unset = unset_fields(settings)
    for name, (is_valid, expected) in rules.items():
        value = getattr(settings, name)
        if name not in unset and not is_valid(value):
            raise ValueError(f"got {name} = {value!r:.200}, but {name} must be {expected}")


def plain(value: Any) -> Any:
    """Convert numbers of numpy and torch to Python's, and lists to tuples, so that settings compare and serialise."""
    if isinstance(value, (list, tuple)):
        return tuple(map(plain, value))
    return value.item() if isinstance(value, np.generic) or (isinstance(value, Tensor) and not value.ndim) else value
