"""The state dict in a checkpoint of torch.save: at its top or in dicts inside it, without the prefixes of wrappers."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from pidlearn.utils import torch_archive
from pidlearn.utils.validation import printable
from pidlearn.utils.wrappers import bare_name

__all__ = ["WRAP_IT", "read_state_dict"]

AVERAGED = re.compile(r"(?i:(?<!sch)ema)(?![a-z])")
"""What the keys of averaged weights have: "ema", "model_ema", "EMA2" or "emaModel", but not "schema" or "semantic"."""

OPTIMIZER = {"state", "param_groups"}
"""The keys of an optimizer's state."""

DEPTH = 4
"""Levels of a checkpoint that are searched: a list of averages may lie at "state/ema/shadow_params/0"."""

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


def _nested(path: Path, content: dict[Any, Any]) -> dict[str, Tensor]:
    """Return the state dict in a dict of a training's state."""
    if content.keys() >= OPTIMIZER:
        raise ValueError(
            f"{path} is an optimizer's state, and does not hold a dict of tensors by name: load the file of the "
            f"network's weights that the same training wrote"
        )
    parts = list(_parts(content))
    unique = {id(part): part for _, part in parts}  # each once: many names may share one
    names = {key: frozenset(map(bare_name, part)) for key, part in unique.items() if _is_state_dict(part)}
    every = {"/".join(keys): part for keys, part in parts if id(part) in names}
    top = {key: every[key] for key in map(str, content) if key in every}
    # Deeper down, what a key of averages holds may also be its own state: it counts if it has a network's names.
    networks = {names[id(state)] for state in top.values()}
    averaged = [name for name in top if AVERAGED.search(name)] or [
        name for name, state in every.items() if AVERAGED.search(name) and (not top or names[id(state)] in networks)
    ]
    states = {name: every[name] for name in [*(top or every), *averaged]}
    if len(states) > 1 and len(averaged) == 1:
        warnings.warn(
            f"{path} holds the state dicts {_listed(states)}: {printable(averaged[0])!r} is loaded; save another one "
            f"alone to load that",
            stacklevel=5,
        )
        return states[averaged[0]]
    if len(states) == 1:
        ((name, state),) = states.items()
        around = {"/".join(keys[:-1]) for keys, part in parts if isinstance(part, Tensor)}
        unread = sorted(filter(AVERAGED.search, around - {name}))
        if unread and not averaged:
            warnings.warn(
                f"{path} holds averaged weights under {_listed(unread)}, but not by the names of {printable(name)!r}, "
                f"which is loaded without averaging: to load the average, copy it into the network with its own code "
                f"and save its state_dict alone",
                stacklevel=5,
            )
        return state
    held = f"the state dicts {_listed(states)}"
    if not states:
        inside = ["/".join(keys) for keys, _ in parts if len(keys) == 1 or (len(keys) == 2 and not keys[1].isdecimal())]
        held = f"{_listed(inside) or 'nothing'}, none a state dict"
    raise ValueError(
        f"{path} does not hold a dict of tensors by name, but {held}: save the one of the network alone, with "
        f"torch.save(torch.load(path)[key], 'weights.pt'), or {WRAP_IT}"
    )


def _parts(content: dict[Any, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield what nested dicts and lists hold, with the keys that lead there, `DEPTH` levels deep.

    An optimizer's state is left out: it has dicts of tensors for each weight.
    """
    level: list[tuple[tuple[str, ...], Any]] = [((), content)]
    seen = set()  # a hostile dict may hold itself, or another a million times
    for _ in range(DEPTH):
        inside = []
        for keys, part in level:
            is_optimizer = isinstance(part, dict) and part.keys() >= OPTIMIZER
            if id(part) in seen or not isinstance(part, dict | list | tuple) or is_optimizer:
                continue
            seen.add(id(part))
            items = part.items() if isinstance(part, dict) else enumerate(part)
            inside += [((*keys, str(key)), inner) for key, inner in items]
        yield from inside
        level = inside


def _listed(names: Iterable[str]) -> str:
    return f"{', '.join(printable(name)[:40] for name in names):.200}"
