"""Consistency methods: their identities, and that a zero of each loss is the right map."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

import pidlearn as pid
from pidlearn.methods.consistency import CD, CT, consistency_loss, tangent
from pidlearn.students.flow_map import ConsistencyFunction
from pidlearn.utils.broadcast import expand_like

RING, N = pid.toy("ring"), 12
ODE, GRID = pid.DenoiserODE(RING), pid.karras_grid(N)
T_MIN = GRID[-1].item()


def gaussian_flow(std: float) -> ConsistencyFunction:
    """The exact map of N(0, std^2): x sqrt((std^2 + t^2) / (std^2 + s^2))."""
    student = ConsistencyFunction(pid.nets.MLP(2))

    def denoised(x: Tensor, s: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        ratio = t / s
        return expand_like((((std**2 + t**2) / (std**2 + s**2)).sqrt() - ratio) / (1 - ratio), x) * x

    student.denoised = denoised  # type: ignore[method-assign]
    return student


class SolverEnds(ConsistencyFunction):
    """f(x, s): the end of the teacher's path through x by a solver, along the rest of the grid."""

    def __init__(self, solver: str = "euler") -> None:
        super().__init__(pid.nets.MLP(2))
        self.solver = solver

    def carried(self, x: Tensor, s: Tensor, t: Tensor, class_labels: Tensor | None = None) -> Tensor:
        x = x.clone()
        for here, there in pairwise(GRID):
            later = s >= here  # those that have not passed this grid time
            step = pid.solve(ODE, x, torch.stack([here, there]), self.solver)[-1]
            x = torch.where(later[:, None], step, x)
        return x


def batch(n: int = 40) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    index = torch.arange(n) % (N - 1)
    x0, noise = RING.sample(n).double(), torch.randn(n, 2, dtype=torch.float64)
    return x0, noise, GRID[index], GRID[index + 1]


def method_loss(method: Any, student: Any, **changes: Any) -> Tensor:
    """The loss of a method on the batch, without a run."""
    from types import SimpleNamespace

    problem = SimpleNamespace(ode=ODE)
    context: Any = SimpleNamespace(
        student=student, problem=problem, distance=pid.l2, weight=lambda t: torch.ones_like(t), **changes
    )
    return method.loss(context, (*batch(), None))


@pytest.mark.parametrize("of_ends", ["euler", "heun"])
@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_the_solvers_end_is_a_zero_of_distillation(solver: str, of_ends: str) -> None:
    losses = method_loss(CD(solver), SolverEnds(of_ends))
    if solver == of_ends:
        assert losses.max() < 1e-20
    else:  # whose steps lead to another path
        assert losses.mean() > 1e-4


def test_it_is_none_of_training_whose_target_varies() -> None:
    assert method_loss(CT(), SolverEnds()).mean() > 1e-3


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_another_map_is_no_zero(solver: str) -> None:
    class Off(SolverEnds):
        def carried(self, x: Tensor, *args: Any) -> Tensor:
            return 1.01 * super().carried(x, *args)

    # All but the last interval, at whose end f is the identity, would hide a factor.
    assert method_loss(CD(solver), Off(solver)).mean() < 1e-3
    perturbed = Off(solver)
    perturbed.carried = lambda x, s, t, labels=None: SolverEnds.carried(perturbed, x, s, t) + 0.01 * s[:, None].log()  # type: ignore[method-assign]
    assert method_loss(CD(solver), perturbed).min() > 1e-6


def test_the_exact_map_has_no_tangent() -> None:
    teacher, x, s = pid.GaussianMixture(torch.zeros(1, 2), 0.49), batch()[1], batch()[2]
    right, derivative = tangent(gaussian_flow(0.7), pid.DenoiserODE(teacher), x * (s + 0.7)[:, None], s)
    assert derivative.abs().max() < 1e-10
    _, derivative = tangent(gaussian_flow(0.6), pid.DenoiserODE(teacher), x * (s + 0.7)[:, None], s)
    assert derivative.abs().max() > 0.01
    exact = x * (s + 0.7)[:, None] * ((0.49 + T_MIN**2) / (0.49 + s**2)).sqrt()[:, None]
    torch.testing.assert_close(right, exact)


def test_the_tangent_is_the_limit_of_neighbours() -> None:
    torch.manual_seed(1)
    student = ConsistencyFunction(pid.nets.MLP(2, width=16, depth=2, fourier=8).double())
    for p in student.parameters():
        torch.nn.init.normal_(p, std=0.3)
    x0, noise, s, _ = batch()
    x = x0 + s[:, None] * noise
    _, derivative = tangent(student, ODE, x, s)
    t_min, errors = torch.full_like(s, T_MIN), []
    for h in (1e-2, 5e-3):
        u = s * math.exp(-h)
        x_next = x + (u - s)[:, None] * ODE.velocity(x, s)
        with torch.no_grad():
            quotient = (student.carried(x, s, t_min) - student.carried(x_next, u, t_min)) / h
        inner = u > T_MIN
        errors.append((quotient - derivative)[inner].norm().item())
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.1)  # first order


def test_only_one_side_is_differentiated() -> None:
    student = ConsistencyFunction(pid.nets.MLP(2))
    x0, noise, s, u = (v.float() for v in batch())
    x, x_next = x0 + s[:, None] * noise, x0 + u[:, None] * noise
    consistency_loss(student, x, s, x_next, u, pid.l2).mean().backward()
    ours = [p.grad.clone() for p in student.parameters()]
    student.zero_grad()
    target = student.carried(x_next, u, torch.full_like(u, T_MIN)).detach()
    pid.l2(student.carried(x, s, torch.full_like(s, T_MIN)), target).mean().backward()
    for mine, theirs in zip(ours, student.parameters(), strict=True):
        assert torch.equal(mine, theirs.grad)


def test_samples_of_several_calls_are_compared_as_a_distribution_only() -> None:
    result = pid.distill(RING, method="cd", steps=2, batch_size=8, progress=False)
    assert list(result.evaluate(64)) == ["rmse", "relative_rmse", "wrong_mode", "energy", "energy_floor"]
    assert list(result.evaluate(64, calls=2)) == ["energy", "energy_floor"]


def test_the_grid_of_training_becomes_finer() -> None:
    run = pid.steps(RING, method="ct", steps=9, n=41, batch_size=8)
    lengths = []
    for _ in run:
        lengths.append(len(run.trainer.method.grid) - 1)
    assert lengths == [10, 10, 10, 20, 20, 20, 40, 40, 40]
