"""Figures of merit against SciPy's, in the cases that SciPy knows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
import scipy.spatial
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import pidlearn as pid
from pidlearn import metrics


def draw(n: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_rmse_and_its_relative() -> None:
    a, b = draw(20, 2, 3), draw(20, 2, 3, seed=1)
    x, y = a.numpy(), b.numpy()
    expected = np.sqrt(((x - y) ** 2).mean())
    assert metrics.rmse(a, b) == pytest.approx(expected)
    assert metrics.relative_rmse(a, b) == pytest.approx(expected / np.sqrt(y.var(0).mean()))
    assert metrics.relative_rmse(b.mean(0).expand_as(b), b) == pytest.approx(1.0)
    # Squares of float32 differences are summed in float64.
    tiny = torch.full((4, 2), 1e-30)
    assert metrics.rmse(tiny, torch.zeros(4, 2)) == pytest.approx(1e-30, rel=1e-6)


def test_wrong_modes_and_agreement() -> None:
    ring = pid.toy("ring")
    b = ring.means.float()
    a = b.clone()
    a[2], a[5] = b[3], b[0]
    assert metrics.wrong_mode_share(a, b, ring) == 0.25
    assert metrics.agreement(a, b, lambda x: x @ b.T) == 0.75
    assert metrics.wrong_mode_share(b, b, ring) == 0.0


@given(st.integers(1, 6), st.integers(0, 100))
def test_frechet_distance(k: int, seed: int) -> None:
    a, b = draw(50, k, seed=seed), 0.5 + draw(40, k, seed=seed + 1) @ draw(k, k, seed=seed + 2)
    x, y = a.numpy(), b.numpy()
    sa, sb = np.cov(x.T).reshape(k, k), np.cov(y.T).reshape(k, k)
    root = np.real(scipy.linalg.sqrtm(sa @ sb))
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(sa + sb - 2 * root)
    assert metrics.frechet_distance(a, b) == pytest.approx(expected, rel=1e-6, abs=1e-8)
    assert metrics.frechet_distance(a, a) == pytest.approx(0, abs=1e-6)


def test_frechet_distance_of_features() -> None:
    a, b = draw(30, 1, 4, 4), draw(30, 1, 4, 4, seed=1)

    def features(x: Tensor) -> Tensor:
        return torch.stack([x.amax((1, 2, 3)), x.mean((1, 2, 3))], 1)

    assert metrics.frechet_distance(a, b, features) == metrics.frechet_distance(features(a), features(b))
    with pytest.raises(ValueError, match="16 features"):
        metrics.frechet_distance(a[:16], b)


@given(st.integers(2, 40), st.integers(2, 40), st.integers(0, 100))
def test_energy_distance_in_one_dimension(n: int, m: int, seed: int) -> None:
    a, b = draw(n, 1, seed=seed), 0.3 + 2 * draw(m, 1, seed=seed + 1)
    # SciPy's is the root of the biased one, which counts the n zero distances of each point to itself.
    biased = scipy.stats.energy_distance(a[:, 0].numpy(), b[:, 0].numpy()) ** 2
    within = [np.abs(x[:, None] - x).sum() for x in (a[:, 0].numpy(), b[:, 0].numpy())]
    expected = biased - sum(w * (1 / (k * (k - 1)) - 1 / k**2) for w, k in zip(within, (n, m), strict=True))
    assert metrics.energy_distance(a, b) == pytest.approx(expected, abs=1e-6)


def test_energy_distance_in_many_dimensions_and_chunks() -> None:
    a, b = draw(2100, 2, 2), 0.1 + draw(50, 2, 2, seed=1)
    x, y = a.flatten(1).numpy(), b.flatten(1).numpy()
    pairs = [scipy.spatial.distance.pdist(z).mean() for z in (x, y)]
    expected = 2 * scipy.spatial.distance.cdist(x, y).mean() - sum(pairs)
    assert metrics.energy_distance(a, b) == pytest.approx(expected, abs=1e-9)
    assert metrics.energy_distance(b, a) == pytest.approx(metrics.energy_distance(a, b), abs=1e-12)


def test_energy_distance_is_unbiased() -> None:
    values = [metrics.energy_distance(draw(20, 2, seed=s), draw(20, 2, seed=1000 + s)) for s in range(300)]
    assert abs(np.mean(values)) < 4 * np.std(values) / math.sqrt(300)
    assert min(values) < 0


@given(st.integers(1, 30), st.integers(0, 100))
def test_sliced_wasserstein_in_one_dimension(n: int, seed: int) -> None:
    a, b = draw(n, 1, seed=seed), draw(n, 1, seed=seed + 1)
    cost = (a - b.T).square().numpy()
    best = cost[scipy.optimize.linear_sum_assignment(cost)].mean()
    ours = metrics.sliced_wasserstein(a, b, 3, torch.Generator().manual_seed(0))
    assert ours == pytest.approx(math.sqrt(best))
    assert ours >= scipy.stats.wasserstein_distance(a[:, 0].numpy(), b[:, 0].numpy()) - 1e-12
    # Of a sample to itself shifted, both are the shift.
    assert metrics.sliced_wasserstein(a, a + 0.7) == pytest.approx(0.7)


def test_sliced_wasserstein_of_a_shift() -> None:
    # Along a direction u the distance is |u . c|, and (u . c)^2 is |c|^2 / d in the mean.
    a, c = draw(100, 4), torch.tensor([3.0, 0.0, 4.0, 0.0]).double()
    ours = metrics.sliced_wasserstein(a, a + c, 20_000, torch.Generator().manual_seed(0))
    assert ours == pytest.approx(2.5, rel=0.02)


@pytest.mark.parametrize("distance", [metrics.energy_distance, metrics.frechet_distance, metrics.sliced_wasserstein])
def test_floor_tells_equal_from_different(distance) -> None:
    samples = draw(800, 2)
    floor = metrics.floor(distance, samples)
    assert 0 < floor < distance(samples[:400], 0.5 + draw(400, 2, seed=9))
    if distance is not metrics.sliced_wasserstein:  # which draws directions of its own
        assert floor == metrics.floor(distance, samples)


def test_bad_input() -> None:
    a = draw(8, 2)
    for paired in (metrics.rmse, metrics.relative_rmse, metrics.sliced_wasserstein):
        with pytest.raises(ValueError, match=r"\(8, 2\)"):
            paired(a, a[:5])
        with pytest.raises(ValueError, match=r"\(0, "):
            paired(a[:0], a[:0])
    with pytest.raises(ValueError, match="does not vary"):
        metrics.relative_rmse(a, torch.ones_like(a))
    with pytest.raises(ValueError, match="two samples"):
        metrics.energy_distance(a[:1], a)
