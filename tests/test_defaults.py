"""The recipes are what the benchmarks measured: a change here calls for a new table."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import pidlearn as pid
from pidlearn.config import resolve_settings
from pidlearn.equations.from_teacher import problem_from_teacher
from pidlearn.students.build import build_flow_map, build_student
from pidlearn.students.directions import principal_directions


def blank(x: Tensor, sigma: Tensor) -> Tensor:
    return 0 * x


class Conv(torch.nn.Conv2d):
    """A network of the user's own, as F(x, c_noise)."""

    event_shape = (1, 4, 4)

    def forward(self, x: Tensor, c_noise: Tensor, class_labels: Tensor | None = None) -> Tensor:  # type: ignore[override]
        return super().forward(x)


class Own(pid.nets.Preconditioned):
    """Its denoiser."""

    def __init__(self) -> None:
        super().__init__(Conv(1, 1, 3, padding=1))


@pytest.mark.parametrize(
    ("teacher", "choices"),
    [
        (pid.toy("ring"), {"optimizer": "muon", "steps": 5500, "lr": 3e-3, "time_sampling": "lognormal"}),
        (pid.DenoiserODE(blank), {"steps": 7500, "batch_size": 128, "lr": 4e-3, "time_sampling": "lognormal"}),
        (pid.nets.Preconditioned(pid.nets.MLP((1, 8, 8), width=8)), {"steps": 7500, "batch_size": 128, "lr": 2.5e-3}),
        (
            pid.system("logistic"),
            {"optimizer": "muon", "steps": 7500, "lr": 4e-3, "warmup": 0.2, "time_sampling": "uniform"},
        ),
    ],
)
def test_choices(teacher: Any, choices: dict[str, Any]) -> None:
    shape = (1, 8, 8) if isinstance(teacher, pid.DenoiserODE) else None
    config = resolve_settings(problem_from_teacher(teacher, event_shape=shape), pid.Config())[0]
    assert {name: getattr(config, name) for name in choices} == choices
    ode = isinstance(teacher, pid.System)
    scheme = ("trapezoid", False, 40, 13) if ode else ("forward", True, 1, 250)
    assert (config.derivative, config.stop_gradient, config.windows, config.n) == scheme


def test_what_is_given_stays() -> None:
    given = pid.Config(lr=0.5, n=7, derivative="exact", stop_gradient=False)
    config = resolve_settings(problem_from_teacher(pid.toy("ring")), given)[0]
    assert (config.lr, config.n, config.derivative, config.stop_gradient) == (0.5, 7, "exact", False)
    assert config.steps == 5500


@pytest.mark.parametrize(("teacher", "lr"), [(pid.toy("ring"), 6e-3), (pid.system("logistic"), 1e-2)])
@pytest.mark.parametrize("optimizer", ["adam", "radam", lambda parameters, config: None])
def test_another_optimizer_has_a_rate_of_its_own(teacher: Any, lr: float, optimizer: Any) -> None:
    problem = problem_from_teacher(teacher)
    assert resolve_settings(problem, pid.Config(optimizer=optimizer))[0].lr == lr
    assert resolve_settings(problem, pid.Config(optimizer=optimizer, lr=0.5))[0].lr == 0.5
    assert resolve_settings(problem, pid.Config(optimizer="muon"))[0].lr < lr


@pytest.mark.parametrize(("steps", "factor"), [(5500, 1.0), (1375, 2.0), (22000, 0.5), (1, 4.0), (10**6, 0.5)])
def test_muons_rate_goes_with_the_root_of_the_steps(steps: int, factor: float) -> None:
    problem = problem_from_teacher(pid.toy("ring"))
    assert resolve_settings(problem, pid.Config(steps=steps))[0].lr == pytest.approx(3e-3 * factor)
    assert resolve_settings(problem, pid.Config(steps=steps, optimizer="adam"))[0].lr == 6e-3


@pytest.mark.parametrize(
    ("method", "few", "many"),
    [
        ("boot", ("muon", 3e-3), ("adam", 1e-3)),
        ("cd", ("muon", 3e-3), ("adam", 1e-3)),
        ("flow_map", ("muon", 3e-3), ("adam", 1e-3)),
        ("dsno", ("muon", 6e-3), ("adam", 1e-3)),
        ("reflow", ("muon", 6e-3), ("adam", 1e-3)),
        ("pd", ("muon", 6e-3), ("adam", 1e-3)),
        ("corrector", ("muon", 3e-3), ("adam", 4e-3)),
    ],
)
def test_other_methods_take_muon_where_there_are_few_dimensions(method: str, few: Any, many: Any) -> None:
    for shape, expected in (((2,), few), ((1, 8, 8), many)):
        problem = problem_from_teacher(pid.DenoiserODE(blank), event_shape=shape)
        config = resolve_settings(problem, pid.Config(method=method))[0]
        assert (config.optimizer, config.lr) == expected


def test_an_optimizer_of_the_methods_own_has_a_rate_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pid.methods.BOOT, "defaults", lambda self, problem, given: {"optimizer": "adam"})
    config = resolve_settings(problem_from_teacher(pid.toy("ring")), pid.Config(method="boot"))[0]
    assert (config.optimizer, config.lr) == ("adam", 4e-3)


