"""The recipes are what the benchmarks measured: a change here calls for a new table."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import pidlearn as pid
from pidlearn.equations.problem import problem_of
from pidlearn.students.build import config_for, student_for


def blank(x: Tensor, sigma: Tensor) -> Tensor:
    return 0 * x


@pytest.mark.parametrize(
    ("teacher", "choices"),
    [
        (pid.toy("ring"), {"steps": 7000, "batch_size": 256, "lr": 6e-3, "index": "lognormal"}),
        (pid.DenoiserODE(blank), {"steps": 7500, "batch_size": 128, "lr": 4e-3, "index": "lognormal"}),
        (pid.nets.Preconditioned(pid.nets.MLP((1, 8, 8), width=8)), {"steps": 7500, "batch_size": 128, "lr": 2.5e-3}),
        (pid.system("logistic"), {"steps": 9500, "batch_size": 128, "lr": 1e-2, "warmup": 0.2, "index": "uniform"}),
    ],
)
def test_choices(teacher: Any, choices: dict[str, Any]) -> None:
    shape = (1, 8, 8) if isinstance(teacher, pid.DenoiserODE) else None
    config = config_for(problem_of(teacher, event_shape=shape))
    assert {name: getattr(config, name) for name in choices} == choices
    ode = isinstance(teacher, pid.System)
    scheme = ("trapezoid", False, 40, 13) if ode else ("forward", True, 1, 250)
    assert (config.derivative, config.stop_gradient, config.windows, config.n) == scheme


def test_what_is_given_stays() -> None:
    given = pid.Config(lr=0.5, n=7, derivative="exact", stop_gradient=False)
    config = config_for(problem_of(pid.toy("ring")), given)
    assert (config.lr, config.n, config.derivative, config.stop_gradient) == (0.5, 7, "exact", False)
    assert config.steps == 7000


@pytest.mark.parametrize("large", [False, True])
def test_students_of_a_diffusion_know_its_scale(large: bool) -> None:
    torch.manual_seed(0)
    teacher: Any = pid.EmpiricalDenoiser(torch.randn(9, 1, 5, 5)) if large else pid.toy("ring")
    problem = problem_of(teacher)
    student = student_for(problem, config_for(problem))
    assert isinstance(student, pid.Trajectory)
    assert (student.sigma_data, student.event_shape) == (teacher.std, teacher.event_shape)
    # Layer norms are worth their time in many dimensions only.
    assert any(isinstance(part, torch.nn.LayerNorm) for part in student.modules()) == large
