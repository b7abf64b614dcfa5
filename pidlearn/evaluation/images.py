"""Images as bytes and as pictures: what is measured and shown is what a file would hold."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from pidlearn.utils.files import write_atomically
from pidlearn.utils.validation import what

__all__ = ["as_files_hold", "comparison", "image_grid", "save_png", "to_uint8"]

GAP, LEGIBLE = 2, 48
"""Pixels between images, and about the least height of a labelled row."""


def to_uint8(images: Tensor) -> Tensor:
    """Bytes of images in [-1, 1]: floor(127.5 x + 128), clipped to 0..255, as EDM writes its samples.

    floor(y + 1/2) rounds y = 127.5 (x + 1). Bytes u that were read as u / 127.5 - 1 come back as they were.
    """
    if not isinstance(images, Tensor) or not images.is_floating_point():
        raise ValueError(f"images are floating tensors in [-1, 1], got {what(images)}")
    x = images.to(torch.promote_types(images.dtype, torch.float32))
    return (127.5 * x + 128).clamp(0, 255).to(torch.uint8)


def as_files_hold(images: Tensor) -> Tensor:
    """Images in [-1, 1] after they were written as bytes and read again, float32."""
    return to_uint8(images).float() / 127.5 - 1


def image_grid(images: Tensor, columns: int | None = None, zoom: int = 1) -> np.ndarray:
    """Images side by side, row after row.

    Args:
        images: (n, C, H, W) in [-1, 1], C = 1 or 3.
        columns: of the grid; as many as rows if not given.
        zoom: pixels a side for each of theirs.

    Returns:
        A uint8 array (height, width, 3), white between the images.
    """
    if not isinstance(images, Tensor) or images.ndim != 4 or not len(images) or images.shape[1] not in (1, 3):
        raise ValueError(f"a grid shows images (n, C, H, W) with C = 1 or 3, got {what(images)}")
    columns = columns or math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    pixels = to_uint8(images).movedim(1, -1).expand(-1, -1, -1, 3).numpy(force=True).repeat(zoom, 1).repeat(zoom, 2)
    height, width = pixels.shape[1] + GAP, pixels.shape[2] + GAP
    grid = np.full((rows * height - GAP, columns * width - GAP, 3), 255, np.uint8)
    for i, image in enumerate(pixels):
        top, left = height * (i // columns), width * (i % columns)
        grid[top : top + image.shape[0], left : left + image.shape[1]] = image
    return grid


def comparison(rows: dict[str, Tensor], columns: int = 8) -> np.ndarray:
    """Named batches of images under one another, the i-th of each in one column: teacher and student from the same z.

    Args:
        rows: name to (n, C, H, W) in [-1, 1], of one n. Where n exceeds the columns, all names begin anew below.
        columns: images a row.

    Returns:
        A uint8 array (height, width, 3), each row labelled at its left. Small images are enlarged by a whole factor.
    """
    sizes = {len(batch) for batch in rows.values()}
    if len(sizes) != 1:
        raise ValueError(f"a comparison needs as many images of each name, and a name; got {sorted(sizes)}")
    zoom = math.ceil(LEGIBLE / min(batch.shape[2] for batch in rows.values()))
    strips = [
        [image_grid(batch[start : start + columns], min(columns, len(batch)), zoom) for batch in rows.values()]
        for start in range(0, sizes.pop(), columns)
    ]
    pen = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    margin = math.ceil(max(pen.textlength(name) for name in rows)) + 4 * GAP
    height = sum(strip.shape[0] + GAP for block in strips for strip in block) + 4 * GAP * (len(strips) - 1) + GAP
    picture = Image.new("RGB", (margin + strips[0][0].shape[1] + GAP, height), "white")
    pen, top = ImageDraw.Draw(picture), GAP
    for block in strips:
        for name, strip in zip(rows, block, strict=True):
            picture.paste(Image.fromarray(strip), (margin, top))
            pen.text((margin - 2 * GAP, top + strip.shape[0] / 2), name, fill="black", anchor="rm")
            top += strip.shape[0] + GAP
        top += 4 * GAP
    return np.array(picture)


def save_png(pixels: np.ndarray, path: str | Path) -> Path:
    """Write a uint8 array (height, width, 3) as a PNG file, whole or not at all."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    write_atomically(Path(path), buffer.getvalue())
    return Path(path)
