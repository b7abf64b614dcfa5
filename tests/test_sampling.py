from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import pidlearn as pid
from pidlearn.losses.time_sampling import DENSITIES, checked_density, draw_index


@given(st.integers(1, 300), st.integers(1, 60), st.integers(0, 2**31))
def test_indices_are_on_the_grid_and_stratified(n: int, points: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    density = 0.01 + torch.rand(points, dtype=torch.float64, generator=generator)
    index = draw_index(density, n, generator)
    assert index.dtype == torch.int64
    assert index.shape == (n,)
    counts = torch.bincount(index, minlength=points)
    assert len(counts) == points
    # One from each n-th of the distribution: no point is off by two visits.
    assert ((counts - n * density / density.sum()).abs() < 2).all()


def test_points_of_no_weight_are_not_visited() -> None:
    density = torch.tensor([1.0, 0.0, 3.0, 0.0], dtype=torch.float64)
    counts = torch.bincount(draw_index(density, 1000, torch.Generator().manual_seed(0)), minlength=4)
    assert counts.tolist() == [250, 0, 750, 0]


@pytest.mark.parametrize("sigma_data", [0.1, 0.5, 3.0])
def test_lognormal_looks_at_the_scale_of_the_data(sigma_data: float) -> None:
    t = pid.karras_grid(250)[:-1]
    density = DENSITIES["lognormal"](t, sigma_data)
    assert t[density.argmax()].item() == pytest.approx(sigma_data, rel=0.1)
    assert density.min() >= 0.1
    assert torch.equal(DENSITIES["uniform"](t, sigma_data), torch.ones_like(t))


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool])
def test_counts_are_frequencies(dtype: torch.dtype) -> None:
    def late(t: torch.Tensor, sigma_data: float) -> torch.Tensor:
        return (t < t[3]).to(dtype)

    density = checked_density(late, pid.karras_grid(9), 0.5)
    assert density.tolist() == [0.0] * 4 + [1.0] * 5
    drawn = draw_index(density, 100, torch.Generator().manual_seed(0))
    assert drawn.unique().tolist() == [4, 5, 6, 7, 8]
