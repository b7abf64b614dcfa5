"""DSNO: temporal convolutions, the operator that returns a path in one call, and regression on solved paths."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import pidlearn as pid
from pidlearn.equations.from_teacher import problem_from_teacher
from pidlearn.methods.supervised import operator_loss
from pidlearn.nets.temporal import TemporalConvolution
from pidlearn.students.build import build_operator, build_student
from pidlearn.students.operator import NeuralOperator
from tests.tiny import teacher as image_teacher

RING = pid.toy("ring")
ODE = pid.DenoiserODE(RING)
TIMES = pid.karras_grid(5)[1:].tolist()
BRIEF: dict[str, Any] = {"method": "dsno", "batch_size": 8, "pairs": 40, "n": 9}


def randomised(module: Any) -> Any:
    torch.manual_seed(3)
    for p in module.parameters():
        torch.nn.init.normal_(p, std=0.2)
    return module


def operator(**options: Any) -> NeuralOperator:
    network = randomised(pid.nets.MLP(2, width=16, depth=3, fourier=8, times=4, **options).double())
    return NeuralOperator(network, times=TIMES, event_shape=(2,))


def starts(n: int = 5) -> Tensor:
    return 80 * torch.randn(n, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class TestTemporalConvolution:
    @pytest.mark.parametrize("times", [2, 3, 8])
    @pytest.mark.parametrize("event", [(), (2, 5)])
    def test_it_is_the_circular_convolution(self, times: int, event: tuple[int, ...]) -> None:
        layer = randomised(TemporalConvolution(3, times).double())
        kernel = torch.fft.irfft(torch.view_as_complex(layer.weight), n=times, dim=0)  # (M, in, out)
        h = torch.randn(times * 4, 3, *event, dtype=torch.float64, requires_grad=True)
        split = h.unflatten(0, (times, 4))
        # The state at time m is the sum over j of the kernel m - j applied to the one at time j.
        direct = torch.cat(
            [sum(torch.einsum("bi...,io->bo...", split[j], kernel[m - j]) for j in range(times)) for m in range(times)]  # type: ignore[misc]
        )
        torch.testing.assert_close(layer.convolve(h), direct, rtol=0, atol=1e-12)
        upstream, inputs = torch.randn_like(direct), (h, layer.weight)
        ours, theirs = (torch.autograd.grad(out, inputs, upstream) for out in (layer.convolve(h), direct))
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)

    def test_it_is_nothing_at_first_and_learns(self) -> None:
        layer, h = TemporalConvolution(3, 4), torch.randn(8, 3, 2, 2)
        assert torch.equal(layer(h), h)
        layer(h).square().mean().backward()
        assert layer.weight.grad is not None
        assert (layer.weight.grad[..., 0] != 0).all()

    def test_half_precision(self) -> None:
        layer, h = randomised(TemporalConvolution(3, 4)), torch.randn(8, 3)
        half = layer(h.bfloat16())
        assert half.dtype == torch.bfloat16
        torch.testing.assert_close(half.float(), layer(h), rtol=0.02, atol=0.05)


@pytest.mark.parametrize("model_type", ["SongUNet", "DhariwalUNet"])
@pytest.mark.parametrize("parametrization", ["EDMPrecond", "VPPrecond"])
class TestCopies:
    def operator(self, parametrization: str, model_type: str) -> tuple[Any, Any]:
        options = {"model_channels": 8, "channel_mult": [1, 1], "num_blocks": 1, "attn_resolutions": [], "label_dim": 3}
        D = randomised(getattr(pid.nets, parametrization)(8, 1, model_type=model_type, **options))
        problem = problem_from_teacher(D, 40.0, 0.02)
        return build_operator(problem, "teacher", 4).eval(), build_student(problem).eval()

    def test_start_as_independent_times(self, parametrization: str, model_type: str) -> None:
        student, trajectory = self.operator(parametrization, model_type)
        z, labels = 40 * torch.randn(3, 1, 8, 8), torch.tensor([0, 1, 2])
        with torch.no_grad():
            expected = torch.stack([trajectory(z, t, labels) for t in student.times])
            torch.testing.assert_close(student.path(z, labels), expected, rtol=1e-4, atol=1e-4)

    def test_are_joined_once_they_are_trained(self, parametrization: str, model_type: str) -> None:
        student, _ = self.operator(parametrization, model_type)
        unet = getattr(student.network, "network", student.network)
        blocks = [name for name in [*unet.enc, *unet.dec] if name.split("_")[1] not in ("conv", "aux")]
        assert len(unet.temporal) == len(blocks)
        x, time = torch.randn(8, 1, 8, 8), torch.linspace(-1, 1, 4).repeat_interleave(2)  # 4 times of 2 samples
        randomised(unet.temporal)
        before = unet(x, time)
        time[0] += 1  # of the first sample at the first time
        changed = (unet(x, time) - before).abs().amax((1, 2, 3)) > 1e-6
        assert changed.tolist() == [True, False] * 4  # the sample at all its times, and no other


def test_recomputed_activations_give_the_same_gradients() -> None:
    teacher = image_teacher()
    student = randomised(build_operator(problem_from_teacher(teacher), "teacher", 2))
    z, gradients = 80 * torch.randn(2, 1, 8, 8), []
    for recompute in (False, True):
        student.network.recompute = recompute
        student.zero_grad()
        student.path(z).square().mean().backward()
        gradients.append([p.grad.clone() for p in student.parameters() if p.grad is not None])
    torch.testing.assert_close(*gradients)


class TestOperator:
    def test_its_states_are_those_of_its_path(self) -> None:
        student, z = operator(), starts()
        path = student.path(z)
        for t, state in zip(TIMES, path, strict=True):
            assert torch.equal(student(z, t), state)
        assert torch.equal(student(z, 80.0), z)
        mixed = torch.tensor([TIMES[1], 80.0, TIMES[3], TIMES[0], TIMES[0]]).float()  # rounded, as a caller's may be
        expected = torch.stack([path[1, 0], z[1], path[3, 2], path[0, 3], path[0, 4]])
        assert torch.equal(student(z, mixed), expected)
        assert torch.equal(student.generate(z), path[-1])

    def test_the_temporal_layers_join_the_times(self) -> None:
        student, z = operator(), starts()
        together, alone = student.path(z), pid.Trajectory(student.network, event_shape=(2,))
        for layer in student.network.body.temporal:
            torch.nn.init.zeros_(layer.weight)
        apart = student.path(z)
        assert (together - apart).abs().max() > 1e-2
        student.network.body.temporal = torch.nn.ModuleList([torch.nn.Identity()] * 2)
        torch.testing.assert_close(apart, torch.stack([alone(z, t) for t in TIMES]), rtol=1e-12, atol=1e-12)

    def test_in_chunks(self) -> None:
        student, z = operator(), starts(700)
        torch.testing.assert_close(student.generate(z), student.path(z)[-1], rtol=1e-10, atol=1e-10)

    def test_between_its_times_it_is_interpolated(self) -> None:
        student, z = operator(), starts()
        grid = [80.0, 50.0, *TIMES, (TIMES[1] * TIMES[2]) ** 0.5]
        path, F = student.trajectory(z, sorted(grid, reverse=True)), student.learned(z)
        assert torch.equal(path[0], z)
        own = [path[sorted(grid, reverse=True).index(t)] for t in TIMES]
        torch.testing.assert_close(torch.stack(own), student.path(z), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(path[1], 50 / 80 * z + 30 / 80 * F[0])
        share = grid[-1] / 80
        torch.testing.assert_close(path[4], share * z + (1 - share) * (F[1] + F[2]) / 2)

    def test_a_file_has_its_times(self, tmp_path: Path) -> None:
        result = pid.distill(RING, **BRIEF, steps=2, times=3, progress=False)
        again: Any = pid.load(result.save(tmp_path / "student")).student
        assert again.times == result.student.times
        assert torch.equal(again.path(starts().float()), result.student.path(starts().float()))
        assert repr(again).startswith("NeuralOperator(MLP")

    def test_bad_input(self) -> None:
        for times in ([], [0.002], [1.0, 2.0], [1.0, 1.0], [90.0, 1.0], [1.0, 0.0], [float("nan"), 1.0], ["a", "b"]):
            with pytest.raises(ValueError, match="times"):
                NeuralOperator(pid.nets.MLP(2, times=2), times=times)
        with pytest.raises(ValueError, match="got t = 2, but this operator is defined at t_max and its 4 times"):
            operator()(starts(), torch.tensor([80.0, 2.0, 80.0, 80.0, 80.0]))
        with pytest.raises(ValueError, match="got t = nan"):
            operator()(starts(), float("nan"))
        with pytest.raises(ValueError, match="this student is defined for t from 80"):
            operator().trajectory(starts(), [90.0, 1.0])
        with pytest.raises(ValueError, match="a NeuralOperator has no multi-step sampler"):
            operator().generate(starts(), calls=2)
        for method in ("pid", "boot"):
            with pytest.raises(ValueError, match="pass a Trajectory, or set method='dsno'"):
                pid.steps(RING, operator(), method=method)


class TestMethod:
    def test_the_loss_of_a_tabulated_path_is_zero(self) -> None:
        student, z = operator(), starts()
        path = torch.stack([pid.solve(ODE, z, [80.0, *TIMES[:m]])[-1] for m in range(1, 5)])
        F = student.target(z, path)
        student.learned = lambda z, class_labels=None: F  # type: ignore[method-assign]
        torch.testing.assert_close(student.path(z), path, rtol=1e-12, atol=1e-12)
        assert operator_loss(student, z, path, pid.l2).max() == 0
        path[2, 1] += 0.1
        losses = operator_loss(student, z, path, pid.l2).unflatten(0, (4, 5))  # (M, B)
        assert losses[2, 1] > 9e-3
        losses[2, 1] = 0
        assert losses.max() == 0

    def test_the_loss_is_small_where_the_paths_are_near(self) -> None:
        student, z = operator(), starts()
        path = student.path(z).detach()
        assert operator_loss(student, z, path, pid.l2).max() < 1e-24
        assert operator_loss(student, z, path + 0.1, pid.l2).min() > 9e-3

    @pytest.mark.parametrize("solver", ["euler", "heun"])
    def test_paths_are_those_of_the_whole_grid(self, solver: str) -> None:
        run = pid.steps(RING, **BRIEF | {"n": 12}, solver=solver, steps=1)  # 11 steps: 3 between two of 4 times
        next(run)
        method: Any = run.trainer.method
        path = pid.solve(ODE, method.z[:8], pid.karras_grid(13), solver)
        torch.testing.assert_close(method.solved[:8], path[3::3].transpose(0, 1), rtol=1e-4, atol=1e-4)

    def test_a_student_of_ones_own_keeps_its_times(self) -> None:
        times = [30.0, 2.0, 0.5, 0.1, 0.002]
        student = NeuralOperator(pid.nets.MLP(2, width=8, depth=2, times=5), times=times)
        assert pid.distill(RING, student, **BRIEF, steps=1, progress=False).student.times == times
        network = pid.nets.MLP(2, width=8, depth=2, times=3)
        of_network = pid.distill(RING, network, **BRIEF, times=3, steps=1, progress=False).student
        assert of_network.times == pytest.approx(pid.karras_grid(4)[1:].tolist())
        with pytest.raises(ValueError, match="got a network of times = 3, but the operator has 4 times"):
            pid.steps(RING, network, **BRIEF)
        with pytest.raises(ValueError, match="this method trains a NeuralOperator: pass one, or none"):
            pid.steps(RING, pid.Trajectory(pid.nets.MLP(2)), **BRIEF)

    def test_it_learns(self) -> None:
        options = BRIEF | {"pairs": 256, "batch_size": 64, "steps": 150, "progress": False}
        losses = pid.distill(RING, **options).history["loss"]
        first, last = losses[:5].mean(), losses[-5:].mean()
        assert last < 0.3 * first

    def test_times_fall_from_the_start(self) -> None:
        student = build_operator(problem_from_teacher(RING, 40.0, 0.01), "teacher", 6)
        assert len(student.times) == 6
        assert student.times[-1] == student.t_min == 0.01
        assert all(t > u for t, u in pairwise([40.0, *student.times]))
