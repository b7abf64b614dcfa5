"""The state dict in a checkpoint of torch.save: at its top or one level down, without the prefixes of wrappers."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from pidlearn.utils import torch_archive
from pidlearn.utils.validation import printable
from pidlearn.utils.wrappers import bare_name

__all__ = ["WRAP_IT", "read_state_dict"]

COUNTERS = {"n_averaged"}
"""Buffers of torch's averaged models, next to the weights."""

WRAP_IT = (
    "build the network with its own code, load the weights there and wrap it with "
    "pidlearn.teachers.from_network(network, parametrization): the guide 'Bring a teacher' has the lines"
)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by their names in the bare module.

    If the checkpoint holds several state dicts, the averaged one is read, with a warning that names them.

    Raises:
        ValueError: for a file that is not a checkpoint or holds no state dict, naming what it holds.
    """
    try:
        content = torch_archive.read_content(path)
    except ValueError as error:
        if "torch_utils.persistence" in str(error):  # the network as an object, as in training-state-*.pt
            raise ValueError(f"{error}; of EDM's training, load the network-snapshot-*.pkl of the same run") from error
        raise
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} holds a {type(content).__name__} and does not hold a dict of tensors by name: save the network's "
            f"state_dict"
        )
    if not _is_state_dict(content):
        content = _nested(path, content)
    tensors = {bare_name(name): tensor for name, tensor in content.items() if name not in COUNTERS}
    if len(tensors) < len(content.keys() - COUNTERS):
        raise ValueError(
            f"{path} has tensors of the same name with and without 'module.' or '_orig_mod.': save the state_dict of "
            f"one network"
        )
    return tensors


def _is_state_dict(value: Any) -> bool:
    """Whether a value is a dict of tensors by name, with at least one."""
    return isinstance(value, dict) and bool(value) and all(map(_is_named_tensor, value.items()))


def _is_named_tensor(item: tuple[Any, Any]) -> bool:
    return isinstance(item[0], str) and isinstance(item[1], Tensor)


def _nested(path: Path, content: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Return the state dict in a dict of a training's state."""
    if content.keys() >= {"state", "param_groups"}:
        raise ValueError(
            f"{path} is an optimizer's state, and does not hold a dict of tensors by name: load the file of the "
            f"network's weights that the same training wrote"
        )
    parts = {id(value): value for value in content.values()}  # each once: many names may share one
    found = {key for key, value in parts.items() if _is_state_dict(value)}
    states = {str(key): value for key, value in content.items() if id(value) in found}
    averaged = [key for key in states if "ema" in key.lower()]
    if len(states) > 1 and len(averaged) == 1:
        warnings.warn(
            f"{path} holds the state dicts {_listed(states)}: {printable(averaged[0])!r} is loaded; save another one "
            f"alone to load that",
            stacklevel=5,
        )
        return states[averaged[0]]
    if len(states) == 1:
        return states.popitem()[1]
    held = f"the state dicts {_listed(states)}" if states else f"{_listed(content) or 'nothing'}, none a state dict"
    raise ValueError(
        f"{path} does not hold a dict of tensors by name, but {held}: save the one of the network alone, with "
        f"torch.save(torch.load(path)[key], 'weights.pt'), or {WRAP_IT}"
    )


def _listed(content: Mapping[Any, Any]) -> str:
    return f"{', '.join(printable(key)[:40] for key in content if isinstance(key, str | int)):.200}"
