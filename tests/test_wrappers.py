"""Teachers, networks and students that are compiled or wrapped: they compute the same, so they are the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pidlearn as pid
from pidlearn.students.files import describe
from pidlearn.utils.safetensors import read, write
from pidlearn.utils.wrappers import unwrapped
from tests.tiny import teacher as image_teacher

BARE: dict[str, Any] = {"steps": 2, "batch_size": 2, "n": 5}
KW = {**BARE, "progress": False}


class Compiled(nn.Module):
    """A wrapper like that of torch.compile, which takes seconds to import; test_distillation.py has the real one."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._orig_mod = module

    def __getattr__(self, name: str) -> Any:
        return self._modules["_orig_mod"] if name == "_orig_mod" else getattr(self._modules["_orig_mod"], name)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return self._orig_mod(*args, **kwargs)


def identity(module: nn.Module) -> nn.Module:
    return module


class Convolution(nn.Module):
    """A third-party network F(x, time) of images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.scale = nn.Conv2d(1, 1, 3, padding=1), nn.Linear(1, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return self.conv(x) * self.scale(time[:, None])[:, :, None, None]


MAKE: dict[str, Callable[[nn.Module], nn.Module]] = {
    "from_flow": lambda network: pid.teachers.from_flow(network, event_shape=(1, 4, 4)),
    "from_network": lambda network: pid.teachers.from_network(network, "vp", event_shape=(1, 4, 4)),
}


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
def test_the_student_of_a_wrapped_network_loads_with_any_wrapping_of_it(
    make: Callable[[nn.Module], nn.Module], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network, z = Convolution(), torch.randn(2, 1, 4, 4)
    for wrap in (identity, nn.DataParallel, Compiled):
        result = pid.distill(make(wrap(network)), ema=(0.9, 0.99), **KW)
        path = result.save(tmp_path / "a")
        for other in (identity, nn.DataParallel, Compiled):
            assert torch.equal(pid.load(path, make(other(network))).generate(z), result.generate(z))


def test_files_that_kept_the_wrappers_names_load(tmp_path: Path) -> None:
    """As versions before this one wrote them of a compiled or wrapped teacher network."""
    torch.manual_seed(0)
    network, z = Convolution(), torch.randn(2, 1, 4, 4)
    result = pid.distill(MAKE["from_flow"](network), **KW)
    tensors, metadata = read(result.save(tmp_path / "a"), "pidlearn student 2", "pidlearn student 1")
    inner = "student/network.network.module."
    for wrapper in ("module.", "_orig_mod."):
        named = {name.replace(inner, inner + wrapper): tensor for name, tensor in tensors.items()}
        assert named.keys() != tensors.keys()
        write(tmp_path / "old", named, {name: text for name, text in metadata.items() if name != "digest"})
        for wrap in (identity, nn.DataParallel):
            loaded = pid.load(tmp_path / "old", MAKE["from_flow"](wrap(network)))
            assert torch.equal(loaded.generate(z), result.generate(z))


@pytest.mark.parametrize("wrap", [nn.DataParallel, Compiled])
def test_what_a_wrapped_teacher_declares_is_read(wrap: Callable[[nn.Module], nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    points = pid.nets.Preconditioned(pid.nets.MLP(2, width=16, depth=2, label_dim=4), 0.3)
    for teacher in (wrap(points), pid.DenoiserODE(wrap(points)), pid.nets.Preconditioned(wrap(points.model), 0.3)):
        problem = pid.steps(teacher, **BARE).problem
        assert (problem.label_dim, problem.event_shape, problem.data_scale) == (4, (2,), 0.3)
    images = image_teacher(label_dim=3)
    plain, run = pid.steps(images, **BARE), pid.steps(wrap(images), **BARE)
    assert describe(run.student) == describe(plain.student) is not None  # the same network, not an MLP
    assert run.problem.label_dim == 3
    # The teacher is called as it was passed, for its speed; files describe the plain one.
    assert type(run.problem.ode.denoiser) is type(wrap(images))
    written = pid.load_teacher(pid.save_teacher(wrap(images), tmp_path / "a")).state_dict()
    assert written.keys() == images.state_dict().keys()
    assert all(torch.equal(written[name], value) for name, value in images.state_dict().items())


def test_the_student_of_a_denoiser_whose_network_is_wrapped() -> None:
    """Also of iDDPM's, whose network has twice as many outputs as the student's."""
    options = {"label_dim": 2, "model_channels": 16, "channel_mult": [1], "num_blocks": 1, "attn_resolutions": []}
    for cls in (pid.nets.EDMPrecond, pid.nets.VPPrecond, pid.nets.iDDPMPrecond):
        denoiser = cls(8, 1, **options)
        plain = describe(pid.steps(denoiser, **BARE).student)
        denoiser.model = nn.DataParallel(denoiser.model)
        assert describe(pid.steps(denoiser, **BARE).student) == plain is not None


def test_a_third_party_network_in_a_wrapper_keeps_its_shape_and_classes() -> None:
    network = pid.nets.MLP(2, width=8, depth=1, label_dim=4)
    for teacher in (pid.teachers.from_flow(nn.DataParallel(network)), pid.teachers.from_flow(network)):
        assert (teacher.event_shape, teacher.label_dim) == ((2,), 4)


@pytest.mark.parametrize("ema", [(), (0.9,)])
def test_a_run_is_resumed_in_another_wrapping(ema: tuple[float, ...], tmp_path: Path) -> None:
    """Bit for bit as without the stop, in either direction."""

    def student(wrap: Callable[[nn.Module], nn.Module]) -> pid.Trajectory:
        torch.manual_seed(0)
        return pid.Trajectory(wrap(pid.nets.MLP(2, width=8, depth=1)))

    def weights(module: nn.Module) -> list[Tensor]:
        return list(unwrapped(module).state_dict().values())

    ring, options = pid.toy("ring"), {**KW, "ema": ema, "steps": 4}
    whole = weights(pid.distill(ring, student(identity), **options).student)
    for first, second in ((identity, nn.DataParallel), (Compiled, identity)):
        folder = tmp_path / f"{first} {second}"
        stop = [lambda step: step.number == 2]
        pid.distill(ring, student(first), checkpoints=folder, callbacks=stop, **options)
        resumed = pid.distill(ring, student(second), checkpoints=folder, **options)
        assert resumed.stopped is None
        assert all(map(torch.equal, weights(resumed.student), whole))


def test_a_run_is_resumed_with_its_teacher_in_a_wrapper(tmp_path: Path) -> None:
    teacher = pid.nets.Preconditioned(pid.nets.MLP(2, width=8, depth=1))
    first = pid.distill(teacher, checkpoints=tmp_path, **KW)
    again = pid.distill(nn.DataParallel(teacher), checkpoints=tmp_path, **KW)
    assert (again.history["loss"] == first.history["loss"]).all()


def test_the_training_of_a_denoiser_is_resumed_in_another_wrapping(tmp_path: Path) -> None:
    data = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
    written = []
    for wrap in (identity, nn.DataParallel):
        torch.manual_seed(0)
        options = {"steps": 2, "batch_size": 4, "progress": False, "checkpoints": tmp_path}
        trained = pid.train_denoiser(data, network=wrap(pid.nets.MLP(2, width=8, depth=1)), **options)
        written.append(list(trained.state_dict().values()))
    assert all(map(torch.equal, *written))
