"""Teachers in a file of our own: safetensors for the numbers, JSON in its header for how to build them again."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from pidlearn.nets import Preconditioned
from pidlearn.nets.edm import MODEL_TYPES
from pidlearn.nets.registry import DENOISERS, NETWORKS
from pidlearn.teachers.files.build import build, complete, fill
from pidlearn.utils.files import write_atomically

__all__ = ["digest_of", "read", "save_teacher"]

FORMAT = "pidlearn teacher 1"


def save_teacher(denoiser: nn.Module, path: str | Path) -> Path:
    """Write a teacher to one safetensors file, whole or not at all. `load_teacher` reads it, and executes nothing.

    Args:
        denoiser: EDM's (`nets.EDMPrecond` and its like), or a `nets.Preconditioned` network of this library, as
            `train_denoiser` returns.
        path: the file, ``.safetensors`` by custom; one that is there is replaced.

    Returns:
        The path.

    Raises:
        ValueError: for a denoiser with parts of your own, which no file could build again.
    """
    path = Path(path)
    # Clones, because safetensors refuses weights that share memory.
    tensors = {name: value.detach().cpu().clone().contiguous() for name, value in denoiser.state_dict().items()}
    metadata = {"format": FORMAT, "teacher": json.dumps(_describe(denoiser)), "digest": digest_of(tensors)}
    write_atomically(path, safetensors.torch.save(tensors, metadata))
    return path


def read(path: Path) -> nn.Module:
    """The teacher that `save_teacher` wrote, in eval mode and frozen.

    Raises:
        ValueError: for a file that is damaged or not a teacher of ours.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    except Exception as error:
        raise ValueError(f"{path} is damaged, or not a safetensors file: {error}") from error
    kind = metadata.get("format")
    if kind != FORMAT:
        hint = "; pidlearn.load reads students" if str(kind).startswith("pidlearn student") else ""
        raise ValueError(f"{path} is not a {FORMAT!r} file, as save_teacher writes them{hint}")
    try:
        if metadata["digest"] != digest_of(tensors):
            raise ValueError("its numbers have changed since it was written")
        return _built(json.loads(metadata["teacher"]), tensors)
    except Exception as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def _describe(denoiser: nn.Module) -> dict[str, Any]:
    """How to build a denoiser again: its class, its options, and those of a network of ours."""
    network: Any = getattr(denoiser, "model", None)
    if type(denoiser) in DENOISERS.values() and type(network) in [NETWORKS[name] for name in MODEL_TYPES]:
        options: Any = denoiser.options
        return {"class": type(denoiser).__name__, "options": complete(type(denoiser), options)}
    if type(denoiser) is Preconditioned and type(network) in _networks().values():
        own = {"network": type(network).__name__, "sigma_data": denoiser.sigma_data}
        return {"class": "Preconditioned", **own, "options": complete(type(network), network.options)}
    raise ValueError(
        f"save_teacher writes {', '.join(DENOISERS)} and Preconditioned over {', '.join(_networks())}; got "
        f"{type(denoiser).__name__} over {type(network).__name__}: torch.save its state_dict instead"
    )


def _built(description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module:
    options = description["options"]
    if description["class"] != "Preconditioned":
        return build(description["class"], options, tensors)
    cls = _networks()[description["network"]]
    bare = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    return Preconditioned(fill(cls, options, bare), description["sigma_data"]).eval()


def _networks() -> dict[str, type[nn.Module]]:
    """The registered networks that `nets.Preconditioned` can call: those that take class labels."""
    return {name: cls for name, cls in NETWORKS.items() if "label_dim" in inspect.signature(cls).parameters}


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the numbers, by name in order."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
