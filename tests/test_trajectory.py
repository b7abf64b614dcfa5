from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import pidlearn as pid
from pidlearn.equations.from_teacher import problem_from_teacher
from pidlearn.students.base import as_student
from pidlearn.students.boundaries import BOUNDARIES
from tests.strategies import random_network


@given(st.floats(0.5, 500.0), st.sampled_from(["hard", "increment"]), st.sampled_from([torch.float32, torch.float64]))
def test_boundary_is_met_to_the_last_bit(t_max: float, boundary: str, dtype: torch.dtype) -> None:
    trajectory = pid.Trajectory(random_network(3), t_max, boundary=boundary).to(dtype)
    z = t_max * torch.randn(7, 3, dtype=dtype)
    grid = pid.karras_grid(4, 0.002, t_max)
    for t in (t_max, torch.full((7,), t_max), torch.tensor(t_max, dtype=torch.float64), grid[0], grid[0].float()):
        assert torch.equal(trajectory(z, t), z)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_slope_is_the_derivative_of_the_line(boundary: str) -> None:
    trajectory = pid.Trajectory(torch.nn.Identity(), 3.0, boundary=boundary)
    t = torch.tensor([0.1, 1.0, 2.9], dtype=torch.float64)
    a, slope = trajectory.skip_term(t)
    (_, derivative) = torch.func.jvp(lambda s: trajectory.skip_term(s)[0], (t,), (torch.ones_like(t),))
    assert torch.allclose(slope, derivative, rtol=1e-14)
    assert a.dtype == torch.float64


def test_parts_add_up_in_one_call_of_the_network() -> None:
    batches = []

    class Network(torch.nn.Module):
        def forward(self, x, time):
            batches.append(len(x))
            return x * time[:, None]

    trajectory, z = pid.Trajectory(Network()), torch.randn(4, 2).double()
    times = [torch.full((4,), t, dtype=torch.float64) for t in (80.0, 3.0, 0.002)]
    bends = trajectory.learned_term(z, *times)
    assert batches == [12]
    for t, bend in zip(times, bends, strict=True):
        assert torch.allclose(trajectory(z, t), trajectory.skip_term(t)[0][:, None] * z + bend)


def test_the_formula() -> None:
    """PID's Eq. 7, written out."""
    network = pid.nets.MLP((1, 2, 2), width=8, depth=2).double()
    trajectory, z, t = pid.Trajectory(network, 80.0, sigma_data=0.5), 80 * torch.randn(3, 1, 2, 2).double(), 1.7
    f = network(z / (0.25 + 6400) ** 0.5, torch.full((3,), t).double().log() / 4)
    assert torch.allclose(trajectory(z, t), t / 80 * z + (1 - t / 80) * f, rtol=1e-12)


