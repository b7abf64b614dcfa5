"""What is read off a teacher, and what is said of one that cannot work."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pidlearn as pid
from pidlearn.config import resolve_settings
from pidlearn.equations import adaptive
from pidlearn.equations.from_teacher import problem_from_teacher
from pidlearn.equations.initial_value import InitialValueProblem
from pidlearn.evaluation import evaluate as evaluation
from pidlearn.methods.pid import recipes
from pidlearn.students.build import build_student


def box(n: int, generator: torch.Generator | None = None) -> Tensor:
    return torch.rand(n, 2, generator=generator)


def decay(x: Tensor, t: Tensor) -> Tensor:
    return -x


class Field(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.dropout = nn.Linear(2, 2), nn.Dropout(0.5)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.dropout(self.linear(x))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


class TestDiffusion:
    def test_is_read_off_the_teacher(self) -> None:
        ring = pid.toy("ring")
        for teacher in (ring, pid.DenoiserODE(ring)):
            problem = problem_from_teacher(teacher)
            assert (problem.t_start, problem.t_end, problem.event_shape) == (80.0, 0.002, (2,))
            assert problem.sigma_data == ring.std
            assert problem.label_dim == 0
        z = problem.sample_prior(4000, seeded())
        assert z.std().item() == pytest.approx(80, rel=0.03)
        assert problem.sample_labels(3) is None

    def test_a_bare_callable(self) -> None:
        problem = problem_from_teacher(lambda x, sigma: 0 * x, event_shape=[3, 4, 4])
        assert problem.event_shape == (3, 4, 4)
        assert problem.sigma_data == 0.5

    def test_what_a_teacher_leaves_open(self) -> None:
        class Open(nn.Module):
            label_dim = sigma_data = None

            def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
                return 0 * x

        problem = problem_from_teacher(Open(), event_shape=3)
        assert (problem.event_shape, problem.label_dim, problem.sigma_data) == ((3,), 0, 0.5)

    def test_labels(self) -> None:
        teacher = pid.nets.Preconditioned(pid.nets.MLP(2, width=8, label_dim=3))
        labels = problem_from_teacher(teacher).sample_labels(300, seeded())
        assert labels is not None
        assert labels.dtype == torch.int64
        assert labels.unique().tolist() == [0, 1, 2]

    def test_reference_is_eulers_path(self) -> None:
        problem, grid = problem_from_teacher(pid.toy("ring")), pid.karras_grid(9)
        z = problem.sample_prior(4, seeded())
        assert torch.equal(problem.reference(z, grid), pid.solve(problem.ode, z, grid))

    def test_a_teacher_is_asked_as_it_will_be_used(self) -> None:
        teacher = pid.nets.Preconditioned(pid.nets.MLP(2, width=8)).train()
        problem_from_teacher(pid.DenoiserODE(teacher))
        assert not teacher.training

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"t_start": 0.3}, r"t_max = 0.3 is below the standard deviation of the data"),
            ({"t_end": 0.0}, "t_min > 0"),
            ({"t_start": 1.0, "t_end": 2.0}, "t_min > 0"),
            ({"t_start": float("inf")}, "t_max"),
            ({"t_start": float("nan")}, "t_max"),
            ({"prior": box}, "leave prior out"),
            ({"teacher": lambda x, sigma: x}, "the teacher has no event_shape"),
            *[({"event_shape": shape}, "the sizes of one sample") for shape in ((), (0,), (-2,), (2.5,))],
        ],
    )
    def test_bad_input(self, options: dict[str, Any], says: str) -> None:
        with pytest.raises(ValueError, match=says):
            problem_from_teacher(**{"teacher": pid.toy("ring"), **options})

    def test_noise_that_is_barely_enough_is_told(self) -> None:
        with pytest.warns(UserWarning, match="raise t_max to 3.6"):
            problem_from_teacher(pid.toy("ring"), 2.0)

    def test_levels_that_the_teacher_does_not_know(self) -> None:
        teacher = pid.nets.Preconditioned(pid.nets.MLP((1, 4, 4), width=8))
        teacher.sigma_min, teacher.sigma_max = 0.01, 100.0
        with pytest.raises(ValueError, match=r"the span 0\.002 to 80 exceeds .* 0\.01 to 100"):
            problem_from_teacher(teacher, 80.0, 0.002)

    @pytest.mark.parametrize("wrong", [None, 3, "ring", torch.ones(3), {}])
    def test_what_is_no_teacher(self, wrong: object) -> None:
        with pytest.raises(TypeError, match=f"got a teacher of type {type(wrong).__name__}, but it must be a callable"):
            problem_from_teacher(wrong, event_shape=(2,))


class TestInitialValues:
    def test_is_read_off_the_prior(self) -> None:
        problem = problem_from_teacher(
            pid.VelocityODE(decay), 1.0, 0.0, lambda n, generator=None: torch.ones(n, 2, 3).double()
        )
        assert (problem.t_start, problem.t_end, problem.event_shape) == (1.0, 0.0, (2, 3))
        assert isinstance(problem, InitialValueProblem)
        assert problem.sample_prior(5).dtype == torch.float64

    def test_a_system_brings_its_own(self) -> None:
        problem = problem_from_teacher(pid.system("lotka_volterra"))
        assert (problem.t_start, problem.t_end, problem.event_shape) == (0.0, 7.0, (2,))
        assert torch.equal(problem.sample_prior(9, seeded()), pid.system("lotka_volterra").prior(9, seeded()))

    def test_what_is_given_replaces_a_systems_own(self) -> None:
        problem = problem_from_teacher(pid.system("lotka_volterra"), None, 2.0, box)
        assert (problem.t_start, problem.t_end) == (0.0, 2.0)
        assert torch.equal(problem.sample_prior(9, seeded()), box(9, seeded()))

    def test_a_prior_that_ignores_its_generator_is_made_to_obey(self) -> None:
        problem = problem_from_teacher(pid.VelocityODE(decay), 0.0, 1.0, lambda n, generator=None: torch.rand(n, 2))
        before = torch.get_rng_state()
        one, same = (problem.sample_prior(5, seeded()) for _ in range(2))
        assert torch.equal(one, same)
        generator = seeded()
        assert not torch.equal(*(problem.sample_prior(5, generator) for _ in range(2)))
        assert torch.equal(torch.get_rng_state(), before)

    def test_a_prior_that_cannot_obey_is_refused(self) -> None:
        own = np.random.default_rng(0)
        with pytest.raises(ValueError, match="differs from call to call"):
            problem_from_teacher(
                pid.VelocityODE(decay), 0.0, 1.0, lambda n, generator=None: torch.tensor(own.random((n, 2)))
            )

    @pytest.mark.slow
    def test_a_fast_field_gets_a_finer_mesh(self) -> None:
        meshes = []
        for rate in (1.0, 4.0, 10.0, 15.0):
            field = pid.VelocityODE(lambda x, t, rate=rate: rate * torch.stack([x[:, 1], -x[:, 0]], 1))
            problem = problem_from_teacher(field, 0.0, 10.0, box)
            config = resolve_settings(problem, pid.Config())[0]
            steps = config.windows * (config.n - 1)
            assert problem.coarse_error(steps) < 0.01
            assert 0.2 < problem.std.max() < 1.0  # the circles' own, not those of a solver that spirals out
            meshes.append((config.windows, config.n))
        assert meshes[0] == (40, 13)
        # Doubled until Heun's error is below 0.004; the last is the most that is tried.
        assert [windows * (n - 1) for windows, n in meshes] == [480, 1920, 7680, 7680]
        pair = resolve_settings(problem_from_teacher(field, 0.0, 1.0, box), pid.Config(windows=2))[0]
        assert (pair.windows, pair.n) == (2, 193)

    def test_units_of_coordinates_do_not_hide_a_fast_one(self) -> None:
        def field(x: Tensor, t: Tensor) -> Tensor:
            return torch.stack([0 * x[:, 0], 10 * x[:, 2], -10 * x[:, 1]], 1)

        def prior(n: int, generator: torch.Generator | None = None) -> Tensor:
            return torch.tensor([1000.0, 1.0, 1.0]) * torch.rand(n, 3, generator=generator)

        assert problem_from_teacher(pid.VelocityODE(field), 0.0, 10.0, prior).coarse_error(480) > 0.1

    def test_a_field_too_fast_for_any_mesh_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(recipes, "MAX_TOTAL_STEPS", 960)
        field = pid.VelocityODE(lambda x, t: 200 * torch.stack([x[:, 1], -x[:, 0]], 1))
        with pytest.warns(UserWarning, match="too few to follow this field"):
            resolve_settings(problem_from_teacher(field, 0.0, 10.0, box), pid.Config())

    def test_many_dimensions_are_told(self) -> None:
        def prior(n: int, generator: torch.Generator | None = None) -> Tensor:
            return torch.rand(n, 600, generator=generator)

        problem = problem_from_teacher(pid.VelocityODE(decay), 0.0, 1.0, prior)
        with pytest.warns(UserWarning, match=r"\d\d million weights"):
            build_student(problem, windows=40)

    def test_a_stiff_systems_reference_is_implicit(self) -> None:
        system = pid.system("stiff")
        problem = replace(problem_from_teacher(system), atol=1e-8)  # the coarse paths of its scale take seconds
        assert problem.integrator == "Radau"
        grid = torch.linspace(0, 6, 4).double()
        path = problem.reference(problem.sample_prior(2, seeded()), grid)
        assert torch.allclose(path[1:, :, 0], grid[1:, None].cos(), atol=1e-5)

    @pytest.mark.parametrize("as_class", [False, True])
    def test_a_field_of_single_precision_is_asked_in_its_own(self, as_class: bool) -> None:
        turn = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])

        class Own(pid.VelocityODE):
            def velocity(self, x: Tensor, t: Any, class_labels: Tensor | None = None) -> Tensor:
                return x @ turn.T

        field = Own(decay) if as_class else pid.VelocityODE(lambda x, t: x @ turn.T)
        problem = problem_from_teacher(field, 0.0, 1.0, box)
        path = problem.reference(torch.ones(2, 2), torch.tensor([0.0, 1.0]))
        assert path.dtype == torch.float32
        turned = torch.tensor([math.cos(1) + math.sin(1), math.cos(1) - math.sin(1)])
        assert torch.allclose(path[-1, 0], turned, atol=1e-4)

    def test_units_of_the_paths(self) -> None:
        # x = x_0 exp(-t), t from 0 to 3, x_0 uniform in the unit square: the mean is (1 - exp(-3)) / 6.
        problem = problem_from_teacher(pid.VelocityODE(decay), 0.0, 3.0, box)
        assert problem.mean.tolist() == pytest.approx([0.158, 0.158], abs=0.02)
        resting = problem_from_teacher(
            pid.VelocityODE(lambda x, t: 0 * x), 0.0, 1.0, lambda n, generator=None: torch.ones(n, 2)
        )
        assert (resting.std > 0).all()
        exploding = problem_from_teacher(pid.VelocityODE(lambda x, t: x**4 * 1e6), 0.0, 3.0, box)
        assert (exploding.std < 1).all()

    @pytest.mark.parametrize("span", [(0.0, 2.0), (2.0, 0.0)])
    def test_reference_is_exact(self, span: tuple[float, float]) -> None:
        problem = problem_from_teacher(pid.VelocityODE(decay), *span, box)
        z, grid = problem.sample_prior(4, seeded()), torch.linspace(*span, 5).double()
        exact = z * (span[0] - grid).exp()[:, None, None]
        torch.testing.assert_close(problem.reference(z, grid), exact, rtol=1e-6, atol=1e-7)

    def test_a_network_as_a_field(self) -> None:
        """It is asked in its own dtype and without dropout."""
        field = Field()
        problem = problem_from_teacher(pid.VelocityODE(field), 0.0, 1.0, box)
        assert not field.training
        grid = torch.linspace(0, 1, 3).double()
        path = problem.reference(problem.sample_prior(4, seeded()), grid)
        rate, offset = field.linear.weight.detach().double(), field.linear.bias.detach().double()
        steady = torch.linalg.solve(rate, -offset)
        exact = steady + (problem.sample_prior(4, seeded()) - steady) @ torch.matrix_exp(rate).T
        torch.testing.assert_close(path[-1].double(), exact, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"prior": None}, "prior="),
            ({"t_start": None}, "t_start="),
            ({"t_end": None}, "t_end="),
            ({"t_end": 0.0}, "different, finite times"),
            ({"t_end": float("nan")}, "finite"),
            ({"prior": 3.0}, "prior must be a function"),
            ({"prior": lambda n: torch.ones(n, 2)}, "generator"),
            ({"prior": lambda n, generator=None: torch.ones(n)}, r"returned \(2,\).*\(2, \*event\)"),
            ({"prior": lambda n, generator=None: torch.ones(5, 2)}, r"returned \(5, 2\)"),
            ({"prior": lambda n, generator=None: torch.ones(n, 2, dtype=torch.int64)}, "int64"),
            ({"prior": lambda n, generator=None: torch.full((n, 2), torch.nan)}, "finite"),
            ({"prior": lambda n, generator=None: [[0.0, 1.0]] * n}, "returned list"),
        ],
    )
    def test_bad_input(self, options: dict[str, Any], says: str) -> None:
        arguments = {"teacher": pid.VelocityODE(decay), "t_start": 0.0, "t_end": 1.0, "prior": box}
        with pytest.raises(ValueError, match=says):
            problem_from_teacher(**{**arguments, **options})


class TestReference:
    """Figures for fields on which one step size for all starts gets nowhere."""

    @staticmethod
    def friction(x: Tensor, t: Tensor) -> Tensor:
        return torch.stack([x[:, 1], -x[:, 0] - 0.5 * x[:, 0].sign()], 1)

    def test_of_a_field_with_jumps(self) -> None:
        options: dict[str, Any] = {"prior": box, "t_start": 0, "t_end": 10, "steps": 60, "windows": 4, "n": 9}
        result = pid.distill(pid.VelocityODE(self.friction), track_error=16, progress=False, **options)
        assert 0 < result.evaluate(256)["relative_rmse"] < 10

    def test_of_a_stiff_field_by_the_integrator_that_is_asked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(recipes, "MAX_TOTAL_STEPS", 480)
        monkeypatch.setattr(adaptive, "MAX_STEPS", 300)
        stiff = pid.VelocityODE(lambda x, t: -1e6 * (x - t.cos()[:, None]))
        with pytest.warns(UserWarning, match="too few to follow this field"):
            run = pid.steps(
                stiff, prior=lambda n, generator=None: torch.rand(n, 1, generator=generator), t_start=0, t_end=1
            )
        result = run.result()
        with pytest.raises(ValueError, match='integrator="Radau"'):
            result.evaluate(4)
        found = result.evaluate(4, integrator="Radau", rtol=1e-5, atol=1e-6)
        assert np.isfinite(list(found.values())).all()

    def test_of_a_diffusion_is_eulers(self) -> None:
        result = pid.steps(pid.toy("ring"), steps=1).result()
        with pytest.raises(ValueError, match="got rtol, but a diffusion is compared with Euler's path"):
            result.evaluate(8, rtol=1e-3)

    def test_does_not_depend_on_the_size_of_the_parts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        run = pid.steps(pid.VelocityODE(decay), prior=box, t_start=0, t_end=1, windows=2, n=5, steps=30)
        result = run.result()
        whole = result.evaluate(14)
        monkeypatch.setattr(evaluation, "PATH_NUMBERS", 101 * 2 * 7)
        assert result.evaluate(14) == pytest.approx(whole, rel=1e-9)
