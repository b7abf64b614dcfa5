"""`print(teacher)` and `print(network)` say in one line what they are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import pidlearn as pid
from tests.teachers.tiny import Velocity, unet
from tests.tiny import OPTIONS, teacher

nets = pid.nets


def images_denoiser(**options: Any) -> Any:
    with torch.device("meta"):
        return nets.EDMPrecond(32, 3, model_type="SongUNet", augment_dim=9, channel_mult=[2, 2, 2], **options)


TEXTS = [
    (lambda: pid.toy("ring"), "GaussianMixture(8 components in 2 dimensions, std 0.72)"),
    (
        lambda: pid.EmpiricalDenoiser(torch.ones(1797, 1, 8, 8), bandwidth=0.1),
        "EmpiricalDenoiser(1797 data of shape (1, 8, 8), bandwidth 0.1)",
    ),
    (
        lambda: pid.SubspaceMixture(pid.toy("ring"), torch.eye(6)[:, :2], torch.zeros(2, 3), 0.1),
        "SubspaceMixture(8 components in 2 of 6 dimensions, event shape (2, 3), off-plane std 0.1)",
    ),
    (lambda: pid.system("pendulum"), "System(pendulum: angle, rate; t from 0 to 10)"),
    (lambda: nets.MLP(2, label_dim=3), "MLP(2 dimensions, 3 classes, 26.2 k parameters)"),
    (lambda: nets.ChebyshevMLP((2, 3), width=4), "ChebyshevMLP(degree 4, 2x3, 418 parameters)"),
    (lambda: teacher().model, "SongUNet(1x8x8, 189 k parameters)"),
    (lambda: images_denoiser(label_dim=10), "EDMPrecond(SongUNet, 3x32x32, 10 classes, 55.7 M parameters)"),
    (lambda: nets.Preconditioned(nets.MLP((1, 8, 8))), "Preconditioned(MLP, 1x8x8, 34 k parameters)"),
    (lambda: nets.Preconditioned(nn.Identity()), "Preconditioned(Identity, 0 parameters)"),
    (
        lambda: nets.VEPrecond(**OPTIONS).as_student(80.0),
        "AdaptedStudent(SongUNet, VE(), 189 k parameters)",
    ),
    (
        lambda: pid.teachers.from_flow(Velocity(), event_shape=(1, 6, 6)),
        "AdaptedDenoiser(Velocity, FlowMatching(data_at=0, unit=1.0), 1x6x6, 225 parameters)",
    ),
    (
        lambda: pid.teachers.from_flow(lambda x, t: x, event_shape=2).network,
        "ThirdPartyNetwork(<lambda>, 0 parameters)",
    ),
]


@pytest.mark.parametrize(("build", "text"), TEXTS, ids=[text.split("(")[0] for _, text in TEXTS])
def test_one_line(build: Any, text: str) -> None:
    assert repr(build()) == text


def test_of_a_diffusers_network() -> None:
    from diffusers import DDPMScheduler

    denoiser = pid.teachers.from_diffusers(unet(), DDPMScheduler())
    network = "UNet2DModel, VariancePreserving(epsilon, 1000 timesteps)"
    assert repr(denoiser).startswith(f"AdaptedDenoiser({network}, 1x4x4, ")
    assert repr(denoiser.as_student(80.0)).startswith(f"AdaptedStudent({network}, ")
