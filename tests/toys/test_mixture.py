"""The closed forms, against autograd, SciPy, sampling, and themselves at the extremes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import pidlearn as pid
from pidlearn.teachers.exact.presets import PRESETS
from tests.strategies import mixtures

SIGMAS = st.sampled_from([0.0, 0.002, 0.3, 5.0, 80.0])


def covariances(mixture: pid.GaussianMixture) -> torch.Tensor:
    d = mixture.means.shape[1]
    basis = mixture._basis if mixture._basis is not None else torch.eye(d).double()
    return basis @ torch.diag_embed(mixture._eigenvalues) @ basis.mT


@given(mixtures(), SIGMAS)
def test_density_is_scipys(mixture, sigma: float) -> None:
    from scipy.stats import multivariate_normal  # here, as every worker that collects tests would wait a second for it

    d = mixture.means.shape[1]
    x = mixture.sample(5).double() + sigma * torch.randn(5, d).double()
    density = sum(
        w * multivariate_normal(m, s + sigma**2 * np.eye(d)).pdf(x.numpy())
        for w, m, s in zip(mixture.weights.numpy(), mixture.means.numpy(), covariances(mixture).numpy(), strict=True)
    )
    np.testing.assert_allclose(mixture.log_prob(x, sigma).exp().numpy(), density, rtol=1e-7, atol=1e-300)


@given(mixtures(), SIGMAS)
def test_score_is_the_gradient_and_tweedie_holds(mixture, sigma: float) -> None:
    x = (mixture.sample(5).double() + sigma * torch.randn(5, *mixture.event_shape).double()).requires_grad_()
    (gradient,) = torch.autograd.grad(mixture.log_prob(x, sigma).sum(), x)
    score = mixture.score(x, sigma)
    torch.testing.assert_close(score, gradient, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(mixture.denoise(x, sigma), x + sigma**2 * score, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("sigma", [0.002, 80.0])
def test_float32_at_the_extremes(name: str, sigma: float) -> None:
    mixture = pid.toy(name)
    x = mixture.sample(200) + sigma * torch.randn(200, 2)
    for look in (mixture.denoise, mixture.score):
        torch.testing.assert_close(look(x, sigma).double(), look(x.double(), sigma), rtol=2e-4, atol=2e-4)
    far = torch.tensor([[1e4, -1e4]])  # all components underflow together
    assert mixture.denoise(far, 0.002).isfinite().all()
    assert mixture.log_prob(far, 0.002).isfinite().all()


def test_limits() -> None:
    mixture = pid.toy("anisotropic")
    x = mixture.sample(10).double()
    torch.testing.assert_close(mixture.denoise(x, 0.0), x, rtol=1e-10, atol=1e-10)
    mean = (mixture.weights @ mixture.means).expand(10, 2)
    torch.testing.assert_close(mixture.denoise(x, 1e6), mean, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sigma", [1e200, math.inf])
def test_infinite_noise_leaves_the_mean(dtype: torch.dtype, sigma: float) -> None:
    """As it does for the mixture's samples: sigma^2 overflows, and no x can tell the components apart."""
    mixture = pid.toy("anisotropic")
    x, mean = torch.randn(4, 2, dtype=dtype), mixture.weights @ mixture.means
    torch.testing.assert_close(mixture(x, sigma), mean.to(dtype).expand(4, 2))
    assert torch.equal(mixture.score(x, sigma), 0 * x)
    assert mixture(x, torch.tensor([0.5, sigma, 0.5, sigma]))[::2].equal(mixture(x[::2], 0.5))
    samples = pid.EmpiricalDenoiser(mixture.sample(4096).to(dtype))
    torch.testing.assert_close(mixture(x, sigma), samples(x, sigma), rtol=0, atol=0.05)
    plane = pid.SubspaceMixture(mixture, torch.eye(3)[:, :2], torch.ones(3), 0.1)
    expected = 1 + torch.cat([mean, torch.zeros(1)]).to(dtype)
    torch.testing.assert_close(plane(torch.randn(4, 3, dtype=dtype), sigma), expected.expand(4, 3))


def test_sigma_may_differ_by_sample() -> None:
    mixture, x = pid.toy("anisotropic"), torch.randn(3, 2).double()
    sigma = torch.tensor([0.1, 1.0, 10.0])
    one_by_one = torch.cat([mixture.denoise(x[i : i + 1], sigma[i].item()) for i in range(3)])
    torch.testing.assert_close(mixture.denoise(x, sigma), one_by_one, rtol=1e-6, atol=1e-6)


@given(mixtures(3))
def test_samples_have_the_moments(mixture) -> None:
    x = mixture.sample(20_000, torch.Generator().manual_seed(0)).double()
    mean = mixture.weights @ mixture.means
    assert (x.mean(0) - mean).abs().max() < 6 * x.std(0).max() / 20_000**0.5
    assert x.var(0).mean().sqrt().item() == pytest.approx(mixture.std, rel=0.05)


