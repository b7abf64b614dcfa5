"""Build a denoiser or network from the class name, options and tensors in a file, which may be hostile.

Files name classes and options as EDM does. Recorded options are the arguments of a constructor's call; the others get
the defaults of the constructors here, which are EDM's.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pidlearn.nets.edm import MODEL_TYPES
from pidlearn.nets.registry import DENOISERS, NETWORKS
from pidlearn.utils.settings import is_number
from pidlearn.utils.validation import printable

__all__ = ["SET_BY_THE_DENOISER", "build", "complete", "fill"]

SET_BY_THE_DENOISER = {"in_channels", "out_channels"}

MAX_NUMBER, MAX_ITEMS = 2**16, 2**10
"""Bounds on options: a network beyond them would take forever to build. A larger number of features is possible only in
a file that has at least as many weights."""


def _number(value: Any) -> Any:
    """Convert numpy's numbers to Python's."""
    return value.item() if isinstance(value, np.generic) else value


def _count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _amount(value: Any) -> bool:
    return isinstance(value, (int, float)) and type(value) is not bool and value >= 0


def _is_list_of(is_valid: Callable[[Any], bool], value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) <= MAX_ITEMS and all(map(is_valid, value))


KINDS: dict[str, Callable[[Any], bool]] = {
    "bool": lambda value: isinstance(value, bool),
    "str": lambda value: isinstance(value, str),
    "float": _amount,
    "int": _count,
    "Sequence[int]": partial(_is_list_of, _count),
    "Sequence[float]": partial(_is_list_of, is_number),
    "int | Sequence[int]": lambda value: _count(value) or _is_list_of(_count, value),
}
"""The values that a file may have for an option, by the option's annotation in the constructor."""

TAKES = {kind: f"{kind} of 0 or more" for kind in KINDS if kind not in ("bool", "str", "Sequence[float]")}
"""What messages say that a constructor takes."""


def complete(
    cls: type[nn.Module], options: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None
) -> dict[str, Any]:
    """Return all options of a denoiser or a network: the recorded ones, and the defaults of the others.

    Args:
        cls: its class.
        options: the recorded ones.
        tensors: its weights, which bound what its options may be.

    Raises:
        ValueError: for an option that the class does not have or that has the wrong type, or a required one that is
            missing.
    """
    limit = max(MAX_NUMBER, sum(tensor.numel() for tensor in (tensors or {}).values()))
    known = _parameters(cls, options)
    unknown = [name for name in options if name not in known]
    if unknown:
        raise ValueError(f"it has options that {cls.__name__} does not: {printable(', '.join(unknown)):.200}")
    full = {**{name: parameter.default for name, parameter in known.items()}, **options}
    missing = [name for name, value in full.items() if value is inspect.Parameter.empty]
    if missing:
        raise ValueError(f"it lacks the options {', '.join(missing)}, which {cls.__name__} requires")
    for name, value in full.items():
        kind = _text(known[name].annotation)
        if kind not in KINDS:
            raise ValueError(
                f"the option {name} of {cls.__name__} is annotated as {kind}, which files cannot hold: annotate it as "
                f"one of {', '.join(KINDS)}"
            )
        takes = TAKES.get(kind, kind)
        # As JSON has it, whatever the file's format; one level only, since a hostile tuple may be endless.
        value = full[name] = [*map(_number, value)] if isinstance(value, (list, tuple)) else _number(value)
        if not KINDS[kind](value):
            shown = _shown(options.get(name, value))
            raise ValueError(f"its option {name} is {shown}, where {cls.__name__} takes {takes}")
        for number in value if isinstance(value, list) else [value]:
            if type(number) is int and number > limit:
                raise ValueError(f"its option {name} is {_shown(number)}, more than its weights have room for")
    return full


def build(class_name: str, options: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module:
    """Build a denoiser with exactly these tensors, in eval mode and frozen. It shares their memory.

    Raises:
        ValueError: for a class that is not registered, or as `fill`.
    """
    if class_name not in DENOISERS:
        raise ValueError(f"its network is of class {class_name!r:.80}; known are {', '.join(DENOISERS)}")
    return fill(DENOISERS[class_name], options, tensors)


def fill(cls: type[nn.Module], options: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module:
    """Build a module with exactly these tensors, in eval mode and frozen. It shares their memory.

    Raises:
        ValueError: for options that the class does not take, or tensors that are not its own or not finite.
    """
    full = complete(cls, options, tensors)
    # A few bytes must not make the constructor build thousands of layers.
    blocks = full["depth"] if "depth" in full else len(full.get("channel_mult", ())) * full.get("num_blocks", 0)
    if blocks > len(tensors):
        raise ValueError(f"its options describe {blocks} blocks, which its {len(tensors)} tensors cannot fill")
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise ValueError(f"its tensor {printable(name):.120} is {tensor.dtype}, and weights are floating-point")
        if not tensor.isfinite().all():
            raise ValueError(f"its tensor {printable(name):.120} holds NaN or infinity")
    try:
        # On the meta device, so that nothing is allocated or drawn before the tensors have proved to fit.
        with torch.device("meta"):
            module = cls(**full)
        module.load_state_dict(tensors, assign=True)
    except Exception as error:
        raise ValueError(f"its tensors and options do not make a {cls.__name__}: {printable(error):.600}") from error
    return module.eval().requires_grad_(False)


def _parameters(cls: type[nn.Module], options: Mapping[str, Any]) -> dict[str, inspect.Parameter]:
    """Return the constructor's parameters by name, for a denoiser with those that it passes on to its network."""
    own = {p.name: p for p in inspect.signature(cls).parameters.values() if p.kind is not p.VAR_KEYWORD}
    if "model_type" not in own:
        return own
    model_type = options.get("model_type", own["model_type"].default)
    if not isinstance(model_type, str) or model_type not in MODEL_TYPES:
        raise ValueError(f"its model_type is {_shown(model_type)}; known are {', '.join(MODEL_TYPES)}")
    passed_on = _parameters(NETWORKS[model_type], options)
    return {name: p for name, p in passed_on.items() if name not in SET_BY_THE_DENOISER} | own


def _text(annotation: Any) -> str:
    """An annotation as it is written, also where a module does not postpone the evaluation of its annotations."""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return text.replace("collections.abc.", "").replace("typing.", "")


def _shown(value: Any) -> str:
    """Return a value for a message, or its type if it may be endless when written out."""
    return f"{value!r:.80}" if isinstance(value, (int, float, str)) else f"a {type(value).__name__}"
