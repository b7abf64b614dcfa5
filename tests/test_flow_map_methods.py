"""Flow-map methods: each identity has the exact map as its zero, and PID is the Lagrangian one from the prior."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import pidlearn as pid
from pidlearn.methods.flow_map import eulerian_loss, lagrangian_loss, meanflow_loss, semigroup_loss, semigroup_times
from pidlearn.students.flow_map import FlowMap, joined, step
from pidlearn.utils.broadcast import expand_like

STD, GRID = 0.7, pid.karras_grid(12)
GAUSSIAN, RING = pid.GaussianMixture(torch.zeros(1, 2), STD**2), pid.toy("ring")
ODE = pid.DenoiserODE(GAUSSIAN)


class GaussianFlow(FlowMap):
    """The exact flow map of N(0, std^2): x sqrt((std^2 + t^2) / (std^2 + s^2)); ``off`` is added to its G."""

    def __init__(self, std: float = STD, off: float = 0.0) -> None:
        super().__init__(pid.nets.MLP(2, end_time=True))
        self.std, self.off = std, off

    def denoised(self, x: Tensor, s: Tensor, t: Tensor, class_labels: Tensor | None = None) -> Tensor:
        root = ((self.std**2 + t**2) / (self.std**2 + s**2)).sqrt()
        return expand_like((root - t / s) / (1 - t / s), x) * x + self.off * expand_like(t / s, x)


def network() -> FlowMap:
    torch.manual_seed(2)
    student = FlowMap(pid.nets.MLP(2, width=16, depth=2, fourier=8, end_time=True).double())
    for p in student.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return student


def points(n: int = 30) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x at s, and two later times m > t."""
    s = torch.logspace(-1, 1.8, n, dtype=torch.float64)
    return torch.randn(n, 2, dtype=torch.float64) * (s[:, None] + STD), s, 0.6 * s, 0.1 * s


def test_two_steps_are_one() -> None:
    x, s, m, t = points()
    G, H = torch.randn_like(x), torch.randn_like(x)
    torch.testing.assert_close(
        step(x, s, t, joined(G, H, s, m, t)), step(step(x, s, m, G), m, t, H), rtol=1e-12, atol=1e-12
    )


