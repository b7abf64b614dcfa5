"""Flow-matching networks: the same paths in other coordinates, and a student that starts from the network."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import pidlearn as pid
from pidlearn.equations.from_teacher import problem_from_teacher
from pidlearn.nets.adapted import AdaptedStudent
from tests.teachers.tiny import Velocity, exact_velocity

SHORT: dict[str, Any] = {"steps": 3, "batch_size": 4, "n": 8, "progress": False}


def denoiser(**options: Any) -> Any:
    torch.manual_seed(3)
    return pid.teachers.from_flow(Velocity(label_dim=options.get("label_dim", 0)), event_shape=(1, 6, 6), **options)


@pytest.mark.parametrize("data_at", [0, 1])
class TestExactly:
    """The velocity of a mixture, in closed form."""

    mixture = pid.toy("anisotropic")

    def teacher(self, data_at: int) -> Any:
        return pid.teachers.from_flow(exact_velocity(self.mixture, data_at), data_at=data_at, event_shape=2)

    def test_is_the_mixtures_denoiser(self, data_at: int) -> None:
        x0 = self.mixture.sample(64).double()
        for sigma in (0.002, 0.1, 1.0, 9.0, 80.0):
            x = x0 + sigma * torch.randn_like(x0)
            ours = self.teacher(data_at)(x, sigma)
            assert ours.dtype == torch.float64
            torch.testing.assert_close(ours, self.mixture.denoise(x, sigma), rtol=0, atol=1e-11)

    def test_has_the_flows_own_paths(self, data_at: int) -> None:
        """SciPy's solution of the flow in its own time is that of our probability flow, from the same noise."""
        z = 80 * torch.randn(16, 2, dtype=torch.float64)
        sigmas = torch.tensor([80.0, 5.0, 0.7, 0.002], dtype=torch.float64)
        ours = pid.solve(pid.DenoiserODE(self.teacher(data_at)), z, sigmas, "scipy", rtol=1e-8, atol=1e-8)
        times = sigmas / (1 + sigmas) if data_at == 0 else 1 / (1 + sigmas)
        flow = pid.solve(
            pid.VelocityODE(exact_velocity(self.mixture, data_at)), z / 81, times, "scipy", rtol=1e-8, atol=1e-8
        )
        torch.testing.assert_close(ours, flow * (1 + sigmas[:, None, None]), rtol=1e-6, atol=1e-6)

    def test_asks_at_the_flows_time(self, data_at: int) -> None:
        seen: list[float] = []

        def velocity(x: Tensor, t: Tensor) -> Tensor:
            seen.append(t[0].item())
            return 0 * x

        problem = problem_from_teacher(pid.teachers.from_flow(velocity, data_at=data_at, event_shape=2))
        for t in (problem.t_start, problem.t_end):
            problem.ode.rhs(torch.zeros(1, 2, dtype=torch.float64), t)
        noise = [80 / 81, 0.002 / 1.002]
        assert seen == pytest.approx(noise if data_at == 0 else [1 - t for t in noise])


class TestDataAt:
    """Flows of Gaussian data N(m, s^2), read in either direction of time."""

    @staticmethod
    def warned(velocity: Any, **options: Any) -> list[str]:
        teacher = pid.teachers.from_flow(velocity, event_shape=2, **options)
        problem = problem_from_teacher(teacher)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            problem.check_teacher(249)
        return [str(warning.message) for warning in caught]

    @pytest.mark.parametrize("mean", [0.0, 5.0, -2.0])
    @pytest.mark.parametrize("std", [0.1, 0.5, 1.0, 1.4, 3.0])
    def test_the_wrong_one_is_noticed(self, std: float, mean: float) -> None:
        for data_at in (0, 1):
            velocity = exact_velocity(pid.GaussianMixture([[mean, mean]], std**2), data_at)
            assert not self.warned(velocity, data_at=data_at, sigma_data=std)
            wrong = self.warned(velocity, data_at=1 - data_at, sigma_data=std)
            if (mean, std) == (0, 1):  # noise to noise: the same flow in both directions
                assert not wrong
            else:
                assert len(wrong) == 1
                assert re.search(r"data_at=[01]|sigma_data is .* data_at=[01]", wrong[0])

    @pytest.mark.parametrize("name", ["moons", "ring", "checkerboard"])
    def test_of_other_densities(self, name: str) -> None:
        toy = pid.toy(name)
        velocity = exact_velocity(toy, 1)
        assert not self.warned(velocity, data_at=1, sigma_data=toy.std)
        assert len(self.warned(velocity, data_at=0, sigma_data=toy.std)) == 1

    @pytest.mark.parametrize("mean", [0.0, 5.0])
    @pytest.mark.parametrize("std", [0.5, 1.4, 3.0])
    def test_a_network_may_be_off_by_a_fifth(self, std: float, mean: float) -> None:
        exact = exact_velocity(pid.GaussianMixture([[mean, mean]], std**2), 0)
        for off in (lambda x: 0.2 * torch.sin(3 * x), lambda x: -0.2 * torch.ones_like(x), lambda x: 0.1 * x.sign()):
            assert not self.warned(lambda x, t, off=off: exact(x, t) * (1 + off(x)), sigma_data=std)

    def test_a_standard_deviation_that_was_left_out_comes_first(self) -> None:
        for std in (1.4, 3.0, 0.1):
            (said,) = self.warned(exact_velocity(pid.GaussianMixture([[0.0, 0.0]], std**2), 0))
            first = re.search(r"sigma_data is 0\.5: pass sigma_data=(\S+), or, .*, data_at=1", said)
            assert first
            assert float(first[1]) == pytest.approx(std, rel=0.1)


