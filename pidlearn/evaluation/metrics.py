"""Metrics of a student: its error to the teacher from the same noise, and distances between distributions.

A distance between two finite samples is not zero even if both come from the same distribution. That value is its floor,
and a distance means something only in comparison with it: see `floor`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pidlearn.evaluation.features import (
    Features,
    Statistics,
    frechet_distance,
    precision_recall,
    read_statistics,
    statistics,
)
from pidlearn.evaluation.samples import apply, flat, paired
from pidlearn.teachers.exact import GaussianMixture
from pidlearn.utils.arguments import FUNCTION, GENERATOR, SEED, check_arguments, size
from pidlearn.utils.validation import reraise_from_function

__all__ = [
    "Features",
    "Statistics",
    "agreement",
    "energy_distance",
    "floor",
    "frechet_distance",
    "precision_recall",
    "read_statistics",
    "relative_rmse",
    "rmse",
    "sliced_wasserstein",
    "statistics",
    "wrong_mode_share",
]

MIXTURE = (lambda v: isinstance(v, GaussianMixture), "a GaussianMixture")


def rmse(a: Tensor, b: Tensor) -> float:
    """Root-mean-square difference over all entries of two tensors of the same shape."""
    a, b = paired(a, b)
    return _root_mean_square(a - b)


def relative_rmse(a: Tensor, b: Tensor) -> float:
    """`rmse` divided by the standard deviation of b: 0 is perfect, 1 is as bad as predicting b's mean for every sample.

    a and b are (B, *event). The standard deviation is about the mean over the batch, (*event), and over all entries.
    Flatten paths (N, B, *event) to one batch first.
    """
    a, b = paired(a, b)
    std = _root_mean_square(b - b.mean(0))
    if std == 0:
        raise ValueError(
            f"all {len(b)} reference samples are equal, so an error relative to them is undefined: use rmse"
        )
    # std is one number for all coordinates, so that those that hardly vary do not dominate.
    return rmse(a, b) / std


@check_arguments(mixture=MIXTURE)
def wrong_mode_share(a: Tensor, b: Tensor, mixture: GaussianMixture) -> float:
    """Share of samples whose most likely component of the mixture differs between a and b, both (B, d).

    A sample that holds NaN or infinity has no component, and counts as one that differs.
    """
    paired(a, b)
    wrong = mixture.component(a) != mixture.component(b)  # (B,)
    return (wrong | ~(a.isfinite() & b.isfinite()).all(1)).double().mean().item()


@check_arguments(classifier=FUNCTION)
def agreement(a: Tensor, b: Tensor, classifier: Callable[[Tensor], Tensor]) -> float:
    """Share of samples for which a classifier, from (B, *event) to logits (B, classes), predicts the same class."""
    paired(a, b)
    with torch.no_grad():
        logits = [flat(apply("classifier", classifier, x), "the classifier's output") for x in (a, b)]
    return (logits[0].argmax(1) == logits[1].argmax(1)).double().mean().item()


def energy_distance(a: Tensor, b: Tensor) -> float:
    """Energy distance of two samples a (n, *event) and b (m, *event) (Székely & Rizzo 2013).

        2 E|a - b| - E|a - a'| - E|b - b'|

    It is zero if and only if the distributions are equal. The estimate is unbiased, so it can be negative.
    """
    a, b = flat(a, "a"), flat(b, "b")
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"the two sides have {a.shape[1]} and {b.shape[1]} coordinates: compare samples of one shape")
    n, m = len(a), len(b)
    if min(n, m) < 2:
        raise ValueError(f"got {n} and {m} samples, but the energy distance needs at least two on each side")
    # n (n - 1) and not n^2: a point's zero distance to itself is not a draw of |a - a'|.
    within = _sum_of_distances(a, a) / (n * (n - 1)) + _sum_of_distances(b, b) / (m * (m - 1))
    return 2 * _sum_of_distances(a, b) / (n * m) - within


@check_arguments(projections=size(), generator=GENERATOR)
def sliced_wasserstein(a: Tensor, b: Tensor, projections: int = 128, generator: torch.Generator | None = None) -> float:
    """Sliced 2-Wasserstein distance of two samples a and b, both (n, *event).

    The root mean square, over random directions u, of the 2-Wasserstein distance between the projections u.a and u.b.
    In one dimension, the optimal transport is to sort both.
    """
    a, b = flat(a, "a"), flat(b, "b")
    if a.shape != b.shape:
        raise ValueError(
            f"got {tuple(a.shape)} and {tuple(b.shape)}, but sliced Wasserstein pairs sorted samples: pass equal shapes"
        )
    # Relative to a's mean: far from zero, projections would use up the digits.
    a, b = a - a.mean(0), b - a.mean(0)
    # Normalised Gaussian columns are uniform on the sphere, since the Gaussian is isotropic.
    directions = torch.randn(a.shape[1], projections, dtype=a.dtype, generator=generator).to(a.device)
    directions = directions / directions.norm(dim=0)  # (d, projections), unit columns
    # Sorting each column, (n, projections), pairs the quantiles of both: the optimal transport in one dimension.
    return rmse((a @ directions).sort(0).values, (b @ directions).sort(0).values)


@check_arguments(distance=FUNCTION, splits=size(), seed=SEED)
def floor(distance: Callable[[Tensor, Tensor], float], samples: Tensor, splits: int = 8, seed: int = 0) -> float:
    """Mean absolute ``distance`` between two random halves of one sample, over ``splits`` random splits."""
    generator = torch.Generator().manual_seed(seed)
    half = len(flat(samples, "samples")) // 2
    if not half:
        raise ValueError(f"got {len(samples)} samples, but a floor compares two halves of a sample: pass at least 2")
    values = []
    for _ in range(splits):
        order = torch.randperm(len(samples), generator=generator)  # a permutation: the halves are disjoint
        with reraise_from_function("distance", "distance(a, b), a number"):
            values.append(abs(distance(samples[order[:half]], samples[order[half : 2 * half]])))
    return math.fsum(values) / splits


def _root_mean_square(x: Tensor) -> float:
    """Root mean square of all entries, also where their squares would overflow or vanish."""
    largest = x.abs().max()
    if not 0 < largest < math.inf:
        return largest.item()  # 0, infinity or NaN
    scale = torch.ldexp(torch.ones_like(largest), largest.frexp().exponent)  # dividing by a power of 2 rounds nothing
    return (scale * (x / scale).square().mean().sqrt()).item()


def _sum_of_distances(a: Tensor, b: Tensor) -> float:
    """Sum of the Euclidean distances of all pairs of rows of a (n, d) and b (m, d)."""
    # Relative to b's mean: cdist computes |x|^2 - 2 x.y + |y|^2, which cancels far from zero.
    centre = b.mean(0)
    b = b - centre
    # Blocks of (2048, m) distances; fsum adds their sums without rounding in between.
    return math.fsum(torch.cdist(part - centre, b).sum().item() for part in a.split(2048))
