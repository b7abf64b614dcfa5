"""Image files: what is written is read, and what is damaged is named."""

from __future__ import annotations

import gzip
import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pidlearn import data
from pidlearn.data.files import read_images, sampler_of_bytes


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


class TestFiles:
    """A user's own images: the same bytes and labels that were written."""

    PIXELS = np.arange(4 * 6 * 6 * 3, dtype=np.uint8).reshape(4, 6, 6, 3)
    LABELS = np.array([2, 0, 1, 2])

    def pictures(self, folder: Path) -> Path:
        (folder / "00000").mkdir(parents=True)
        for i, pixels in enumerate(self.PIXELS):
            Image.fromarray(pixels).save(folder / "00000" / f"img{i}.png")
        labels = [[f"00000/img{i}.png", int(label)] for i, label in enumerate(self.LABELS)]
        (folder / "dataset.json").write_text(json.dumps({"labels": labels}))
        return folder

    def assert_read(self, path: Path, has_labels: bool = True) -> None:
        images, labels = read_images(path)
        assert torch.equal(images, torch.from_numpy(self.PIXELS).permute(0, 3, 1, 2))
        assert (labels is None) is not has_labels
        assert labels is None or labels.tolist() == self.LABELS.tolist()

    def test_a_folder_and_a_zip_of_pictures(self, tmp_path: Path) -> None:
        folder = self.pictures(tmp_path / "pictures")
        self.assert_read(folder)
        self.assert_read(Path(shutil.make_archive(str(tmp_path / "packed"), "zip", folder)))
        (folder / "dataset.json").write_text('{"labels": null}')
        self.assert_read(folder, has_labels=False)

    def test_grey_and_black_and_white_pictures(self, tmp_path: Path) -> None:
        grey = self.PIXELS[0, :, :, :1]
        Image.fromarray(grey[..., 0]).save(tmp_path / "0.png")
        Image.fromarray(np.concatenate([grey, 255 - grey], 2), "LA").save(tmp_path / "1.png")
        Image.fromarray(grey[..., 0] > 20).save(tmp_path / "2.png")
        images, _ = read_images(tmp_path)
        expected = torch.from_numpy(np.stack([grey, grey, np.where(grey > 20, 255, 0)])).permute(0, 3, 1, 2)
        assert torch.equal(images, expected.to(torch.uint8))
        Image.fromarray(np.full((6, 6), 40000, np.uint16)).save(tmp_path / "3.png")
        with pytest.raises(ValueError, match=r"3.png in .* more than 8 bits per channel, but 8 are read: save"):
            read_images(tmp_path)

    def test_arrays(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "last.npz", images=self.PIXELS, labels=self.LABELS)
        np.savez(tmp_path / "first.npz", images=self.PIXELS.transpose(0, 3, 1, 2))
        self.assert_read(tmp_path / "last.npz")
        self.assert_read(tmp_path / "first.npz", has_labels=False)

    def test_cifar10(self, tmp_path: Path) -> None:
        records = np.random.default_rng(0).integers(0, 256, (5, 3073), dtype=np.uint8)
        records[:, 0] = [3, 0, 9, 1, 1]
        records[:3].tofile(tmp_path / "data_batch_1.bin")
        records[3:].tofile(tmp_path / "data_batch_2.bin")
        records[3:].tofile(tmp_path / "test_batch.bin")
        images, labels = read_images(tmp_path)
        assert labels is not None
        assert labels.tolist() == [3, 0, 9, 1, 1]
        # The first 1,024 bytes of an image are its red channel, row by row.
        assert images[4, 0, 1].tolist() == records[4, 1 + 32 : 1 + 64].tolist()
        assert images[0, 2, 31, 31] == records[0, -1]

    def test_they_are_drawn_in_the_range_of_the_teacher(self) -> None:
        images = torch.tensor([0, 255], dtype=torch.uint8)[:, None, None, None].expand(2, 1, 2, 2)
        draw = sampler_of_bytes(images, torch.tensor([7, 8]))
        x, labels = draw(50, torch.Generator().manual_seed(0))
        assert x.dtype == torch.float32
        assert torch.equal(x[:, 0, 0, 0], torch.where(labels == 8, 1.0, -1.0))
        assert labels.unique().tolist() == [7, 8]

    def test_what_is_not_read(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="there is nothing at"):
            read_images(tmp_path / "none")
        with pytest.raises(ValueError, match="holds no pictures, but all must have one"):
            read_images(tmp_path)
        (tmp_path / "text.zip").write_text("no archive")
        with pytest.raises(ValueError, match="is neither a folder, nor a complete ZIP"):
            read_images(tmp_path / "text.zip")
        np.savez(tmp_path / "floats.npz", images=np.zeros((2, 3, 4, 4)))
        with pytest.raises(ValueError, match="of float64, but images must be uint8"):
            read_images(tmp_path / "floats.npz")
        np.savez(tmp_path / "labels.npz", images=self.PIXELS, labels=self.LABELS[:2])
        with pytest.raises(ValueError, match=r"holds labels \(2,\) of int64 for 4 images"):
            read_images(tmp_path / "labels.npz")
        np.savez(tmp_path / "other.npz", x=self.PIXELS)
        with pytest.raises(ValueError, match="file with an array images"):
            read_images(tmp_path / "other.npz")
        folder = self.pictures(tmp_path / "pictures")
        (folder / "dataset.json").write_text('{"labels": [["00000/img0.png", 1]]}')
        with pytest.raises(ValueError, match=r"has no label for 00000/img1.png"):
            read_images(folder)
        (folder / "dataset.json").write_text("[]")
        with pytest.raises(ValueError, match=r"dataset.json in .* is not"):
            read_images(folder)
        (folder / "00000" / "broken.png").write_text("no picture")
        (folder / "dataset.json").unlink()
        with pytest.raises(ValueError, match=r"00000/broken.png in .* cannot be read as a picture"):
            read_images(folder)
        (tmp_path / "cifar").mkdir()
        (tmp_path / "cifar" / "data_batch_1.bin").write_bytes(b"123")
        with pytest.raises(ValueError, match="has 3 bytes, but a batch of CIFAR-10 has 3,073 for each image"):
            read_images(tmp_path / "cifar")
