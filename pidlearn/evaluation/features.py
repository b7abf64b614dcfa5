"""Metrics in the space of an image network's features: Fréchet distance (FID), precision and recall."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pidlearn.evaluation.samples import apply, flat, real
from pidlearn.utils.arguments import FUNCTION, PATH, check_argument, check_arguments, count, number, optional
from pidlearn.utils.validation import as_real, describe_tensor

__all__ = ["Features", "Statistics", "frechet_distance", "precision_recall", "read_statistics", "statistics"]

Features = Callable[[Tensor], Tensor]
"""A function from samples (B, *event) to features (B, k), such as `Inception`. None means the flattened samples."""

BATCHES = (
    lambda v: (hasattr(v, "__iter__") or hasattr(v, "__getitem__")) and getattr(v, "ndim", 1) > 0,
    "a list or iterator of batches (B, *event)",
)

FEATURE_CHUNK = 128
"""Samples whose features are computed at a time."""

MAX_PAIRS = 2**24
"""Pairwise distances in memory at a time."""


@dataclass(frozen=True)
class Statistics:
    """Mean and covariance of a sample's features, all that a Fréchet distance depends on.

    The sum of two is the statistics of both samples together, so that a large sample can be processed in batches, or in
    several processes, without being in memory. With d = m_2 - m_1 (Chan et al. 1979):

        n = n_1 + n_2,  m = m_1 + d n_2 / n,  (n - 1) S = (n_1 - 1) S_1 + (n_2 - 1) S_2 + d d^T n_1 n_2 / n

    The sum equals the two-pass result up to float64 rounding, because means are subtracted before anything is squared.

    Attributes:
        mean: m, (k,) float64.
        cov: S, (k, k) float64, divided by n - 1; zero for one sample.
        n: number of samples; None where it is unknown, as for published references, which then cannot be added.
    """

    mean: Tensor
    cov: Tensor
    n: int | None = None

    def __post_init__(self) -> None:
        check_argument("n", self.n, optional(number(1)))
        mean, cov = (as_real(name, getattr(self, name), torch.float64) for name in ("mean", "cov"))
        fits = mean.ndim == 1 and cov.shape == (len(mean), len(mean))
        if not fits or not (mean.isfinite().all() and cov.isfinite().all()):
            raise ValueError(
                f"got mean {describe_tensor(mean)} and cov {describe_tensor(cov)}, but statistics are finite, (k,) and "
                f"(k, k): pass those of the same features"
            )
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "cov", cov)

    @classmethod
    def of(cls, features: Tensor) -> Statistics:
        """Compute the statistics of one batch (B, *event), flattened to (B, k)."""
        if not real(features, "features").numel():
            raise ValueError(
                f"got features {tuple(features.shape)}, but statistics need (B, k) of at least one sample: leave "
                f"empty batches out"
            )
        f = features.reshape(len(features), -1).double()
        _check_finite(f)
        mean = f.mean(0)
        centred = f - mean
        return cls(mean, centred.T @ centred / max(len(f) - 1, 1), len(f))  # (k, k)

    def __add__(self, other: Statistics) -> Statistics:
        if self.n is None or other.n is None:
            raise ValueError("got statistics of an unknown number of samples, which cannot be added: give both their n")
        n = self.n + other.n
        d = other.mean - self.mean  # (k,)
        # E[f f^T] - m m^T would cancel: with means of 1e6 and unit variances, it loses 12 of 16 digits.
        scatter = self.cov * (self.n - 1) + other.cov * (other.n - 1) + d.outer(d) * (self.n * other.n / n)
        return Statistics(self.mean + d * (other.n / n), scatter / (n - 1), n)


@check_arguments(batches=BATCHES, features=optional(FUNCTION))
def statistics(batches: Iterable[Tensor], features: Features | None = None) -> Statistics:
    """Compute the `Statistics` of all batches' features; each batch is (B, *event), and one is in memory at a time."""
    total = None
    for batch in batches:
        for f in _features(batch, features):
            batch_statistics = Statistics.of(f)
            total = batch_statistics if total is None else total + batch_statistics
    if total is None:
        raise ValueError("got no batches, but statistics need at least one")
    return total


@check_arguments(path=PATH)
def read_statistics(path: str | Path) -> Statistics:
    """Read published reference statistics: an ``.npz`` of ``mu`` (k,) and ``sigma`` (k, k), as EDM provides for FID.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: a file of another kind, or numbers that cannot be a mean and a covariance.
    """
    if Path(path).is_dir():
        raise ValueError(f"{path} is a folder: pass the path of a file")
    try:
        with Path(path).open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            mean, cov = (torch.from_numpy(file[key].astype(np.float64, casting="same_kind")) for key in ("mu", "sigma"))
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"there is no file {path}: pass the .npz of mu and sigma of the reference images, such as EDM's"
        ) from error
    except (KeyError, ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} is not an .npz file of the arrays mu and sigma ({error}): pass one that np.savez wrote"
        ) from error
    if mean.ndim != 1 or not len(mean) or cov.shape != (len(mean), len(mean)):
        raise ValueError(
            f"{path}: mu and sigma have shapes {tuple(mean.shape)}, {tuple(cov.shape)}: expected (k,), (k, k), k >= 1"
        )
    if not (mean.isfinite().all() and cov.isfinite().all()):
        raise ValueError(f"{path}: mu or sigma holds NaN or infinity: compute the statistics again")
    tolerance = 1e-6 * cov.abs().max().item()  # references may be stored in float32
    if not torch.allclose(cov, cov.T, rtol=0, atol=tolerance) or torch.linalg.eigvalsh(cov).min() < -tolerance:
        raise ValueError(
            f"{path}: sigma is not a covariance, which is symmetric and has no negative eigenvalues: compute it again"
        )
    return Statistics(mean, cov)


