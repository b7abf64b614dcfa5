"""Real images from a user's own files, for methods that need data: kept as bytes, floats only where they are drawn."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pidlearn.utils.arguments import PATH, check_arguments

__all__ = ["read_images", "sampler_of_bytes"]

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp"}
CIFAR10 = 1 + 3 * 32 * 32
"""Bytes of a record of CIFAR-10's binary version: the label, then an image in the order (channel, row, column)."""


@check_arguments(path=PATH)
def read_images(path: str | Path) -> tuple[Tensor, Tensor | None]:
    """Read images, and their class labels if there are any.

    Args:
        path: the folder ``cifar-10-batches-bin`` of CIFAR-10's binary version, of which the training batches are read;
            or a folder or ZIP file of images, whose labels are in ``dataset.json`` as EDM's tools write it; or an
            ``.npz`` file of ``images``, uint8 (n, R, R, C) or (n, C, R, R), and perhaps ``labels`` (n,).

    Returns:
        Images (n, C, R, R) uint8, and labels (n,) int64 or None.

    Raises:
        ValueError: no images, images of several sizes, or damaged files.
        FileNotFoundError: nothing there.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is nothing at {path}: pass a folder, a .zip or an .npz file of images")
    if path.is_dir() and list(path.glob("data_batch_*.bin")):
        return _cifar10(path)
    if path.suffix == ".npz":
        return _npz(path)
    return _pictures(path)


def sampler_of_bytes(images: Tensor, labels: Tensor | None) -> Callable[..., Any]:
    """A function (n, generator) that draws from bytes (M, C, R, R): float32 in [-1, 1], and labels if there are any.

    All images as floats would take four times the memory.
    """

    def draw(n: int, generator: torch.Generator | None = None) -> Any:
        which = torch.randint(len(images), (n,), generator=generator)
        x = images[which].float() / 127.5 - 1
        return x if labels is None else (x, labels[which])

    return draw


def _cifar10(folder: Path) -> tuple[Tensor, Tensor]:
    records = []
    for file in sorted(folder.glob("data_batch_*.bin")):
        raw = np.fromfile(file, np.uint8)
        if not len(raw) or len(raw) % CIFAR10:
            raise ValueError(
                f"{file} has {len(raw):,} bytes, but a batch of CIFAR-10 has {CIFAR10:,} for each image: it is "
                f"damaged; use another copy of it"
            )
        records.append(raw.reshape(-1, CIFAR10))
    joined = torch.from_numpy(np.concatenate(records))
    return joined[:, 1:].reshape(-1, 3, 32, 32).contiguous(), joined[:, 0].long()


def _npz(path: Path) -> tuple[Tensor, Tensor | None]:
    try:
        with np.load(path) as arrays:  # of numbers only: objects, which could run code, are refused by default
            images, labels = arrays["images"], arrays.get("labels")
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} is not an .npz file with an array images ({error}): write one with np.savez"
        ) from error
    if images.dtype != np.uint8 or images.ndim != 4:
        raise ValueError(
            f"{path} holds images {images.shape} of {images.dtype}, but images must be uint8 (n, R, R, C) or "
            f"(n, C, R, R): convert them"
        )
    if images.shape[3] in (1, 3) and images.shape[1] not in (1, 3):
        images = np.moveaxis(images, 3, 1)
    return _checked(path, torch.from_numpy(np.ascontiguousarray(images)), labels)


def _pictures(path: Path) -> tuple[Tensor, Tensor | None]:
    """All pictures of a folder or ZIP file, in the order of their names."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(
            "pictures are read by Pillow, which is not installed: pip install 'pidlearn[images]'"
        ) from error
    names, images, known = [], [], {}
    for name, content in _contents(path):
        if name == "dataset.json":
            known = _labels_of(path, content)
            continue
        try:
            with Image.open(io.BytesIO(content)) as picture:
                deep, grey = picture.mode[0] in "IF", picture.mode in ("1", "L", "LA")
                pixels = np.asarray(picture.convert("L" if grey else "RGB"))
        except (OSError, ValueError) as error:
            raise ValueError(f"{name} in {path} cannot be read as a picture ({error}): remove it") from error
        if deep:  # clipped to 255 by the conversion
            raise ValueError(f"{name} in {path} has more than 8 bits per channel, but 8 are read: save it with 8")
        images.append(np.moveaxis(np.atleast_3d(pixels), 2, 0))  # (R, R) or (R, R, 3) -> (C, R, R)
        names.append(name)
    if len(shapes := {image.shape for image in images}) != 1:
        received = f"pictures of the shapes {sorted(shapes)[:4]}" if shapes else "no pictures"
        raise ValueError(f"{path} holds {received}, but all must have one: resize them, or pass another folder")
    if known and (missing := [name for name in names if name not in known]):
        raise ValueError(f"dataset.json in {path} has no label for {missing[0]}: complete it, or remove it")
    labels = np.array([known[name] for name in names]) if known else None
    return _checked(path, torch.from_numpy(np.stack(images)), labels)


def _contents(path: Path) -> Iterator[tuple[str, bytes]]:
    """Names, relative to the folder or ZIP file, and contents of the pictures and of dataset.json."""
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.suffix.lower() in SUFFIXES or file == path / "dataset.json":
                yield file.relative_to(path).as_posix(), file.read_bytes()
        return
    try:
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                if Path(name).suffix.lower() in SUFFIXES or name == "dataset.json":
                    yield name, archive.read(name)
    except (zipfile.BadZipFile, OSError) as error:
        raise ValueError(f"{path} is neither a folder, nor a complete ZIP or .npz file ({error}): pass one") from error


def _labels_of(path: Path, content: bytes) -> dict[str, int]:
    """The labels of EDM's dataset.json: {"labels": [["00000/img00000000.png", 6], ...]}, or null."""
    try:
        return {str(name): int(label) for name, label in json.loads(content)["labels"] or ()}
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f'dataset.json in {path} is not {{"labels": [[name, class], ...]}} ({error}): remove it'
        ) from error


def _checked(path: Path, images: Tensor, labels: Any) -> tuple[Tensor, Tensor | None]:
    if labels is None:
        return images, None
    if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer) or labels.min(initial=0) < 0:
        raise ValueError(
            f"{path} holds labels {labels.shape} of {labels.dtype} for {len(images)} images: give each one class, a "
            f"whole number of at least 0"
        )
    return images, torch.from_numpy(labels.astype(np.int64))
