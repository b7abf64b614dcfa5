"""Image files: what is written is read, and what is damaged is named."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pidlearn import data


def idx(array: np.ndarray) -> bytes:
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write(path: Path, array: np.ndarray) -> Path:
    contents = idx(array.astype(np.uint8))
    path.write_bytes(gzip.compress(contents) if path.suffix == ".gz" else contents)
    return path


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (7, 28, 28))


@pytest.mark.parametrize("name", ["a-idx3-ubyte", "a-idx3-ubyte.gz"])
@pytest.mark.parametrize("shape", [(7, 28, 28), (5,), (0, 3), (2, 1, 3, 2)])
def test_idx_round_trip(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).integers(0, 256, shape)
    found = data.read_idx(write(tmp_path / name, array))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, array)
    found += 1  # a copy, free to change


def test_damaged_idx_files(tmp_path: Path) -> None:
    path, whole = tmp_path / "a", idx(np.arange(12, dtype=np.uint8).reshape(3, 4))
    wrong = {
        "empty": b"",
        "header cut short": whole[:7],
        "cut short": whole[:-1],
        "too long": whole + b"\0",
        "floats": whole.replace(b"\0\0\x08", b"\0\0\x0d", 1),
        "text": b"<html>404 not found</html>",
        "wrong shape": whole[:11] + b"\x05" + whole[12:],
    }
    for contents in wrong.values():
        path.write_bytes(contents)
        with pytest.raises(ValueError, match=str(path)):
            data.read_idx(path)


PACKED = gzip.compress(idx(np.random.default_rng(0).integers(0, 40, (9, 28), dtype=np.uint8)), mtime=0)


@given(st.integers(10, len(PACKED) - 1), st.integers(0, 7))  # the ten bytes before are gzip's own header
def test_a_flipped_bit_in_a_gzip_file(tmp_path_factory: pytest.TempPathFactory, at: int, bit: int) -> None:
    path = tmp_path_factory.getbasetemp() / "flipped.gz"
    contents = bytearray(PACKED)
    contents[at] ^= 1 << bit
    path.write_bytes(contents)
    with pytest.raises(ValueError, match=r"flipped\.gz"):
        data.read_idx(path)


@pytest.mark.parametrize("length", range(0, len(PACKED), 7))
def test_a_gzip_file_cut_short(tmp_path: Path, length: int) -> None:
    path = tmp_path / "short.gz"
    path.write_bytes(PACKED[:length])
    with pytest.raises(ValueError, match=r"short\.gz"):
        data.read_idx(path)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_fashion_mnist(tmp_path: Path, pixels: np.ndarray, suffix: str) -> None:
    for stem, n in (("train", 7), ("t10k", 3)):
        write(tmp_path / f"{stem}-images-idx3-ubyte{suffix}", pixels[:n])
        write(tmp_path / f"{stem}-labels-idx1-ubyte{suffix}", np.arange(n))
    images, labels = data.fashion_mnist(tmp_path)
    assert images.shape == (7, 1, 28, 28)
    assert images.dtype == torch.float32
    assert labels.tolist() == list(range(7))
    assert labels.dtype == torch.int64
    np.testing.assert_allclose(images[:, 0], pixels / 127.5 - 1, atol=1e-6)
    assert len(data.fashion_mnist(tmp_path, "test")[0]) == 3
    with pytest.raises(ValueError, match="split"):
        data.fashion_mnist(tmp_path, "valid")


def test_fashion_mnist_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="dataset-fashion-mnist"):
        data.fashion_mnist(tmp_path)


@pytest.mark.parametrize("fault", ["images and labels exchanged", "a label missing", "no such class", "other size"])
def test_fashion_mnist_that_is_something_else(tmp_path: Path, pixels: np.ndarray, fault: str) -> None:
    labels = np.arange(7)
    if fault == "images and labels exchanged":
        pixels, labels = labels, pixels
    elif fault == "a label missing":
        labels = labels[1:]
    elif fault == "no such class":
        labels = labels + 4
    else:
        pixels = pixels[:, 1:]
    write(tmp_path / "train-images-idx3-ubyte", pixels)
    write(tmp_path / "train-labels-idx1-ubyte", labels)
    with pytest.raises(ValueError, match=r"expected images \(n, 28, 28\) and n labels in 0\.\.9"):
        data.fashion_mnist(tmp_path)


def test_digits() -> None:
    images, labels = data.digits()
    assert images.shape == (1797, 1, 8, 8)
    assert images.dtype == torch.float32
    assert (images.min().item(), images.max().item()) == (-1.0, 1.0)
    assert labels.dtype == torch.int64
    assert labels.unique().tolist() == list(range(10))
    # The bundled set is what it says: its first is a zero, dark in the middle.
    assert labels[0] == 0
    assert images[labels == 0, 0, 3:5, 3:5].mean() < images[labels == 8, 0, 3:5, 3:5].mean()
