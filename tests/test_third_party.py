"""What users' networks return or expect: each is handled, or answered with the line to write."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pidlearn as pid
from pidlearn import teachers
from pidlearn.equations.from_teacher import TOYS, problem_from_teacher
from pidlearn.equations.problem import Problem
from pidlearn.teachers.exact.presets import PRESETS
from tests.teachers import tiny

SHAPE: dict[str, Any] = {"event_shape": (2,), "steps": 1}


@pytest.mark.parametrize(
    ("returned", "says"),
    [
        (lambda x: (torch.zeros(3), x), r"returned tuple, but .*: wrap it in a function that returns its \[1\]"),
        (lambda x: {"sample": x}, r"returned dict, but .*: wrap it in a function that returns its \['sample'\]"),
        (lambda x: {"loss": 0, "out": {"sample": x}}, r"returned dict, but .* returns its \['out'\]\['sample'\]$"),
        (lambda x: SimpleNamespace(sample=x), r"returned SimpleNamespace, but .* returns its \.sample"),
        (lambda x: x[:, :1], r"returned \(\d+, 1\), but must return the shape of x, \(\d+, 2\)$"),
        (lambda x: None, r"returned NoneType, but must return the shape of x, \(\d+, 2\)$"),
    ],
)
def test_outputs(returned: Any, says: str) -> None:
    for teacher in (lambda x, sigma: returned(x), pid.VelocityODE(lambda x, t: returned(x))):
        with pytest.raises(ValueError, match=says):
            pid.solve(pid.DenoiserODE(teacher) if callable(teacher) else teacher, torch.ones(4, 2), [1.0, 0.5])

    if isinstance(returned(torch.ones(4, 2)), SimpleNamespace):  # from_network takes its sample
        return
    for adapted in (
        teachers.from_flow(lambda x, t: returned(x), event_shape=2),
        *(teachers.from_network(lambda x, t: returned(x), name, event_shape=2) for name in ("edm", "ve")),
    ):
        with pytest.raises(ValueError, match=f"^the network {says}"):
            adapted(torch.ones(4, 2), 1.0)


def test_output_objects() -> None:
    flow = teachers.from_flow(lambda x, t: SimpleNamespace(sample=x), event_shape=2)
    with pytest.raises(ValueError, match=r"^the network returned SimpleNamespace, but .* returns its \.sample$"):
        flow(torch.ones(4, 2), 1.0)
    teacher = teachers.from_network(lambda x, t: SimpleNamespace(prediction=x), "edm", event_shape=2)
    with pytest.raises(ValueError, match=r"^the network returned SimpleNamespace, but .* returns its \.prediction$"):
        teacher(torch.ones(4, 2), 1.0)


class Imaginary(nn.Module):
    """A network, or a student, of complex values that are real at first."""

    t_max, t_min = 80.0, 0.002

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.weight * x * (1 + 0j)


class Conditional(Imaginary):
    """The same, which takes class labels."""

    def forward(self, x: Tensor, t: Tensor, class_labels: Tensor | None = None) -> Tensor:
        return super().forward(x, t)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: teachers.from_flow(Imaginary(), event_shape=2)(x, 1.0),
        lambda x: teachers.from_network(Imaginary(), "edm", event_shape=2)(x, 1.0),
        lambda x: teachers.from_network(Imaginary(), "ve", event_shape=2)(x, 1.0),
        lambda x: pid.nets.Preconditioned(Conditional())(x, 1.0),
        lambda x: pid.Trajectory(Imaginary())(x, 1.0),
        lambda x: next(pid.steps(pid.toy("ring"), Imaginary(), steps=1)),
        lambda x: pid.pid_loss(
            Imaginary(), pid.DenoiserODE(pid.toy("ring")), x, pid.karras_grid(5), torch.zeros(4, dtype=torch.int64)
        ),
    ],
)
def test_complex_values(call: Any) -> None:
    with pytest.raises(ValueError, match=r"returned torch.complex64, but must return real values"):
        call(torch.ones(4, 2))


class OneHot(nn.Module):
    """A network that multiplies its labels with a matrix."""

    label_dim = 3

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 2)

    def forward(self, x: Tensor, sigma: Tensor, class_labels: Tensor) -> Tensor:
        return x + self.embed(class_labels)


def test_labels_that_should_be_one_hot() -> None:
    says = r"class_labels \(\d+,\) torch.int64.*F.one_hot\(class_labels, number of classes\)"
    with pytest.raises(ValueError, match=says):
        next(pid.steps(OneHot(), pid.nets.MLP(2, width=8, label_dim=3), **SHAPE))


@pytest.mark.parametrize("f", [nn.Linear(2, 2), lambda x: x, lambda x, sigma: x.nothing])
def test_calls_that_do_not_fit(f: Any) -> None:
    with pytest.raises(ValueError, match=r"the teacher fails on x \(\d+, 2\) torch.float32 with t \(\d+,\)"):
        next(pid.steps(f, pid.nets.MLP(2, width=8), **SHAPE))
    if isinstance(f, nn.Module):
        with pytest.raises(ValueError, match=r"the student fails on x .*positional arguments"):
            pid.steps(pid.toy("ring"), f)


def test_what_is_no_teacher_yet(tmp_path: Path) -> None:
    pipeline = SimpleNamespace(unet=nn.Linear(2, 2), scheduler=object())
    for teacher, line in (
        (tmp_path, r"pidlearn.load_teacher\("),
        (str(tmp_path), r"pidlearn.load_teacher\("),
        ("ring", r"did you mean pidlearn.toy\('ring'\)\?"),
        ("checkerbord", r"did you mean pidlearn.toy\('checkerboard'\)\?"),
        ("lorentz", r"did you mean pidlearn.system\('lorenz'\)\?"),
        ("ring.pkl", r"or an ODE: there is no file or folder 'ring.pkl'; pass .* to pidlearn.load_teacher$"),
        (tmp_path / "x", r"there is no file or folder '.*x'; pass .* to pidlearn.load_teacher$"),
        (pipeline, r"from_diffusers\(pipeline\)"),
    ):
        with pytest.raises(TypeError, match=line):
            pid.distill(teacher, progress=False)


def test_a_class_is_no_teacher() -> None:
    for kind in (pid.GaussianMixture, pid.EmpiricalDenoiser, pid.nets.EDMPrecond, pid.VelocityODE):
        with pytest.raises(TypeError, match=rf"got the class {kind.__name__}, but .* pass {kind.__name__}\(\.\.\.\)$"):
            pid.distill(kind, progress=False)
    for adapter in (teachers.from_flow, lambda network: teachers.from_network(network, "edm")):
        with pytest.raises(TypeError, match=r"of type type; expected a .*F\(x, time\)|v\(x, t\)"):
            adapter(nn.Linear)


def test_the_toys_that_are_suggested() -> None:
    assert set(TOYS) == PRESETS.keys()


def test_a_bare_network_of_diffusers() -> None:
    with pytest.raises(
        TypeError, match=r"got a teacher of type UNet2DModel, but .*: .*from_diffusers\(unet, scheduler\)"
    ):
        pid.distill(tiny.unet(), progress=False)


class Unnamed(nn.Module):
    """Takes three classes, or none, as `forward` says, but has no label_dim."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 2)

    def forward(self, x: Tensor, time: Tensor, class_labels: Tensor | None = None) -> Tensor:
        classes = x.new_zeros(len(x), 3) if class_labels is None else nn.functional.one_hot(class_labels, 3).to(x)
        return self.layer(torch.cat([x, time[:, None], classes], 1))


