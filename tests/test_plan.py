"""The plan: its numbers, and that measuring leaves no trace."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import pidlearn as pid
from pidlearn.cli.cost import plan
from pidlearn.run import Run
from tests.counting import Counting
from tests.runs import CASES
from tests.tiny import teacher


def weights(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_numbers() -> None:
    torch.manual_seed(0)
    denoiser = teacher()
    run = pid.steps(denoiser, pid.nets.MLP((1, 8, 8), width=8, depth=1), steps=40, batch_size=6, micro_batch=4)
    told = plan(run, steps=1)
    assert told.teacher == weights(denoiser)
    assert told.student == weights(run.student) != told.teacher
    assert (told.batch_size, told.processes, told.micro_batch, told.steps, told.device) == (6, 1, 4, 40, "CPU")
    assert told.seconds > 0
    assert told.images_per_second == 6 / told.seconds
    assert told.memory is None or told.memory > 2**26  # torch alone takes more
    next(run)
    assert plan(run, steps=1).steps == 39


def test_a_formula_has_no_weights() -> None:
    told = plan(pid.steps(pid.toy("ring"), steps=2, batch_size=4), steps=1)
    assert told.teacher == 0
    assert told.micro_batch == 4
    assert str(told).startswith("teacher 0 parameters, student ")


def test_a_share_of_the_batch_is_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    run = pid.steps(pid.toy("ring"), steps=2, batch_size=9)
    monkeypatch.setattr(run.processes, "size", 4)
    assert plan(run, steps=1).micro_batch == 2
    assert plan(run, steps=1).processes == 4


def test_text() -> None:
    told = plan(pid.steps(pid.toy("ring"), steps=2000, batch_size=4), steps=1)
    told = replace(told, teacher=55_733_891, student=950, seconds=2.0, memory=3 * 2**29, device="CUDA")
    assert str(told) == (
        "teacher 55.7 million parameters, student 950; on CUDA, peak memory 1.5 GiB\n"
        "2,000 steps of 4 samples by 1 process, 4 in memory at a time\n"
        "2 samples/s, 2 s per step: about 1:06:40 left"
    )
    assert "peak" not in str(replace(told, memory=None))
    assert "by 8 processes," in str(replace(told, processes=8))


def rows(run: Run, measured_at: int | None) -> list[Any]:
    """The run's losses and its end, measured before the step of that number."""
    losses = []
    for number in range(run.config.steps):
        if number == measured_at:
            plan(run)
        losses.append(next(run).loss)
    result = run.result()
    students = [result.student, *result.averages.values()]
    return [losses, [value for student in students for value in student.state_dict().values()], torch.rand(3)]


ODE = CASES["random numbers of the process"]
CHOICES = {"steps": 24, "batch_size": 4, "n": 8}


@pytest.mark.parametrize("measured_at", [0, 9, 23])
@pytest.mark.parametrize(
    "make",
    [
        lambda: pid.steps(pid.toy("ring"), pid.nets.MLP(2, width=8, fourier=4), ema=(0.9, 0.5), **CHOICES),
        lambda: pid.steps(pid.toy("ring"), pid.nets.MLP(2, width=8, fourier=4), optimizer="radam", **CHOICES),
        # Its prior draws from the process's random numbers, and with step 24 its third window begins.
        lambda: pid.steps(ODE.teacher(), **ODE.options, **CHOICES),
    ],
)
def test_a_trial_leaves_the_run_as_it_was(make: Any, measured_at: int) -> None:
    found = []
    for at in (None, measured_at):
        torch.manual_seed(3)
        found.append(rows(make(), at))
    one, two = found
    assert one[0] == two[0]
    assert all(torch.equal(a, b) for a, b in zip(one[1], two[1], strict=True))
    assert torch.equal(one[2], two[2])


@pytest.mark.parametrize(
    ("settings", "measured_at"),
    [
        ({"share": 0.0}, 0),  # in its own stage from the first step
        ({"share": 0.5}, 4),  # the measured steps are of both stages
        ({"share": 0.5, "first": "cd"}, 5),
        ({"share": 0.5, "first": pid.methods.PD(calls=2, teacher_steps=4)}, 2),
        ({"share": 0.5}, 7),
    ],
)
def test_a_second_network_in_training_is_left_too(settings: dict[str, Any], measured_at: int) -> None:
    def run() -> Run:
        return pid.steps(pid.toy("ring"), method="corrector", steps=10, batch_size=4, n=9, **settings)

    (*_, one, _), (*_, two, _) = (rows(run(), at) for at in (None, measured_at))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("measured_at", [0, 3])
def test_a_state_that_a_method_changes_in_place_is_left_too(measured_at: int) -> None:
    one, two = (rows(pid.steps(pid.toy("ring"), method=Counting(), **CHOICES), at)[0] for at in (None, measured_at))
    assert one == two


def test_of_a_convolutional_student_too() -> None:
    losses = [[step.loss for step in measured(pid.steps(teacher(), steps=3, batch_size=2), m)] for m in (False, True)]
    assert losses[0] == losses[1]


def measured(run: Run, really: bool) -> Run:
    if really:
        plan(run)
    return run


def test_a_trial_that_fails_leaves_it_too() -> None:
    torch.manual_seed(3)
    run = pid.steps(pid.toy("ring"), pid.nets.MLP(2, width=8), **{**CHOICES, "lr": 1e30, "constant": True})
    before = [p.detach().clone() for p in run.student.parameters()]
    with pytest.raises(ValueError, match="smaller lr"):
        plan(run, steps=10)
    assert run.trainer.step == 0
    assert all(torch.equal(a, b) for a, b in zip(before, run.student.parameters(), strict=True))
