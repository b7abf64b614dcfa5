"""Figures of merit against SciPy's, in the cases that SciPy knows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
import scipy.spatial
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import pidlearn as pid
from pidlearn.evaluation import features as feature_metrics
from pidlearn.evaluation import metrics


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


@pytest.mark.parametrize("size", [1e-300, 1e-200, 1e200, 1e300])
def test_rmse_where_squares_overflow_or_vanish(size: float) -> None:
    a, b = draw(20, 3), draw(20, 3, seed=1)
    assert metrics.rmse(size * a, size * b) == pytest.approx(size * metrics.rmse(a, b), rel=1e-14)
    assert metrics.relative_rmse(size * a, size * b) == pytest.approx(metrics.relative_rmse(a, b), rel=1e-14)
    assert metrics.rmse(a, a) == 0
    assert metrics.rmse(a, a + math.inf) == math.inf
    assert math.isnan(metrics.rmse(a, a * math.nan))


def test_wrong_modes_and_agreement() -> None:
    ring = pid.toy("ring")
    b = ring.means.float()
    a = b.clone()
    a[2], a[5] = b[3], b[0]
    assert metrics.wrong_mode_share(a, b, ring) == 0.25
    assert metrics.agreement(a, b, lambda x: x @ b.T) == 0.75
    assert metrics.wrong_mode_share(b, b, ring) == 0.0
    a[2:4, 0] = math.nan  # of no component, whichever the reference has
    assert metrics.wrong_mode_share(a, b, ring) == 0.375
    assert metrics.wrong_mode_share(a, a, ring) == 0.25


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
    from scipy.stats import energy_distance  # here, as every worker that collects tests would wait a second for it

    a, b = draw(n, 1, seed=seed), 0.3 + 2 * draw(m, 1, seed=seed + 1)
    # SciPy's is the root of the biased one, which counts the n zero distances of each point to itself.
    biased = energy_distance(a[:, 0].numpy(), b[:, 0].numpy()) ** 2
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
    from scipy.stats import wasserstein_distance

    a, b = draw(n, 1, seed=seed), draw(n, 1, seed=seed + 1)
    cost = (a - b.T).square().numpy()
    best = cost[scipy.optimize.linear_sum_assignment(cost)].mean()
    ours = metrics.sliced_wasserstein(a, b, 3, torch.Generator().manual_seed(0))
    assert ours == pytest.approx(math.sqrt(best))
    assert ours >= wasserstein_distance(a[:, 0].numpy(), b[:, 0].numpy()) - 1e-12
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


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 4), st.floats(0, 1e6), st.integers(0, 100))
def test_statistics_gathered_in_batches_are_those_of_two_passes(
    sizes: list[int], k: int, far: float, seed: int
) -> None:
    samples = far + draw(sum(sizes), k, seed=seed)
    gathered = metrics.statistics(samples.split(sizes))
    assert gathered.n == len(samples)
    np.testing.assert_allclose(gathered.mean, samples.numpy().mean(0), rtol=1e-13, atol=1e-13)
    if len(samples) > 1:  # the naive sum of squares is off by 1e-4 at a mean of 1e6
        np.testing.assert_allclose(gathered.cov, np.cov(samples.numpy().T).reshape(k, k), rtol=0, atol=1e-9)


def test_statistics_are_gathered_in_float64_and_add_in_any_order() -> None:
    samples = 1000 + draw(4000, 3).float()
    parts = [metrics.Statistics.of(part) for part in samples.split(1000)]
    one, two = (
        (parts[0] + parts[1]) + (parts[2] + parts[3]),
        metrics.statistics(samples[[*range(3999, -1, -1)]].split(7)),
    )
    assert one.cov.dtype == torch.float64
    torch.testing.assert_close(one.cov, two.cov, rtol=1e-10, atol=1e-10)


def test_frechet_distance_between_statistics_is_that_between_samples(tmp_path) -> None:
    a, b = draw(60, 5), 1 + 2 * draw(50, 5, seed=1)
    expected = metrics.frechet_distance(a, b)
    np.savez(tmp_path / "reference.npz", mu=b.mean(0).numpy(), sigma=np.cov(b.numpy().T))
    reference = metrics.read_statistics(tmp_path / "reference.npz")
    assert metrics.frechet_distance(metrics.statistics(a.split(7)), reference) == pytest.approx(expected)
    assert metrics.frechet_distance(a, reference) == pytest.approx(expected)
    # The closed form of one-dimensional Gaussians.
    one = [metrics.Statistics(torch.tensor([m]).double(), torch.tensor([[s**2]]).double()) for m, s in ((0, 1), (3, 5))]
    assert metrics.frechet_distance(*one) == pytest.approx(3**2 + (5 - 1) ** 2)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"mean": np.zeros(2)}, "mu and sigma"),
        ({"mu": np.zeros(2), "sigma": np.zeros((3, 3))}, r"\(2,\), \(3, 3\)"),
        ({"mu": np.zeros((2, 2)), "sigma": np.eye(2)}, r"\(2, 2\), \(2, 2\)"),
        ({"mu": np.array([0, np.nan]), "sigma": np.eye(2)}, "NaN"),
        ({"mu": np.zeros(2), "sigma": np.array([[1.0, 0.5], [0.0, 1.0]])}, "symmetric"),
        ({"mu": np.zeros(2), "sigma": np.full((2, 2), np.nan)}, "NaN"),
        ({"mu": np.zeros(2), "sigma": np.array([[1.0, 2.0], [2.0, 1.0]])}, "negative eigenvalues"),
        ({"mu": np.zeros(2), "sigma": 1j * np.eye(2)}, "Cannot cast"),
        ({"mu": np.zeros(0), "sigma": np.zeros((0, 0))}, "k >= 1"),
        ({"mu": np.array([None, None]), "sigma": np.eye(2)}, "mu and sigma"),
    ],
)
def test_a_reference_that_is_none(tmp_path, arrays: dict, says: str) -> None:
    np.savez(tmp_path / "reference.npz", **arrays)
    with pytest.raises(ValueError, match=says):
        metrics.read_statistics(tmp_path / "reference.npz")


@pytest.mark.parametrize("contents", [b"", b"not a zip", b"PK\x03\x04 cut", b"\x80\x04K\x01."])
def test_a_reference_that_is_no_archive(tmp_path, contents: bytes) -> None:
    (tmp_path / "reference.npz").write_bytes(contents)
    with pytest.raises(ValueError, match=r"not an \.npz"):
        metrics.read_statistics(tmp_path / "reference.npz")


def support_share(points: np.ndarray, sample: np.ndarray, k: int) -> float:
    """The definition, word by word."""
    inside = 0
    for point in points:
        for i, member in enumerate(sample):
            others = sorted(np.linalg.norm(member - other) for j, other in enumerate(sample) if j != i)
            if np.linalg.norm(point - member) <= others[k - 1]:
                inside += 1
                break
    return inside / len(points)


@given(st.integers(4, 20), st.integers(4, 30), st.integers(1, 3), st.integers(0, 100))
def test_precision_and_recall_are_their_definition(n: int, m: int, k: int, seed: int) -> None:
    a, b = 0.5 + 0.7 * draw(n, 2, seed=seed), draw(m, 2, seed=seed + 1)
    expected = support_share(a.numpy(), b.numpy(), k), support_share(b.numpy(), a.numpy(), k)
    assert metrics.precision_recall(a, b, k=k) == expected
    assert metrics.precision_recall(b, a, k=k) == expected[::-1]


def test_precision_and_recall_tell_what_is_missing() -> None:
    modes = torch.tensor([[-5.0, 0.0], [5.0, 0.0]]).double()
    real = modes[torch.arange(400) % 2] + 0.3 * draw(400, 2)
    collapsed, spilled = real[::2] + 0.01, torch.cat([real + 0.01, 20 * draw(400, 2, seed=1)])
    precision, recall = metrics.precision_recall(collapsed, real)
    assert precision > 0.95
    assert recall == pytest.approx(0.5, abs=0.05)
    precision, recall = metrics.precision_recall(spilled, real)
    assert precision < 0.6
    assert recall > 0.95


def test_precision_and_recall_of_features_in_chunks(monkeypatch) -> None:
    a, b = draw(300, 1, 2, 2), 0.3 + draw(200, 1, 2, 2, seed=1)
    seen = []

    def features(x: Tensor) -> Tensor:
        seen.append(len(x))
        return x.mean((1, 2))

    whole = metrics.precision_recall(a.mean((1, 2)), b.mean((1, 2)))
    assert metrics.precision_recall(a, b, features) == whole
    assert max(seen) <= 128
    assert sum(seen) == 500
    monkeypatch.setattr(feature_metrics, "MAX_PAIRS", 700)
    assert metrics.precision_recall(a, b, features) == whole


def test_bad_input() -> None:
    a = draw(8, 2)
    for paired in (metrics.rmse, metrics.relative_rmse, metrics.sliced_wasserstein):
        with pytest.raises(ValueError, match=r"\(8, 2\)"):
            paired(a, a[:5])
        with pytest.raises(ValueError, match=r"\(0, "):
            paired(a[:0], a[:0])
    with pytest.raises(ValueError, match="reference samples are equal"):
        metrics.relative_rmse(a, torch.ones_like(a))
    with pytest.raises(ValueError, match="got 1 and 8 samples"):
        metrics.energy_distance(a[:1], a)
    for bad, says in ((a[:3], "k = 3"), (draw(8, 3), "2 and 3 features")):
        with pytest.raises(ValueError, match=says):
            metrics.precision_recall(a, bad)
    with pytest.raises(ValueError, match="NaN"):
        metrics.precision_recall(a / 0, a)
    with pytest.raises(ValueError, match="got k = 0, but k must be a whole number of at least 1"):
        metrics.precision_recall(a, a, k=0)
    with pytest.raises(ValueError, match="got no batches"):
        metrics.statistics([])
    with pytest.raises(ValueError, match=r"\(0, 2\)"):
        metrics.statistics([a[:0]])
    with pytest.raises(ValueError, match="NaN"):
        metrics.statistics([a / 0])
    with pytest.raises(ValueError, match="2 and 3 features"):
        metrics.frechet_distance(a, draw(8, 3))
    with pytest.raises(ValueError, match="unknown number"):
        metrics.Statistics(torch.zeros(2), torch.eye(2)) + metrics.Statistics.of(a)
