"""What methods draw: which times, how often, and what of their settings that depends on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import pidlearn as pid
from pidlearn.methods import Batch

RING = pid.toy("ring")
T, T_MIN, COUNT = 80.0, 0.002, 600


def run(student: Any = None, **settings: Any) -> Any:
    started = pid.steps(RING, student, batch_size=8, **{"steps": 40, **settings})
    next(started)
    return started


def drawn(**settings: Any) -> Batch:
    started = run(**settings)
    batch: Batch = started.trainer.method.draw(started.trainer.context, COUNT, torch.Generator().manual_seed(0))
    return batch


def flow_map(identity: str, **settings: Any) -> tuple[Tensor, ...]:
    """The times of a batch: those at which its steps start first."""
    return drawn(method="flow_map", identity=identity, points="data", **settings)[2:]


def share(which: Tensor) -> float:
    return which.double().mean().item()


def above_one(t: Tensor, scale: float) -> Tensor:
    return (t > 1).double()


class TestFlowMap:
    def test_lagrangian_steps_start_at_noise_as_often_as_is_set(self) -> None:
        grid = pid.karras_grid(12)
        settings = {"n": 12, "time_sampling": "uniform"}
        s, t, u = flow_map("lagrangian", at_end=1.0, **settings)
        assert (s == T).all()
        for i in range(11):  # stratified: each interval as often
            assert share(t == grid[i]) == pytest.approx(1 / 11, abs=2 / COUNT)
        assert all(torch.equal(u[t == grid[i]].unique(), grid[i + 1 : i + 2]) for i in range(11))
        s, t, u = flow_map("lagrangian", at_end=0.0, **settings)
        assert (s >= t).all()
        assert share(s == T) == pytest.approx(1 - (10 / 11) ** 2, abs=0.03)  # one of two draws is the first interval
        assert share(t == T) == pytest.approx(1 / 11**2, abs=0.02)

    @pytest.mark.parametrize("identity", ["eulerian", "meanflow"])
    def test_eulerian_steps_end_at_the_data_as_often_as_is_set(self, identity: str) -> None:
        s, u, t = flow_map(identity, n=12, at_end=1.0)
        assert (t == T_MIN).all()
        s, u, t = flow_map(identity, n=12, at_end=0.0, time_sampling="uniform")
        assert ((s > u) & (u >= t)).all()
        # From the i-th of eleven intervals there are 11 - i ends, each as often.
        assert share(t == T_MIN) == pytest.approx(sum(1 / k for k in range(1, 12)) / 11, abs=0.03)

    @pytest.mark.parametrize("identity", ["eulerian", "meanflow"])
    def test_steps_start_where_time_sampling_says(self, identity: str) -> None:
        s, u, _ = flow_map(identity, n=12, time_sampling=above_one)
        assert s.min() > 1
        assert u.min() < 1  # the last of these intervals ends below

    def test_lagrangian_residuals_are_where_time_sampling_says(self) -> None:
        _, t, u = flow_map("lagrangian", n=12, at_end=1.0, time_sampling=above_one)
        assert t.min() > 1 > u.min()

    def test_steps_that_double_follow_time_sampling_within_each_length(self) -> None:
        s, _, t, is_short, _ = flow_map("semigroup", n=9, time_sampling=lambda t, _: 1 + (t > 1).double())
        grid = pid.karras_grid(9)
        early = int((grid[:-1] > 1).sum())
        assert 0 < early < 8
        short = s[is_short]
        assert len(short) == pytest.approx(COUNT * 8 / 15, abs=2)
        assert share(short > 1) == pytest.approx(2 * early / (2 * early + 8 - early), abs=0.02)
        assert share((s == T) & (t == T_MIN)) == pytest.approx(1 / 15, abs=2 / COUNT)
        two = [(s == grid[k]) & (t == grid[k + 2]) for k in (0, 2, 4, 6)]
        frequency = torch.tensor([1.0 + (grid[k] > 1) for k in (0, 2, 4, 6)])
        for which, expected in zip(two, frequency / frequency.sum() * 4 / 15, strict=True):
            assert share(which) == pytest.approx(expected.item(), abs=2 / COUNT)
        assert not is_short[: COUNT // 4].all()  # of several processes none has all of the teacher's

    @pytest.mark.parametrize(("n", "pieces"), [(3, 16), (9, 4), (33, 1), (65, 1)])
    def test_the_teacher_takes_some_steps_for_one(self, n: int, pieces: int) -> None:
        _, _, t, is_short, within = flow_map("semigroup", n=n)
        assert within.shape == (COUNT, pieces + 1)
        assert torch.equal(within[is_short][:, -1], t[is_short])

    def test_a_length_that_is_never_drawn_is_refused(self) -> None:
        with pytest.raises(ValueError, match="finite number >= 0, and not only zeros"):
            flow_map("semigroup", time_sampling=lambda t, _: (t < T).double())

    def test_a_grid_in_single_precision(self) -> None:
        times = flow_map("semigroup", spacing=lambda n, t_min, t_max: pid.karras_grid(n, t_min, t_max).float())
        assert times[0].dtype == torch.float64


@pytest.mark.parametrize("method", ["cd", "ct", "scm"])
def test_consistency_starts_where_time_sampling_says(method: str) -> None:
    _, _, s, u, _ = drawn(method=method, n=21, time_sampling=above_one)
    assert s.min() > 1 > u.min()


@pytest.mark.parametrize(("at_start", "expected"), [(0.0, 0.0), (0.3, 0.3), (1.0, 1.0)])
def test_reflow_starts_at_noise_as_often_as_is_set(at_start: float, expected: float) -> None:
    *_, tau = drawn(method="reflow", pairs=16, n=5, at_start=at_start)
    assert share(tau == 1) == pytest.approx(expected, abs=0.06)
    if at_start < 1:
        assert tau[tau < 1].mean().item() == pytest.approx(0.5, abs=0.05)


class TestProgressive:
    def test_a_stage_starts_as_the_one_before(self) -> None:
        started: Any = pid.steps(RING, method="pd", calls=2, teacher_steps=2, steps=6, batch_size=8, lr=1e-2)
        for _ in started:
            context = started.trainer.context
            if context.stage_index == 0:
                trained = [p.clone() for p in context.student.stages[0].parameters()]
            else:
                break
        first, second = context.student.stages
        assert all(torch.equal(a, b) for a, b in zip(first.parameters(), trained, strict=True))
        moved = [(a - b).abs().max().item() for a, b in zip(second.parameters(), trained, strict=True)]
        assert 0 < max(moved) < 0.2  # one update away, not as far as other random weights

    def test_time_sampling_without_noise_is_refused_before_anything_is_trained(self) -> None:
        with pytest.raises(ValueError, match="must give each of 1 times a finite number >= 0, and not only zeros"):
            pid.steps(RING, method="pd", steps=40, time_sampling=lambda t, _: (t < T).double())


class TestCorrector:
    def test_levels_go_with_the_scale_of_the_data(self) -> None:
        medians = []
        for scale in (0.25, 1.0):
            teacher = pid.GaussianMixture([[0.0, 0.0]], scale**2)
            span = pid.steps(teacher, steps=1).problem
            student = pid.FlowMap(pid.nets.MLP(2), span.t_start, t_min=span.t_end, sigma_data=scale)
            started: Any = pid.steps(teacher, student, method="corrector", share=0.0, steps=4, batch_size=8)
            next(started)
            context, generator = started.trainer.context, torch.Generator().manual_seed(0)
            _, _, t, _ = started.trainer.method.draw(context, COUNT, generator)
            medians.append(t.median().item())
        assert medians == pytest.approx([0.25, 1.0], rel=0.2)

    def test_its_losses_are_of_one_network_each(self) -> None:
        started = run(method="corrector", share=0.0, student=pid.FlowMap(pid.nets.MLP(2), sigma_data=RING.std))
        method, context = started.trainer.method, started.trainer.context
        student, fake = context.student, method.auxiliary
        torch.manual_seed(0)
        for p in (*student.parameters(), *fake.parameters()):
            torch.nn.init.normal_(p, std=0.1)
        z, labels, t, noise = method.draw(context, 16, torch.Generator().manual_seed(1))
        t = t.clamp(min=0.5)  # or the second term, whose unit goes with t, hides the first
        x = student.end(z)
        y = (x + t[:, None] * noise).detach().float()
        D, G = RING.denoise(y, t), fake.denoised(y, t, t)
        sigma = context.problem.sigma_data
        c_skip = (sigma**2 / (t**2 + sigma**2))[:, None].float()
        e = G - c_skip * y
        c_out = (t * sigma / (t**2 + sigma**2).sqrt())[:, None].float()
        moves = context.distance(x, (x - e).detach())
        fits = ((D + e - x.detach()) / c_out).square().mean(1)
        ours = method.loss(context, (z, labels, t, noise))
        torch.testing.assert_close(ours, (moves + fits).to(ours), rtol=1e-4, atol=1e-5)
        for network, alone in ((student, moves), (fake, fits)):
            weights = list(network.parameters())
            theirs = torch.autograd.grad(alone.sum(), weights, retain_graph=True)
            for a, b in zip(torch.autograd.grad(ours.sum(), weights, retain_graph=True), theirs, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * b.abs().max().item() + 1e-7)
