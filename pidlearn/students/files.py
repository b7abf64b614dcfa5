"""Students as files: safetensors for the numbers, JSON in its header for how to build the networks again."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from pidlearn.nets.adapted import AdaptedStudent
from pidlearn.nets.noise_parametrization import NOISE_PARAMETRIZATIONS
from pidlearn.nets.registry import NETWORKS
from pidlearn.students.base import Student
from pidlearn.students.boundaries import BOUNDARIES, TIMES
from pidlearn.students.piecewise import PiecewiseTrajectory
from pidlearn.students.trajectory import Trajectory
from pidlearn.teachers.files.build import fill
from pidlearn.teachers.files.safetensors_file import digest_of
from pidlearn.utils.files import write_atomically

__all__ = ["describe", "packed", "read", "save"]

FORMAT = "pidlearn student 1"
FOREIGN = "of another make"


class UnknownPartsError(ValueError):
    """A student that its file alone cannot build again."""


def save(
    student: nn.Module, history: dict[str, np.ndarray], config: dict[str, Any], stopped: str | None, path: str | Path
) -> Path:
    """Write a student and how it came to be to one safetensors file, whole or not at all.

    A student made of this library's parts carries its own description. Any other is saved as its weights, and `read`
    must be handed a module to put them in.
    """
    path = Path(path)
    write_atomically(path, packed(student, history, config, stopped))
    return path


def packed(student: nn.Module, history: dict[str, np.ndarray], config: dict[str, Any], stopped: str | None) -> bytes:
    """The file that `save` writes."""
    # Clones, because safetensors refuses weights that share memory.
    tensors = {
        f"student/{key}": value.detach().cpu().clone().contiguous() for key, value in student.state_dict().items()
    }
    tensors |= {f"history/{key}": torch.from_numpy(column) for key, column in history.items()}
    choices = dict(config)
    header = {"student": describe(student), "config": choices, "stopped": stopped}
    metadata = {"format": FORMAT, "digest": digest_of(tensors), **{k: json.dumps(v) for k, v in header.items()}}
    return safetensors.torch.save(tensors, metadata)


def read(
    path: str | Path, student: nn.Module | None = None, teacher: Any = None
) -> tuple[nn.Module, dict[str, np.ndarray], dict[str, Any], str | None]:
    """Student, history, configuration and reason of stopping, as `save` was given them.

    Args:
        path: the file.
        student: a module to fill, for a student that was not made of this library's parts.
        teacher: the student's, for one that is a copy of a network of another make.

    Raises:
        ValueError: a file that is damaged or not ours, or a student that cannot be rebuilt from it.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is damaged, or not a safetensors file: {error}") from error
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path} is not a {FORMAT} file")
    if metadata.get("digest", told := digest_of(tensors)) != told:
        raise ValueError(f"{path} is damaged: its numbers have changed since it was written")
    weights = _under("student", tensors)
    try:
        header = {key: json.loads(metadata[key]) for key in ("student", "config", "stopped")}
        config = header["config"]
        if student is None:
            student = _built(header["student"], weights, teacher)
            student.load_state_dict(weights, assign=True)  # in the dtype of the file
        else:
            student.load_state_dict(weights)
    except UnknownPartsError as error:
        raise ValueError(f"the student in {path} {error}") from error
    except Exception as error:  # what a damaged description can lead to is not to be listed
        what = (
            "is damaged, or of another version"
            if student is None
            else "holds a student not of the kind of the one passed"
        )
        raise ValueError(f"{path} {what}: {error!s:.600}") from error
    history = {key: value.numpy() for key, value in _under("history", tensors).items()}
    return student.eval(), history, config, header["stopped"]


def _under(prefix: str, tensors: dict[str, Tensor], end: str = "/") -> dict[str, Tensor]:
    prefix += end
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def describe(student: nn.Module) -> dict[str, Any] | None:
    """How to build a student again, or None if parts of it are not this library's."""
    if isinstance(student, PiecewiseTrajectory):
        windows = [describe(window) for window in student.windows]
        return None if None in windows else {"windows": windows}
    if type(student) is not Trajectory:
        return None
    names = [_name_of(student.boundary, BOUNDARIES), _name_of(student.time, TIMES)]
    network = _describe_network(student.network)
    if None in names or network is None:
        return None
    plain = {key: getattr(student, key) for key in ("t_max", "t_min", "sigma_data", "c_in", "event_shape")}
    return {**plain, "boundary": names[0], "time": names[1], "network": network}


def _describe_network(network: Any) -> list[Any] | None:
    """The name of its class, and the options of which `_network` makes it again."""
    if type(network) in NETWORKS.values():
        return [type(network).__name__, network.options]
    if type(network) is not AdaptedStudent:
        return None
    plain = {"t_max": network.t_max, "sigma_data": network.sigma_data}
    coordinates: Any = network.noise_parametrization
    inner, name = _describe_network(network.network), type(coordinates).__name__
    if inner is None or NOISE_PARAMETRIZATIONS.get(name) is not type(coordinates):
        return [FOREIGN, {**plain, "scales": network.scales}]
    return ["AdaptedStudent", {**plain, "network": inner, "coordinates": [name, asdict(coordinates)]}]


def _built(description: dict[str, Any] | None, weights: dict[str, Tensor], teacher: Any) -> Student:
    if description is None:
        raise UnknownPartsError("has parts of your own: pass student=, a module to fill")
    if "windows" not in description:
        return _trajectory(description, weights, teacher)
    parts = enumerate(description["windows"])
    return PiecewiseTrajectory(
        [_trajectory(window, _under(f"chain.{i}", weights, "."), teacher) for i, window in parts]
    )


def _trajectory(description: dict[str, Any], weights: dict[str, Tensor], teacher: Any) -> Trajectory:
    options = dict(description)
    name, of_network = options.pop("network")
    network = _network(name, of_network, _under("network", weights, "."), teacher)
    return Trajectory(network, options.pop("t_max"), **options)


def _network(name: str, options: dict[str, Any], weights: dict[str, Tensor], teacher: Any) -> nn.Module:
    if name in NETWORKS:
        return fill(NETWORKS[name], options, weights).requires_grad_(True)
    if name == FOREIGN:
        return _foreign(options, teacher)
    (kind, coordinates), (inner_name, of_inner) = options["coordinates"], options["network"]
    inner: Any = _network(inner_name, of_inner, _under("network", weights, "."), teacher)
    return AdaptedStudent(
        inner, NOISE_PARAMETRIZATIONS[kind](**coordinates), options["t_max"], options["sigma_data"], inner.label_dim
    )


def _foreign(options: dict[str, Any], teacher: Any) -> nn.Module:
    """A network of another make, which only its teacher has the code of."""
    if not hasattr(teacher, "as_student"):
        raise UnknownPartsError(
            "is a copy of its teacher's network, which is of another make: pass that teacher too, as from_diffusers, "
            "from_flow or load_teacher returns it, or as --teacher"
        )
    found: AdaptedStudent = copy.deepcopy(teacher.as_student(options["t_max"])).requires_grad_(True)
    if not np.allclose(found.scales, options["scales"]):
        raise UnknownPartsError("is a copy of another teacher's network, which sees noise otherwise")
    return found


def _name_of(part: Any, table: dict[str, Any]) -> str | None:
    return next((name for name, other in table.items() if other is part), None)
