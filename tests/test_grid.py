import pytest
import torch
from hypothesis import given
from torch import Tensor

import pidlearn as pid
from tests.strategies import grids


@given(grids())
def test_grids_fall_and_meet_both_ends(grid: Tensor) -> None:
    assert grid.dtype == torch.float64
    assert (grid.diff() < 0).all()


@pytest.mark.parametrize("make", [pid.karras_grid, pid.linear_grid, pid.log_grid])
def test_ends_are_exact(make) -> None:
    for t_min, t_max in [(0.002, 80.0), (0.1, 1.1), (1e-5, 157.0)]:
        grid = make(33, t_min, t_max)
        assert (grid[0].item(), grid[-1].item(), len(grid)) == (t_max, t_min, 33)


def test_spacing() -> None:
    assert torch.allclose((pid.karras_grid() ** (1 / 7)).diff().diff(), torch.zeros(248).double(), atol=1e-12)
    assert torch.allclose(pid.linear_grid().diff().diff(), torch.zeros(248).double(), atol=1e-12)
    assert torch.allclose(pid.log_grid().log().diff().diff(), torch.zeros(248).double(), atol=1e-12)
    assert torch.allclose(pid.karras_grid(rho=1), pid.linear_grid(), rtol=1e-12)


@pytest.mark.parametrize("make", [pid.karras_grid, pid.linear_grid, pid.log_grid])
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"n": 1}, "n >= 2"),
        ({"n": 10.5}, "whole number"),
        ({"t_min": 80.0}, "t_min < t_max"),
        ({"t_max": float("inf")}, "t_min < t_max"),
        ({"t_min": float("nan")}, "got t_min = nan, but t_min must be a finite number"),
    ],
)
def test_no_grid(make, options: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make(**options)


def test_positive_times_and_rho() -> None:
    for make in (pid.karras_grid, pid.log_grid):
        with pytest.raises(ValueError, match="t_min > 0"):
            make(t_min=0.0)
    for rho in (0.0, 0.001, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="rho"):
            pid.karras_grid(rho=rho)
