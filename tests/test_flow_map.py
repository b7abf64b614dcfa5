"""Flow maps X(x; s -> t): their boundary, what a copy of a teacher starts as, and sampling in several calls."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import pidlearn as pid
from pidlearn.equations.diffusion import Diffusion
from pidlearn.equations.from_teacher import problem_from_teacher
from pidlearn.nets.noise_parametrization import VP
from pidlearn.students.build import build_flow_map
from pidlearn.students.flow_map import ConsistencyFunction, FlowMap
from tests.tiny import teacher as unet_teacher

GRID = pid.karras_grid(9)


def network(**options: Any) -> pid.nets.MLP:
    net = pid.nets.MLP(2, width=16, depth=2, fourier=8, **options).double()
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.5)
    return net


def points(n: int = 6) -> tuple[Tensor, Tensor]:
    s = torch.linspace(0.01, 60, n, dtype=torch.float64)
    return torch.randn(n, 2, dtype=torch.float64) * (s[:, None] + 0.5), s


@pytest.mark.parametrize("end_time", [False, True])
def test_a_step_of_no_length_goes_nowhere(end_time: bool) -> None:
    x, s = points()
    assert torch.equal(FlowMap(network(end_time=end_time))(x, s, s), x)


def test_a_step_towards_the_denoised_sample_is_eulers() -> None:
    ring = pid.toy("ring")
    student = FlowMap(network())
    student.denoised = lambda x, s, t, labels=None: ring.denoise(x, s)  # type: ignore[method-assign]
    z = 80 * torch.randn(5, 2, dtype=torch.float64)
    path = pid.solve(pid.DenoiserODE(ring), z, GRID)
    torch.testing.assert_close(student.generate(z, calls=8), path[-1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("parametrization", ["EDMPrecond", "VPPrecond", "iDDPMPrecond"])
@pytest.mark.parametrize("end_time", [False, True])
def test_a_copied_teacher_starts_as_its_denoiser(parametrization: str, end_time: bool) -> None:
    options = {"model_channels": 8, "channel_mult": [1], "num_blocks": 1, "attn_resolutions": [], "label_dim": 3}
    if parametrization == "iDDPMPrecond":
        options["model_type"] = "SongUNet"
    D = getattr(pid.nets, parametrization)(8, 1, **options)
    for p in D.parameters():
        torch.nn.init.normal_(p, std=0.1)
    problem = problem_from_teacher(D, 40.0, 0.02)
    student = build_flow_map(problem, end_time=end_time).eval()
    x, labels = 3 * torch.randn(4, 1, 8, 8), torch.tensor([0, 1, 2, 0])
    s, t = torch.tensor([0.5, 3.0, 20.0, 40.0]), torch.tensor([0.02, 1.0, 20.0, 0.02])
    expected = pid.DenoiserODE(D).denoise(x, s, labels)
    atol = 1e-2 if parametrization == "iDDPMPrecond" else 1e-4  # which rounds s to its levels
    ratio = (t / s)[:, None, None, None]
    torch.testing.assert_close(student(x, s, t, labels), ratio * x + (1 - ratio) * expected, rtol=1e-4, atol=atol)
    assert student.noise_parametrization is D.noise_parametrization
    assert student.takes_end_time is end_time
    with torch.no_grad():
        assert not any(a is b for a, b in zip(student.network.parameters(), D.parameters(), strict=False))


def test_a_random_start_has_other_weights() -> None:
    problem = problem_from_teacher(unet_teacher())
    one, two = (build_flow_map(problem, init, end_time=True) for init in ("teacher", "random"))
    assert one.network.options == two.network.options
    assert not torch.equal(one.network.map_layer0.weight, two.network.map_layer0.weight)


def test_third_party_networks_take_one_time() -> None:
    D = pid.teachers.from_network(torch.nn.Conv2d(1, 1, 3, padding=1), "vp", event_shape=(1, 8, 8))
    assert isinstance(D.noise_parametrization, VP)


def test_the_end_time_matters_once_it_is_trained() -> None:
    net = pid.nets.SongUNet(
        8, 1, 1, model_channels=8, channel_mult=[1], num_blocks=1, attn_resolutions=[], end_time=True
    )
    x, c = torch.randn(2, 1, 8, 8), torch.zeros(2)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.1)
    assert not torch.equal(net(x, c, end_time=c), net(x, c, end_time=c + 1))
    with pytest.raises(ValueError, match="got no end_time, but this network takes one: pass it"):
        net(x, c)
    with pytest.raises(ValueError, match="got an end_time, but this network takes a single time"):
        pid.nets.MLP(2)(torch.zeros(1, 2), c[:1], end_time=c[:1])


class TestSeveralCalls:
    def test_of_a_flow_map_are_a_composition(self) -> None:
        student, z = FlowMap(network(end_time=True)), 80 * torch.randn(2000, 2, dtype=torch.float64)
        x = z
        for s, t in pairwise(pid.karras_grid(4)):
            x = student(x, s, t)
        # In chunks, whose matrix products round differently.
        torch.testing.assert_close(student.generate(z, calls=3), x, rtol=1e-10, atol=1e-10)
        assert torch.equal(student.generate(z[:9]), student(z[:9], 80.0, 0.002))

    def test_of_a_consistency_function_add_noise(self) -> None:
        student, z = ConsistencyFunction(network()), 80 * torch.randn(7, 2, dtype=torch.float64)
        (s,) = pid.karras_grid(3)[1:-1].tolist()
        noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(4), dtype=z.dtype)
        again = student(z, 80.0, 0.002) + math.sqrt(s * s - 0.002**2) * noise
        made = student.generate(z, calls=2, generator=torch.Generator().manual_seed(4))
        torch.testing.assert_close(made, student(again, s, 0.002), rtol=1e-12, atol=1e-12)
        assert torch.equal(student.generate(z), student(z, 80.0, 0.002))

    def test_its_path_is_drawn(self) -> None:
        student, z = FlowMap(network(end_time=True)), 80 * torch.randn(3, 2, dtype=torch.float64)
        path = student.trajectory(z, GRID)
        assert torch.equal(path[0], z)
        assert torch.equal(path[-1], student(z, 80.0, 0.002))


def test_times_outside_are_refused() -> None:
    student, (x, s) = FlowMap(network(end_time=True)), points()
    for times in ((s, 0.0), (s, -1.0), (90.0, 1.0), (s, math.nan)):
        with pytest.raises(ValueError, match=r"but this student is defined for t from 80 to 0\.002"):
            student(x, *times)
    with pytest.raises(ValueError, match="a flow map runs from noise to data: swap them"):
        FlowMap(network(), 0.002, t_min=80.0)


def test_times_that_rise_are_refused() -> None:
    student, (x, s) = FlowMap(network(end_time=True)), points()
    t = s.clone()
    t[0] = 1.5 * s[0]
    for times in ((s, t), (1.0, 5.0)):
        with pytest.raises(ValueError, match=r"got times s = .*, but a flow map carries from noise to data, s above"):
            student(x, *times)
    assert student(x, s, s.float()).isfinite().all()  # some of which are above s, but only by rounding
    assert (s.float() > s).any()
    assert student(x[:0], s[:0], s[:0]).shape == (0, 2)


def test_an_ode_has_no_flow_map_yet() -> None:
    system = problem_from_teacher(pid.system("pendulum"))
    assert not isinstance(system, Diffusion)
    with pytest.raises(ValueError, match="this method trains a student of a diffusion: use the method pid"):
        build_flow_map(system, end_time=True)


@pytest.mark.parametrize("kind", [FlowMap, ConsistencyFunction])
def test_files_give_the_same_samples(kind: type[FlowMap], tmp_path: Path) -> None:
    from pidlearn.students import files

    for parametrization in (None, VP()):
        student = kind(network(end_time=True).float(), noise_parametrization=parametrization, event_shape=(2,))
        files.save(student, {}, {}, None, tmp_path / "student")
        again, *_ = files.read(tmp_path / "student")
        assert type(again) is kind
        z = 80 * torch.randn(4, 2)
        assert torch.equal(
            again.generate(z, calls=2, generator=torch.Generator().manual_seed(1)),
            student.generate(z, calls=2, generator=torch.Generator().manual_seed(1)),
        )


def test_one_class_for_all_samples_of_several_chunks() -> None:
    torch.manual_seed(0)
    student = FlowMap(pid.nets.MLP(2, width=8, depth=1, label_dim=3))
    for p in student.parameters():
        torch.nn.init.normal_(p, std=0.3)
    z = 80 * torch.randn(1500, 2)
    of_one, of_each = (student.generate(z, labels) for labels in (torch.tensor([2]), torch.full((1500,), 2)))
    assert of_one.shape == z.shape
    assert torch.equal(of_one, of_each)
