"""Small image data sets, read from where other packages install them: nothing is downloaded."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pidlearn.utils.arguments import PATH, check_arguments, one_of

__all__ = ["digits", "fashion_mnist", "read_idx"]

DEBIAN = "/usr/share/datasets/fashion-mnist"
"""Where Debian's package dataset-fashion-mnist installs its files."""


def digits() -> tuple[Tensor, Tensor]:
    """Load scikit-learn's handwritten digits.

    Returns:
        Images (1797, 1, 8, 8) float32 in [-1, 1], and labels (1797,) int64 in 0..9.

    Raises:
        ImportError: scikit-learn, which contains them, is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "the digits come with scikit-learn, which is not installed: pip install 'pidlearn[images]'"
        ) from error
    bunch = load_digits()
    images = torch.from_numpy(bunch.images).float()[:, None] / 8 - 1  # levels 0..16 to [-1, 1]
    return images, torch.from_numpy(bunch.target).long()


@check_arguments(folder=PATH, split=one_of("train", "test"))
def fashion_mnist(folder: str | Path = DEBIAN, split: str = "train") -> tuple[Tensor, Tensor]:
    """Load Fashion-MNIST (Xiao et al. 2017) from its IDX files, gzipped or not.

    Args:
        folder: folder of ``train-images-idx3-ubyte[.gz]`` and the other files; by default that of Debian's package
            ``dataset-fashion-mnist``.
        split: "train" (60,000) or "test" (10,000).

    Returns:
        Images (n, 1, 28, 28) float32 in [-1, 1], and labels (n,) int64 in 0..9.

    Raises:
        ValueError: an unknown split, or damaged files.
        FileNotFoundError: the files are not in the folder.
    """
    stem = {"train": "train", "test": "t10k"}[split]
    paths = [_find(Path(folder), f"{stem}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1")]
    images, labels = (read_idx(path) for path in paths)
    if images.shape[1:] != (28, 28) or labels.shape != images.shape[:1] or labels.max(initial=0) > 9:
        raise ValueError(
            f"{paths[0]} and {paths[1]} hold arrays {images.shape} and {labels.shape} with labels up to "
            f"{labels.max(initial=0)}: expected images (n, 28, 28) and n labels in 0..9"
        )
    return torch.from_numpy(images).float()[:, None] / 127.5 - 1, torch.from_numpy(labels).long()


@check_arguments(path=PATH)
def read_idx(path: str | Path) -> np.ndarray:
    """Read an IDX file of unsigned bytes, gzipped if its name ends in ".gz".

    Raises:
        ValueError: the file is not one, or its length is not what its header says.
    """
    path = Path(path)
    raw = path.read_bytes()
    try:
        raw = gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path} is not a complete gzip file ({error}): use another copy of it") from error
    # Header: two zero bytes, the type (8: unsigned byte), the number of axes, then the length of each axis as a
    # big-endian 32-bit integer.
    axes = raw[3] if len(raw) > 3 else 0
    if raw[:3] != b"\0\0\x08" or len(raw) < 4 + 4 * axes:
        raise ValueError(f"{path} is not an IDX file of unsigned bytes: pass one, such as a file of Fashion-MNIST")
    shape = np.frombuffer(raw, ">u4", axes, 4).tolist()
    if len(raw) != 4 + 4 * axes + math.prod(shape):
        raise ValueError(
            f"{path} has {len(raw)} bytes, but its header announces an array {shape}, which takes "
            f"{4 + 4 * axes + math.prod(shape)}: the file is damaged; use another copy of it"
        )
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(shape).copy()  # writable, unlike the buffer


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.exists():
            return path
    raise FileNotFoundError(
        f"there is no {name}[.gz] in {folder}: pass the folder of Fashion-MNIST's IDX files, or install Debian's "
        f"package dataset-fashion-mnist"
    )
