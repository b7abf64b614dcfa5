"""Bytes and pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image

import pidlearn as pid
from pidlearn.evaluation.images import comparison, image_grid, quantize, save_png, to_uint8
from pidlearn.viewer import plot


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bytes_come_back(dtype: torch.dtype) -> None:
    u = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(u.to(dtype) / 127.5 - 1), u)


def test_what_files_hold() -> None:
    x = torch.linspace(-1.2, 1.2, 1001, dtype=torch.float64)
    held = quantize(x)
    assert (held.double() - x.clamp(-1, 1)).abs().max() <= 0.5 / 127.5 + 1e-6
    assert torch.equal(quantize(held), held)
    assert held.unique().numel() == 256


@given(st.floats(-2, 2))
def test_bytes_round_and_clip(x: float) -> None:
    nearest = min(max(127.5 * (x + 1), 0), 255)
    u = to_uint8(torch.tensor([x], dtype=torch.float64)).item()
    assert abs(u - nearest) <= 0.5 + 1e-9


def test_bytes_of_the_ends_and_of_halves() -> None:
    assert to_uint8(torch.tensor([-9.0, -1.0, 0.0, 1.0, 9.0])).tolist() == [0, 0, 128, 255, 255]
    assert to_uint8(torch.tensor([1 / 3], dtype=torch.bfloat16)).item() == 170  # computed in float32


def test_grid_places_images_row_by_row() -> None:
    values = torch.linspace(-1, 1, 5)
    grid = image_grid(values[:, None, None, None].expand(5, 1, 4, 6), columns=3, zoom=2)
    assert grid.shape == (2 * 8 + 2, 3 * 12 + 4, 3)
    assert grid.dtype == np.uint8
    for i, value in enumerate(to_uint8(values).tolist()):
        top, left = 10 * (i // 3), 14 * (i % 3)
        assert (grid[top : top + 8, left : left + 12] == value).all()
    assert (grid[8:10] == 255).all()  # between the rows
    assert (grid[10:, 28:] == 255).all()  # where the sixth would be


def test_grid_keeps_colours_and_places_of_pixels() -> None:
    image = torch.rand(1, 3, 2, 3) * 2 - 1
    assert (image_grid(image) == to_uint8(image)[0].permute(1, 2, 0).numpy()).all()


@pytest.mark.parametrize("channels", [2, 4, 5])
def test_channels_without_a_colour_are_grey_and_side_by_side(channels: int) -> None:
    """A fourth is not drawn as opacity, as Pillow and Matplotlib would."""
    images = torch.rand(3, channels, 6, 4) * 2 - 1
    grid = image_grid(images, columns=3)
    assert grid.shape == (6, 3 * 4 * channels + 2 * 2, 3)
    for i, image in enumerate(to_uint8(images).numpy()):
        for k, channel in enumerate(image):
            left = (4 * channels + 2) * i + 4 * k
            assert (grid[:, left : left + 4] == channel[:, :, None]).all()
    picture = comparison({"teacher": images, "student": images})
    assert picture.shape[1] > 3 * 4 * channels * 8  # 6 pixels become 48

    figure = Figure()
    plot.images(figure, {"teacher": images})
    shown = figure.axes[1].images[0]
    expected = (torch.cat(list(images[1]), 1) + 1) / 2
    np.testing.assert_allclose(shown.get_array(), expected, atol=1e-6)
    assert shown.get_cmap().name == "gray"


def test_comparison_puts_the_same_z_in_one_column(tmp_path) -> None:
    teacher = torch.linspace(-1, 0.9, 5)[:, None, None, None].expand(5, 3, 8, 8)
    picture = comparison({"teacher": teacher, "student": teacher + 0.05}, columns=3)
    left = picture.shape[1] - 3 * 48 - 2 * 2 - 2  # 8 pixels become 48; gaps between, and at the right
    for block, row, delta in ((0, 0, 0.0), (0, 1, 0.05), (1, 0, 0.0), (1, 1, 0.05)):
        for column in range(3 if block == 0 else 2):
            top = 2 + (2 * block + row) * 50 + 8 * block
            shown = picture[top : top + 48, left + 50 * column : left + 50 * column + 48]
            assert (shown == to_uint8(teacher[3 * block + column, 0, 0, 0] + delta).item()).all()
    for top in (2, 52):  # the label of each row is black in the margin
        assert (picture[top : top + 48, : left - 4] < 128).any()
    assert (np.asarray(Image.open(save_png(picture, tmp_path / "a" / "grid.png"))) == picture).all()


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"\(4, 8, 8\)"):
        image_grid(torch.zeros(4, 8, 8))
    with pytest.raises(ValueError, match=r"got \(4, 0, 8, 8\) .*, but a grid shows at least one image"):
        image_grid(torch.zeros(4, 0, 8, 8))
    with pytest.raises(ValueError, match=r"uint8, but images must be a floating-point tensor"):
        to_uint8(torch.zeros(1, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"\[2, 3\]"):
        comparison({"teacher": torch.zeros(2, 1, 8, 8), "student": torch.zeros(3, 1, 8, 8)})
    with pytest.raises(ValueError, match="at least one row"):
        comparison({})


def test_images_are_made_in_chunks_of_bounded_size() -> None:
    """Whatever the number of samples, and with the same values as in one go."""
    seen: list[int] = []

    class Halving(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.tensor(0.5))

        def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
            seen.append(len(x))
            return self.weight * x

    student = pid.Trajectory(Halving(), event_shape=(3, 16, 16))
    z = torch.randn(700, 3, 16, 16)
    samples = student.generate(z)
    assert max(seen) <= 2**18 // (3 * 16 * 16)
    assert sum(seen) == 700
    with torch.no_grad():
        torch.testing.assert_close(samples, student(z, student.t_min), rtol=0, atol=0)
