"""Teacher files of this library: safetensors for the numbers, JSON in the header for how to rebuild the denoiser."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pidlearn.nets import Preconditioned
from pidlearn.nets.edm import MODEL_TYPES
from pidlearn.nets.registry import DENOISERS, NETWORKS
from pidlearn.teachers.adapters.base import AdaptedDenoiser
from pidlearn.teachers.files.build import build, complete, fill
from pidlearn.teachers.files.state_dict import WRAP_IT
from pidlearn.utils import safetensors
from pidlearn.utils.arguments import PATH, check_arguments
from pidlearn.utils.wrappers import unwrapped

__all__ = ["read", "save_teacher"]

FORMAT, FORMAT_BEFORE = "pidlearn teacher 2", "pidlearn teacher 1"


@check_arguments(path=PATH)
def save_teacher(denoiser: nn.Module, path: str | Path) -> Path:
    """Write a teacher to one safetensors file, whole or not at all, for `load_teacher`.

    Args:
        denoiser: one of EDM's classes, such as `nets.EDMPrecond`, or a network of this library in
            `nets.Preconditioned`, as `train_denoiser` returns.
        path: the file, by convention ``.safetensors``; an existing one is replaced.

    Returns:
        The path.

    Raises:
        ValueError: for a denoiser with parts that are not this library's, which could not be rebuilt from a file.
    """
    denoiser = unwrapped(denoiser)
    metadata = {"format": FORMAT, "teacher": json.dumps(_describe(denoiser))}
    return safetensors.write(path, denoiser.state_dict(), metadata)


def read(path: Path) -> nn.Module:
    """Return the teacher that `save_teacher` wrote, in eval mode and frozen.

    Raises:
        ValueError: for a file that is damaged or does not hold such a teacher.
    """
    try:
        tensors, metadata = safetensors.read(path, FORMAT, FORMAT_BEFORE)
    except safetensors.OtherFormatError as error:
        raise ValueError(
            f"{error}. If it holds the weights of another library alone: of diffusers, pass the folder of the whole "
            f"pipeline; of EDM or the official PID code, load the file 'weights.pt', with precond=, that "
            f"torch.save(safetensors.torch.load_file({str(path)!r}), 'weights.pt') writes; otherwise {WRAP_IT}"
        ) from error
    try:
        return _build(json.loads(metadata["teacher"]), tensors)
    except Exception as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def _describe(denoiser: nn.Module) -> dict[str, Any]:
    """Return how to build a denoiser again: its class, its options, and its network's class and options."""
    network: Any = getattr(denoiser, "model", None)
    if isinstance(denoiser, AdaptedDenoiser):
        raise ValueError(
            f"got {denoiser!r}, a third-party network, which only its own code can build: save it with that code, a "
            f"diffusers pipeline with save_pretrained(folder), which load_teacher reads, and pass the teacher to "
            f"pidlearn.load next to the student's file"
        )
    weights = denoiser.state_dict() if isinstance(denoiser, nn.Module) else {}
    if type(denoiser) in DENOISERS.values() and type(network) in [NETWORKS[name] for name in MODEL_TYPES]:
        options: Any = denoiser.options
        return {"class": type(denoiser).__name__, "options": complete(type(denoiser), options, weights)}
    if type(denoiser) is Preconditioned and type(network) in _networks().values():
        own = {"network": type(network).__name__, "sigma_data": denoiser.sigma_data}
        return {"class": "Preconditioned", **own, "options": complete(type(network), network.options, weights)}
    raise ValueError(
        f"got {type(denoiser).__name__} over {type(network).__name__}; save_teacher writes {', '.join(DENOISERS)}, and "
        f"Preconditioned over {', '.join(_networks())}: save the state_dict of any other denoiser yourself"
    )


def _build(description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module:
    options = description["options"]
    if description["class"] != "Preconditioned":
        return build(description["class"], options, tensors)
    cls = _networks()[description["network"]]
    bare = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    return Preconditioned(fill(cls, options, bare), description["sigma_data"]).eval()


def _networks() -> dict[str, type[nn.Module]]:
    """Return the registered networks that `nets.Preconditioned` can call: those that take class labels."""
    return {name: cls for name, cls in NETWORKS.items() if "label_dim" in inspect.signature(cls).parameters}
