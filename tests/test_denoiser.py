"""A teacher of one's own: it learns, it knows its labels, and it says what it cannot take."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

import pidlearn as pid
from pidlearn.training.optim import OptimizerConfig
from pidlearn.training.trainer import Trainer

SHORT = {"steps": 250, "batch_size": 128, "lr": 5e-3, "ema": (0.98,), "progress": False}


def network(labels: int = 0) -> pid.nets.MLP:
    torch.manual_seed(0)
    return pid.nets.MLP(2, width=32, depth=2, label_dim=labels)


def two_points(n: int = 200) -> tuple[Tensor, Tensor]:
    labels = torch.arange(n) % 2
    return torch.stack([2.0 * labels - 1, 0.5 - labels], 1), labels


def error(teacher: Any, data: Tensor, sigma: float, *labels: Tensor) -> float:
    generator = torch.Generator().manual_seed(7)
    noisy = data + sigma * torch.randn(data.shape, generator=generator)
    with torch.no_grad():
        return (teacher(noisy, sigma, *labels) - data).square().mean().item()


def test_beats_the_mean_of_the_data_and_nears_the_best_there_is() -> None:
    data = pid.toy("ring", modes=3, std=0.1).sample(500, torch.Generator().manual_seed(0))
    teacher = pid.train_denoiser(data, network=network(), **SHORT)
    best = pid.EmpiricalDenoiser(data)
    for sigma in (0.1, 0.3, 1.0):
        ours, mean = error(teacher, data, sigma), (data - data.mean(0)).square().mean().item()
        assert ours < 0.9 * mean
        assert ours < 2 * error(best, data, sigma) + 0.005


def test_comes_ready_to_distil() -> None:
    data = torch.randn(60, 2, 3)
    teacher = pid.train_denoiser(data, network=pid.nets.MLP((2, 3), width=8, depth=1), **{**SHORT, "steps": 3})
    assert teacher.event_shape == (2, 3)
    assert teacher.sigma_data == pytest.approx(data.std().item())
    assert teacher.label_dim == 0
    assert not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())
    result = pid.distill(teacher, steps=2, batch_size=4, n=6, progress=False)
    assert isinstance(result.student.network, pid.nets.MLP)
    assert result.student.network is not teacher.model
    assert result.sample(5).shape == (5, 2, 3)


def test_labels_are_learned() -> None:
    data, labels = two_points()
    teacher = pid.train_denoiser(data, labels, network(2), **SHORT)
    # In so much noise only the label can tell the two points apart.
    assert error(teacher, data, 2.0, labels) < 0.1
    assert error(teacher, data, 2.0, 1 - labels) > 1.0
    with pytest.raises(ValueError, match=r"0\.\.1"):
        teacher(data, 1.0, labels + 1)


def test_a_network_is_made_for_the_labels() -> None:
    data, labels = two_points(20)
    teacher = pid.train_denoiser(data, 2 * labels, **{**SHORT, "steps": 1})
    assert teacher.label_dim == 3
    result = pid.distill(teacher, steps=2, batch_size=4, n=6, progress=False)
    assert result.sample(4, torch.tensor([0, 1, 2, 0])).shape == (4, 2)


def test_same_seed_same_teacher() -> None:
    data = torch.randn(50, 2)
    one, same, other = (
        pid.train_denoiser(data, network=network(), **{**SHORT, "steps": 5, "seed": seed}) for seed in (0, 0, 1)
    )
    x = torch.randn(4, 2)
    assert torch.equal(one(x, 1.0), same(x, 1.0))
    assert not torch.equal(one(x, 1.0), other(x, 1.0))


def test_the_averaged_weights_are_returned() -> None:
    data, how = torch.randn(50, 2), OptimizerConfig(steps=20, batch_size=16, lr=0.02)
    plain, averaged = (
        pid.train_denoiser(data, network=network(), config=how, progress=False, ema=ema) for ema in ((), (0.9,))
    )
    assert not torch.equal(plain.model.body.out.weight, averaged.model.body.out.weight)


def test_data_in_double_precision() -> None:
    teacher = pid.train_denoiser(torch.randn(50, 2).double(), network=network(), **{**SHORT, "steps": 2})
    assert teacher(torch.randn(3, 2), 1.0).dtype == torch.float32


def test_an_interrupt_keeps_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    step, calls = Trainer.set_learning_rate, []

    def interrupted(self: Trainer) -> float:
        calls.append(1)
        if len(calls) == 9:
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(Trainer, "set_learning_rate", interrupted)
    with pytest.warns(RuntimeWarning, match="stopped early: interrupted at step 8"):
        teacher = pid.train_denoiser(torch.randn(50, 2), **SHORT)
    assert teacher(torch.randn(3, 2), 1.0).isfinite().all()


class Narrow(torch.nn.Linear):
    """(B, 2) to (B, 1), which would broadcast."""

    def __init__(self) -> None:
        super().__init__(2, 1)

    def forward(self, x: Tensor, time: Tensor, class_labels: Tensor | None = None) -> Tensor:
        return super().forward(x)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"data": torch.randint(0, 255, (9, 2))}, "floating"),
        ({"data": torch.randn(9)}, "floating"),
        ({"data": [[0.0, 1.0]]}, "floating"),
        ({"data": torch.tensor([[0.0, torch.nan]])}, "finite"),
        ({"data": torch.ones(9, 2)}, "without variation"),
        ({"data": torch.ones(0, 2)}, "without variation"),
        ({"class_labels": torch.arange(8)}, "class_labels"),
        ({"class_labels": torch.arange(9.0)}, "int64"),
        ({"class_labels": [0] * 9}, "class_labels"),
        ({"class_labels": torch.arange(9) - 1}, "0 or more"),
        ({"class_labels": torch.arange(9), "network": pid.nets.MLP(2, width=8, label_dim=2)}, r"0\.\.1"),
        ({"network": Narrow()}, r"returned \(2, 1\) torch.float32, but must keep the shape of x, \(2, 2\)"),
        ({"network": network().requires_grad_(False)}, "no weights to train"),
        ({"steps": 0}, "steps"),
        ({"lr": -1.0}, "lr"),
    ],
)
def test_bad_input(changes: dict[str, Any], says: str) -> None:
    arguments = {"data": torch.randn(9, 2), **SHORT, **changes}
    with pytest.raises(ValueError, match=says):
        pid.train_denoiser(**arguments)


def test_a_rate_that_is_far_too_large() -> None:
    student = network()
    with pytest.warns(RuntimeWarning, match="stopped early: .* smaller lr"):
        pid.train_denoiser(torch.randn(50, 2), network=student, **{**SHORT, "lr": 1e30})
    assert all(p.isfinite().all() for p in student.parameters())


def test_another_network_does_not_go_on_with_a_checkpoint(tmp_path: Path) -> None:
    images = torch.randn(20, 1, 4, 4)
    shape = {"model_channels": 8, "channel_mult": [1], "num_blocks": 1, "attn_resolutions": []}
    one, two = (pid.nets.SongUNet(4, 1, 1, dropout=dropout, **shape) for dropout in (0.0, 0.4))
    brief = {"steps": 2, "batch_size": 4, "progress": False, "checkpoints": tmp_path}
    pid.train_denoiser(images, network=one, **brief)
    with pytest.raises(ValueError, match=r"other settings.*network"):
        pid.train_denoiser(images, network=two, **brief)


def test_dropout_is_of_the_step_and_its_rows(tmp_path: Path) -> None:
    """Stopped and continued, with other random numbers in the process, it ends as if it had not been stopped."""
    images = torch.randn(20, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    shape = {"model_channels": 8, "channel_mult": [1], "num_blocks": 1, "attn_resolutions": [], "dropout": 0.3}
    brief = {"steps": 4, "batch_size": 4, "progress": False}

    def train(**options: Any) -> Any:
        torch.manual_seed(0)
        network = pid.nets.SongUNet(4, 1, 1, **shape)
        torch.manual_seed(int(time.time()))
        return pid.train_denoiser(images, network=network, **brief, **options)

    whole = train()
    with pytest.warns(RuntimeWarning, match="at step 1"):
        train(checkpoints=tmp_path, max_time=1e-9)
    pairs = zip(whole.state_dict().values(), train(checkpoints=tmp_path).state_dict().values(), strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)


UNET: dict[str, Any] = {"model_channels": 4, "channel_mult": [1], "num_blocks": 1, "attn_resolutions": []}


class TestNoiseLevels:
    """Denoisers have an answer for noise levels only."""

    TEACHERS: ClassVar[dict[str, Any]] = {
        "train_denoiser": lambda: pid.nets.Preconditioned(pid.nets.MLP((1, 4, 4), width=8)),
        **{
            name: lambda name=name: getattr(pid.nets, name)(4, 1, model_type="SongUNet", **UNET)
            for name in ("EDMPrecond", "VPPrecond", "VEPrecond", "iDDPMPrecond")
        },
        **{
            f"from_network {name}": lambda name=name: pid.teachers.from_network(
                lambda x, t: 0.1 * x, name, event_shape=(1, 4, 4)
            )
            for name in ("edm", "vp", "ve", "flow")
        },
        "from_flow": lambda: pid.teachers.from_flow(lambda x, t: 0.1 * x, data_at=1, event_shape=(1, 4, 4)),
        "toy": lambda: pid.GaussianMixture([[0.0, 0.0], [1.0, 1.0]], 0.1),
    }
    HAVE_ZERO = (
        "VPPrecond",
        "iDDPMPrecond",
        "from_network vp",
        "from_network ve",
        "from_network flow",
        "from_flow",
        "toy",
    )

    @pytest.mark.parametrize("name", TEACHERS)
    def test_others_are_refused(self, name: str) -> None:
        teacher, x = self.TEACHERS[name](), torch.randn(3, *((2,) if name == "toy" else (1, 4, 4)))
        for sigma in (-1.0, math.nan, torch.tensor([1.0, -1.0, 2.0]), [1.0, math.nan, 2.0]):
            with pytest.raises(ValueError, match=r"got sigma = (-1|nan), but a noise level must be"):
                teacher(x, sigma)
        assert teacher(x, torch.tensor([1e-3, 1.0, 50.0])).isfinite().all()
        if name in self.HAVE_ZERO:
            torch.testing.assert_close(teacher(x, 0.0), x)
        else:  # their time is ln(sigma)
            with pytest.raises(ValueError, match=r"got sigma = 0, .* for this teacher from [\d.]+ to \S+: pass one"):
                teacher(x, 0.0)
