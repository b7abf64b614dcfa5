"""Arguments of public functions: rules that are checked before anything is computed.

A rule is a condition and what to call the values that meet it, as for the fields of `pidlearn.utils.settings`:

    @check_arguments(n=count(), path=PATH)
    def save(n: int, path: str | Path) -> None: ...
"""

from __future__ import annotations

import functools
import inspect
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from pidlearn.utils.settings import Rule, is_number, is_whole, plain
from pidlearn.utils.validation import describe_tensor, summary

__all__ = [
    "BATCH",
    "FUNCTION",
    "GENERATOR",
    "LABELS",
    "MODULE",
    "NOISE_LEVEL",
    "PATH",
    "SEED",
    "SHOWN",
    "STD",
    "SWITCH",
    "TIMES",
    "VALUES",
    "check_argument",
    "check_arguments",
    "check_options",
    "count",
    "list_of",
    "number",
    "one_of",
    "optional",
    "size",
]

F = TypeVar("F", bound=Callable[..., Any])


def count(least: int = 1) -> Rule:
    """The rule for a number of things."""
    return lambda v: is_whole(plain(v)) and least <= plain(v) < 2**63, f"a whole number of at least {least}"


def size(least: int = 1) -> Rule:
    """The rule for a number of things that are in memory together."""
    return lambda v: is_whole(plain(v)) and least <= plain(v) < 2**31, f"a whole number from {least} to 2^31 - 1"


def number(low: float = -math.inf, high: float = math.inf, *, positive: bool = False) -> Rule:
    """The rule for a finite number from ``low`` to ``high``, or a positive one."""
    expected = "a positive, finite number" if positive else "a finite number"
    if low > -math.inf:
        expected += f" of at least {low:g}" if high == math.inf else f" from {low:g} to {high:g}"

    def holds(value: Any) -> bool:
        value = plain(value)
        return is_number(value) and low <= value <= high and (value > 0 or not positive)

    return holds, expected


def one_of(*names: str) -> Rule:
    """The rule for one of several names."""
    return lambda v: isinstance(v, str) and v in names, f"one of {', '.join(names)}"


def list_of(rule: Rule) -> Rule:
    """The rule for a list or tuple of values that meet another."""
    holds, expected = rule
    return (
        lambda v: isinstance(v, list | tuple | np.ndarray) and all(map(holds, v)),
        f"a list, of which each entry is {expected}",
    )


def optional(rule: Rule) -> Rule:
    """The rule that holds for None, too."""
    holds, expected = rule
    return lambda v: v is None or holds(v), f"{expected}, or None"


LABELS: Rule = (
    lambda v: v is None or (isinstance(v, Tensor) and not v.is_meta and v.layout == torch.strided and v.ndim > 0),
    "a tensor of one class per sample, int64 (B,), or None",
)
SEED: Rule = (lambda v: is_whole(plain(v)) and 0 <= plain(v) < 2**63, "a whole number from 0 to 2^63 - 1")
SWITCH: Rule = (lambda v: isinstance(v, bool | np.bool_), "True or False")
SHOWN: Rule = (lambda v: v is None or isinstance(plain(v), int | float), "True or False")
PATH: Rule = (
    lambda v: isinstance(v, str | os.PathLike) and os.fspath(v) != "",
    "a path, such as 'student.safetensors'",
)
VALUES: Rule = (
    lambda v: isinstance(v, Tensor) and v.is_floating_point() and v.layout == torch.strided and not v.is_meta,
    "a dense floating-point tensor",
)
BATCH: Rule = (
    lambda v: VALUES[0](v) and v.ndim >= 2 and len(v) > 0,
    "a dense floating-point tensor (B, *event), B >= 1",
)
TIMES: Rule = (
    lambda v: isinstance(v, Sequence | np.ndarray | Tensor) and not isinstance(v, str | bytes) and len(np.shape(v)) == 1
    and len(v) > 0 and not (isinstance(v, Tensor) and (v.is_meta or v.is_complex() or v.layout != torch.strided))
    and all(isinstance(plain(t), int | float) for t in v),
    "a grid of times (N,)",
)  # fmt: skip
STD: Rule = number(0, 1e150, positive=True)
"""A standard deviation: its square is finite, too."""
NOISE_LEVEL: Rule = (
    lambda v: number(0)[0](v) or (isinstance(v, float) and v == math.inf),
    "a number of at least 0, or infinity",
)
FUNCTION: Rule = (callable, "a function")
MODULE: Rule = (lambda v: isinstance(v, nn.Module), "a torch.nn.Module")
GENERATOR: Rule = (lambda v: v is None or isinstance(v, torch.Generator), "a torch.Generator, or None")


def check_argument(name: str, value: Any, rule: Rule) -> None:
    """Raise ValueError unless a value meets its rule."""
    holds, expected = rule
    if holds(value):
        return
    received = f"{describe_tensor(value)} for {name}" if isinstance(value, Tensor) else f"{name} = {summary(value)}"
    raise ValueError(f"got {received}, but {name} must be {expected}")


def check_options(role: str, function: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Raise TypeError for options that the function does not have."""
    known = list(inspect.signature(function).parameters)
    if unknown := sorted(options.keys() - set(known)):
        raise TypeError(f"{role} has no option {', '.join(unknown)}: expected {', '.join(known) or 'none'}")


def check_arguments(**rules: Rule) -> Callable[[F], F]:
    """Decorator: check the arguments of those names, defaults excepted, whenever the function is called.

    Raises:
        ValueError: when called, an argument that breaks its rule.
    """

    def decorate(function: F) -> F:
        signature = inspect.signature(function)
        names = list(signature.parameters)

        @functools.wraps(function)
        def checked(*args: Any, **options: Any) -> Any:
            for name, value in (*zip(names, args, strict=False), *options.items()):
                if name in rules:
                    check_argument(name, value, rules[name])
            return function(*args, **options)

        return cast(F, checked)

    return decorate