class TestDistilled:
    def test_points_get_the_recipe_of_points(self) -> None:
        mixture = pid.toy("ring")
        teacher = pid.teachers.from_flow(exact_velocity(mixture, 0), event_shape=2, sigma_data=mixture.std)
        run = pid.steps(teacher)
        assert isinstance(run.student.network, pid.nets.MLP)
        assert run.config == pid.steps(mixture).config

    def test_a_network_end_to_end(self) -> None:
        teacher = denoiser()
        weights = {name: value.clone() for name, value in teacher.state_dict().items()}
        result = pid.distill(teacher, **SHORT)
        assert isinstance(result.student.network, AdaptedStudent)
        assert result.sample(3).shape == (3, 1, 6, 6)
        moved = result.student.network.network.state_dict()
        for name, value in teacher.network.state_dict().items():
            assert torch.equal(value, weights[f"network.{name}"])
            assert not torch.equal(value, moved[name])

    @pytest.mark.parametrize("data_at", [0, 1])
    def test_starts_from_the_teachers_knowledge(self, data_at: int) -> None:
        teacher = denoiser(data_at=data_at).double()
        student = pid.steps(teacher).student.double()
        z = 80 * torch.randn(3, 1, 6, 6, dtype=torch.float64)
        t = torch.full((3,), 80.0, dtype=torch.float64)
        ours = student.network(student.c_in * z, t.log() / 4)
        torch.testing.assert_close(ours, teacher(z, 80.0))

    def test_labels(self) -> None:
        teacher = denoiser(label_dim=3)
        result = pid.distill(teacher, **SHORT)
        z, one = 80 * torch.randn(2, 1, 6, 6), torch.tensor([1, 1])
        with torch.no_grad():
            assert not torch.equal(result.student(z, 0.002, one), result.student(z, 0.002, one + 1))
        assert result.sample(2, one).shape == (2, 1, 6, 6)

    def test_saved_and_loaded(self, tmp_path: Path) -> None:
        teacher = denoiser()
        result = pid.distill(teacher, **SHORT)
        path = result.save(tmp_path / "student.safetensors")
        loaded = pid.load(path, teacher)
        z = 80 * torch.randn(2, 1, 6, 6)
        with torch.no_grad():
            assert torch.equal(loaded.student(z, 0.002), result.student(z, 0.002))
        assert any(p.requires_grad for p in loaded.student.parameters())
        with pytest.raises(ValueError, match=r"copy of its teacher's network.*pass that teacher too"):
            pid.load(path)
        with pytest.raises(ValueError, match="another teacher's network, which has another noise parametrization"):
            pid.load(path, denoiser(data_at=1 - teacher.noise_parametrization.data_at))


def test_as_a_plain_ode() -> None:
    """The other way, in the flow's own time: the student is a network of one's own, for all of the span at once."""

    def noise(n: int, generator: torch.Generator | None = None) -> Tensor:
        return torch.randn(n, 1, 6, 6, generator=generator)

    torch.manual_seed(3)
    result = pid.distill(pid.VelocityODE(Velocity()), Velocity(), prior=noise, t_start=1.0, t_end=0.0, **SHORT)
    assert (result.config.windows, result.student.t_max, result.student.t_min) == (1, 1.0, 0.0)
    assert result.sample(2).shape == (2, 1, 6, 6)


def test_half_precision_weights() -> None:
    teacher = denoiser().to(torch.bfloat16)  # its convolutions take nothing else
    out = teacher(torch.randn(2, 1, 6, 6, dtype=torch.float64), 1.0)
    assert out.dtype == torch.float64
    assert pid.steps(teacher).student.network.network.module.last.weight.dtype == torch.float32


def test_the_networks_own_shape_and_classes() -> None:
    network = Velocity()
    network.event_shape = (1, 6, 6)
    network.label_dim = 4
    problem = problem_from_teacher(pid.teachers.from_flow(network))
    assert (problem.event_shape, problem.label_dim) == ((1, 6, 6), 4)
    assert problem_from_teacher(pid.teachers.from_flow(network, label_dim=0)).label_dim == 0
    with pytest.raises(ValueError, match="event_shape"):
        problem_from_teacher(pid.teachers.from_flow(Velocity()))


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"velocity": 3}, TypeError, "type int"),
        ({"velocity": Velocity(), "data_at": 2}, ValueError, "data_at = 2; expected .* 0 or 1"),
        ({"velocity": Velocity(), "sigma_data": 0.0}, ValueError, "sigma_data"),
        ({"velocity": Velocity(), "event_shape": 0}, ValueError, "got event_shape = 0, but .* sizes of one sample"),
        ({"velocity": Velocity(), "event_shape": (1, -6)}, ValueError, "event_shape"),
        ({"velocity": Velocity(), "label_dim": -1}, ValueError, "label_dim"),
    ],
)
def test_bad_input(arguments: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        pid.teachers.from_flow(**arguments)


def test_an_output_of_another_shape() -> None:
    teacher = pid.teachers.from_flow(lambda x, t: x[:, :1], event_shape=(3, 4, 4))
    with pytest.raises(ValueError, match=r"returned \(2, 1, 4, 4\), but must return the shape of x, \(2, 3, 4, 4\)$"):
        teacher(torch.ones(2, 3, 4, 4), 1.0)
