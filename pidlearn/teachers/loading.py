"""Teachers from any supported file, or by name. The first bytes of a file decide which reader takes it."""

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
from pidlearn.utils.arguments import PATH, check_arguments

__all__ = ["import_teacher", "load_teacher", "published_teachers"]

READABLE = (
    "an EDM .pkl, a .pt or .ckpt of the official PID repository (tensors by name, as torch.save writes them), "
    "a .safetensors file of save_teacher, or the folder of a diffusers pipeline"
)


@check_arguments(source=PATH)
def load_teacher(source: str | Path) -> nn.Module:
    """Load a teacher D(x, sigma, class_labels=None) from a file or by name, executing nothing in the file.

    Args:
        source: one of
            a file: an EDM ``.pkl``, a teacher of the official PID repository, or a file that `save_teacher` wrote;
            the folder that ``save_pretrained`` of a diffusers pipeline wrote, of a kind that `from_diffusers` takes;
            the name of one of EDM's published networks, such as "edm-cifar10-uncond-vp". NVIDIA publishes them under
            CC BY-NC-SA 4.0. They are downloaded once, into the folder that the environment variable PIDLEARN_CACHE
            names, or else ``pidlearn`` in `torch.hub.get_dir`.

    Returns:
        The denoiser, in eval mode and frozen, on the CPU in the dtype of the file: x (B, channels, R, R), sigma (B,),
        class labels int64 (B,) if its ``label_dim`` is not 0.

    Raises:
        FileNotFoundError: if there is no such file, or the published one is missing and cannot be downloaded.
        ImportError: for a pipeline, without the package diffusers.
        ValueError: for a file that is damaged or anything else, saying what is wrong with it.
    """
    known = published.find(source) if isinstance(source, str) else None
    if known:
        return published.load(known)
    path = Path(source)
    if not path.exists():
        names = ", ".join(one.short for one in published.NAMED)
        raise FileNotFoundError(f"there is no file {source}, and it is not the name of a published teacher: {names}")
    return _reader(path)(path)


@check_arguments(source=PATH, path=PATH)
def import_teacher(source: str | Path, path: str | Path) -> Path:
    """Convert any teacher that `load_teacher` reads to a safetensors file of `save_teacher`; return its path.

    Raises:
        FileNotFoundError: as `load_teacher`.
        ValueError: as `load_teacher`.
    """
    return safetensors_file.save_teacher(load_teacher(source), path)


def published_teachers() -> str:
    """Return a table of the published teachers: name, parameters, and the file's path if it is downloaded."""
    rows = []
    for one in published.NAMED:
        path = one.file.path
        rows.append(
            f"{one.short:28}{one.parameters / 1e6:7.1f} M parameters  {path if path.is_file() else 'to download'}"
        )
    return "\n".join(rows)


def _reader(path: Path) -> Callable[[Path], nn.Module]:
    """Return the reader for a file that begins like this one."""
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
    raise ValueError(f"{path} begins with {head!r} and is not a file that load_teacher reads, which is {READABLE}")


def _read_pickle(path: Path) -> nn.Module:
    pickled = edm_pickle.read(path)
    try:
        return build(*pickled)
    except ValueError as error:
        raise ValueError(f"{path} holds no EDM network: {error}") from error
