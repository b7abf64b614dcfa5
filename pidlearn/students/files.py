"""Student files: safetensors for the numbers, JSON in the header for how to build the networks again."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pidlearn.nets.adapted import AdaptedStudent
from pidlearn.nets.noise_parametrization import NOISE_PARAMETRIZATIONS
from pidlearn.nets.registry import NETWORKS
from pidlearn.students.base import Student, calibration_of
from pidlearn.students.boundaries import BOUNDARIES, TIMES
from pidlearn.students.flow_map import ConsistencyFunction, FlowMap
from pidlearn.students.operator import NeuralOperator
from pidlearn.students.piecewise import PiecewiseTrajectory
from pidlearn.students.progressive import ProgressiveStudent
from pidlearn.students.trajectory import Trajectory
from pidlearn.students.validate import set_samples
from pidlearn.teachers.adapters.base import ThirdPartyNetwork
from pidlearn.teachers.files.build import fill
from pidlearn.utils import safetensors
from pidlearn.utils.arguments import check_argument, count
from pidlearn.utils.files import write_atomically
from pidlearn.utils.settings import plain
from pidlearn.utils.validation import check_shape
from pidlearn.utils.wrappers import renamed_for, unwrapped

__all__ = ["describe", "packed", "read", "save"]

FORMAT, FORMAT_BEFORE = "pidlearn student 2", "pidlearn student 1"
THIRD_PARTY = "of another make"
"""In files, the name of the network class of a third-party teacher, which only the teacher can build."""


FLOW_MAPS = {kind.__name__: kind for kind in (FlowMap, ConsistencyFunction)}


class UnknownPartsError(ValueError):
    """A student that cannot be rebuilt from its file alone."""


def save(
    student: nn.Module,
    history: dict[str, np.ndarray],
    config: Mapping[str, Any],
    stopped: str | None,
    path: str | Path,
    teacher: Mapping[str, Tensor] = MappingProxyType({}),
) -> Path:
    """Write a student, its history and its configuration to one safetensors file, whole or not at all.

    The file of a student made of this library's parts describes how to build it. Of any other it has only the weights,
    and `read` needs a module to load them into. A compiled or wrapped student is written as the plain one.

    Args:
        student: the student.
        history: arrays by name.
        config: the settings of its training by name, as values that JSON has.
        stopped: why its training stopped early, if it did.
        path: the file.
        teacher: tensors by name that identify its teacher.
    """
    path = Path(path)
    write_atomically(path, packed(student, history, config, stopped, teacher))
    return path


def packed(
    student: nn.Module,
    history: dict[str, np.ndarray],
    config: Mapping[str, Any],
    stopped: str | None,
    teacher: Mapping[str, Tensor] = MappingProxyType({}),
) -> bytes:
    """Return the contents of the file that `save` writes."""
    student = unwrapped(student)
    weights = student.state_dict()
    tensors = {f"student/{key}": value for key, value in weights.items()}
    tensors |= {f"history/{key}": torch.from_numpy(column) for key, column in history.items()}
    tensors |= {f"teacher/{key}": value for key, value in teacher.items()}
    samples = (student.event_shape, student.label_dim or 0) if isinstance(student, Student) else (None, 0)
    header = {"student": _buildable(student, weights), "config": dict(config), "stopped": stopped, "samples": samples}
    if calibration := calibration_of(student):
        header["calibration"] = calibration
    text = {key: json.dumps(part, default=_number) for key, part in header.items()}
    return safetensors.to_bytes(tensors, {"format": FORMAT, **text})


def _buildable(student: nn.Module, weights: dict[str, Tensor]) -> dict[str, Any] | None:
    """Return the student's description if `read` can build it from that, which is tried; else None."""
    try:
        description = _loads(json.dumps(describe(student), default=_number))
        _build(description, weights, None)
    except UnknownPartsError:  # of a third-party network, which needs its teacher
        return describe(student)
    except (ValueError, TypeError):  # options that the network takes, but that no file may have
        return None
    return describe(student)


def _number(value: Any) -> Any:
    """Convert numpy's and torch's numbers, which JSON does not have."""
    if (number := plain(value)) is value:
        raise TypeError(f"{type(value).__name__} cannot be written as JSON")
    return number


def _loads(text: str) -> Any:
    """Read JSON whose numbers are all finite."""

    def finite(number: str) -> float:
        value = float(number)
        if not math.isfinite(value):
            raise ValueError(f"{number:.40} is not a finite number")
        return value

    return json.loads(text, parse_float=finite, parse_constant=finite)


