"""Files that pidlearn 0.1 wrote still load and give the same numbers; tests/data/README.md says how they were made."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import pidlearn as pid
from pidlearn.training import checkpoints

FOLDER = Path(__file__).parent / "data" / "first_release"
LABELS = torch.tensor([0, 1, 2, 1])


@pytest.fixture(scope="module")
def expected() -> dict[str, torch.Tensor]:
    with np.load(FOLDER / "expected.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


@pytest.mark.parametrize("name", ["mixture", "windows", "unet", "adapted"])
@torch.no_grad()
def test_students(name: str, expected: dict[str, torch.Tensor]) -> None:
    student = pid.load(FOLDER / f"{name}.safetensors").student
    labels = (LABELS,) if name == "adapted" else ()
    for t, x in zip(expected[f"{name}/t"].tolist(), expected[f"{name}/x"], strict=True):
        torch.testing.assert_close(student(expected[f"{name}/z"], t, *labels), x, rtol=1e-5, atol=1e-6)


def test_configurations_and_histories() -> None:
    result = pid.load(FOLDER / "mixture.safetensors", pid.toy("ring"))
    config = vars(result.config)
    assert config["ema"] == (0.5, 0.9)
    assert (config["distance"], config["weight"]) == ("l1", "snr")
    assert config.get("last_interval", config.get("last")) == "backward"
    assert config.get("time_sampling", config.get("index")) == "uniform"
    assert (config["steps"], config["batch_size"], config["n"], config["seed"]) == (6, 8, 10, 5)
    assert (config["t_max"], config["t_min"]) == (80.0, 0.002)
    assert (config["spacing"], config["derivative"]) == ("karras", "forward")
    assert len(result.history["loss"]) == 6
    assert result.stopped is None
    assert result.sample(3).shape == (3, 2)
    windows = pid.load(FOLDER / "windows.safetensors")
    assert len(windows.history["loss"]) == windows.config.steps == 20


@torch.no_grad()
def test_the_teacher(expected: dict[str, torch.Tensor]) -> None:
    teacher = pid.load_teacher(FOLDER / "teacher.safetensors")
    found = teacher(expected["teacher/x"], torch.tensor(0.7), LABELS)
    torch.testing.assert_close(found, expected["teacher/denoised"], rtol=1e-5, atol=1e-6)


def test_checkpoints_are_refused_with_the_way_out(tmp_path: Path) -> None:
    folder = shutil.copytree(FOLDER / "checkpoints", tmp_path / "run")
    (old,) = folder.glob("step-*.pt")
    contents = old.read_bytes()
    says = rf"{folder} holds checkpoints of pidlearn 0.1 \({old.name}\), .* does not read: finish .*, or use another"
    with pytest.raises(ValueError, match=says):
        checkpoints.load_newest(folder)
    torch.manual_seed(5)
    network = pid.nets.MLP(2, width=8, depth=2, fourier=4)
    with pytest.raises(ValueError, match=says):
        pid.distill(pid.toy("ring"), network, steps=6, batch_size=8, n=10, progress=False, seed=5, checkpoints=folder)
    assert old.read_bytes() == contents
    assert not list(folder.glob("*.safetensors"))