@pytest.mark.parametrize(("method", "kind"), [("pid", pid.Trajectory), ("cd", pid.ConsistencyFunction)])
def test_a_network_that_does_not_name_its_classes_gets_the_teachers(method: str, kind: Any, tmp_path: Path) -> None:
    teacher = pid.nets.Preconditioned(pid.nets.MLP(2, width=8, depth=1, label_dim=3))
    options: dict[str, Any] = {"steps": 2, "batch_size": 8, "n": 5, "progress": False}
    if method == "cd":
        options["data"] = torch.randn(20, 2), torch.arange(20) % 3
    result = pid.distill(teacher, Unnamed(), method=method, **options)
    path, z, labels = result.save(tmp_path / "student"), 80 * torch.randn(3, 2), torch.tensor([0, 1, 2])
    for again in (
        result,
        pid.load(path, teacher, Unnamed()),
        pid.load(path, teacher, kind(Unnamed())),
        pid.load(path, student=kind(Unnamed())),
    ):
        student: Any = again.student
        assert type(student) is kind
        assert student.label_dim == 3
        assert student.sample(4).shape == (4, 2)
        torch.testing.assert_close(student.generate(z, labels), result.student.generate(z, labels))
        with pytest.raises(
            ValueError, match=r"got no class_labels.* for 3 classes and not for none.* set .*label_dropout"
        ):
            student.generate(z)
    for again in (result, pid.load(path, teacher, Unnamed())):
        again.student.network.label_dropout = 1  # type: ignore[union-attr]  # as the message says
        assert again.generate(z).shape == (3, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_rounding_is_no_other_teacher(dtype: torch.dtype) -> None:
    """D = x - sigma F of a predictor of noise: at sigma = 80 rounding of F is a hundredth of D."""

    class Net(nn.Module):
        def __init__(self, rounding: float, gain: float = 1.0) -> None:
            super().__init__()
            self.rounding, self.gain = rounding, nn.Parameter(torch.tensor(gain, dtype=dtype))

        def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
            sigma = sigma.reshape(-1, 1)
            noise = x.float() * sigma * (1 + sigma**2).sqrt() / (0.25 + sigma**2)  # of data N(0, 0.25)
            wobble = self.rounding * torch.cos(1e6 * x.float()) * noise.abs()
            return (self.gain.float() * noise + wobble).to(dtype)

    def problem(rounding: float, gain: float = 1.0) -> Problem:
        def vp(sigma: Tensor) -> Any:
            one = torch.ones_like(sigma)
            return one, -sigma, (1 + sigma**2).rsqrt(), sigma

        network = Net(rounding, gain)
        return problem_from_teacher(pid.teachers.from_network(network, vp, event_shape=(2,), sigma_data=0.5))

    eps = torch.finfo(dtype).eps
    saved = problem(0.0).identity()
    assert problem(8 * eps if dtype == torch.float32 else 2 * eps).has_identity(saved)
    assert not problem(0.0, 0.5).has_identity(saved)