def read(
    path: str | Path, student: nn.Module | None = None, teacher: Any = None
) -> tuple[nn.Module, dict[str, np.ndarray], dict[str, Any], str | None, dict[str, Tensor]]:
    """Return the student, history, configuration, reason of stopping and teacher's identity that `save` wrote.

    Args:
        path: the file.
        student: a module to load the weights into, for a student that was not made of this library's parts; also the
            bare network of a Trajectory, which is returned as such.
        teacher: the student's teacher, for a copy of a third-party network.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a file that is damaged or not a student's, or a student that cannot be rebuilt from it.
    """
    tensors, metadata = safetensors.read(path, FORMAT, FORMAT_BEFORE)
    weights = _under("student", tensors)
    could_misfit = False
    try:
        description, config, stopped = (_loads(metadata[key]) for key in ("student", "config", "stopped"))
        samples, calibration = _loads(metadata.get("samples", "[null, 0]")), _loads(metadata.get("calibration", "{}"))
        could_misfit = student is not None
        if student is None:
            student = _build(description, weights, teacher)
            # In the dtype of the file. Earlier versions kept the names of the wrappers around a teacher's network.
            student.load_state_dict(renamed_for(student, weights), assign=True)
        else:
            # Of a bare network the training made a student, or one for each stage: `load` makes it again.
            of_network = _under("network", weights, ".") or _under("stages.0.network", weights, ".")
            own = weights if hasattr(unwrapped(student), "t_max") else of_network
            student.load_state_dict(renamed_for(student, own))
            # Of a student whose network does not say its classes; earlier files hold neither.
            event_shape, label_dim = samples
            check_argument("label_dim", label_dim, count(0))
            if event_shape is not None:
                set_samples(student, check_shape(event_shape), label_dim)
        if isinstance(calibration, dict):
            calibration_of(student).update(calibration)
    except UnknownPartsError as error:
        raise ValueError(f"the student in {path} {error}") from error
    except Exception as error:  # the errors that a damaged description can lead to cannot be listed
        if could_misfit:
            raise ValueError(
                f"{path} holds another kind of student than student=, a {type(unwrapped(student)).__name__}: pass the "
                f"network or student that distill got, or leave student= out ({error!s:.300})"
            ) from error
        raise ValueError(f"{path} is damaged, or of another version: {error!s:.600}") from error
    history = {key: value.numpy() for key, value in _under("history", tensors).items()}
    return student.eval(), history, config, stopped, _under("teacher", tensors)


def keep_calibration(path: str | Path, student: Student) -> None:
    """Write what a student's `calibration` holds into its file, which stays the same otherwise.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: a file that is damaged, or that `save` has not written.
        OSError: a file that cannot be written.
    """
    tensors, metadata = safetensors.read(path, FORMAT)
    text = {key: value for key, value in metadata.items() if key != "digest"}
    safetensors.write(path, tensors, {**text, "calibration": json.dumps(student.calibration)})


def _under(prefix: str, tensors: dict[str, Tensor], end: str = "/") -> dict[str, Tensor]:
    prefix += end
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def describe(student: nn.Module) -> dict[str, Any] | None:
    """Return how to build a student again, or None if parts of it are not this library's."""
    if isinstance(student, PiecewiseTrajectory):
        windows = [describe(window) for window in student.windows]
        return None if None in windows else {"windows": windows}
    if type(student) in FLOW_MAPS.values():
        return _describe_flow_map(student)
    if isinstance(student, ProgressiveStudent):
        stages = [describe(stage) for stage in student.stages]
        description = {"stages": stages, "numbers": student.numbers, "times": student.times.tolist()}
        return None if None in stages else description
    if type(student) not in (Trajectory, NeuralOperator):
        return None
    names = {"boundary": _name_of(student.boundary, BOUNDARIES), "time": _name_of(student.time, TIMES)}
    network = _describe_network(student.network)
    if None in names.values() or network is None:
        return None
    # In this order, which checkpoints depend on. An operator's boundary and time are fixed, and its last time is t_min.
    is_operator = isinstance(student, NeuralOperator)
    ends = ("t_max", "times") if is_operator else ("t_max", "t_min")
    plain = {key: getattr(student, key) for key in (*ends, "sigma_data", "c_in", "event_shape")}
    return {**plain, **({} if is_operator else names), "network": network}


def _describe_flow_map(student: Any) -> dict[str, Any] | None:
    plain = {key: getattr(student, key) for key in ("t_max", "t_min", "sigma_data", "event_shape")}
    noise: Any = student.noise_parametrization
    network, name = _describe_network(student.network), type(noise).__name__
    if isinstance(student.network, ThirdPartyNetwork):
        network, described = [THIRD_PARTY, {}], None  # the teacher has the network's code, and its noise levels
    elif network is None or NOISE_PARAMETRIZATIONS.get(name) is not type(noise):
        return None
    else:
        described = [name, asdict(noise)]
    return {**plain, "flow_map": type(student).__name__, "noise": described, "network": network}


