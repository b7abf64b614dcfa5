"""Regression on solved paths: when they are solved, what is kept of them, and where they start."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import pidlearn as pid
from pidlearn.methods import supervised
from pidlearn.run import Run

METHODS = ("endpoint", "reflow", "dsno")
RING = pid.toy("ring")
EIGHT = 8 * 8
"""Samples that the teacher denoises for 8 pairs on 9 points: two for each of DSNO's four times, too."""


@pytest.fixture(autouse=True)
def blocks_of_eight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervised, "BLOCK", 8)


class Counted(torch.nn.Module):
    """A teacher that counts the samples it denoises."""

    event_shape, std, samples = (2,), 0.7, 0

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        self.samples += len(x)
        return RING.denoise(x, sigma)


def steps(method: Any, teacher: Any = RING, **options: Any) -> Run:
    return pid.steps(teacher, method=method, **{"steps": 12, "batch_size": 8, "pairs": 28, "n": 9, **options})


def samples_per_step(run: Run) -> list[int]:
    teacher, counts = run.problem.teacher, []
    before = teacher.samples
    for _ in run:
        counts.append(teacher.samples - before)
        before = teacher.samples
    return counts


@pytest.mark.filterwarnings("ignore:the teacher")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("batch_size", [8, 2])
def test_pairs_are_solved_in_the_first_steps_and_some_at_once(method: str, batch_size: int) -> None:
    run = steps(method, Counted(), batch_size=batch_size)
    assert samples_per_step(run) == [EIGHT] * 3 + [EIGHT // 2] + [0] * 8


@pytest.mark.filterwarnings("ignore:the teacher")
@pytest.mark.parametrize("method", METHODS)
def test_what_is_solved_is_in_a_checkpoint_and_kept_while_steps_are_timed(method: str, tmp_path: Path) -> None:
    run = steps(method, Counted())
    next(run), next(run)
    run.save(tmp_path)
    again = steps(method, Counted())
    again.resume(tmp_path)
    again.time_steps(2)
    assert samples_per_step(again) == [EIGHT, EIGHT // 2] + [0] * 8
    end = again.trainer.method.solved
    assert torch.equal(end[:16], run.trainer.method.solved[:16])
    assert end.isfinite().all()


def test_a_checkpoint_without_pairs_is_continued() -> None:
    run, again = steps("endpoint"), steps("endpoint")
    next(run)
    state = run.trainer.state_dict()
    again.trainer.load_state_dict({name: value for name, value in {**state, "method": {}}.items() if name != "stage"})
    assert [step.number for step in again] == list(range(2, 13))


@pytest.mark.filterwarnings("ignore:the teacher")
@pytest.mark.parametrize("method", METHODS)
def test_a_time_limit_holds_between_two_batches_of_pairs(method: str) -> None:
    teacher = Counted()
    limit = {"batch_size": 8, "pairs": 10**5, "n": 9, "max_time": 1e-9, "progress": False}
    assert "max_time" in str(pid.distill(teacher, method=method, **limit).stopped)
    assert teacher.samples < 10**5


@pytest.mark.filterwarnings("ignore:the teacher")
@pytest.mark.parametrize("wrap", [lambda endpoint: endpoint, lambda endpoint: pid.methods.Corrector(endpoint, 0.9)])
@pytest.mark.parametrize(("done", "batch_size"), [(0, 8), (1, 8), (5, 8), (0, 2), (2, 2)])
def test_the_plan_counts_the_pairs_that_are_left(
    wrap: Any, done: int, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a clock that runs while the teacher is evaluated, and only then."""
    teacher = Counted()
    run = pid.steps(teacher, method=wrap(pid.methods.Endpoint(pairs=24)), steps=12, batch_size=batch_size, n=9)
    for _ in range(done):
        next(run)
    monkeypatch.setattr(time, "perf_counter", lambda: float(teacher.samples))
    last = 2 * batch_size * (len(run.trainer.stages) - 1)  # the corrector's step, whose update is checked by a loss
    assert run.time_steps(1) == (max(0, 3 - done) * EIGHT + last) / (12 - done)


@pytest.mark.filterwarnings("ignore:the teacher")
@pytest.mark.parametrize("done", [0, 1, 3])
def test_the_plan_counts_what_each_stage_takes(done: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the first of three stages calls the teacher."""
    teacher = Counted()
    method = pid.methods.PD(calls=4, teacher_steps=2, shortening=1.0)
    run = pid.steps(teacher, method=method, data=torch.zeros(9, 2), steps=6, batch_size=8)
    for _ in range(done):
        next(run)
    monkeypatch.setattr(time, "perf_counter", lambda: float(teacher.samples))
    assert run.time_steps(1) == max(0, 2 - done) * 16 / (6 - done)
    assert [step.number for step in run] == list(range(done + 1, 7))


@pytest.mark.parametrize("measured_at", [0, 2])
def test_the_plan_leaves_the_run_as_it_was(measured_at: int) -> None:
    runs = [steps("endpoint"), steps("endpoint")]
    for number in range(12):
        if number == measured_at:
            runs[1].time_steps(1)
        assert next(runs[0]).loss == next(runs[1]).loss


@pytest.mark.parametrize("method", METHODS)
def test_an_evaluation_with_the_seed_of_the_run_has_other_starts(method: str) -> None:
    run = steps(method, seed=1)
    next(run)
    ours = run.trainer.method.z
    theirs = run.problem.sample_prior(64, torch.Generator().manual_seed(1))
    assert not (ours[:, None] == theirs).all(2).any()


class CountedImages(Counted):
    event_shape = (1, 8, 8)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        self.samples += len(x)
        return 0.5 * x


@pytest.mark.filterwarnings("ignore:the teacher")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("teacher", "solver", "n"),
    [(Counted, None, 250), (CountedImages, None, 18), (CountedImages, "dpm++", 18), (CountedImages, "euler", 250)],
)
def test_paths_of_images_take_fewer_calls_unless_a_solver_is_chosen(
    method: str, teacher: Any, solver: str | None, n: int
) -> None:
    run = steps(method, teacher(), n=pid.Config().n, solver=solver)
    assert run.config.n == n
    assert run.trainer.method.solver_for(run.problem) == ("dpm++" if n == 18 else "euler")
    # DSNO's path has four parts of equally many steps.
    per_path = 4 * -(-(n - 1) // 4) if method == "dsno" else n - 1
    assert samples_per_step(run)[0] == 8 * per_path


@pytest.mark.parametrize("method", ["pid", "boot", "freeflow", "corrector"])
def test_a_student_of_ends_is_none_of_paths(method: str) -> None:
    """Its network sees no time: on paths it would train without a word, to something far off."""
    options: dict[str, Any] = {"batch_size": 8, "steps": 4}
    student = pid.steps(RING, method="endpoint", pairs=32, n=10, **options).student
    with pytest.raises(ValueError, match="does not see t"):
        pid.steps(RING, student, method=method, **options)
    for accepts in ({"method": "corrector", "share": 0}, {"method": "endpoint", "pairs": 32}):
        assert next(pid.steps(RING, student, n=10, **accepts, **options)).loss > 0


def test_the_path_of_a_student_of_ends_is_the_straight_line_to_its_end(tmp_path: Path) -> None:
    result = pid.distill(pid.toy("ring"), method="endpoint", pairs=32, n=10, batch_size=8, steps=3, progress=False)
    z, times = 80 * torch.randn(5, 2), torch.tensor([80.0, 20.0, 0.3, 0.002], dtype=torch.float64)
    for student in (result.student, pid.load(result.save(tmp_path / "a")).student):
        path, end = student.trajectory(z, times), student.generate(z)
        share = ((times - 0.002) / (80 - 0.002)).float()
        torch.testing.assert_close(path, torch.lerp(end, z, share[:, None, None]), rtol=1e-5, atol=1e-5)
    log = pid.Trajectory(result.student.network, sigma_data=result.student.sigma_data)
    assert torch.equal(log(z, 0.002), result.generate(z))  # the network sees the same at the end
    network = pid.nets.MLP(2, width=8, depth=1)
    run = pid.steps(pid.toy("ring"), network, method="endpoint", pairs=32, n=10, batch_size=8, steps=1)
    assert run.student.time is result.student.time
