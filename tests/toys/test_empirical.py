from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import pidlearn as pid


@given(st.integers(1, 40), st.integers(1, 50), st.sampled_from([0.0, 0.3]), st.sampled_from([0.1, 1.0, 80.0]))
def test_is_the_mixture_of_its_data(m: int, chunk: int, bandwidth: float, sigma: float) -> None:
    data = torch.randn(m, 3).double()
    x = data[torch.randint(m, (6,))] + sigma * torch.randn(6, 3).double()
    # A kernel of zero width is a mixture of variance sigma^2 at noise level zero.
    noise = (sigma**2 + bandwidth**2) ** 0.5
    expected = pid.GaussianMixture(data, noise**2).score(x, 0.0) * sigma**2 + x
    ours = pid.EmpiricalDenoiser(data, bandwidth, chunk).denoise(x, sigma)
    torch.testing.assert_close(ours, expected, rtol=1e-8, atol=1e-8)


def test_small_noise_returns_the_datum() -> None:
    data = torch.randn(5000, 1, 4, 4)
    teacher = pid.EmpiricalDenoiser(data)
    x = data[:10] + 0.002 * torch.randn(10, 1, 4, 4)
    assert torch.allclose(teacher.denoise(x, 0.002), data[:10], atol=1e-6)


def test_large_data_never_meet_the_batch_whole() -> None:
    # 60,000 x 784 floats and 64 x 60,000 logits in chunks of 4,096: the largest array is the chunk's own.
    teacher = pid.EmpiricalDenoiser(torch.rand(60_000, 784))
    out = teacher.denoise(80 * torch.randn(8, 784), 80.0)
    assert torch.allclose(out.mean(), torch.tensor(0.5), atol=0.05)


def test_samples_and_scale() -> None:
    teacher = pid.EmpiricalDenoiser(torch.randn(4000, 2) * 2, bandwidth=1.0)
    assert teacher.std == pytest.approx(5**0.5, rel=0.05)
    assert teacher.sample(20_000).std().item() == pytest.approx(teacher.std, rel=0.05)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((torch.ones(3),), r"\(M, \*event\)"),
        ((torch.ones(3, 2, dtype=torch.uint8),), "floating"),
        ((torch.full((3, 2), float("nan")),), "NaN"),
        ((torch.ones(3, 2), -1.0), "bandwidth"),
        ((torch.ones(3, 2), 0.0, 0), "chunk"),
    ],
)
def test_no_data(arguments: tuple, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        pid.EmpiricalDenoiser(*arguments)


@pytest.mark.parametrize("offset", [10.0, 100.0])
def test_digits_do_not_depend_on_where_the_data_lie(offset: float) -> None:
    torch.manual_seed(0)
    data = torch.randn(200, 2)
    there = pid.EmpiricalDenoiser(data + offset, bandwidth=0.05)
    exact = pid.EmpiricalDenoiser((data + offset).double(), bandwidth=0.05)
    x = data[:20] + offset + 0.01 * torch.randn(20, 2)
    error = there.denoise(x, 0.01).double() - exact.denoise(x.double(), 0.01)
    assert error.abs().max() < 20 * offset * torch.finfo(torch.float32).eps


def test_bad_calls() -> None:
    teacher = pid.EmpiricalDenoiser(torch.randn(4, 2))
    with pytest.raises(ValueError, match="x must be"):
        teacher.denoise(torch.ones(3, 4), 1.0)
    with pytest.raises(ValueError, match="take sigma > 0, or a bandwidth"):
        teacher.denoise(torch.ones(3, 2), 0.0)
    with pytest.raises(ValueError, match="unconditional"):
        teacher.denoise(torch.ones(3, 2), 1.0, torch.zeros(3, dtype=torch.int64))
