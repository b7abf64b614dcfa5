"""Folders of saved diffusers pipelines, read without executing anything in them.

diffusers builds the network and its scheduler from JSON and safetensors. Its own pipeline loader would also accept code
and pickles from the folder.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pidlearn.teachers.adapters.base import AdaptedDenoiser
from pidlearn.teachers.adapters.diffusers import check_parts, from_diffusers
from pidlearn.utils.optional_imports import package
from pidlearn.utils.validation import printable

__all__ = ["INDEX", "read"]

INDEX = "model_index.json"
"""The list of a pipeline's parts, in its folder."""


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
        for shards in (_part(folder, "unet")).glob("*.index.json"):
            if not all(name.endswith(".safetensors") for name in json.loads(shards.read_text())["weight_map"].values()):
                raise ValueError(f"{shards.name} names files that are not safetensors")
        unet, info = _class(diffusers, index, "unet", diffusers.UNet2DModel).from_pretrained(
            _part(folder, "unet"), local_files_only=True, use_safetensors=True, output_loading_info=True
        )
        if any(info.values()):  # lists of missing, unexpected and mismatched weights
            raise ValueError(f"its weights are not those of its network ({info})")
        scheduler_class = _class(diffusers, index, "scheduler", diffusers.SchedulerMixin)
        scheduler = scheduler_class.from_pretrained(_part(folder, "scheduler"), local_files_only=True)
        return from_diffusers(unet, scheduler).eval().requires_grad_(False)
    except Exception as error:  # the errors that a damaged folder can lead to cannot be listed
        raise ValueError(f"{folder} holds no pipeline that can be read: {printable(error):.400}") from error


def _class(diffusers: Any, index: Any, part: str, base: type[Any]) -> Any:
    """Return the diffusers class of a pipeline's part, if it derives from ``base``."""
    library, name = index[part]
    cls = getattr(diffusers, name, None) if library == "diffusers" else None
    if not (isinstance(cls, type) and issubclass(cls, base)):
        raise ValueError(f"its {part} is a {library}.{name}, not a {base.__name__}")
    return cls


def _part(folder: Path, name: str) -> Path:
    """Return the folder of a pipeline's part: its own, or in older pipelines the common one."""
    return folder / name if (folder / name).is_dir() else folder
