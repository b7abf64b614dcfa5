"""Losses of the first steps are those of the first release, for every kind of run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import pidlearn as pid
from pidlearn.nets import EDMPrecond

RECORDED = json.loads((Path(__file__).parent / "data" / "first_release" / "losses.json").read_text())


def ring(**options: Any) -> list[float]:
    run = pid.steps(pid.toy("ring"), **{"steps": 12, "batch_size": 64, "seed": 3, "optimizer": "adam", **options})
    return [step.loss for step in run]


def pendulum() -> list[float]:
    """Ten windows, each trained after the ones before; in so few steps that rounding is not yet amplified."""
    run = pid.steps(pid.system("pendulum"), steps=60, batch_size=32, seed=1, windows=10, n=20, optimizer="adam")
    return [step.loss for step in run]


def unet(**options: Any) -> list[float]:
    torch.manual_seed(0)
    size = {"model_channels": 16, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [4]}
    teacher = EDMPrecond(8, 1, model_type="SongUNet", dropout=0.1, label_dim=3, **size)
    for name, parameter in teacher.named_parameters():
        if name.endswith(("conv1.weight", "proj.weight", "aux_conv.weight", "out_conv.weight")):
            torch.nn.init.normal_(parameter, std=0.05)
    return [step.loss for step in pid.steps(teacher, seed=2, n=40, **options)]


def denoiser() -> list[float]:
    """A teacher's own training, by what it makes of six points."""
    data, labels = torch.randn(200, 2, generator=torch.Generator().manual_seed(0)), torch.arange(200) % 3
    teacher = pid.train_denoiser(data, labels, steps=15, batch_size=32, progress=False, seed=4)
    return teacher(torch.linspace(-1, 1, 12).reshape(6, 2), 0.7, labels[:6]).flatten().tolist()


RUNS: dict[str, Callable[[], list[float]]] = {
    "ring forward": lambda: ring(derivative="forward"),
    "ring central": lambda: ring(derivative="central"),
    "ring exact": lambda: ring(derivative="exact"),
    "ring can": lambda: ring(derivative="can"),
    "ring backward l1 truncated_snr": lambda: ring(distance="l1", weight="truncated_snr", last_interval="backward"),
    "ring ema log grid": lambda: ring(ema=(0.9, 0.5), spacing="log", steps=30),
    "pendulum windows": pendulum,
    "unet micro averages": lambda: unet(steps=8, batch_size=8, micro_batch=3, ema=(0.9, 0.5)),
    "unet exact": lambda: unet(steps=3, batch_size=4, derivative="exact"),
    "denoiser values": denoiser,
}


def test_every_recorded_run_is_repeated() -> None:
    assert RUNS.keys() == RECORDED.keys()


@pytest.mark.parametrize("name", RUNS)
def test_losses_are_those_of_the_first_release(name: str) -> None:
    assert RUNS[name]() == pytest.approx(RECORDED[name], rel=2e-3)
