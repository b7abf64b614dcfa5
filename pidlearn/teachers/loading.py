"""Any teacher from a file or by name; what the file is shows in its first bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import nn

from pidlearn.teachers.files import (
    diffusers_folder,
    edm_pickle,
    official_pid,
    published,
    safetensors_file,
)
from pidlearn.teachers.files.build import build
from pidlearn.utils import torch_archive

__all__ = ["import_teacher", "load_teacher", "published_teachers"]

READABLE = (
    "an EDM .pkl, a .pt or .ckpt of the official PID repository (a torch.save archive of tensors by name), "
    "a .safetensors file of save_teacher, or the folder of a diffusers pipeline"
)


def load_teacher(source: str | Path) -> nn.Module:
    """A teacher D(x, sigma, class_labels=None) from a file or by name, without executing anything of the file.

    Args:
        source: a file: an EDM ``.pkl``, a teacher of the official PID repository, or what `save_teacher` wrote; or
            the folder that a diffusers pipeline's ``save_pretrained`` wrote, which `from_diffusers` could take; or the
            name of one of EDM's published networks, such as "edm-cifar10-uncond-vp". Those come from NVIDIA under
            CC BY-NC-SA 4.0, are downloaded once, and are kept in ``pidlearn`` under `torch.hub.get_dir` or in the
            folder that the environment variable PIDLEARN_CACHE names.

    Returns:
        The denoiser, in eval mode and frozen, on the CPU in the dtype of the file: x (B, channels, R, R), sigma (B,),
        class labels int64 (B,) if its ``label_dim`` is not 0.

    Raises:
        FileNotFoundError: if there is no such file, or the published one is not at hand and cannot be downloaded.
        ImportError: for a pipeline, without the package diffusers.
        ValueError: for a file that is anything else or damaged, saying what is wrong with it.
    """
    known = published.find(source) if isinstance(source, str) else None
    if known:
        return published.load(known)
    path = Path(source)
    if not path.exists():
        names = ", ".join(one.short for one in published.NAMED)
        raise FileNotFoundError(f"there is no file {source}, and the published teachers are {names}")
    return _reader(path)(path)


def import_teacher(source: str | Path, path: str | Path) -> Path:
    """Turn any teacher that `load_teacher` reads into a safetensors file of ours; returns its path.

    Raises:
        FileNotFoundError: as `load_teacher`.
        ValueError: as `load_teacher`.
    """
    return safetensors_file.save_teacher(load_teacher(source), path)


def published_teachers() -> str:
    """A table of the published teachers: name, parameters, and where the file is if it is at hand."""
    rows = [
        f"{one.short:28}{one.parameters / 1e6:7.1f} M parameters  {one.path if one.path.is_file() else 'to download'}"
        for one in published.NAMED
    ]
    return "\n".join(rows)


def _reader(path: Path) -> Callable[[Path], nn.Module]:
    """What reads a file that begins like this one."""
    if (path / diffusers_folder.INDEX).is_file():
        return diffusers_folder.read
    if not path.is_file():
        raise ValueError(f"{path} is not a file: load_teacher reads {READABLE}")
    with path.open("rb") as file:
        head = file.read(9)
    if head[8:] == b"{":  # the first eight bytes are the header's length
        return safetensors_file.read
    if head.startswith((b"PK\x03\x04", torch_archive.LEGACY)):
        return official_pid.read_teacher
    if head.startswith(b"\x80") or path.suffix == ".pkl":
        return _read_pickle
    raise ValueError(f"{path} is not a file that load_teacher reads, which is {READABLE}. It begins with {head!r}")


def _read_pickle(path: Path) -> nn.Module:
    pickled = edm_pickle.read(path)
    try:
        return build(*pickled)
    except ValueError as error:
        raise ValueError(f"{path} holds no network of EDM's: {error}") from error
