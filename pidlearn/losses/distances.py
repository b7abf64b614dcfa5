"""Distances between the two sides of the residual: (a, b) -> one value per sample.

a and b are floating-point and of one shape; adaptive, l1, l2 and pseudo_huber compute, and return, float32 at least.
Theorem 1 requires of a distance only that d(a, b) = 0 implies a = b. Any function or `torch.nn.Module` with this
signature can be passed, such as a perceptual network.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import torch
from torch import Tensor

from pidlearn.losses.lpips import LPIPS, check_images
from pidlearn.utils.settings import is_number
from pidlearn.utils.validation import check_pair, describe_tensor, reraise_from_function, summary

__all__ = ["DISTANCES", "Distance", "adaptive", "checked_distance", "l1", "l2", "lpips", "pseudo_huber"]

Distance = Callable[[Tensor, Tensor], Tensor]
"""(a, b), both (B, *event), to (B,): zero exactly where a = b."""


def checked_distance(distance: Distance, a: Tensor, b: Tensor) -> Tensor:
    """The distance between a and b (B, *event), after a check that it is one value per sample, (B,)."""
    with reraise_from_function("distance", "distance(a, b)"):
        values = distance(a, b)
    if not isinstance(values, Tensor) or values.shape != a.shape[:1]:
        received = tuple(values.shape) if isinstance(values, Tensor) else describe_tensor(values)
        raise ValueError(
            f"the distance returned {received}, but must return one value per sample, {tuple(a.shape[:1])}"
        )
    return values


def l2(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared difference over the event: (B, *event), (B, *event) -> (B,)."""
    return _difference(a, b).square().flatten(1).mean(1)  # a mean, so its size does not grow with the resolution


def l1(a: Tensor, b: Tensor) -> Tensor:
    """Mean absolute difference over the event: (B, *event), (B, *event) -> (B,)."""
    return _difference(a, b).abs().flatten(1).mean(1)


def pseudo_huber(a: Tensor, b: Tensor, c: float = 0.03) -> Tensor:
    """sqrt(mean squared difference + c^2) - c: quadratic below c, a norm above it.

    A few samples on a ridge between two modes have a large, unavoidable residual; they then do not outweigh all the
    others. The form is that of Song & Dhariwal (2023, section 3.3); c is in units of the data (scale about 1).

    Raises:
        ValueError: a c that is not positive: its gradient would be NaN where a = b.
    """
    if not (is_number(c) and c > 0):
        raise ValueError(
            f"got c = {summary(c)}, but c must be a positive number in units of the data: pass for example 0.03"
        )
    squared, c = l2(a, b), float(c)
    # The same number as sqrt(squared + c^2) - c, without the cancellation of two c's for small residuals.
    # For squared << c^2 it is squared / (2 c); for squared >> c^2, sqrt(squared), whose gradient has bounded size.
    distance = squared / ((squared + c * c).sqrt() + c)
    return torch.where(squared.isinf(), squared, distance)  # infinite as in l2, instead of inf / inf


def adaptive(a: Tensor, b: Tensor, c: float = 1e-2) -> Tensor:
    """e / (e + c) of the mean squared difference e, with the denominator held constant; c in squared units of the data.

    Every sample with an e above c has a gradient of about the same size (MeanFlow, Geng et al. 2025, section 4.3, with
    power 1). There e is a sum over the event: theirs is this with c divided by the number of coordinates.
    """
    squared = l2(a, b)
    return squared / (squared.detach() + c)


def _difference(a: Tensor, b: Tensor) -> Tensor:
    """a - b in float32 at least: squares of half-precision numbers overflow at 256 and vanish below 2e-4."""
    check_pair(a, b)
    dtype = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    return a.to(dtype) - b.to(dtype)  # cast first: a difference of halves rounds to halves


def lpips(a: Tensor, b: Tensor, net: str = "vgg", pooling: str = "max") -> Tensor:
    """`pidlearn.losses.lpips.LPIPS` of images (B, C, H, W) in [-1, 1], resized to 224 pixels; a pseudo-metric.

    The network is built at the first call, once per device. For other settings, build an `LPIPS` yourself.
    """
    check_images(a, b)  # before any weights are downloaded
    return _built(net, pooling, a.device)(a, b)


@cache
def _built(net: str, pooling: str, device: torch.device) -> Distance:
    return LPIPS(net, pooling=pooling).to(device)


DISTANCES: dict[str, Distance] = {
    "adaptive": adaptive,
    "l1": l1,
    "l2": l2,
    "pseudo_huber": pseudo_huber,
    "lpips": lpips,
    "lpips-vgg-average": partial(lpips, pooling="average"),
    "lpips-alex": partial(lpips, net="alex"),
    "lpips-squeeze": partial(lpips, net="squeeze"),
}
