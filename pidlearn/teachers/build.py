"""From what a file says of a denoiser, its class, options and tensors, to the denoiser.

Files name classes and options as EDM does. Recorded options are what a constructor was called with; the defaults that
fill them up are those of the constructors here, which are EDM's.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pidlearn import nets

__all__ = ["DENOISERS", "GIVEN_BY_THE_DENOISER", "NETWORKS", "build", "complete", "fill"]

DENOISERS: dict[str, type[nn.Module]] = {
    cls.__name__: cls for cls in (nets.EDMPrecond, nets.VPPrecond, nets.VEPrecond, nets.iDDPMPrecond)
}
NETWORKS: dict[str, type[nn.Module]] = {cls.__name__: cls for cls in (nets.SongUNet, nets.DhariwalUNet)}

GIVEN_BY_THE_DENOISER = {"in_channels", "out_channels"}

MAX_NUMBER, MAX_ITEMS = 2**16, 16
"""An option beyond these describes no network, but one that would take forever to build."""


def complete(class_name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a denoiser: those recorded, and EDM's defaults of the others.

    Raises:
        ValueError: for a class or option that is not EDM's, or a required one that is missing.
    """
    if class_name not in DENOISERS:
        raise ValueError(f"its network is of class {class_name!r:.80}; known are {', '.join(DENOISERS)}")
    of_denoiser = _defaults(DENOISERS[class_name])
    model_type = options.get("model_type", of_denoiser["model_type"])
    if not isinstance(model_type, str) or model_type not in NETWORKS:
        raise ValueError(f"its model_type is {_shown(model_type)}; known are {', '.join(NETWORKS)}")
    of_network = {k: v for k, v in _defaults(NETWORKS[model_type]).items() if k not in GIVEN_BY_THE_DENOISER}
    known = of_network | of_denoiser
    unknown = [name for name in options if name not in known]
    if unknown:
        raise ValueError(f"it has options that {class_name} with {model_type} does not: {', '.join(unknown):.200}")
    full = {**known, **options}
    missing = [name for name, value in full.items() if value is inspect.Parameter.empty]
    if missing:
        raise ValueError(f"it does not say {', '.join(missing)}, which {class_name} cannot do without")
    return full


def build(class_name: str, options: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module:
    """A denoiser with exactly these tensors, in eval mode and frozen. It shares their memory.

    Raises:
        ValueError: options that are not EDM's or make no network, tensors that are not those of this network.
    """
    full = complete(class_name, options)
    return fill(DENOISERS[class_name], full, tensors)


def fill(cls: type[nn.Module], options: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module:
    """A module with exactly these tensors, in eval mode and frozen. It shares their memory.

    Raises:
        ValueError: options that do not make one, tensors that are not those of this one.
    """
    _check_sizes(options, tensors)
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise ValueError(f"its tensor {name:.120} is {tensor.dtype}, and weights are floating")
    try:
        with torch.device("meta"):  # nothing is allocated or drawn before the tensors have been found to fit
            module = cls(**options)
        module.load_state_dict(tensors, assign=True)
    except Exception as error:
        raise ValueError(f"its tensors and options do not make a {cls.__name__}: {error!s:.600}") from error
    return module.eval().requires_grad_(False)


def _defaults(cls: type[nn.Module]) -> dict[str, Any]:
    """The constructor's named arguments with their defaults."""
    parameters = inspect.signature(cls).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is not p.VAR_KEYWORD}


def _check_sizes(options: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Raise unless the options are numbers, words and short lists of numbers, and ask for no more than is there."""
    for name, value in options.items():
        items = value if isinstance(value, (list, tuple)) else [value]
        plain = len(items) <= MAX_ITEMS and all(isinstance(item, (int, float, str)) for item in items)
        if not plain or any(isinstance(item, int) and not 0 <= item <= MAX_NUMBER for item in items):
            raise ValueError(f"its option {name:.80} is {_shown(value)}, which is not EDM's")
    levels, blocks = options.get("channel_mult", ()), options.get("num_blocks", 0)
    if not isinstance(levels, (list, tuple)) or not isinstance(blocks, int) or len(levels) * blocks > len(tensors):
        raise ValueError(f"its channel_mult and num_blocks ask for more than its {len(tensors)} tensors")


def _shown(value: Any) -> str:
    """A value in a message; of one that may be endless, its type."""
    return f"{value!r:.80}" if isinstance(value, (int, float, str)) else f"a {type(value).__name__}"
