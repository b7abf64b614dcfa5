"""Progressive distillation: two steps of the stage before are one, and each number of steps has its network."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

import pidlearn as pid
from pidlearn.methods import PD, Corrector
from pidlearn.methods.progressive import progressive_loss
from pidlearn.students.flow_map import FlowMap, step
from pidlearn.students.progressive import ProgressiveStudent
from tests.test_flow_map_methods import ODE, GaussianFlow, points

RING = pid.toy("ring")


def test_the_exact_map_is_a_zero() -> None:
    x, s, m, t = points()
    exact = GaussianFlow()
    assert progressive_loss(exact, exact.denoised, x, [s, m, t], pid.l2).max() < 1e-26
    assert progressive_loss(GaussianFlow(off=0.1), exact.denoised, x, [s, m, t], pid.l2).mean() > 1e-4


@pytest.mark.parametrize("pieces", [1, 2, 5])
def test_the_teachers_steps_are_eulers(pieces: int) -> None:
    x, s, _, t = points()
    times = [s + (t - s) * k / pieces for k in range(pieces + 1)]
    ends = torch.cat(
        [pid.solve(ODE, x[i : i + 1], torch.stack([time[i] for time in times]))[-1] for i in range(len(x))]
    )
    student = FlowMap(pid.nets.MLP(2))
    share = (t / s)[:, None]
    G = (ends - share * x) / (1 - share)
    student.denoised = lambda *_: G  # type: ignore[method-assign]

    def teacher(x: Tensor, s: Tensor, t: Tensor) -> Tensor:
        return ODE.rhs(x, s)

    assert progressive_loss(student, teacher, x, times, pid.l2).max() < 1e-24
    torch.testing.assert_close(step(x, s, t, G), ends)


def test_in_single_precision_nothing_is_lost_to_the_noise() -> None:
    """By subtraction the target would be off by 4e-4 at s = 80."""
    s = torch.full((50,), 80.0, dtype=torch.float64)
    x, times = 80 * torch.randn(50, 2, dtype=torch.float64), [s, s / 2, s / 4]
    targets = []
    for dtype in (torch.float64, torch.float32):
        student = FlowMap(pid.nets.MLP(2).to(dtype))
        seen: list[Tensor] = []

        def keep(a: Tensor, b: Tensor, seen: list[Tensor] = seen) -> Tensor:
            seen.append(b)
            return pid.l2(a, b)

        progressive_loss(student, lambda x, s, t: RING.denoise(x, s), x.to(dtype), times, keep)
        targets.append(seen[0].double())
    assert (targets[0] - targets[1]).abs().max() < 2e-6


def test_stages_halve_and_start_from_the_one_before() -> None:
    run = pid.steps(RING, method="pd", calls=4, teacher_steps=2, steps=12, shortening=1.0, batch_size=8)
    starts, lengths = [], []
    for _ in run:
        context = run.trainer.context
        if run.trainer.step - 1 in (4, 8):  # the first step of the later stages
            starts.append(context.stage_index)
        lengths.append(len(run.trainer.method.grid) - 1)
    assert starts == [1, 2]
    assert lengths == [8] * 4 + [4] * 4 + [2] * 4  # teacher_steps per step of the first stage, then two
    frozen, learned = run.student.stages[0], run.student.stages[1]
    assert not any(torch.equal(a, b) for a, b in zip(frozen.parameters(), learned.parameters(), strict=True))


@pytest.mark.parametrize("spacing", ["karras", "log", lambda n, t_min, t_max: torch.linspace(t_max, t_min, n).double()])
def test_the_student_takes_its_steps_where_it_learned_them(spacing: Any, tmp_path: Any) -> None:
    options = {"spacing": spacing, "rho": 3.0} if spacing == "karras" else {"spacing": spacing}
    run = pid.steps(RING, method="pd", calls=4, teacher_steps=3, steps=9, batch_size=8, **options)
    starts = {stage: set() for stage in (0, 1, 2)}
    for _ in run:
        method, context = run.trainer.method, run.trainer.context
        starts[context.stage_index] = set(method.grid[:: method.pieces].tolist())
    student = pid.load(run.result().save(tmp_path / "student"), RING).student if spacing == "log" else run.student
    assert [len(starts[stage]) - 1 for stage in (0, 1, 2)] == student.numbers
    for stage, number in enumerate(student.numbers):
        assert starts[stage] == set(student.times[:: 4 // number].tolist())
    z = 80 * torch.randn(3, 2)
    x = z
    for s, t in itertools.pairwise(student.times[::2]):
        x = student.stages[1](x, s, t)
    assert torch.equal(student.generate(z, calls=2), x)


@pytest.mark.parametrize("of", [{"method": "pd"}, {"method": "corrector", "first": "pd"}], ids=["pd", "corrector"])
@pytest.mark.parametrize("grid", [{"teacher_steps": 3}, {"spacing": "log"}], ids=["rounded otherwise", "log"])
def test_a_run_on_any_grid_is_resumed_and_its_average_takes_the_same_steps(of: Any, grid: Any, tmp_path: Any) -> None:
    options: dict[str, Any] = {**of, **grid, "calls": 8, "steps": 20, "batch_size": 8, "ema": (0.9,)}
    run = pid.steps(RING, **options)
    list(run)
    pid.distill(RING, callbacks=[lambda step: step.number == 5], checkpoints=tmp_path, progress=False, **options)
    resumed = pid.distill(RING, checkpoints=tmp_path, progress=False, **options).student
    average = run.result().student
    assert average is not run.student
    assert torch.equal(average.times, run.student.times)
    assert torch.equal(average.times, resumed.times)
    for a, b in zip(average.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


class TestCalls:
    def student(self) -> ProgressiveStudent:
        torch.manual_seed(0)
        parts = [pid.FlowMap(pid.nets.MLP(2, width=8, depth=1), event_shape=(2,)) for _ in range(3)]
        for part in parts:
            torch.nn.init.normal_(part.network.body.out.weight)
        return ProgressiveStudent(parts, [4, 2, 1])

    def test_each_has_its_stage(self) -> None:
        student, z = self.student(), 80 * torch.randn(5, 2)
        for calls, part in zip((4, 2, 1), student.stages, strict=True):
            assert torch.equal(student.generate(z, calls=calls), part.generate(z, calls=calls))
        with pytest.raises(ValueError, match="got calls = 3, but this student takes 4, 2, 1 steps"):
            student.generate(z, calls=3)

    def test_bad_input(self) -> None:
        one, other = pid.FlowMap(pid.nets.MLP(2)), pid.FlowMap(pid.nets.MLP(2), 50.0)
        for stages, numbers in (([one], [2, 1]), ([one, other], [2, 1])):
            with pytest.raises(ValueError, match="but each stage has its number and all have one span"):
                ProgressiveStudent(stages, numbers)
        with pytest.raises(ValueError, match="3 steps cannot train 4 stages: use more steps or fewer calls"):
            pid.steps(RING, method="pd", steps=3)
        with pytest.raises(ValueError, match="this method trains a ProgressiveStudent: pass one, or none"):
            pid.steps(RING, pid.FlowMap(pid.nets.MLP(2)), method="pd")


def test_a_network_of_ones_own_becomes_all_stages(tmp_path: Any) -> None:
    network = pid.nets.MLP(2, width=8, depth=1)
    result = pid.distill(RING, network, method="pd", calls=2, steps=4, batch_size=8, progress=False)
    assert result.student.numbers == [2, 1]
    again = pid.load(result.save(tmp_path / "student"), RING)
    z = 80 * torch.randn(4, 2)
    for calls in (1, 2):
        assert torch.equal(again.generate(z, calls=calls), result.generate(z, calls=calls))


@pytest.mark.parametrize(
    ("parts", "teacher", "options"),
    [
        ("stages", RING, {"method": PD(calls=4, teacher_steps=2)}),
        ("stages", RING, {"method": Corrector(first=PD(calls=4, teacher_steps=2), share=0.75)}),
        ("windows", pid.system("pendulum"), {"windows": 3}),
    ],
)
def test_each_part_of_the_averaged_student_has_averaged_weights(parts: str, teacher: Any, options: Any) -> None:
    run = pid.steps(teacher, **options, steps=24, batch_size=8, n=9, ema=(0.5,))
    averages: dict[int, list[Tensor]] = {}
    for _ in run:
        which = list(getattr(run.student, parts)).index(run.trainer.context.stage.part)
        weights = [p.detach().clone() for p in run.trainer.context.stage.part.parameters()]
        before = weights if run.trainer.step - 1 in run.trainer._starts else averages[which]
        averages[which] = [0.5 * a + 0.5 * b for a, b in zip(before, weights, strict=True)]
    assert len(averages) == 3
    for which, part in enumerate(getattr(run.result().student, parts)):
        torch.testing.assert_close(list(part.parameters()), averages[which])
