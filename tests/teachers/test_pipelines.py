"""Folders of diffusers' pipelines: the network that was saved, nothing executed, and a run from the command line."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import pidlearn as pid
from pidlearn.cli import evaluate, main, shared
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


@pytest.mark.parametrize(
    "options",
    [
        {"variant": "fp16"},
        {"max_shard_size": "40KB"},
        {"variant": "fp16", "max_shard_size": "40KB"},
        {"safe_serialization": False},
        {"safe_serialization": False, "variant": "ema"},
        {"safe_serialization": False, "max_shard_size": "40KB"},
        {"safe_serialization": False, "max_shard_size": "40KB", "variant": "fp16"},
    ],
)
@torch.no_grad()
def test_every_way_to_save_weights(options: dict[str, Any], tmp_path: Path) -> None:
    """diffusers' own writer: variants, shards, and pickles, which are read without running them."""
    network = unet()
    from diffusers import DDPMPipeline, DDPMScheduler

    DDPMPipeline(network, DDPMScheduler()).save_pretrained(tmp_path, **options)
    assert not (tmp_path / WEIGHTS).exists()
    read = pid.load_teacher(tmp_path).network.module.state_dict()
    assert all(torch.equal(value, read[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    "main",
    [
        {},
        {"max_shard_size": "40KB"},
        {"safe_serialization": False},
        {"safe_serialization": False, "max_shard_size": "40KB"},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "other", [{}, {"safe_serialization": False}, {"safe_serialization": False, "max_shard_size": "40KB"}], ids=str
)
@torch.no_grad()
def test_the_plain_weights_go_before_a_variant(main: dict[str, Any], other: dict[str, Any], tmp_path: Path) -> None:
    """As in UNet2DModel.from_pretrained, whatever format each is in."""
    network, second = unet(), unet()
    from diffusers import DDPMPipeline, DDPMScheduler

    second.conv_in.bias += 1
    DDPMPipeline(network, DDPMScheduler()).save_pretrained(tmp_path, **main)
    DDPMPipeline(second, DDPMScheduler()).save_pretrained(tmp_path, variant="non_ema", **other)
    assert torch.equal(pid.load_teacher(tmp_path).network.module.conv_in.bias, network.conv_in.bias)


@torch.no_grad()
def test_a_score_sde_ve_pipeline(tmp_path: Path) -> None:
    """The network predicts the score: one step of diffusers' probability flow gives D = x + sigma^2 unet(x, sigma)."""
    network = unet(time_embedding_type="fourier")
    from diffusers import ScoreSdeVePipeline, ScoreSdeVeScheduler

    ScoreSdeVePipeline(network, ScoreSdeVeScheduler(sigma_max=50.0)).save_pretrained(tmp_path)
    teacher: Any = pid.load_teacher(tmp_path)
    x, sigma = 9 * torch.randn(2, 1, 4, 4), torch.tensor([0.3, 9.0])
    expected = x + (sigma**2)[:, None, None, None] * network(x, sigma).sample
    torch.testing.assert_close(teacher(x, sigma), expected)
    assert (teacher.sigma_min, teacher.sigma_max) == (0.01, 50.0)
    with torch.enable_grad():
        result = pid.distill(teacher, steps=2, batch_size=2, n=8, progress=False)
    assert result.sample(2).isfinite().all()


def test_what_is_no_pipeline_says_what_to_do(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"no file google/ddpm.*from_diffusers\(diffusers.*'google/ddpm-cifar10'"
    ):
        pid.load_teacher("google/ddpm-cifar10")
    with pytest.raises(
        ValueError, match=r"one part of a diffusers pipeline: pass the pipeline's.*UNet2DModel.from_pre"
    ):
        pid.load_teacher(saved / "unet")
    with pytest.raises(ValueError, match=r"not a pidlearn teacher 2 file.*pass the folder of the whole.*from_network"):
        pid.load_teacher(saved / WEIGHTS)
    for convert in (
        lambda: pid.teachers.import_teacher(saved, tmp_path / "a.safetensors"),
        lambda: pid.save_teacher(pid.load_teacher(saved), tmp_path / "a.safetensors"),
    ):
        with pytest.raises(
            ValueError, match=r"third-party network.*save_pretrained\(folder\), which load_teacher reads"
        ):
            convert()
    assert not list(tmp_path.iterdir())


class Hostile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


def hostile(folder: Path) -> None:
    pickled(folder)
    torch.save({"weight": Hostile(folder / "executed")}, folder / "unet/diffusion_pytorch_model.bin")


def two_variants(folder: Path) -> None:
    for name in ("ema.safetensors", "fp16.bin"):
        shutil.copy(folder / WEIGHTS, folder / f"unet/diffusion_pytorch_model.{name}")
    (folder / WEIGHTS).unlink()


def shards_of_pickles(kind: str) -> Callable[[Path], None]:
    """A list of shards under a name that diffusers opens; the last two are those of earlier versions."""

    def damage(folder: Path) -> None:
        hostile(folder)
        (folder / "unet/diffusion_pytorch_model.bin").rename(folder / "unet/other.bin")
        (folder / "unet/diffusion_pytorch_model.fp16.safetensors").touch()
        names = {"metadata": {}, "weight_map": {"conv_in.bias": "other.bin"}}
        (folder / f"unet/diffusion_pytorch_model.{kind}.json").write_text(json.dumps(names))

    return damage


def incomplete(folder: Path) -> None:
    tensors = safetensors.torch.load_file(folder / WEIGHTS)
    tensors.pop("conv_in.bias")
    safetensors.torch.save_file(tensors, folder / WEIGHTS, {"format": "pt"})


def index(**entries: Any) -> Callable[[Path], None]:
    return lambda folder: change(folder / diffusers_folder.INDEX, **entries)


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "of latents": (index(vqvae=["diffusers", "VQModel"]), "vqvae in addition to its unet"),
    "code of its own": (index(unet=["unet", "UNet2DModel"]), "its unet is a unet.UNet2DModel"),
    "another network": (
        index(unet=["diffusers", "UNet1DModel"]),
        "diffusers.UNet1DModel, not a UNet2DModel of diffusers: load .* or from_network",
    ),
    "no scheduler": (index(scheduler=["diffusers", "DDPMPipeline"]), "DDPMPipeline, not a SchedulerMixin"),
    "nothing": (lambda folder: (folder / diffusers_folder.INDEX).write_text("{}"), "'unet'.* to .*from_network"),
    "a pipeline of its own": (
        index(_class_name=["my_pipe", "MyPipe"]),
        r"_class_name is \['my_pipe', 'MyPipe'\], .*not executed.* pass the parts, .*from_diffusers\(UNet2DModel",
    ),
    "a KarrasVe pipeline": (
        index(scheduler=["diffusers", "KarrasVeScheduler"]),
        r"called with \(x \+ 1\) / 2 and sigma / 2.*from_network\(module, lambda",
    ),
    "a DiT": (index(transformer=["diffusers", "DiTTransformer2DModel"]), r"for a DiT, .*from_network\(pipeline.transf"),
    "a consistency model": (
        index(scheduler=["diffusers", "CMStochasticIterativeScheduler"]),
        "belongs to a consistency model.*is no denoiser: distill the diffusion model",
    ),
    "no index": (lambda folder: (folder / diffusers_folder.INDEX).write_text("{"), "Expecting"),
    "pickles that call": (hostile, "refers to 'posix.mkdir'"),
    **{
        f"shards that are pickles, {kind}": (shards_of_pickles(kind), "names files that are not safetensors")
        for kind in ("safetensors.index.fp16", "safetensors.fp16.index", "fp16.safetensors.index")
    },
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), r"no file .*save the pipeline again"),
    "two variants": (two_variants, r"the variants ema, fp16: pass .*UNet2DModel.from_pretrained\(.*variant='ema'\)"),
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


def test_distilled_from_the_command_line(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (shared, evaluate):
        monkeypatch.setattr(command, "GRID_POINTS", 10)  # of the teacher's rows, of which the numbers are not looked at
    brief = recipe(tmp_path, text='teacher = "some"\n[config]\nsteps = 2\nbatch_size = 2\nn = 8\n')
    assert main.main(["distill", str(brief), "--teacher", str(saved), "--out", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "samples.png").exists()
    student = str(tmp_path / "run" / "student.safetensors")
    assert main.main(["sample", student, "-n", "2", "--teacher", str(saved), "-o", str(tmp_path / "two.png")]) == 0
    assert main.main(["evaluate", student, "-n", "2", "--teacher", str(saved)]) == 0
    assert main.main(["sample", student, "-n", "2", "-o", str(tmp_path / "one.png")]) == 1
    assert "pass that teacher too" in capsys.readouterr().err


def test_a_recipe_of_the_official_start_falls_back(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As cifar10-single-gpu has it; a start that the user sets is not replaced."""
    text = 'teacher = "some"\n[config]\nsteps = 2\nbatch_size = 2\nn = 8\ninit = "official"\n'
    command = ["distill", str(recipe(tmp_path, text=text)), "--teacher", str(saved), "--out", str(tmp_path / "run")]
    for _ in range(2):  # the second time it is resumed
        assert main.main(command) == 0
        assert 'student starts as init="teacher" says, not "official" as in the recipe' in capsys.readouterr().err
    assert main.main([*command, "--out", str(tmp_path / "other"), "--set", 'init="official"']) == 1
    assert "a third-party network can only start with" in capsys.readouterr().err