def test_presets_have_unit_scale() -> None:
    for name in PRESETS:
        assert 0.5 < pid.toy(name).std < 1.3, name


def test_the_same_density_three_ways() -> None:
    means, x = torch.randn(3, 4).double(), torch.randn(6, 4).double()
    scalar = pid.GaussianMixture(means, 0.2)
    diagonal = pid.GaussianMixture(means, torch.full((3, 4), 0.2))
    full = pid.GaussianMixture(means, 0.2 * torch.eye(4).expand(3, 4, 4))
    for other in (diagonal, full):
        torch.testing.assert_close(scalar.denoise(x, 0.5), other.denoise(x, 0.5), rtol=1e-6, atol=1e-6)


class TestSubspace:
    def pair(self) -> tuple[pid.SubspaceMixture, pid.GaussianMixture]:
        """The same density in a subspace and in full."""
        inner = pid.toy("anisotropic")
        basis, _ = torch.linalg.qr(torch.randn(6, 2).double())
        offset = torch.randn(2, 3).double()
        off = torch.eye(6).double() - basis @ basis.T
        full = pid.GaussianMixture(
            offset.flatten() + inner.means @ basis.T, basis @ covariances(inner) @ basis.T + 0.01 * off, inner.weights
        )
        return pid.SubspaceMixture(inner, basis, offset, 0.1), full

    @pytest.mark.parametrize("sigma", [0.002, 0.5, 80.0])
    def test_is_the_full_mixture(self, sigma: float) -> None:
        subspace, full = self.pair()
        x = full.sample(7).double() + sigma * torch.randn(7, 6).double()
        ours = subspace.denoise(x.reshape(7, 2, 3), sigma).flatten(1)
        torch.testing.assert_close(ours, full.denoise(x, sigma), rtol=1e-8, atol=1e-8)
        assert subspace.std == pytest.approx(full.std, rel=1e-6)

    def test_samples(self) -> None:
        subspace, full = self.pair()
        ours, theirs = subspace.sample(40_000).flatten(1), full.sample(40_000)
        assert (ours.T.cov() - theirs.T.cov()).abs().max() < 0.03
        assert (ours.mean(0) - theirs.mean(0)).abs().max() < 0.03

    def test_bad_basis(self) -> None:
        with pytest.raises(ValueError, match="orthonormal"):
            pid.SubspaceMixture(pid.toy("ring"), torch.ones(6, 2), torch.zeros(6), 0.1)
        with pytest.raises(ValueError, match="basis must be"):
            pid.SubspaceMixture(pid.toy("ring"), torch.eye(2), torch.zeros(6), 0.1)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (([0.0, 1.0], 1.0), r"\(K, d\)"),
        (([[float("nan")]], 1.0), "finite"),
        (([[0.0], [1.0]], [1.0, 1.0, 1.0]), "covs"),
        (([[0.0], [1.0]], -1.0), "positive definite"),
        (([[0.0, 0.0]], [[[1.0, 0.9], [0.0, 1.0]]]), "symmetric"),
        (([[0.0, 0.0]], [[[1.0, 2.0], [2.0, 1.0]]]), "positive definite"),
        (([[0.0], [1.0]], 1.0, [1.0]), "2 positive numbers"),
        (([[0.0], [1.0]], 1.0, [1.0, -1.0]), "positive numbers"),
    ],
)
def test_no_mixture(arguments: tuple, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        pid.GaussianMixture(*arguments)


def test_covariances_computed_in_single_precision() -> None:
    torch.manual_seed(0)
    for _ in range(50):
        q, _ = torch.linalg.qr(torch.randn(1, 4, 4))
        pid.GaussianMixture(torch.zeros(1, 4), q @ torch.diag(torch.rand(4) + 0.01) @ q.mT)


def test_bad_calls() -> None:
    with pytest.raises(ValueError, match="toy must be one of"):
        pid.toy("torus")
    with pytest.raises(ValueError, match=r"x must be \(B, 2\)"):
        pid.toy("ring").denoise(torch.ones(3, 4), 1.0)
    with pytest.raises(ValueError, match="unconditional"):
        pid.toy("ring").denoise(torch.ones(3, 2), 1.0, torch.zeros(3, dtype=torch.int64))
    empirical = pid.EmpiricalDenoiser(torch.randn(5, 2), bandwidth=0.1)
    for denoise in (pid.toy("ring").denoise, empirical.denoise, pid.toy("ring").log_prob):
        with pytest.raises(ValueError, match=r"got \(2,\), .* one value per sample, \(3,\)"):
            denoise(torch.ones(3, 2), torch.ones(2))
        for sigma in (-1.0, torch.tensor([1.0, float("nan"), 1.0])):
            with pytest.raises(ValueError, match="a noise level must be at least 0"):
                denoise(torch.ones(3, 2), sigma)
