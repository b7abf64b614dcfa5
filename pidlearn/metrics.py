"""How good a student is: against its teacher, noise by noise, and as a distribution.

Distances between samples have a floor, their value between two independent draws of the same distribution. A figure
is read beside its floor or not at all; `floor` gives it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pidlearn.toys import GaussianMixture

__all__ = [
    "agreement",
    "energy_distance",
    "floor",
    "frechet_distance",
    "relative_rmse",
    "rmse",
    "sliced_wasserstein",
    "wrong_mode_share",
]


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


def frechet_distance(a: Tensor, b: Tensor, features: Callable[[Tensor], Tensor] | None = None) -> float:
    """Fréchet distance between Gaussians fitted to the features of two samples (Heusel et al. 2017).

    |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)). ``features`` maps (B, *event) to (B, k); without it the
    flattened samples are their own features. It is biased upwards by about 1/n: compare at equal n, beside the floor.

    Raises:
        ValueError: fewer samples than feature dimensions, where the covariance is singular.
    """
    with torch.no_grad():
        fa, fb = (x if features is None else features(x) for x in (a, b))
    fa, fb = fa.flatten(1).double(), fb.flatten(1).double()
    for f in (fa, fb):
        if len(f) <= f.shape[1]:
            raise ValueError(f"{len(f)} samples cannot fill a covariance of {f.shape[1]} features; give more")
    sa, sb = fa.T.cov().reshape(fa.shape[1], -1), fb.T.cov().reshape(fb.shape[1], -1)
    # tr (S_a S_b)^(1/2) from the symmetric S_a^(1/2) S_b S_a^(1/2), whose eigenvalues are those of S_a S_b.
    values, vectors = torch.linalg.eigh(sa)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ sb @ root).clamp(min=0).sqrt().sum()
    return ((fa.mean(0) - fb.mean(0)).square().sum() + sa.trace() + sb.trace() - 2 * cross).item()


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


def _distances(a: Tensor, b: Tensor) -> float:
    """Sum of all pairwise Euclidean distances, in chunks of a."""
    return math.fsum(torch.cdist(part, b).sum().item() for part in a.split(2048))


def _paired(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape or not len(a):
        raise ValueError(f"expected two batches of one shape, row against row; got {tuple(a.shape)}, {tuple(b.shape)}")
