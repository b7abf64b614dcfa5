"""Folders of saved diffusers pipelines, read without executing anything in them.

diffusers builds the network and its scheduler from JSON and safetensors; pickles of weights are converted by our own
reader first. diffusers' own pipeline loader would also accept code from the folder, and run it and the pickles.
"""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

from pidlearn.teachers.adapters.base import AdaptedDenoiser
from pidlearn.teachers.adapters.diffusers import check_parts, from_diffusers
from pidlearn.utils import safetensors, torch_archive
from pidlearn.utils.optional_imports import package
from pidlearn.utils.validation import printable

__all__ = ["INDEX", "read"]

INDEX = "model_index.json"
"""The list of a pipeline's parts, in its folder."""

STEM = "diffusion_pytorch_model"
"""What the names of a network's weights begin with."""


def read(folder: Path) -> AdaptedDenoiser:
    """Return the teacher in a folder that a pipeline's ``save_pretrained`` wrote, in eval mode and frozen.

    Raises:
        ImportError: without the package diffusers.
        ValueError: for a folder that is damaged or holds another kind of pipeline.
    """
    diffusers: Any = package("diffusers", f"{folder}, the folder of a pipeline,")
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        check_parts(name for name, kind in index.items() if isinstance(kind, list) and any(kind))
        unet = _network(_class(diffusers, index, "unet", diffusers.UNet2DModel), _part(folder, "unet"))
        scheduler_class = _class(diffusers, index, "scheduler", diffusers.SchedulerMixin)
        scheduler = scheduler_class.from_pretrained(_part(folder, "scheduler"), local_files_only=True)
        return from_diffusers(unet, scheduler).eval().requires_grad_(False)
    except Exception as error:  # the errors that a damaged folder can lead to cannot be listed
        raise ValueError(f"{folder} holds no pipeline that can be read: {printable(error):.400}") from error


def _network(cls: Any, folder: Path) -> Any:
    """Return the network in a folder: in safetensors, of a variant, in shards, or in pickles, read without running."""
    plain = [f"{STEM}.safetensors", f"{STEM}.safetensors.index.json"]
    variants = sorted(
        re.sub(r"-\d+-of-\d+$", "", file.name.split(".")[1]) for file in folder.glob(f"{STEM}.*.safetensors")
    )
    if any((folder / name).is_file() for name in plain):
        return _from_pretrained(cls, folder)
    if variants:
        return _from_pretrained(cls, folder, variant=variants[0])
    pickles = sorted(folder.glob(f"{STEM}*.bin"))
    if len(pickles) != 1:
        raise ValueError(
            f"it has {len(pickles)} files {STEM}*.bin and none of safetensors: save the pipeline again with "
            f"save_pretrained(folder), which writes safetensors"
        )
    # diffusers renames the weights of older versions as it reads them, so let it read the same numbers.
    with tempfile.TemporaryDirectory() as temporary:
        (Path(temporary) / "config.json").write_bytes((folder / "config.json").read_bytes())
        tensors = torch_archive.read(pickles[0])
        (Path(temporary) / plain[0]).write_bytes(safetensors.to_bytes(tensors, {"format": "pt"}, digest=False))
        del tensors
        return _from_pretrained(cls, Path(temporary))


def _from_pretrained(cls: Any, folder: Path, **options: Any) -> Any:
    """Return the network that diffusers reads from safetensors, if they are exactly its weights."""
    for shards in folder.glob("*.index*.json"):
        if not all(name.endswith(".safetensors") for name in json.loads(shards.read_text())["weight_map"].values()):
            raise ValueError(f"{shards.name} names files that are not safetensors: save the pipeline again with them")
    network, info = cls.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, output_loading_info=True, **options
    )
    if any(info.values()):  # lists of missing, unexpected and mismatched weights
        raise ValueError(f"its weights are not those of its network ({info})")
    return network


def _class(diffusers: Any, index: Any, part: str, base: type[Any]) -> Any:
    """Return the diffusers class of a pipeline's part, if it derives from ``base``."""
    if part not in index:
        raise ValueError(f"its index has no {part!r}: from_diffusers takes pipelines of a unet and a scheduler")
    library, name = index[part]
    cls = getattr(diffusers, name, None) if library == "diffusers" else None
    if not (isinstance(cls, type) and issubclass(cls, base)):
        raise ValueError(f"its {part} is a {library}.{name}, not a {base.__name__}")
    return cls


def _part(folder: Path, name: str) -> Path:
    """Return the folder of a pipeline's part: its own, or in older pipelines the common one."""
    return folder / name if (folder / name).is_dir() else folder
