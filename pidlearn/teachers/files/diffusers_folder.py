"""Folders that pipelines of diffusers were saved to, read without running anything that lies in them.

diffusers makes the network and its scheduler, of JSON and safetensors. Its own loader would also take code and pickles
from the folder.
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
"""What a pipeline's folder says it holds."""


def read(folder: Path) -> AdaptedDenoiser:
    """The teacher in a folder that a pipeline's ``save_pretrained`` wrote, in eval mode and frozen.

    Raises:
        ImportError: without the package diffusers.
        ValueError: for a folder that is damaged or holds another pipeline.
    """
    diffusers: Any = package("diffusers", f"{folder}, the folder of a pipeline,")
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        check_parts(name for name, kind in index.items() if isinstance(kind, list) and any(kind))
        for shards in (_part(folder, "unet")).glob("*.index.json"):
            if not all(name.endswith(".safetensors") for name in json.loads(shards.read_text())["weight_map"].values()):
                raise ValueError(f"{shards.name} names files that are not safetensors")
        unet, told = _class(diffusers, index, "unet", diffusers.UNet2DModel).from_pretrained(
            _part(folder, "unet"), local_files_only=True, use_safetensors=True, output_loading_info=True
        )
        if any(told.values()):
            raise ValueError(f"its weights are not those of its network ({told})")
        kind = _class(diffusers, index, "scheduler", diffusers.SchedulerMixin)
        scheduler = kind.from_pretrained(_part(folder, "scheduler"), local_files_only=True)
        return from_diffusers(unet, scheduler).eval().requires_grad_(False)
    except Exception as error:  # what a damaged folder can lead diffusers to is not to be listed
        raise ValueError(f"{folder} holds no pipeline that can be read: {printable(error):.400}") from error


def _class(diffusers: Any, index: Any, part: str, base: type[Any]) -> Any:
    """The class of diffusers that a pipeline's part is of, once it is of a kind."""
    library, name = index[part]
    found = getattr(diffusers, name, None) if library == "diffusers" else None
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ValueError(f"its {part} is a {library}.{name}, and no {base.__name__}")
    return found


def _part(folder: Path, name: str) -> Path:
    """Where a part of a pipeline lies: in a folder of its own, or among the others."""
    return folder / name if (folder / name).is_dir() else folder
