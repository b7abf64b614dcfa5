"""Each scheme against a path whose derivative is known, by measured order."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import pidlearn as pid
from pidlearn.methods.pid.derivatives import SCHEMES
from tests.strategies import random_network


def smooth(*times: Tensor) -> tuple[Tensor, ...]:
    return tuple(torch.stack([(1.3 * t).sin(), (-t).exp()], 1) for t in times)


def slope(t: Tensor) -> Tensor:
    return torch.stack([1.3 * (1.3 * t).cos(), -(-t).exp()], 1)


def error(name: str, n: int) -> float:
    """Largest error over the grid's points, on a grid whose steps vary by a factor of about five."""
    grid = pid.karras_grid(n, 0.2, 2.0, rho=3)
    points = SCHEMES[name](smooth, grid, torch.arange(n - 1))
    errors = sum(dydt - slope(t) for t, _, dydt in points) / len(points)
    return errors.abs().max().item()


@pytest.mark.parametrize(("name", "order"), [("forward", 1), ("central", 2), ("can", 2), ("trapezoid", 2)])
def test_order_of_convergence(name: str, order: int) -> None:
    steps = torch.tensor([16.0, 32, 64, 128, 256], dtype=torch.float64)
    errors = torch.tensor([error(name, int(n) + 1) for n in steps], dtype=torch.float64)
    measured = -(errors.log().diff() / steps.log().diff())
    assert measured[-1].item() == pytest.approx(order, abs=0.1)


def test_exact_is_exact() -> None:
    assert error("exact", 3) < 1e-14


@pytest.mark.parametrize("name", SCHEMES)
def test_straight_lines_are_exact_everywhere(name: str) -> None:
    grid = pid.karras_grid(9)

    def line(*times: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.stack([3 * t - 1, 0 * t], 1) for t in times)

    for t, y, dydt in SCHEMES[name](line, grid, torch.arange(9)):
        assert torch.equal(y, line(t)[0])
        assert torch.allclose(dydt, torch.tensor([3.0, 0.0]).double(), atol=1e-10)


def test_central_is_exact_for_parabolas_at_the_ends_too() -> None:
    grid = pid.karras_grid(9)
    ((t, _, dydt),) = SCHEMES["central"](lambda *ts: tuple((s**2)[:, None] for s in ts), grid, torch.arange(9))
    assert torch.allclose(dydt[:, 0], 2 * t, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["forward", "central"])
def test_two_points_suffice(name: str) -> None:
    grid = pid.karras_grid(2)
    ((_, y, dydt),) = SCHEMES[name](smooth, grid, torch.arange(1))
    y_next = smooth(grid[1:])[0]
    assert torch.allclose(dydt, (y - y_next) / (grid[0] - grid[1]))


def test_forward_looks_back_at_the_last_point() -> None:
    grid = pid.karras_grid(5)
    before, last = [SCHEMES["forward"](smooth, grid, torch.tensor([i]))[0][2] for i in (3, 4)]
    assert torch.equal(before, last)


def test_a_new_scheme_is_one_function() -> None:
    def midpoint(path, grid: Tensor, index: Tensor):
        t = (grid[index] + grid[index + 1]) / 2
        (y,), (dydt,) = torch.func.jvp(path, (t,), (torch.ones_like(t),))
        return [(t, y, dydt)]

    trajectory = pid.Trajectory(random_network(2))
    loss = pid.pid_loss(
        trajectory,
        pid.DenoiserODE(lambda x, s: torch.zeros_like(x)),
        torch.ones(2, 2),
        pid.karras_grid(6),
        torch.tensor([0, 4]),
        derivative=midpoint,
    )
    loss.sum().backward()
    assert (loss > 0).all()