class TestLagrangian:
    def test_its_zero_is_euler(self) -> None:
        z = 80 * torch.randn(GRID.numel() - 1, 2, dtype=torch.float64)
        path = pid.solve(pid.DenoiserODE(RING), z, GRID)  # (N, B, 2)
        T = torch.full((len(z),), 80.0, dtype=torch.float64)
        student = network()

        def tabulated(x: Tensor, s: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
            rows = (t[:, None] == GRID).double().argmax(1)
            state = path[rows, torch.arange(len(x)) % len(z)]
            share = expand_like(t / s, x)
            return torch.where(share < 1, (state - share * x) / (1 - share), torch.zeros_like(x))

        student.denoised = tabulated  # type: ignore[method-assign]
        losses = lagrangian_loss(student, pid.DenoiserODE(RING), z, (T, GRID[:-1], GRID[1:]), pid.l2)
        assert losses.max() < 1e-18
        path = 1.001 * path
        assert lagrangian_loss(student, pid.DenoiserODE(RING), z, (T, GRID[:-1], GRID[1:]), pid.l2).mean() > 1e-9

    def test_of_the_exact_map_it_is_the_error_of_a_difference(self) -> None:
        x, s, t, _ = points()
        errors = []
        for h in (1e-2, 5e-3):
            losses = lagrangian_loss(GaussianFlow(), ODE, x, (s, t, t * (1 - h)), pid.l2)
            errors.append(losses.sqrt().mean().item())
        assert errors[0] / errors[1] == pytest.approx(2, rel=0.05)


class TestSemigroup:
    def test_the_exact_map_is_a_zero(self) -> None:
        x, s, m, t = points()
        never, unused = torch.zeros(len(x), dtype=torch.bool), torch.stack([s, t], 1)

        def losses(student: Any, is_short: Tensor) -> Tensor:
            return semigroup_loss(student, ODE, x, (s, m, t, is_short, unused), pid.l2)

        assert losses(GaussianFlow(), never).max() < 1e-26
        # Any flow composes: only the short steps, the teacher's own, tell the right one.
        assert losses(GaussianFlow(0.5), never).max() < 1e-26
        assert losses(GaussianFlow(0.5), ~never).mean() > 1e-3
        assert losses(GaussianFlow(off=0.1), never).mean() > 1e-5

    def test_short_steps_are_the_teachers(self) -> None:
        x, s, m, t = points()
        student = FlowMap(pid.nets.MLP(2, end_time=True))
        within = torch.stack([s, (s + m) / 2, m, t], 1)
        paths = torch.cat([pid.solve(ODE, x[i : i + 1], within[i], "heun")[-1] for i in range(len(x))])
        share = expand_like(t / s, x)
        G = (paths - share * x) / (1 - share)
        student.denoised = lambda *_: G  # type: ignore[method-assign]
        every = torch.ones(len(x), dtype=torch.bool)
        assert semigroup_loss(student, ODE, x, (s, m, t, every, within), pid.l2).max() < 1e-24

    def test_lengths_are_drawn_in_proportion_and_half_of_it_is_two_of_the_next(self) -> None:
        flow: Any = SimpleNamespace(grid=pid.karras_grid(9), fine=pid.karras_grid(33), density=torch.ones(8))
        s, m, t, is_short, within = semigroup_times(flow, 600, torch.Generator().manual_seed(0))
        index = {time.item(): i for i, time in enumerate(flow.grid)}
        start, middle, end = ([index[time.item()] for time in times] for times in (s, m, t))
        lengths = [b - a for a, b in zip(start, end, strict=True)]
        assert [lengths.count(k) for k in (1, 2, 4, 8)] == [320, 160, 80, 40]
        assert all(a % length == 0 for a, length in zip(start, lengths, strict=True))
        longer = ~is_short
        assert all(2 * b == a + c for a, b, c, long in zip(start, middle, end, longer, strict=True) if long)
        assert torch.equal(within[is_short][:, 0], s[is_short])
        assert torch.equal(within[is_short][:, -1], t[is_short])
        assert (within.diff(dim=1) < 0).all()


class TestEulerian:
    def test_of_the_exact_map_it_is_the_error_of_a_step(self) -> None:
        x, s, _, t = points()
        errors = []
        for h in (1e-2, 5e-3):
            losses = eulerian_loss(GaussianFlow(), ODE, x, (s, s * (1 - h), t), pid.l2)
            errors.append(losses.sqrt().mean().item())
        assert errors[0] / errors[1] == pytest.approx(4, rel=0.05)  # one step of a first-order method

    def test_a_step_to_the_next_time_is_the_teachers(self) -> None:
        x, s, u, _ = points()
        student = network()
        student.denoised = lambda x, s, t, labels=None: ODE.denoise(x, s)  # type: ignore[method-assign]
        assert eulerian_loss(student, ODE, x, (s, u, u), pid.l2).max() == 0


class TestMeanFlow:
    def test_the_exact_map_is_a_zero(self) -> None:
        x, s, _, t = points()
        assert meanflow_loss(GaussianFlow(), ODE, x, (s, s, t), pid.l2).max() < 1e-16
        assert meanflow_loss(GaussianFlow(0.5), ODE, x, (s, s, t), pid.l2).mean() > 1e-3

    def test_it_is_that_of_the_paper(self) -> None:
        """u = v - (tau - r) du/dtau by a JVP in the paper's coordinates, where a residual has another size."""
        student, (x, s, _, t) = network(), points()
        tau, r = s / (1 + s), t / (1 + t)
        y = x / (1 + s)[:, None]
        ode = pid.DenoiserODE(RING)

        def u(y: Tensor, tau: Tensor) -> Tensor:
            s = tau / (1 - tau)
            return (y - student.denoised(y * (1 + s)[:, None], s, t)) / tau[:, None]

        v = (y - ode.denoise(x, s)) / tau[:, None]
        value, slope = torch.func.jvp(u, (y, tau), (v, torch.ones_like(tau)))
        error = (value - (v - (tau - r)[:, None] * slope)).square().mean(1)
        size = (tau * (1 + t) / (1 + s)).square()
        torch.testing.assert_close(
            meanflow_loss(student, ode, x, (s, s, t), pid.l2), error * size, rtol=1e-10, atol=1e-12
        )


@pytest.mark.parametrize(
    ("identity", "points"), [("lagrangian", "data"), ("eulerian", "own"), ("semigroup", "data"), ("meanflow", "own")]
)
def test_they_train_resume_and_load(identity: str, points: str, tmp_path: Any) -> None:
    options = {"method": "flow_map", "identity": identity, "points": points, "steps": 6, "n": 17, "batch_size": 16}
    options |= {"progress": False, "save_every": 2, "lr": 1e-3}
    whole = pid.distill(RING, **options)
    pid.distill(RING, **options, checkpoints=tmp_path / "run", callbacks=[lambda step: step.number == 3])
    resumed = pid.distill(RING, **options, checkpoints=tmp_path / "run")
    z = 80 * torch.randn(5, 2)
    again = pid.load(whole.save(tmp_path / "student"), RING)
    for other in (resumed, again):
        assert torch.equal(other.generate(z, calls=3), whole.generate(z, calls=3))
    assert again.config == whole.config


def test_own_points_need_no_data() -> None:
    def teacher(x: Tensor, sigma: Tensor) -> Tensor:
        return RING.denoise(x, sigma)

    options = {"method": "flow_map", "event_shape": (2,), "steps": 1, "n": 9, "batch_size": 8}
    next(pid.steps(teacher, **options))
    with pytest.raises(ValueError, match="got no data, but this method needs them"):
        pid.steps(teacher, **options, points="data")
    with pytest.raises(ValueError, match="a FlowMap of a network that takes end_time"):
        pid.steps(teacher, pid.Trajectory(pid.nets.MLP(2)), **options)


def test_students_of_another_kind_are_refused() -> None:
    two, one = pid.nets.MLP(2, end_time=True), pid.nets.MLP(2)
    for method, student in (("reflow", pid.FlowMap(two)), ("reflow", pid.ConsistencyFunction(one))):
        with pytest.raises(ValueError, match="this method trains a FlowMap of a network that takes one time"):
            pid.steps(RING, student, method=method, pairs=8)
    with pytest.raises(ValueError, match="this method trains a FlowMap of a network that takes end_time"):
        pid.steps(RING, pid.ConsistencyFunction(two), method="flow_map")