def test_another_optimizer_of_other_methods_has_a_rate_of_its_own() -> None:
    config = pid.Config(method="boot", optimizer="adam")
    assert resolve_settings(problem_from_teacher(pid.toy("ring")), config)[0].lr == 4e-3


@pytest.mark.parametrize(
    ("teacher", "init", "says"),
    [
        (pid.DenoiserODE(blank), "official", "none that a student can copy.*random weights: .*from_network"),
        (pid.nets.Preconditioned(pid.nets.MLP((1, 8, 8), width=8)), "official", "none that a student can copy"),
        (pid.toy("ring"), "official", "none that a student can copy"),
        (pid.system("logistic"), "official", "none that a student can copy"),
        (Own(), "official", "network is a Conv, so the student starts as a copy of it"),
        (Own(), "random", "network is a Conv, so the student starts as a copy of it"),
    ],
)
@pytest.mark.filterwarnings("ignore:the teacher is a bare function")
def test_a_start_that_a_student_cannot_have_is_named(teacher: Any, init: str, says: str) -> None:
    shape = (1, 8, 8) if isinstance(teacher, pid.DenoiserODE) else None
    with pytest.warns(UserWarning, match=says):
        build_student(problem_from_teacher(teacher, event_shape=shape), init)


@pytest.mark.filterwarnings("ignore:the teacher is a bare function")
def test_a_flow_map_has_no_official_start() -> None:
    with pytest.warns(UserWarning, match=r'got init="official", a start of paths x\(z, t\).*: set init="teacher"'):
        build_flow_map(problem_from_teacher(pid.toy("ring")), "official", end_time=False)


@pytest.mark.parametrize("large", [False, True])
def test_students_of_a_diffusion_know_its_scale(large: bool) -> None:
    torch.manual_seed(0)
    teacher: Any = pid.EmpiricalDenoiser(torch.randn(9, 1, 5, 5)) if large else pid.toy("ring")
    problem = problem_from_teacher(teacher)
    student = build_student(problem)
    assert isinstance(student, pid.Trajectory)
    assert (student.sigma_data, student.event_shape) == (teacher.std, teacher.event_shape)
    # Layer norms are worth their time in many dimensions only.
    assert any(isinstance(part, torch.nn.LayerNorm) for part in student.modules()) == large


class TestDirections:
    """Principal directions of the samples, for students of teachers without a network."""

    @staticmethod
    def teacher() -> pid.SubspaceMixture:
        torch.manual_seed(0)
        basis = torch.linalg.qr(torch.randn(144, 3)).Q
        inner = pid.GaussianMixture(torch.zeros(1, 3), torch.tensor([[4.0, 1.0, 0.25]]))
        return pid.SubspaceMixture(inner, basis, torch.randn(1, 12, 12), off_plane_std=0.01)

    def test_are_the_principal_ones_of_its_density(self) -> None:
        teacher: Any = self.teacher()
        directions = principal_directions(problem_from_teacher(teacher), 3)
        assert directions is not None
        stds = directions.norm(dim=0)
        # The ratio of two standard deviations of 1,024 samples has an error of 1 / sqrt(1024), 3 %: three times that.
        torch.testing.assert_close(stds / stds[0], torch.tensor([1.0, 0.5, 0.25]).double(), atol=0, rtol=0.1)
        cosines = ((directions / stds).T @ teacher.basis).diagonal().abs()
        assert cosines.min() > 0.995
        assert directions.square().sum().item() == pytest.approx(3)

    def test_are_the_students(self) -> None:
        problem = problem_from_teacher(self.teacher())
        student: Any = build_student(problem)
        assert student.network.directions == 128
        directions: Any = principal_directions(problem, 128)
        torch.testing.assert_close(student.network.basis, directions.float())
        torch.testing.assert_close(student.network.write.weight, student.network.basis)

    @pytest.mark.filterwarnings("ignore:the teacher is a bare function")
    @pytest.mark.parametrize(
        ("spread", "seen"), [((1.0, 0.0), 128), ((1.0, 0.05), 128), ((1.0, 0.1), 0), ((1.0, 1.0), 0)]
    )
    def test_are_seen_alone_only_if_the_samples_vary_in_few(self, spread: tuple[float, float], seen: int) -> None:
        """Beyond the 40 largest of 200 variances, the others are a share of 0, 0.01, 0.04 and 1 of those."""
        variances = torch.tensor(spread).square().repeat_interleave(torch.tensor([40, 160]))

        def teacher(x: torch.Tensor, sigma: Any, class_labels: Any = None) -> torch.Tensor:
            return x * variances / (variances + torch.as_tensor(sigma).reshape(-1, 1) ** 2)

        student: Any = build_student(problem_from_teacher(teacher, event_shape=(200,)))
        assert student.network.directions == seen

    @pytest.mark.parametrize(
        "teacher",
        [
            pid.toy("ring"),
            pid.EmpiricalDenoiser(torch.randn(9, 1, 8, 8)),
            pid.nets.Preconditioned(pid.nets.MLP((1, 12, 12), width=8)),
        ],
    )
    def test_are_not_for_few_dimensions_or_copies(self, teacher: Any) -> None:
        student: Any = build_student(problem_from_teacher(teacher))
        assert student.network.directions == 0
