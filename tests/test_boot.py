"""PID's kin: the same residual in value, other gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import pidlearn as pid
from pidlearn.methods.boot import boot_loss, freeflow_loss
from pidlearn.training.loop import draw_batch

RING, GRID = pid.toy("ring"), pid.karras_grid(12)
ODE = pid.DenoiserODE(RING)
INDEX = torch.arange(11)
T, U = GRID[INDEX], GRID[INDEX + 1]
Z = 80 * torch.randn(11, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def trajectory(boundary: str = "hard") -> pid.Trajectory:
    torch.manual_seed(4)
    student = pid.Trajectory(pid.nets.MLP(2, width=16, depth=2, fourier=8).double(), boundary=boundary)
    for p in student.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return student


def gradient(losses: Tensor, student: pid.Trajectory) -> Tensor:
    return torch.autograd.grad(losses.mean(), [student.network.first.weight], retain_graph=True)[0]


def test_boots_difference_is_pids_residual() -> None:
    student = trajectory()
    boot = boot_loss(student, ODE, Z, T, U, pid.l2)
    residual = pid.pid_loss(student, ODE, Z, GRID, INDEX, derivative="forward", distance="l2")
    torch.testing.assert_close(boot, residual, rtol=1e-10, atol=1e-12)
    # The target's own path is held constant: another direction of descent.
    assert (gradient(boot, student) - gradient(residual, student)).norm() > 0.1 * gradient(residual, student).norm()


def test_a_network_of_ones_own_learns_its_start_where_the_boundary_is_soft() -> None:
    run = pid.steps(RING, pid.nets.MLP(2, width=8, depth=1), method="boot", boundary_weight=1.0, steps=1, batch_size=8)
    next(run)
    start = run.student.learned_term(Z.float(), torch.full((11,), 80.0).double())[0]
    assert start.abs().max() > 0  # with a hard boundary it is 0 whatever the network


def test_freeflows_value_is_that_of_the_exact_derivative() -> None:
    student, index = trajectory(), INDEX[1:]
    free = freeflow_loss(student, ODE, Z[1:], GRID[index], pid.l2)
    residual = pid.pid_loss(student, ODE, Z[1:], GRID, index, derivative="exact", distance="l2")
    torch.testing.assert_close(free, residual, rtol=1e-10, atol=1e-12)
    assert (gradient(free, student) - gradient(residual, student)).norm() > 0.1 * gradient(residual, student).norm()


@pytest.mark.parametrize("method", ["pid", "boot", "freeflow"])
def test_times_are_drawn_where_the_density_has_them(method: str) -> None:
    grid = pid.karras_grid(20)
    at_one = {"time_sampling": lambda t, _: (t == grid[7]).double(), "n": 20, "batch_size": 8, "steps": 2}
    run = pid.steps(RING, method=method, **at_one)
    next(run)
    _, times, *_ = draw_batch(run.trainer, 64)
    assert times is not None
    assert torch.equal(grid[times] if method == "pid" else times, grid[7].expand(64))


@pytest.mark.parametrize("off", [0.0, 1e-3])
def test_the_exact_path_is_a_zero_of_freeflow(off: float) -> None:
    """That of N(0, 0.49): x = r z with r = sqrt((0.49 + t^2) / (0.49 + T^2)), and the learned term is (r - t/T) z."""
    T_max, student = 80.0, trajectory()

    def learned_term_jvp(z: Tensor, t: Tensor, class_labels: Tensor | None = None) -> tuple[tuple[Tensor], ...]:
        r = ((0.49 + t**2) / (0.49 + T_max**2)).sqrt()
        y = r - t / T_max + off * (1 - t / T_max)
        slope = t / (0.49 + T_max**2) / r - (1 + off) / T_max
        return (y[:, None] * z,), (slope[:, None] * z,)

    student.learned_term_jvp = learned_term_jvp  # type: ignore[method-assign]
    ode = pid.DenoiserODE(pid.GaussianMixture(torch.zeros(1, 2), 0.49))
    losses = freeflow_loss(student, ode, Z, GRID[1:], pid.l2)
    if off:
        assert losses.mean() > 1e-3
    else:
        assert losses.max() < 1e-20


def test_eulers_path_is_a_zero_of_boot() -> None:
    path = pid.solve(ODE, Z, GRID)
    student = trajectory()

    def tabulated(z: Tensor, t: Tensor, class_labels: Tensor | None = None) -> tuple[Tensor]:
        rows = (t[:, None] == GRID).double().argmax(1)
        return (path[rows, torch.arange(len(z))] - (t / 80)[:, None] * z,)

    student.learned_term = tabulated  # type: ignore[method-assign]
    assert boot_loss(student, ODE, Z, T, U, pid.l2).max() < 1e-18
    path = 1.001 * path
    assert boot_loss(student, ODE, Z, T, U, pid.l2).mean() > 1e-9


def test_a_soft_boundary_is_learned() -> None:
    options = {"method": "boot", "boundary_weight": 1.0, "steps": 150, "batch_size": 64, "n": 40, "progress": False}
    student = pid.distill(RING, **options).student
    z = 80 * torch.randn(500, 2)
    (signal,) = student.learned_term(z, torch.full((500,), 80.0, dtype=torch.float64))
    before = RING.denoise(z, 80.0).square().mean()
    assert (signal - RING.denoise(z, 80.0)).square().mean() < 0.1 + 0.5 * before
    with pytest.raises(ValueError, match="the student does not start at z"):
        pid.steps(RING, trajectory("signal").float(), method="boot")
