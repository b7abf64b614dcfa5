"""The reference values in tests/data, and the networks they were computed with."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pidlearn.nets import EDMPrecond, SongUNet

DATA = Path(__file__).parent / "data"


@functools.cache
def fixture(name: str) -> Mapping[str, np.ndarray]:
    """The arrays of tests/data/{name}.npz, each read when it is asked for."""
    arrays: Mapping[str, np.ndarray] = np.load(DATA / f"{name}.npz")
    return arrays


def tensor(name: str, key: str, dtype: torch.dtype = torch.float64) -> Tensor:
    """One array of a fixture as a tensor."""
    return torch.from_numpy(np.asarray(fixture(name)[key])).to(dtype)


def load_teacher(dtype: torch.dtype) -> EDMPrecond:
    """The denoiser of both fixtures, in eval mode."""
    options = json.loads(str(fixture("denoiser_songunet_ddpmpp")["init_kwargs"]))
    teacher = EDMPrecond(**options).to(dtype).eval()
    _load_weights(teacher, "denoiser_songunet_ddpmpp", "w/")
    return teacher


def load_student_network(dtype: torch.dtype) -> SongUNet:
    """The bare student network F of the loss fixture, in eval mode."""
    options = json.loads(str(fixture("pid_loss")["init_kwargs"]))
    assert options.pop("model_type") == "SongUNet"
    channels = options.pop("img_channels")
    network = SongUNet(in_channels=channels, out_channels=channels, **options).to(dtype).eval()
    _load_weights(network, "pid_loss", "student/")
    return network


def _load_weights(network: nn.Module, name: str, prefix: str) -> None:
    keys = [key for key in fixture(name) if key.startswith(prefix)]
    weights = {key.removeprefix(prefix): tensor(name, key) for key in keys}
    missing, unexpected = network.load_state_dict(weights, strict=False)
    assert not unexpected
    # The filters are not in the fixtures: they follow from the options.
    assert all(key.endswith("resample_filter") for key in missing)
