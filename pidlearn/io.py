"""Students as files: safetensors for the numbers, JSON in its header for how to build the networks again."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from pidlearn import nets
from pidlearn.checkpoint import write_atomically
from pidlearn.config import Config
from pidlearn.trajectory import BOUNDARIES, TIMES, Student, Trajectory, Windows

__all__ = ["describe", "packed", "read", "save"]

FORMAT = "pidlearn student 1"
NETWORKS: dict[str, type[nn.Module]] = {
    "ChebyshevMLP": nets.ChebyshevMLP,
    "DhariwalUNet": nets.DhariwalUNet,
    "MLP": nets.MLP,
    "SongUNet": nets.SongUNet,
}


def save(
    student: nn.Module, history: dict[str, np.ndarray], config: Config, stopped: str | None, path: str | Path
) -> Path:
    """Write a student and how it came to be to one safetensors file, whole or not at all.

    A student made of this library's parts carries its own description. Any other is saved as its weights, and `read`
    must be handed a module to put them in.
    """
    path = Path(path)
    write_atomically(path, packed(student, history, config, stopped))
    return path


def packed(student: nn.Module, history: dict[str, np.ndarray], config: Config, stopped: str | None) -> bytes:
    """The file that `save` writes."""
    # Clones, because safetensors refuses weights that share memory.
    tensors = {f"student/{key}": value.clone().contiguous() for key, value in student.state_dict().items()}
    tensors |= {f"history/{key}": torch.from_numpy(column) for key, column in history.items()}
    choices = {name: value for name, value in vars(config).items() if not callable(value)}
    header = {"student": describe(student), "config": choices, "stopped": stopped}
    metadata = {"format": FORMAT, **{key: json.dumps(value) for key, value in header.items()}}
    return safetensors.torch.save(tensors, metadata)


def read(
    path: str | Path, student: nn.Module | None = None
) -> tuple[nn.Module, dict[str, np.ndarray], Config, str | None]:
    """Student, history, configuration and reason of stopping, as `save` was given them.

    Args:
        path: the file.
        student: a module to fill, for a student that was not made of this library's parts.

    Raises:
        ValueError: a file that is damaged or not ours, or a student that cannot be rebuilt from it.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is damaged, or not a safetensors file: {error}") from error
    if metadata.pop("format", None) != FORMAT:
        raise ValueError(f"{path} is not a {FORMAT} file")
    header = {key: json.loads(value) for key, value in metadata.items()}
    weights = _under("student", tensors)
    if student is None:
        if header["student"] is None:
            raise ValueError(f"the student in {path} has parts of your own: pass student=, a module to fill")
        student = _built(header["student"])
        student.load_state_dict(weights, assign=True)  # in the dtype of the file
    else:
        try:
            student.load_state_dict(weights)
        except RuntimeError as error:
            raise ValueError(f"the student passed is not of the kind in {path}: {error}") from error
    # Functions among the choices are not in the file: those fields read as they are by default.
    config = Config(**{**header["config"], "ema": tuple(header["config"]["ema"])})
    history = {key: value.numpy() for key, value in _under("history", tensors).items()}
    if "spacing" not in header["config"]:
        warnings.warn(
            f"the student in {path} was trained on a grid of your own function, which no file holds: what is measured "
            f"on config.grid() is measured on EDM's",
            stacklevel=3,
        )
    return student.eval(), history, config, header["stopped"]


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(f"{prefix}/"): value for key, value in tensors.items() if key.startswith(f"{prefix}/")}


def describe(student: nn.Module) -> dict[str, Any] | None:
    """How to build a student again, or None if parts of it are not this library's."""
    if isinstance(student, Windows):
        windows = [describe(window) for window in student.windows]
        return None if None in windows else {"windows": windows}
    if type(student) is not Trajectory or type(student.network) not in NETWORKS.values():
        return None
    names = [_name_of(student.boundary, BOUNDARIES), _name_of(student.time, TIMES)]
    if None in names:
        return None
    plain = {key: getattr(student, key) for key in ("t_max", "t_min", "sigma_data", "c_in", "event_shape")}
    network = [type(student.network).__name__, getattr(student.network, "options")]  # noqa: B009 - not of Callable
    return {**plain, "boundary": names[0], "time": names[1], "network": network}


def _built(description: dict[str, Any]) -> Student:
    if "windows" in description:
        return Windows([_trajectory(window) for window in description["windows"]])
    return _trajectory(description)


def _trajectory(description: dict[str, Any]) -> Trajectory:
    options = dict(description)
    name, network = options.pop("network")
    return Trajectory(NETWORKS[name](**network), options.pop("t_max"), **options)


def _name_of(part: Any, table: dict[str, Any]) -> str | None:
    return next((name for name, other in table.items() if other is part), None)
