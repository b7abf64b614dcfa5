"""Folders of diffusers' pipelines: the network that was saved, nothing executed, and a run from the command line."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import pidlearn as pid
from pidlearn.cli import main
from pidlearn.teachers.files import diffusers_folder
from tests.teachers.tiny import unet
from tests.tiny import recipe

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    network = unet()  # which imports diffusers
    from diffusers import DDPMPipeline, DDPMScheduler

    folder = tmp_path_factory.mktemp("pipeline")
    DDPMPipeline(network, DDPMScheduler(beta_end=0.03)).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return shutil.copytree(saved, tmp_path / "pipeline")


def change(path: Path, **entries: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


@torch.no_grad()
def test_the_teacher_that_was_saved(folder: Path) -> None:
    from diffusers import DDPMScheduler

    written, x = pid.teachers.from_diffusers(unet(), DDPMScheduler(beta_end=0.03)), 9 * torch.randn(2, 1, 4, 4)
    read: Any = pid.load_teacher(str(folder))
    torch.testing.assert_close(read(x, 9.0), written(x, 9.0))
    assert all(torch.equal(value, read.state_dict()[name]) for name, value in written.state_dict().items())
    assert (read.event_shape, read.sigma_max) == ((1, 4, 4), written.sigma_max)
    assert not read.training
    assert not any(p.requires_grad for p in read.parameters())
    for part in ("unet", "scheduler"):  # as older pipelines are laid out
        for file in (folder / part).iterdir():
            file.rename(folder / file.name)
        (folder / part).rmdir()
    torch.testing.assert_close(pid.load_teacher(folder)(x, 9.0), written(x, 9.0))


def pickled(folder: Path) -> None:
    torch.save(safetensors.torch.load_file(folder / WEIGHTS), folder / "unet/diffusion_pytorch_model.bin")
    (folder / WEIGHTS).unlink()


def incomplete(folder: Path) -> None:
    tensors = safetensors.torch.load_file(folder / WEIGHTS)
    tensors.pop("conv_in.bias")
    safetensors.torch.save_file(tensors, folder / WEIGHTS, {"format": "pt"})


def index(**entries: Any) -> Callable[[Path], None]:
    return lambda folder: change(folder / diffusers_folder.INDEX, **entries)


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "of latents": (index(vqvae=["diffusers", "VQModel"]), "vqvae in addition to its unet"),
    "code of its own": (index(unet=["unet", "UNet2DModel"]), "its unet is a unet.UNet2DModel"),
    "another network": (index(unet=["diffusers", "UNet1DModel"]), "diffusers.UNet1DModel, not a UNet2DModel"),
    "no scheduler": (index(scheduler=["diffusers", "DDPMPipeline"]), "DDPMPipeline, not a SchedulerMixin"),
    "nothing": (lambda folder: (folder / diffusers_folder.INDEX).write_text("{}"), "'unet'"),
    "no index": (lambda folder: (folder / diffusers_folder.INDEX).write_text("{"), "Expecting"),
    "pickles": (pickled, "no file named diffusion_pytorch_model.safetensors"),
    "missing weights": (incomplete, r"weights are not those of its network.*conv_in\.bias"),
    "other weights": (lambda folder: change(folder / "unet/config.json", block_out_channels=[8, 16]), "expected shape"),
    "a prediction unknown": (
        lambda folder: change(folder / "scheduler/scheduler_config.json", prediction_type="velocity"),
        "prediction_type = 'velocity'",
    ),
}


@pytest.mark.parametrize(("damage", "says"), BROKEN.values(), ids=BROKEN)
def test_folders_of_something_else(damage: Callable[[Path], Any], says: str, folder: Path) -> None:
    trap = "import os\nos.mkdir(os.path.join(os.path.dirname(__file__), 'executed'))\nclass UNet2DModel: pass\n"
    for name in ("unet.py", "unet/unet.py", "pipeline.py"):
        (folder / name).write_text(trap)
    damage(folder)
    with pytest.raises(ValueError, match=rf"(?s)holds no pipeline that can be read: .*{says}"):
        pid.load_teacher(folder)
    assert not list(folder.rglob("executed"))


def test_without_diffusers(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ImportError, match=r"the folder of a pipeline, needs .*diffusers.*pip install"):
        pid.load_teacher(saved)


def test_distilled_from_the_command_line(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    brief = recipe(tmp_path, text='teacher = "some"\n[config]\nsteps = 2\nbatch_size = 2\nn = 8\n')
    assert main.main(["distill", str(brief), "--teacher", str(saved), "--out", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "samples.png").exists()
    student = str(tmp_path / "run" / "student.safetensors")
    assert main.main(["sample", student, "-n", "2", "--teacher", str(saved), "-o", str(tmp_path / "two.png")]) == 0
    assert main.main(["evaluate", student, "-n", "2", "--teacher", str(saved)]) == 0
    assert main.main(["sample", student, "-n", "2", "-o", str(tmp_path / "one.png")]) == 1
    assert "pass that teacher too" in capsys.readouterr().err
