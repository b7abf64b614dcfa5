"""Teachers from any supported file, or by name. The first bytes of a file decide which reader takes it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from torch import nn

from pidlearn.nets.registry import DENOISERS, check_option
from pidlearn.teachers.files import (
    diffusers_folder,
    edm_pickle,
    official_pid,
    published,
    safetensors_file,
)
from pidlearn.teachers.files.build import build
from pidlearn.teachers.files.state_dict import WRAP_IT
from pidlearn.utils import torch_archive
from pidlearn.utils.arguments import PATH, check_arguments

__all__ = ["import_teacher", "load_teacher", "published_teachers"]

READABLE = (
    "an EDM .pkl, a .pt or .ckpt of the official PID repository (tensors by name, as torch.save writes them), "
    "a .safetensors file of save_teacher, or the folder of a diffusers pipeline"
)


@check_arguments(source=PATH)
def load_teacher(source: str | Path, *, precond: str | None = None) -> nn.Module:
    """Load a teacher D(x, sigma, class_labels=None) from a file or by name, executing nothing in the file.

    Args:
        source: one of
            a file: an EDM ``.pkl``, a teacher of the official PID repository, or a file that `save_teacher` wrote;
            the folder that ``save_pretrained`` of a diffusers pipeline wrote, of a kind that `from_diffusers` takes;
            the name of one of EDM's published networks, such as "edm-cifar10-uncond-vp". NVIDIA publishes them under
            CC BY-NC-SA 4.0. They are downloaded once, into the folder that the environment variable PIDLEARN_CACHE
            names, or else ``pidlearn`` in `torch.hub.get_dir`.
        precond: for a state dict, such as the teachers of the official PID repository, the class of the denoiser:
            "EDMPrecond", "VPPrecond", "VEPrecond" or "iDDPMPrecond". Such a file does not say it, and is otherwise read
            as EDM's, with a warning. All other files say it themselves.

    Returns:
        The denoiser, in eval mode and frozen, on the CPU in the dtype of the file: x (B, channels, R, R), sigma (B,),
        class labels int64 (B,) if its ``label_dim`` is not 0.

    Raises:
        FileNotFoundError: if there is no such file, or the published one is missing and cannot be downloaded.
        ImportError: for a pipeline, without the package diffusers.
        ValueError: for a file that is damaged or anything else, saying what is wrong with it.
    """
    if precond is not None:
        check_option("precond", precond, tuple(DENOISERS))
    known = published.find(source) if isinstance(source, str) else None
    path = Path(source)
    if known is None:
        if not path.exists():
            raise FileNotFoundError(_missing(source))
        if _reader(path) is official_pid.read_teacher:
            return official_pid.read_teacher(path, precond)
    if precond is not None:
        if known is None:
            _reader(path)(path)  # a file of another kind is refused with what to do about it
        raise ValueError(f"got precond = {precond!r} for {source}, which says its preconditioning itself: leave it out")
    return published.load(known) if known else _reader(path)(path)


@check_arguments(source=PATH, path=PATH)
def import_teacher(source: str | Path, path: str | Path, *, precond: str | None = None) -> Path:
    """Convert a teacher that `load_teacher` reads to a safetensors file of `save_teacher`; return its path.

    ``precond`` is as there. Networks of diffusers stay in their folder, which `load_teacher` reads.

    Raises:
        FileNotFoundError: as `load_teacher`.
        ValueError: as `load_teacher`.
    """
    return safetensors_file.save_teacher(load_teacher(source, precond=precond), path)


def published_teachers() -> str:
    """Return a table of the published teachers: name, parameters, and the file's path if it is downloaded."""
    rows = []
    for one in published.NAMED:
        path = one.file.path
        rows.append(
            f"{one.short:28}{one.parameters / 1e6:7.1f} M parameters  {path if path.is_file() else 'to download'}"
        )
    return "\n".join(rows)


def _missing(source: str | Path) -> str:
    """What to do about a source that is neither a file nor a name."""
    names = ", ".join(one.short for one in published.NAMED)
    hub = ""
    if isinstance(source, str) and re.fullmatch(r"[\w.-]+/[\w.-]+", source):  # may be owner/name
        hub = (
            f". For a pipeline of the Hugging Face hub: pidlearn.teachers.from_diffusers(diffusers.DiffusionPipeline."
            f"from_pretrained({source!r}))"
        )
    return f"there is no file {source}, and it is not the name of a published teacher: expected one of {names}{hub}"


def _reader(path: Path) -> Callable[[Path], nn.Module]:
    """Return the reader for a file that begins like this one."""
    if (path / diffusers_folder.INDEX).is_file():
        return diffusers_folder.read
    if (path / "config.json").is_file():
        raise ValueError(
            f"{path} holds one part of a diffusers pipeline: pass the pipeline's folder, or "
            f"pidlearn.teachers.from_diffusers(UNet2DModel.from_pretrained({str(path)!r}), scheduler)"
        )
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
        raise ValueError(f"{path} holds no EDM network: {error}. If it is another, {WRAP_IT}") from error
