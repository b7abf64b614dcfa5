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
from pidlearn.teachers.adapters.diffusers import check_parts, check_scheduler, from_diffusers
from pidlearn.utils import safetensors, torch_archive
from pidlearn.utils.optional_imports import package
from pidlearn.utils.validation import printable

__all__ = ["INDEX", "read"]

INDEX = "model_index.json"
"""The list of a pipeline's parts, in its folder."""

STEM = "diffusion_pytorch_model"
"""What the names of a network's weights begin with."""

SHARD = r"-\d+-of-\d+"
WEIGHTS = re.compile(rf"{STEM}(?:{SHARD})?(?:\.([^.]+?)(?:{SHARD})?)?\.(?:safetensors|bin)")
"""Names of files of weights, with the variant, if there is one, as the group."""


def read(folder: Path) -> AdaptedDenoiser:
    """Return the teacher in a folder that a pipeline's ``save_pretrained`` wrote, in eval mode and frozen.

    Raises:
        ImportError: without the package diffusers.
        ValueError: for a folder that is damaged or holds another kind of pipeline.
    """
    diffusers: Any = package("diffusers", f"{folder}, the folder of a pipeline,")
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        _check_pipeline(index, folder)
        unet = _network(_class(diffusers, index, "unet", diffusers.UNet2DModel), _part(folder, "unet"))
        scheduler_class = _class(diffusers, index, "scheduler", diffusers.SchedulerMixin)
        scheduler = scheduler_class.from_pretrained(_part(folder, "scheduler"), local_files_only=True)
        return from_diffusers(unet, scheduler).eval().requires_grad_(False)
    except Exception as error:  # the errors that a damaged folder can lead to cannot be listed
        raise ValueError(f"{folder} holds no pipeline that can be read: {printable(error):.600}") from error


def _check_pipeline(index: Any, folder: Path) -> None:
    """Raise ValueError unless a pipeline's own code does nothing that a teacher would miss."""
    custom = index.get("_class_name")
    if isinstance(custom, list):
        raise ValueError(
            f"its _class_name is {custom}, a pipeline with code of its own, which is not executed and may call the "
            f"network in its own way: if it does not, pass the parts, pidlearn.teachers.from_diffusers("
            f"UNet2DModel.from_pretrained({str(folder / 'unet')!r}), scheduler)"
        )
    lists = (name for name, kind in index.items() if isinstance(kind, list) and any(kind))
    check_parts(name for name in lists if not name.startswith("_"))  # _ignore_files is a list, too
    check_scheduler(index.get("scheduler", [None, ""])[1])  # diffusers may no longer have its class


def _network(cls: Any, folder: Path) -> Any:
    """Return the network in a folder: in safetensors, of a variant, in shards, or in pickles, read without running."""
    files, variant = _weights(folder)
    if any(file.suffix == ".safetensors" for file in files):
        return _from_pretrained(cls, folder, variant=variant)
    whole = [file for file in files if not re.search(SHARD, file.stem)]
    # diffusers renames the weights of older versions as it reads them, so let it read the same numbers.
    with tempfile.TemporaryDirectory() as temporary:
        (Path(temporary) / "config.json").write_bytes((folder / "config.json").read_bytes())
        tensors: dict[str, Any] = {}
        for file in whole or files:
            tensors |= torch_archive.read(file)
        whole_file = Path(temporary) / f"{STEM}.safetensors"
        whole_file.write_bytes(safetensors.to_bytes(tensors, {"format": "pt"}, digest=False))
        del tensors
        return _from_pretrained(cls, Path(temporary))


def _weights(folder: Path) -> tuple[list[Path], str | None]:
    """Return the files of a network's weights and their variant, None for the plain ones, which diffusers prefers.

    Raises:
        ValueError: without any, or with two variants and no plain weights.
    """
    variants: dict[str | None, list[Path]] = {}
    for file in sorted(folder.glob(f"{STEM}*")):
        if match := WEIGHTS.fullmatch(file.name):
            variants.setdefault(match[1], []).append(file)
    if None in variants:
        return variants[None], None
    if len(variants) != 1:
        names = sorted(map(str, variants))
        choice = (
            f"has the variants {', '.join(names)}: pass the one that you mean, pidlearn.teachers.from_diffusers("
            f"UNet2DModel.from_pretrained({str(folder)!r}, variant={names[0]!r}), scheduler)"
            if names
            else f"has no file {STEM}.safetensors or .bin: save the pipeline again with save_pretrained(folder)"
        )
        raise ValueError(f"its network {choice}")
    return next((files, variant) for variant, files in variants.items())


def _from_pretrained(cls: Any, folder: Path, variant: str | None = None) -> Any:
    """Return the network that diffusers reads from safetensors, if they are exactly its weights."""
    for shards in folder.glob("*safetensors*index*.json"):  # the only lists that diffusers opens here
        if not all(name.endswith(".safetensors") for name in json.loads(shards.read_text())["weight_map"].values()):
            raise ValueError(f"{shards.name} names files that are not safetensors: save the pipeline again with them")
    network, info = cls.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, output_loading_info=True, variant=variant
    )
    if any(info.values()):  # lists of missing, unexpected and mismatched weights
        raise ValueError(f"its weights are not those of its network ({info})")
    return network


def _class(diffusers: Any, index: Any, part: str, base: type[Any]) -> Any:
    """Return the diffusers class of a pipeline's part, if it derives from ``base``."""
    if part not in index:
        raise ValueError(
            f"its index has no {part!r}, but a pipeline must have a unet and a scheduler: pass another network to "
            f"pidlearn.teachers.from_network"
        )
    library, name = index[part]
    cls = getattr(diffusers, name, None) if library == "diffusers" else None
    if not (isinstance(cls, type) and issubclass(cls, base)):
        raise ValueError(
            f"its {part} is a {library}.{name}, not a {base.__name__} of diffusers: load the parts with their own "
            f"code, for pidlearn.teachers.from_diffusers(unet, scheduler) or from_network(network, parametrization)"
        )
    return cls


def _part(folder: Path, name: str) -> Path:
    """Return the folder of a pipeline's part: its own, or in older pipelines the common one."""
    return folder / name if (folder / name).is_dir() else folder