def _describe_network(network: Any) -> list[Any] | None:
    """Return the name of a network's class and the options from which `_build_network` makes it again."""
    if type(network) in NETWORKS.values():
        return [type(network).__name__, network.options]
    if type(network) is not AdaptedStudent:
        return None
    plain = {"t_max": network.t_max, "sigma_data": network.sigma_data}
    noise: Any = network.noise_parametrization
    inner, name = _describe_network(network.network), type(noise).__name__
    if inner is None or NOISE_PARAMETRIZATIONS.get(name) is not type(noise):
        return [THIRD_PARTY, {**plain, "scales": network.scales}]
    return ["AdaptedStudent", {**plain, "network": inner, "coordinates": [name, asdict(noise)]}]


def _build(description: dict[str, Any] | None, weights: dict[str, Tensor], teacher: Any) -> Student:
    if description is None:
        raise UnknownPartsError(
            "cannot be built from its file, since its parts, options or weights are not of the "
            "kinds that a file may describe: pass student=, the network or student that distill got, to load it into"
        )
    if "stages" in description:
        stages = enumerate(description["stages"])
        built = [_build_trajectory(part, _under(f"stages.{i}", weights, "."), teacher) for i, part in stages]
        return ProgressiveStudent(built, description["numbers"], description.get("times"))
    if "windows" not in description:
        return _build_trajectory(description, weights, teacher)
    parts = enumerate(description["windows"])
    return PiecewiseTrajectory(
        [_build_trajectory(part, _under(f"chain.{i}", weights, "."), teacher) for i, part in parts]
    )


def _build_trajectory(description: dict[str, Any], weights: dict[str, Tensor], teacher: Any) -> Any:
    options = dict(description)
    name, network_options = options.pop("network")
    if "flow_map" in options:
        return _build_flow_map(options, name, network_options, weights, teacher)
    network = _build_network(name, network_options, _under("network", weights, "."), teacher)
    kind = NeuralOperator if "times" in options else Trajectory
    trajectory = kind(network, options.pop("t_max"), **options)
    if trajectory.event_shape not in (None, shape := getattr(network, "event_shape", trajectory.event_shape)):
        raise ValueError(f"its samples are {trajectory.event_shape}, and those of its network {shape}")
    return trajectory


def _build_flow_map(
    options: dict[str, Any], name: str, network_options: dict[str, Any], weights: dict[str, Tensor], teacher: Any
) -> FlowMap:
    kind, noise = FLOW_MAPS[options.pop("flow_map")], options.pop("noise")
    if name == THIRD_PARTY:
        teacher = _third_party(teacher)
        network, parametrization = copy.deepcopy(teacher.network).requires_grad_(True), teacher.noise_parametrization
    else:
        network = _build_network(name, network_options, _under("network", weights, "."), teacher)
        parametrization = NOISE_PARAMETRIZATIONS[noise[0]](**noise[1])
    return kind(network, options.pop("t_max"), noise_parametrization=parametrization, **options)


def _third_party(teacher: Any) -> Any:
    """The teacher whose network a student is a copy of, after checking that there is one."""
    teacher = unwrapped(teacher)
    if not hasattr(teacher, "as_student"):
        raise UnknownPartsError(
            "is a copy of its teacher's network, which is third-party code: pass that teacher too, as from_diffusers, "
            "from_flow, from_network or load_teacher returns it, or as --teacher"
        )
    return teacher


def _build_network(name: str, options: dict[str, Any], weights: dict[str, Tensor], teacher: Any) -> nn.Module:
    if name in NETWORKS:
        return fill(NETWORKS[name], options, weights).requires_grad_(True)
    if name == THIRD_PARTY:
        return _copy_from_teacher(options, teacher)
    if "coordinates" not in options:
        raise UnknownPartsError(
            f"has a network of class {name!r:.80}, which is not registered: import its module first"
        )
    (kind, noise_options), (inner_name, inner_options) = options["coordinates"], options["network"]
    inner: Any = _build_network(inner_name, inner_options, _under("network", weights, "."), teacher)
    return AdaptedStudent(
        inner, NOISE_PARAMETRIZATIONS[kind](**noise_options), options["t_max"], options["sigma_data"], inner.label_dim
    )


def _copy_from_teacher(options: dict[str, Any], teacher: Any) -> nn.Module:
    """Copy a third-party network, whose code only the teacher has."""
    teacher = _third_party(teacher)
    network: AdaptedStudent = copy.deepcopy(teacher.as_student(options["t_max"])).requires_grad_(True)
    if not np.allclose(network.scales, options["scales"]):
        raise UnknownPartsError("is a copy of another teacher's network, which has another noise parametrization")
    return network


def _name_of(part: Any, table: dict[str, Any]) -> str | None:
    return next((name for name, other in table.items() if other is part), None)
