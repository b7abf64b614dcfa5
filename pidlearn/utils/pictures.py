"""Samples as pictures that can be drawn, whatever their number of channels."""

from __future__ import annotations

from torch import Tensor

__all__ = ["grey_or_colour"]


def grey_or_colour(images: Tensor) -> Tensor:
    """Return images with one or three channels: those of other numbers as their channels side by side, in grey.

    A fourth channel is one of a latent space as a rule, not the opacity that drawing libraries take it for.

    Args:
        images: (n, C, H, W).

    Returns:
        ``images`` if C is 1 or 3, else (n, 1, H, C W).
    """
    n, channels, height, width = images.shape
    if channels in (1, 3):
        return images
    return images.movedim(1, 2).reshape(n, 1, height, channels * width)
