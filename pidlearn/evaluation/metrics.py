"""How good a student is: against its teacher, noise by noise, and as a distribution.

Distances between samples have a floor, their value between two independent draws of the same distribution. A figure
is read beside its floor or not at all; `floor` gives it.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pidlearn.teachers.exact import GaussianMixture

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

Features = Callable[[Tensor], Tensor]
"""(B, *event) to (B, k), such as `Inception`. None in its place: the samples, flattened."""

AT_A_TIME = 128
"""Samples that are put through features at once."""

PAIRS = 2**24
"""Distances that are in memory at once."""


def rmse(a: Tensor, b: Tensor) -> float:
    """Root of the mean squared difference over all entries of two tensors of one shape, row against row."""
    _paired(a, b)
    return (a - b).double().square().mean().sqrt().item()


def relative_rmse(a: Tensor, b: Tensor) -> float:
    """`rmse` over the standard deviation of b about its mean over the batch: 0 is perfect, 1 no better than the mean.

    a and b are (B, *event), or paths (N, B, *event) flattened by the caller to one batch.
    """
    _paired(a, b)
    spread = (b - b.mean(0)).double().square().mean().sqrt().item()
    if spread == 0:
        raise ValueError("the reference does not vary, so nothing is relative to it")
    return rmse(a, b) / spread


def wrong_mode_share(a: Tensor, b: Tensor, mixture: GaussianMixture) -> float:
    """Share of samples whose most responsible component differs between a and b, (B, d) each."""
    _paired(a, b)
    return (mixture.component(a) != mixture.component(b)).double().mean().item()


def agreement(a: Tensor, b: Tensor, classifier: Callable[[Tensor], Tensor]) -> float:
    """Share of samples that a classifier, (B, *event) to logits (B, classes), puts in the same class."""
    _paired(a, b)
    with torch.no_grad():
        return (classifier(a).argmax(1) == classifier(b).argmax(1)).double().mean().item()


@dataclass(frozen=True)
class Statistics:
    """Mean and covariance of features: all that a Fréchet distance asks of a sample.

    Two of them add up to those of both samples together, so that a large sample is gathered batch by batch, or process
    by process, and is never in memory. Adding is exact: means are subtracted before anything is squared (Chan et al.
    1979), so the sum is that of a two-pass computation up to float64 rounding.

    Attributes:
        mean: (k,) float64.
        cov: (k, k) float64, over n - 1; zero for one sample.
        n: samples; None where it is not known, as of published references, which then do not add.
    """

    mean: Tensor
    cov: Tensor
    n: int | None = None

    @classmethod
    def of(cls, features: Tensor) -> Statistics:
        """Those of a batch (B, *event), flattened to (B, k)."""
        if not features.ndim or not features.numel():
            raise ValueError(f"statistics need features (B, k) of at least one sample, got {tuple(features.shape)}")
        f = features.reshape(len(features), -1).double()
        _check_finite(f)
        mean = f.mean(0)
        apart = f - mean
        return cls(mean, apart.T @ apart / max(len(f) - 1, 1), len(f))

    def __add__(self, other: Statistics) -> Statistics:
        if self.n is None or other.n is None:
            raise ValueError("statistics of an unknown number of samples cannot be added to others")
        n = self.n + other.n
        apart = other.mean - self.mean
        scatter = self.cov * (self.n - 1) + other.cov * (other.n - 1) + apart.outer(apart) * (self.n * other.n / n)
        return Statistics(self.mean + apart * (other.n / n), scatter / (n - 1), n)


def statistics(batches: Iterable[Tensor], features: Features | None = None) -> Statistics:
    """`Statistics` of the features of all batches, (B, *event) each, one batch in memory at a time."""
    total = None
    for batch in batches:
        for f in _features(batch, features):
            found = Statistics.of(f)
            total = found if total is None else total + found
    if total is None:
        raise ValueError("statistics need at least one batch, got none")
    return total


def read_statistics(path: str | Path) -> Statistics:
    """A published reference: an ``.npz`` of ``mu`` (k,) and ``sigma`` (k, k), the form of EDM's FID references.

    Raises:
        ValueError: another kind of file, or numbers that are no mean and covariance.
    """
    try:
        with Path(path).open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            mean, cov = (torch.from_numpy(file[key].astype(np.float64, casting="same_kind")) for key in ("mu", "sigma"))
    except (KeyError, ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not an .npz file of the arrays mu and sigma: {error}") from error
    if mean.ndim != 1 or not len(mean) or cov.shape != (len(mean), len(mean)):
        raise ValueError(
            f"{path}: mu and sigma should be (k,) and (k, k) of k >= 1, got {tuple(mean.shape)}, {tuple(cov.shape)}"
        )
    if not (mean.isfinite().all() and cov.isfinite().all()):
        raise ValueError(f"{path}: mu or sigma holds NaN or infinity")
    slack = 1e-6 * cov.abs().max().item()
    if not torch.allclose(cov, cov.T, rtol=0, atol=slack) or torch.linalg.eigvalsh(cov).min() < -slack:
        raise ValueError(f"{path}: sigma is no covariance, which is symmetric without negative eigenvalues")
    return Statistics(mean, cov)


def frechet_distance(a: Tensor | Statistics, b: Tensor | Statistics, features: Features | None = None) -> float:
    """Fréchet distance between Gaussians fitted to the features of two samples (Heusel et al. 2017).

    |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)). Either side is a sample (B, *event), whose ``features`` are
    taken, or `Statistics`. It is biased upwards by about 1/n: compare at equal n, beside the floor. FID is this on
    `pidlearn.evaluation.inception.Inception` of 50,000 samples against a published reference:

        frechet_distance(statistics(batches, Inception()), read_statistics("cifar10-32x32.npz"))

    Raises:
        ValueError: fewer samples than feature dimensions, where the covariance is singular; features that differ.
    """
    sides = [x if isinstance(x, Statistics) else statistics([x], features) for x in (a, b)]
    for side in sides:
        if side.n is not None and side.n <= len(side.mean):
            raise ValueError(f"{side.n} samples cannot fill a covariance of {len(side.mean)} features; give more")
    (ma, sa), (mb, sb) = ((side.mean.cpu(), side.cov.cpu()) for side in sides)
    if len(ma) != len(mb):
        raise ValueError(f"the two sides have {len(ma)} and {len(mb)} features: they must be of the same kind")
    # tr (S_a S_b)^(1/2) from the symmetric S_a^(1/2) S_b S_a^(1/2), whose eigenvalues are those of S_a S_b.
    values, vectors = torch.linalg.eigh(sa)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ sb @ root).clamp(min=0).sqrt().sum()
    return ((ma - mb).square().sum() + sa.trace() + sb.trace() - 2 * cross).item()


def precision_recall(a: Tensor, b: Tensor, features: Features | None = None, k: int = 3) -> tuple[float, float]:
    """Precision and recall of generated samples a against real ones b (Kynkäänniemi et al. 2019).

    The support of a sample is taken as the union of balls about its points, each reaching to its k-th nearest other
    point. Precision is the share of a within the support of b, recall the share of b within the support of a.
    a (n, *event) and b (m, *event) need not be equally many, but the figures depend on n, m and k: state them.

    Raises:
        ValueError: samples of k points or fewer; features that differ, or are not finite.
    """
    fa, fb = (torch.cat([f.flatten(1).double() for f in _features(x, features)]) for x in (a, b))
    for f in (fa, fb):
        _check_finite(f)
    if fa.shape[1] != fb.shape[1]:
        raise ValueError(f"the two sides have {fa.shape[1]} and {fb.shape[1]} features: they must be of the same kind")
    if not 1 <= k < min(len(fa), len(fb)):
        raise ValueError(f"k = {k} neighbours need more than k samples a side, and k >= 1; got {len(fa)} and {len(fb)}")
    centre = fb.mean(0)  # about which the digits of squared distances are spent
    fa, fb = fa - centre, fb - centre
    return _within(fa, fb, k), _within(fb, fa, k)


def _within(points: Tensor, sample: Tensor, k: int) -> float:
    """Share of the points that lie in at least one ball about a member of the sample."""
    rows = max(1, PAIRS // len(sample))
    # Each member is its own nearest, at distance 0.
    reach = torch.cat([torch.cdist(part, sample).kthvalue(k + 1, 1).values for part in sample.split(rows)])
    inside = [(torch.cdist(part, sample) <= reach).any(1) for part in points.split(rows)]
    return torch.cat(inside).double().mean().item()


def energy_distance(a: Tensor, b: Tensor) -> float:
    """Energy distance 2 E|a - b| - E|a - a'| - E|b - b'| (Székely & Rizzo 2013), unbiased: it may fall below 0.

    a (n, *event) and b (m, *event) need not be paired; zero in the mean exactly if the distributions are equal.
    """
    a, b = a.flatten(1).double(), b.flatten(1).double()
    n, m = len(a), len(b)
    if min(n, m) < 2:
        raise ValueError(f"an energy distance needs two samples on each side, got {n} and {m}")
    within = _distances(a, a) / (n * (n - 1)) + _distances(b, b) / (m * (m - 1))
    return 2 * _distances(a, b) / (n * m) - within


def sliced_wasserstein(a: Tensor, b: Tensor, projections: int = 128, generator: torch.Generator | None = None) -> float:
    """Root of the mean squared 2-Wasserstein distance over random directions; a and b (n, *event) of equal n."""
    a, b = a.flatten(1).double(), b.flatten(1).double()
    if a.shape != b.shape:
        raise ValueError(f"sliced Wasserstein compares equal numbers, got {tuple(a.shape)} and {tuple(b.shape)}")
    directions = torch.randn(a.shape[1], projections, dtype=a.dtype, generator=generator).to(a.device)
    directions = directions / directions.norm(dim=0)
    return rmse((a @ directions).sort(0).values, (b @ directions).sort(0).values)


def floor(distance: Callable[[Tensor, Tensor], float], samples: Tensor, splits: int = 8, seed: int = 0) -> float:
    """What ``distance`` says of two random halves of one sample: the mean of its absolute value over ``splits``."""
    generator = torch.Generator().manual_seed(seed)
    half = len(samples) // 2
    values = []
    for _ in range(splits):
        order = torch.randperm(len(samples), generator=generator)
        values.append(abs(distance(samples[order[:half]], samples[order[half : 2 * half]])))
    return math.fsum(values) / splits


def _features(samples: Tensor, features: Features | None) -> Iterable[Tensor]:
    """Features of the samples, part by part; without any, the samples themselves."""
    if features is None:
        yield samples
        return
    with torch.no_grad():
        yield from map(features, samples.split(AT_A_TIME))


def _check_finite(features: Tensor) -> None:
    if not features.isfinite().all():
        raise ValueError("the features hold NaN or infinity: check the samples, then what computes the features")


def _distances(a: Tensor, b: Tensor) -> float:
    """Sum of all pairwise Euclidean distances, in chunks of a."""
    return math.fsum(torch.cdist(part, b).sum().item() for part in a.split(2048))


def _paired(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape or not len(a):
        raise ValueError(f"expected two batches of one shape, row against row; got {tuple(a.shape)}, {tuple(b.shape)}")