def test_sampling() -> None:
    student = pid.Trajectory(pid.nets.MLP((2, 3), width=8, depth=1), 10.0, event_shape=(2, 3))
    one, two = (student.sample(5, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(one, two)
    assert one.shape == (5, 2, 3)
    grid = pid.karras_grid(4, 0.01, 10.0)
    z = torch.randn(5, 2, 3)
    path = student.trajectory(z, grid)
    assert path.shape == (4, 5, 2, 3)
    assert torch.equal(path[0], z)
    assert torch.equal(path[2], student(z, grid[2]))


def test_labels_are_part_of_the_call() -> None:
    network = random_network(2, label_dim=3)
    student = pid.Trajectory(network, event_shape=(2,))
    z = torch.randn(4, 2)
    a, b = (student(z, 1.0, torch.full((4,), k)) for k in (0, 2))
    assert not torch.allclose(a, b)
    with pytest.raises(ValueError, match=r"0\.\.2"):
        student(z, 1.0, torch.full((4,), 3))


def test_many_samples_are_drawn_in_parts() -> None:
    network = pid.nets.MLP(2, width=8, fourier=4, label_dim=3)
    student, sizes = pid.Trajectory(network, event_shape=(2,)), []
    network.register_forward_pre_hook(lambda module, given: sizes.append(len(given[0])))
    labels = torch.arange(1500) % 3
    samples = student.sample(1500, labels, torch.Generator().manual_seed(1))
    assert sizes == [1024, 476]
    z = 80 * torch.randn(1500, 2, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(samples, student(z, 0.002, labels).detach())


def test_a_sample_of_a_network_with_classes_has_one() -> None:
    student = pid.Trajectory(random_network(2, label_dim=3), 10.0, event_shape=(2,)).double()
    generator = torch.Generator().manual_seed(1)
    z = 10 * torch.randn(6, 2, generator=generator, dtype=torch.float64)
    labels = torch.randint(3, (6,), generator=generator)
    drawn = student.sample(6, generator=torch.Generator().manual_seed(1))
    assert torch.equal(drawn, student(z, student.t_min, labels))
    given = student.sample(6, labels.flip(0), torch.Generator().manual_seed(1))
    assert torch.equal(given, student(z, student.t_min, labels.flip(0)))
    for wrong in ([0, 1, 2], torch.tensor([0, 1]), torch.zeros(6)):
        with pytest.raises(ValueError, match=r"int64 tensor of shape \(6,\)"):
            student.sample(6, wrong)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_whole_numbers_are_times(boundary: str) -> None:
    student = pid.Trajectory(random_network(2), 3.5, boundary=boundary).double()
    z = torch.randn(4, 2).double()
    for t in (2, torch.tensor(2), torch.full((4,), 2)):
        assert torch.equal(student(z, t), student(z, 2.0))


@pytest.mark.parametrize("t", [torch.ones(2), torch.ones(4, 1)])
def test_times_that_do_not_fit(t: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"one value per sample, \(4,\)"):
        pid.Trajectory(random_network(2))(torch.ones(4, 2), t)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"boundary": "firm"}, "boundary must be one of"),
        ({"sigma_data": 0.0}, "sigma_data"),
        ({"t_max": float("nan")}, "got t_max = nan, but t_max must be a finite number"),
        ({"t_max": 0.002}, "t_max"),
        ({"t_min": float("nan")}, "got t_min = nan, but t_min must be a finite number"),
        ({"t_max": 0.0, "t_min": 1.0}, "boundary='increment'"),
        ({"time": None}, "time must be one of"),
        ({"t_min": -5.0}, "t_min = -5.0, but time='log' needs positive times"),
        ({"sigma_data": float("inf")}, "sigma_data"),
        ({"c_in": float("nan")}, "got c_in = nan, but c_in must be a finite number, or None"),
        ({"event_shape": "ab"}, "event_shape must hold the sizes"),
        ({"event_shape": (0,)}, "event_shape must hold the sizes"),
    ],
)
def test_bad_options(options: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        pid.Trajectory(torch.nn.Identity(), **options)


def test_sampling_needs_a_shape() -> None:
    with pytest.raises(ValueError, match="event_shape"):
        pid.Trajectory(pid.nets.MLP(2)).sample(3)


def test_a_network_is_a_function() -> None:
    with pytest.raises(TypeError, match="a network is a function"):
        pid.Trajectory(None)


class TestNoClass:
    """Class-conditional students without class labels."""

    class Own(nn.Module):
        """A student of the user's own, of the problem's classes."""

        t_max, t_min = 80.0, 0.002

        def forward(self, z: Tensor, t: Tensor, class_labels: Tensor | None = None) -> Tensor:
            return z

    @staticmethod
    def unet(label_dropout: float) -> pid.Trajectory:
        options: dict[str, Any] = {"model_channels": 4, "channel_mult": [1], "num_blocks": 1, "attn_resolutions": []}
        return pid.Trajectory(pid.nets.SongUNet(4, 1, 1, label_dim=3, label_dropout=label_dropout, **options))

    def test_which_none_was_trained_for(self) -> None:
        conditional = pid.GaussianMixture([[0.0, 0.0]], 1.0)
        conditional.label_dim = 3  # type: ignore[attr-defined]
        own = as_student(self.Own(), problem_from_teacher(conditional))
        flat, images = torch.randn(2, 2), torch.randn(2, 1, 4, 4)
        labels = torch.tensor([0, 2])
        says = (
            r"trained for 3 classes and not for none: pass class_labels, int64 \(B,\) in 0..2, .* result.sample\(n\), "
            r".*set its attribute label_dropout to 1"
        )
        for student, z in (
            (pid.Trajectory(random_network(2, label_dim=3)).float(), flat),
            (own, flat),
            (self.unet(0.0), images),
        ):
            assert student.generate(z, labels).shape == z.shape
            for call, arguments in ((student.generate, ()), (student, (1.0,)), (student.trajectory, ([80.0, 1.0],))):
                with pytest.raises(ValueError, match=says):
                    call(z, *arguments)

    def test_which_label_dropout_trained_for(self) -> None:
        assert self.unet(0.1).generate(torch.randn(2, 1, 4, 4)).shape == (2, 1, 4, 4)
