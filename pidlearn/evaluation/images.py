"""Images as bytes, as files hold them, and as pictures that compare teacher and student."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from pidlearn.utils.arguments import PATH, VALUES, check_arguments, optional, size
from pidlearn.utils.files import write_atomically
from pidlearn.utils.pictures import grey_or_colour
from pidlearn.utils.validation import describe_tensor

__all__ = ["comparison", "image_grid", "quantize", "save_png", "to_uint8"]

GAP = 2
"""White pixels between images."""


def _is_images(value: Any) -> bool:
    return VALUES[0](value) and value.ndim == 4 and value[:1].numel() > 0


ROWS = (
    lambda v: isinstance(v, Mapping) and all(isinstance(k, str) and _is_images(x) for k, x in v.items()),
    "a dictionary of floating-point images (n, C, H, W) by name",
)
PIXELS = (
    lambda v: (
        isinstance(v, np.ndarray)
        and v.dtype == np.uint8
        and v.ndim > 1
        and v.size > 0
        and v.shape[2:] in ((), (3,), (4,))
    ),
    "a uint8 array (height, width, 3)",
)

MIN_ROW_HEIGHT = 48
"""Smaller images are enlarged to at least this height, so that the label next to their row is legible."""


def to_uint8(images: Tensor) -> Tensor:
    """Convert images in [-1, 1] to bytes as EDM does: floor(127.5 x + 128), clipped to 0..255.

    This rounds 127.5 (x + 1) to the nearest integer, for floor(y + 1/2) rounds y. A byte u that was read as
    u / 127.5 - 1 is restored exactly.
    """
    if not VALUES[0](images):
        raise ValueError(f"got {describe_tensor(images)}, but images must be a floating-point tensor in [-1, 1]")
    # In bfloat16, numbers above 128 are whole numbers, so the sum would be rounded before the floor.
    x = images.to(torch.promote_types(images.dtype, torch.float32))
    return (127.5 * x + 128).clamp(0, 255).to(torch.uint8)


def quantize(images: Tensor) -> Tensor:
    """Round images in [-1, 1] to the 256 levels of an image file; float32."""
    return to_uint8(images).float() / 127.5 - 1


@check_arguments(columns=optional(size()), zoom=size())
def image_grid(images: Tensor, columns: int | None = None, zoom: int = 1) -> np.ndarray:
    """Arrange images in a grid, row by row.

    Args:
        images: (n, C, H, W) in [-1, 1]; the channels of other than grey and RGB images are shown side by side.
        columns: number of columns; by default, about as many as rows.
        zoom: integer factor by which each image is enlarged.

    Returns:
        A uint8 array (height, width, 3), white between the images.
    """
    if not _is_images(images):
        raise ValueError(
            f"got {describe_tensor(images)}, but a grid shows at least one image, (n, C, H, W): draw points with "
            f"result.plot(path)"
        )
    images = grey_or_colour(images)
    columns = columns or math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    across, down = columns * (zoom * images.shape[3] + GAP), rows * (zoom * images.shape[2] + GAP)
    if across * down >= 2**31:
        raise ValueError(
            f"got columns = {columns} and zoom = {zoom}, which make a picture of {across} x {down} pixels, but it must "
            f"have fewer than 2^31: choose smaller ones"
        )
    # (n, C, H, W) -> (n, H, W, 3), a grey channel three times -> (n, zoom H, zoom W, 3)
    pixels = to_uint8(images).movedim(1, -1).expand(-1, -1, -1, 3).numpy(force=True).repeat(zoom, 1).repeat(zoom, 2)
    height, width = pixels.shape[1] + GAP, pixels.shape[2] + GAP
    grid = np.full((rows * height - GAP, columns * width - GAP, 3), 255, np.uint8)
    for i, image in enumerate(pixels):
        top, left = height * (i // columns), width * (i % columns)
        grid[top : top + image.shape[0], left : left + image.shape[1]] = image
    return grid


@check_arguments(rows=ROWS, columns=size())
def comparison(rows: dict[str, Tensor], columns: int = 8) -> np.ndarray:
    """Draw named batches of images as labelled rows, the i-th image of each in the same column.

    With teacher and student images from the same noise, each column compares one sample.

    Args:
        rows: (n, C, H, W) in [-1, 1] by name, all with the same n. If n exceeds ``columns``, the rows repeat below.
        columns: images per row.

    Returns:
        A uint8 array (height, width, 3), with the name to the left of each row. Small images are enlarged by an integer
        factor.
    """
    counts = {len(batch) for batch in rows.values()}
    if len(counts) != 1:
        raise ValueError(
            f"got rows of {sorted(counts)} images, but a comparison needs at least one row, and equal numbers of images"
        )
    zoom = math.ceil(MIN_ROW_HEIGHT / min(batch.shape[2] for batch in rows.values()))
    blocks = [
        [image_grid(batch[start : start + columns], min(columns, len(batch)), zoom) for batch in rows.values()]
        for start in range(0, counts.pop(), columns)
    ]
    pen = ImageDraw.Draw(Image.new("RGB", (1, 1)))  # only to measure the labels
    margin = math.ceil(max(pen.textlength(name) for name in rows)) + 4 * GAP
    height = sum(strip.shape[0] + GAP for block in blocks for strip in block) + 4 * GAP * (len(blocks) - 1) + GAP
    picture = Image.new("RGB", (margin + blocks[0][0].shape[1] + GAP, height), "white")
    pen, top = ImageDraw.Draw(picture), GAP
    for block in blocks:
        for name, strip in zip(rows, block, strict=True):
            picture.paste(Image.fromarray(strip), (margin, top))
            pen.text((margin - 2 * GAP, top + strip.shape[0] / 2), name, fill="black", anchor="rm")
            top += strip.shape[0] + GAP
        top += 4 * GAP
    return np.array(picture)


@check_arguments(pixels=PIXELS, path=PATH)
def save_png(pixels: np.ndarray, path: str | Path) -> Path:
    """Write a uint8 array (height, width, 3) as a PNG file, atomically: the file is complete or is not there."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    write_atomically(Path(path), buffer.getvalue())
    return Path(path)