@check_arguments(features=optional(FUNCTION))
def frechet_distance(a: Tensor | Statistics, b: Tensor | Statistics, features: Features | None = None) -> float:
    """Fréchet distance between Gaussians N(m, S) fitted to the features of two samples (Heusel et al. 2017).

        |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2))

    Either side is a sample (B, *event), to which ``features`` is applied, or `Statistics`. The estimate is biased
    upwards by about 1/n, so compare only at equal n, and with the floor. FID is this distance between the
    `pidlearn.evaluation.inception.Inception` features of 50,000 samples and a published reference:

        frechet_distance(statistics(batches, Inception()), read_statistics("cifar10-32x32.npz"))

    Raises:
        ValueError: no more samples than features, so that a covariance is singular; or different numbers of features.
    """
    sides = [x if isinstance(x, Statistics) else statistics([x], features) for x in (a, b)]
    for side in sides:
        if side.n is not None and side.n <= len(side.mean):
            raise ValueError(
                f"{side.n} samples are too few for a covariance of {len(side.mean)} features, which would be singular: "
                f"use more samples"
            )
    (ma, sa), (mb, sb) = ((side.mean.cpu(), side.cov.cpu()) for side in sides)
    if len(ma) != len(mb):
        raise ValueError(f"the two sides have {len(ma)} and {len(mb)} features: use the same features for both")
    # (k, k) throughout, in float64.
    # S_a S_b is not symmetric, but has the eigenvalues of S_a^(1/2) S_b S_a^(1/2), which is: eigvalsh applies, and
    # tr (S_a S_b)^(1/2) is the sum of their square roots. Rounding can make zero eigenvalues slightly negative.
    values, vectors = torch.linalg.eigh(sa)
    sqrt_sa = (vectors * values.clamp(min=0).sqrt()) @ vectors.T  # V diag(sqrt(l)) V^T
    trace_sqrt = torch.linalg.eigvalsh(sqrt_sa @ sb @ sqrt_sa).clamp(min=0).sqrt().sum()
    # The traces nearly cancel for a good student, hence float64.
    return ((ma - mb).square().sum() + sa.trace() + sb.trace() - 2 * trace_sqrt).item()


@check_arguments(features=optional(FUNCTION), k=count())
def precision_recall(a: Tensor, b: Tensor, features: Features | None = None, k: int = 3) -> tuple[float, float]:
    """Precision and recall of generated samples a compared with real samples b (Kynkäänniemi et al. 2019).

    The support of a sample X is estimated by balls around its points, whose radius r_k(x) is the distance to the k-th
    nearest other point of X:

        supp(X) = union over x in X of {y: |y - x| <= r_k(x)}
        precision = share of a in supp(b),   recall = share of b in supp(a)

    a is (n, *event) and b is (m, *event). The values depend on n, m and k: report them together.

    Raises:
        ValueError: no more than k samples on a side, different numbers of features, or features that are not finite.
    """
    fa, fb = (torch.cat([flat(f, name) for f in _features(x, features)]) for name, x in (("a", a), ("b", b)))
    for f in (fa, fb):
        _check_finite(f)
    if fa.shape[1] != fb.shape[1]:
        raise ValueError(f"the two sides have {fa.shape[1]} and {fb.shape[1]} features: use the same features for both")
    if k >= min(len(fa), len(fb)):
        raise ValueError(f"k = {k} with samples of {len(fa)} and {len(fb)}: expected more than k samples on each side")
    return _share_in_support(fa, fb, k), _share_in_support(fb, fa, k)


def _share_in_support(points: Tensor, sample: Tensor, k: int) -> float:
    """Share of the points (n, d) that lie in the ball of at least one member of the sample (m, d)."""
    # cdist computes |x - y|^2 as |x|^2 - 2 x.y + |y|^2, which cancels if the features are far from zero.
    centre = sample.mean(0)
    points, sample = points - centre, sample - centre
    rows = max(1, MAX_PAIRS // len(sample))  # so that (rows, m) distances fit in memory
    # Every member is its own nearest point, at distance 0: the k-th other point is the (k + 1)-th nearest.
    radius = torch.cat([torch.cdist(part, sample).kthvalue(k + 1, 1).values for part in sample.split(rows)])  # (m,)
    inside = [(torch.cdist(part, sample) <= radius).any(1) for part in points.split(rows)]  # (rows, m) -> (rows,)
    return torch.cat(inside).double().mean().item()


def _features(samples: Tensor, features: Features | None) -> Iterable[Tensor]:
    """Yield the features of the samples in chunks; without a feature function, the samples themselves."""
    if features is None:
        yield samples
        return
    real(samples, "samples")
    with torch.no_grad():
        for chunk in samples.split(FEATURE_CHUNK):
            yield apply("features", features, chunk)


def _check_finite(features: Tensor) -> None:
    if not features.isfinite().all():
        raise ValueError("the features contain NaN or infinity: check the samples, then the feature function")
