"""The commands of images from end to end, on a recipe that is done in the blink of an eye."""

from __future__ import annotations

import argparse
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import pidlearn as pid
from pidlearn import recipes
from pidlearn.cli import distill as distill_command
from pidlearn.cli import evaluate as evaluate_command
from pidlearn.cli import shared
from pidlearn.cli.main import duration, main
from pidlearn.equations.from_teacher import problem_from_teacher
from pidlearn.evaluation.images import image_grid, quantize
from pidlearn.methods import PID
from pidlearn.methods.base import Batch, Context
from pidlearn.teachers import save_teacher
from pidlearn.training import checkpoints
from tests.tiny import RECIPE, recipe, teacher

ROOT = Path(__file__).parents[1]


def distill(source: Path, out: Path, *options: str) -> int:
    return main(["distill", str(source), "--out", str(out), *options])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the recipe, and the run of it that nothing has stopped."""
    folder = tmp_path_factory.mktemp("made")
    assert distill(recipe(folder), folder / "run") == 0
    return folder


@pytest.fixture
def begun(made: Path, tmp_path: Path) -> Path:
    """A folder with the same teacher, where nothing was distilled yet."""
    for name in ("teacher.safetensors", "teacher.json"):
        shutil.copy(made / "run" / name, tmp_path)
    return tmp_path


def numbers(run: Path) -> list[int]:
    return [json.loads(line)["number"] for line in (run / "log.jsonl").read_text().splitlines()]


def state(run: Path) -> dict[str, Any]:
    return pid.load(run / "student.safetensors").student.state_dict()


def same(one: dict[str, Any], two: dict[str, Any]) -> bool:
    return all(torch.equal(value, two[name]) for name, value in one.items())


def pixels(path: Path) -> np.ndarray:
    return np.array(Image.open(path))


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command that ends with status 1; what it says, which is one line."""

    def run(*arguments: object) -> str:
        capsys.readouterr()
        assert main([str(argument) for argument in arguments]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith(f"pidlearn {arguments[0]}: ")
        assert err.count("\n") == 1
        return err

    return run


class TestDistill:
    def test_what_a_run_leaves(self, made: Path) -> None:
        run = made / "run"
        found = {path.name for path in run.iterdir()}
        assert found == {
            "teacher-checkpoints", "teacher.safetensors", "teacher.json",
            "checkpoints", "log.jsonl", "student.safetensors", "samples.png",
        }  # fmt: skip
        assert numbers(run) == list(range(1, 7))
        result = pid.load(run / "student.safetensors")
        assert (result.stopped, result.config.steps, result.config.ema) == (None, 6, (0.9,))
        assert result.student.sample(2).shape == (2, 1, 8, 8)
        assert len(result.history["loss"]) == 6
        lines = (run / "log.jsonl").read_text().splitlines()
        assert [json.loads(line)["loss"] for line in lines] == result.history["loss"].tolist()
        assert pixels(run / "samples.png").shape[2] == 3
        assert pid.load_teacher(run / "teacher.safetensors").label_dim == 10

    def test_images_are_of_the_same_noise(self, made: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        rows: dict[str, torch.Tensor] = {}
        monkeypatch.setattr(shared, "comparison", lambda given: rows.update(given) or np.zeros((1, 1, 3), np.uint8))
        shutil.copytree(made / "run", tmp_path / "run")
        assert distill(made / "tiny.toml", tmp_path / "run") == 0
        assert list(rows) == ["teacher, 9 calls", "student, 1 call"]  # n = 10 grid points
        generator = torch.Generator().manual_seed(0)
        z, labels = 80 * torch.randn(16, 1, 8, 8, generator=generator), torch.randint(10, (16,), generator=generator)
        student = pid.load(made / "run" / "student.safetensors").student
        denoiser = pid.load_teacher(made / "run" / "teacher.safetensors")
        with torch.no_grad():
            torch.testing.assert_close(rows["student, 1 call"], student(z, 0.002, labels))
        path = pid.solve(pid.DenoiserODE(denoiser), z, pid.karras_grid(10), "euler", labels)
        torch.testing.assert_close(rows["teacher, 9 calls"], path[-1])

    def test_a_second_call_goes_on(
        self, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run = tmp_path / "run"
        assert distill(made / "tiny.toml", run, "--max-images", "20") == 0
        assert numbers(run) == [1, 2, 3]
        assert "max_images, 20, were done at step 3" in (pid.load(run / "student.safetensors").stopped or "")
        half = state(run)
        monkeypatch.setattr(recipes.teacher, "DenoiserTraining", None)  # it has its teacher
        capsys.readouterr()
        assert distill(made / "tiny.toml", run, "--dry-run") == 0
        assert "\n3 steps of 8 samples by 1 process" in capsys.readouterr().err
        assert distill(made / "tiny.toml", run) == 0
        assert numbers(run) == list(range(1, 7))
        assert not same(half, state(run))
        assert same(state(made / "run"), state(run))
        before = (run / "log.jsonl").read_bytes()
        capsys.readouterr()
        assert distill(made / "tiny.toml", run) == 0
        assert "all steps are already done\ndone: " in capsys.readouterr().err
        assert (run / "log.jsonl").read_bytes() == before

    def test_steps_that_are_done_again_are_told_once(self, made: Path, begun: Path) -> None:
        assert distill(made / "tiny.toml", begun, "--save-every", "2", "--max-images", "40") == 0
        max((begun / "checkpoints").iterdir()).unlink()  # as if it was killed at step 5, saved at 4
        assert numbers(begun) == list(range(1, 6))
        assert distill(made / "tiny.toml", begun) == 0
        assert numbers(begun) == list(range(1, 7))
        assert same(state(made / "run"), state(begun))

    def test_a_dry_run_trains_nothing_and_leaves_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        asked: list[int] = []
        train = recipes.teacher.DenoiserTraining

        def spied(*given: Any) -> Any:
            asked.append(given[-1].steps)
            return train(*given)

        monkeypatch.setattr(recipes.teacher, "DenoiserTraining", spied)
        monkeypatch.chdir(tmp_path)
        source = recipe(tmp_path, text=RECIPE.replace("steps = 3", "steps = 3000").replace("steps = 6", "steps = 6000"))
        assert main(["distill", str(source), "--dry-run"]) == 0
        told = capsys.readouterr().err
        assert "teacher 10,681 parameters, student 10,681; on CPU" in told
        assert "\n6,000 steps of 8 samples by 1 process, 8 in memory at a time\n" in told
        assert "log.jsonl" not in told
        assert asked == [1]
        assert list(tmp_path.iterdir()) == [source]

    def test_a_limit_of_time(self, made: Path, begun: Path) -> None:
        assert distill(made / "tiny.toml", begun, "--max-time", "0.001") == 0
        result = pid.load(begun / "student.safetensors")
        assert result.stopped == "max_time, 0.001 s, was over at step 1"
        assert result.student.sample(2).isfinite().all()
        assert (begun / "samples.png").exists()
        assert distill(made / "tiny.toml", begun) == 0
        assert same(state(made / "run"), state(begun))

    def test_choices_of_the_command(self, made: Path, begun: Path) -> None:
        settings = ["--set", "steps=2", "batch_size=4", "--set", "ema=[0.5, 0.25]", "distance=l1", "constant=true"]
        assert distill(made / "tiny.toml", begun, *settings) == 0
        config = pid.load(begun / "student.safetensors").config
        slower = state(begun), pid.load(begun / "student-0.25.safetensors").student.state_dict()
        assert not same(*slower)
        found = (config.steps, config.batch_size, config.ema, config.distance, config.constant, config.n)
        assert found == (2, 4, (0.5, 0.25), "l1", True, 10)

    def test_what_a_recipe_chose_is_unset(self, begun: Path) -> None:
        source = recipe(begun, text=f'{RECIPE}micro_batch = 4\nprecision = "tf32"\nlast_interval = "backward"\n')
        assert distill(source, begun, "--set", "steps=1", "micro_batch=None", "constant=False") == 0
        config = pid.load(begun / "student.safetensors").config
        assert (config.micro_batch, config.constant, config.last_interval) == (None, False, "backward")

    def test_another_method_than_the_recipes_has_its_own_settings(self, begun: Path) -> None:
        source = recipe(begun, text=f'{RECIPE}derivative = "central"\nweight = "snr"\n')
        assert distill(source, begun, "--method", "cd", "--set", "steps=1", "distance=l1") == 0
        config = pid.load(begun / "student.safetensors").config
        assert (config.method, config.n, config.weight, config.distance) == ("cd", 40, "sqrt_karras", "l1")
        assert config.lr == 1e-3

    def test_errors_that_are_followed_are_written_down(self, made: Path, begun: Path, monkeypatch: Any) -> None:
        monkeypatch.setattr("pidlearn.evaluation.tracking.MEASUREMENTS", 3)
        assert distill(made / "tiny.toml", begun, "--track-error", "4", "--set", "n=3") == 0
        lines = map(json.loads, (begun / "log.jsonl").read_text().splitlines())
        told = [(line["number"], line["error"]) for line in lines if "error" in line]
        history = pid.load(begun / "student.safetensors").history
        assert told == list(zip(history["error_step"].tolist(), history["error"].tolist(), strict=True))
        assert [number for number, _ in told] == [2, 4, 6]

    def test_the_former_name_of_an_option(self, made: Path, begun: Path) -> None:
        with pytest.warns(FutureWarning, match="--reference is deprecated: use --track-error"):
            assert distill(made / "tiny.toml", begun, "--reference", "4", "--set", "steps=1", "n=3") == 0
        assert "error" in pid.load(begun / "student.safetensors").history

    def test_a_full_disk(
        self, made: Path, begun: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def full(path: Path, contents: bytes) -> None:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

        with monkeypatch.context() as patch:
            patch.setattr(checkpoints, "write_atomically", full)
            assert distill(made / "tiny.toml", begun, "--save-every", "4") == 1
            assert "a checkpoint could not be written ([Errno 28] No space left" in capsys.readouterr().err
            assert len(pid.load(begun / "student.safetensors").history["loss"]) == 4
            patch.setattr("pidlearn.students.files.write_atomically", full)
            assert distill(made / "tiny.toml", begun) == 1
            hint = f"fix the problem and run the same command again to resume from {begun}/checkpoints"
            assert f"student.safetensors'; {hint}" in capsys.readouterr().err
        assert distill(made / "tiny.toml", begun) == 0
        assert same(state(made / "run"), state(begun))

    def test_a_teacher_in_place_of_the_recipes(self, made: Path, tmp_path: Path) -> None:
        given = save_teacher(teacher(), tmp_path / "mine.safetensors")
        assert distill(made / "tiny.toml", tmp_path / "run", "--teacher", str(given), "--set", "steps=1") == 0
        assert not (tmp_path / "run" / "teacher.safetensors").exists()
        student = pid.load(tmp_path / "run" / "student.safetensors").student
        assert student.network.options["model_channels"] == 16  # type: ignore[union-attr]  # a U-Net of the registry
        assert student.label_dim == 0

    def test_a_limit_that_ends_while_the_teacher_trains(
        self, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run = tmp_path / "run"
        for step in (1, 2):
            assert distill(made / "tiny.toml", run, "--max-time", "0.001") == 0
            err = capsys.readouterr().err
            assert f"the teacher's training was stopped: max_time, 0.001 s, was over at step {step}; " in err
            assert "run the same command again to resume it" in err
            assert not (run / "student.safetensors").exists()
        assert distill(made / "tiny.toml", run) == 0
        assert same(state(made / "run"), state(run))

    def test_a_limit_of_images_that_is_reached_stays_reached(self, made: Path, tmp_path: Path) -> None:
        run = tmp_path / "run"
        for _ in range(2):
            assert distill(made / "tiny.toml", run, "--max-images", "16") == 0
            assert numbers(run) == [1, 2]
            assert pid.load(run / "student.safetensors").stopped == "max_images, 16, were done at step 2"

    def test_a_run_that_diverges_does_not_end_well(
        self, made: Path, begun: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        loss = PID.loss

        def diverging(self: PID, context: Context, batch: Batch) -> torch.Tensor:
            return loss(self, context, batch) * (1 if context.step < 3 else np.nan)

        monkeypatch.setattr(distill_command, "_print_plan", lambda *_: None)  # it would notice, too
        monkeypatch.setattr(PID, "loss", diverging)
        assert distill(made / "tiny.toml", begun, "--set", "steps=9") == 1
        assert "training stopped at step 4" in capsys.readouterr().err
        assert pid.load(begun / "student.safetensors").student.sample(2).isfinite().all()

    def test_an_interrupt(self, made: Path, begun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(PID, "loss", interrupt)
            assert distill(made / "tiny.toml", begun) == 130  # while it measures
        monkeypatch.setattr("pidlearn.training.loggers._truncate", interrupt)
        assert distill(made / "tiny.toml", begun) == 130
        assert pid.load(begun / "student.safetensors").stopped == "interrupted at step 1"

    def test_lists(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["distill", "--list"]) == 0
        out = capsys.readouterr().out
        assert [line.split()[0] for line in out.splitlines()] == list(recipes.names())


def test_images_of_four_channels(tmp_path: Path) -> None:
    save_teacher(teacher(img_channels=4), tmp_path / "latent.safetensors")
    config = RECIPE[RECIPE.index("[config]") :].replace("steps = 6", "steps = 2").replace("n = 10", "n = 3")
    source = recipe(tmp_path, "latent", f'teacher = "{(tmp_path / "latent.safetensors").as_posix()}"\n{config}')
    assert distill(source, tmp_path / "run") == 0
    student = tmp_path / "run" / "student.safetensors"
    assert pid.load(student).student.event_shape == (4, 8, 8)
    assert pixels(tmp_path / "run" / "samples.png").shape[1] > 8 * 48 * 4  # eight columns, enlarged
    assert main(["sample", str(student), "-n", "1", "-o", str(tmp_path / "one.png")]) == 0
    assert pixels(tmp_path / "one.png").shape == (8, 8 * 4, 3)


def test_a_teacher_of_points_has_no_picture(tmp_path: Path) -> None:
    points = pid.train_denoiser(torch.randn(64, 2), steps=2, batch_size=8, progress=False)
    save_teacher(points, tmp_path / "points.safetensors")
    config = RECIPE[RECIPE.index("[config]") :].replace("steps = 6", "steps = 2").replace("n = 10", "n = 3")
    source = recipe(tmp_path, "points", f'teacher = "{(tmp_path / "points.safetensors").as_posix()}"\n{config}')
    assert distill(source, tmp_path / "run") == 0
    assert pid.load(tmp_path / "run" / "student.safetensors").student.event_shape == (2,)
    assert not (tmp_path / "run" / "samples.png").exists()


class TestWhatDistillRefuses:
    def test_no_recipe(self, fails: Any) -> None:
        assert "the recipe is missing: expected a .toml file, or a name that --list shows" in fails("distill")
        told = fails("distill", "--set", "lr=1e-4", "digits")  # which takes it in
        assert "--set got 'digits': expected NAME=VALUE, as in lr=1e-4, after the name of the recipe" in told

    def test_what_is_not_there(self, tmp_path: Path, fails: Any) -> None:
        assert "no recipe 'cifar11': expected a .toml file or one of cifar10" in fails("distill", "cifar11")
        told = fails("distill", "cifar10", "--teacher", "no.pkl", "--out", tmp_path)
        assert "there is no file no.pkl, and it is not the name of a published teacher: expected one of edm-" in told
        assert "there is no device 'abacus' here" in fails("distill", "digits", "--out", tmp_path, "--device", "abacus")

    @pytest.mark.parametrize(
        ("setting", "says"),
        [
            ("lr", "--set got 'lr': expected NAME=VALUE, as in lr=1e-4, after the name of the recipe"),
            ("rate=1", "unknown setting rate"),
            ("lr=fast", "got lr = 'fast', but lr must be a positive number"),
            ("steps=2.5", "got steps = 2.5, but steps must be a whole number from 1 to 2^63 - 1"),
            ("distance=lpipz", "distance must be one of"),
            ("constant=no", "got constant = 'no', but constant must be True or False"),
            ("compile=induktor", "compile must be None or a backend"),
            ("n=1000000000000", "got n = 1000000000000, but n must be a whole number of grid points, 2 to 2^31 - 1"),
            (
                "batch_size=1000000000000",
                "got batch_size = 1000000000000, but batch_size must be a whole number from 1",
            ),
            ("steps=1" + "0" * 30, "got steps = 1000"),
            ("steps=" + "9" * 5000, "got steps = '999"),
            ("ema=" + "[" * 5000 + "]" * 5000, "ema must be a tuple"),
            ("steps=" + "(" * 5000, "steps must be a whole number"),
        ],
    )
    def test_settings(self, made: Path, begun: Path, fails: Any, setting: str, says: str) -> None:
        assert says in fails("distill", made / "tiny.toml", "--out", begun, "--set", setting)
        assert not (begun / "checkpoints").exists()

    @pytest.mark.parametrize(
        ("setting", "says"),
        [
            ("identity=semigroup", "n = 10, but steps that double"),
            ("at_end=2", "at_end must be"),
            ("derivative=exact", "does not use"),
        ],
    )
    def test_what_cannot_work_before_a_teacher_is_trained(
        self, made: Path, tmp_path: Path, fails: Any, setting: str, says: str
    ) -> None:
        assert says in fails(
            "distill", made / "tiny.toml", "--out", tmp_path, "--method", "flow_map", "--set", "n=10", setting
        )
        assert not list(tmp_path.glob("teacher*"))

    def test_a_device_without_numbers(self, made: Path, fails: Any) -> None:
        says = "got device 'meta', whose tensors hold no numbers: expected cpu, cuda"
        student, teacher = made / "run" / "student.safetensors", made / "run" / "teacher.safetensors"
        assert says in fails("distill", made / "tiny.toml", "--device", "meta", "--dry-run")
        assert says in fails("sample", student, "--device", "meta")
        assert says in fails("evaluate", student, "--teacher", teacher, "--device", "meta")

    def test_more_samples_than_memory_holds(self, made: Path, fails: Any) -> None:
        student = made / "run" / "student.safetensors"
        for n in (10**14, 9 * 10**18):
            for command in (["sample", student], ["evaluate", student, "--real", "digits"]):
                assert re.search("this needs more memory than there is: |n must be a whole", fails(*command, "-n", n))

    @pytest.mark.parametrize(
        "option", ["--max-time=0", "--max-time=1h30m", "--max-images=1e6", "--save-every=-1", "--track-error=-1"]
    )
    def test_limits_that_are_none(self, option: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            main(["distill", "digits", option])
        name, value = option.split("=")
        assert re.search(f"argument {name}: got '{value}', but ", capsys.readouterr().err)

    def test_a_folder_that_is_a_file(self, made: Path, tmp_path: Path, fails: Any, monkeypatch: Any) -> None:
        monkeypatch.setattr(recipes.teacher, "DenoiserTraining", None)  # it is told before a teacher is trained
        (tmp_path / "run").write_text("")
        assert "run'" in fails("distill", made / "tiny.toml", "--out", tmp_path / "run")

    def test_too_many_tracked_samples(self, made: Path, tmp_path: Path, fails: Any, monkeypatch: Any) -> None:
        monkeypatch.setattr(recipes.teacher, "DenoiserTraining", None)  # it is told before a teacher is trained
        told = fails("distill", made / "tiny.toml", "--out", tmp_path / "run", "--track-error", 10**12)
        assert "got track_error = 1000000000000, but track_error must be a whole number from 0 to 2^31 - 1" in told

    def test_a_folder_of_another_run(self, made: Path, tmp_path: Path, fails: Any) -> None:
        shutil.copytree(made / "run", tmp_path / "run")
        told = fails("distill", made / "tiny.toml", "--out", tmp_path / "run", "--set", "lr=0.5")
        assert "holds a run with other settings (lr = 0.001, here 0.5): use another folder" in told
        other = recipe(tmp_path, text=RECIPE.replace("steps = 3", "steps = 4"))
        told = fails("distill", other, "--out", tmp_path / "run")
        assert "teacher.safetensors was trained as" in told
        assert "which differs from the recipe: use another folder" in told
        (tmp_path / "run" / "teacher.json").write_text('{"data"')
        told = fails("distill", made / "tiny.toml", "--out", tmp_path / "run")
        assert "teacher.json, which says how teacher.safetensors was trained, is damaged" in told

    def test_a_tracker_that_is_not_installed(self, made: Path, begun: Path, fails: Any, monkeypatch: Any) -> None:
        monkeypatch.setattr("pidlearn.training.loggers.find_spec", lambda name: None)
        told = fails("distill", made / "tiny.toml", "--out", begun, "--track", "wandb")
        assert "pip install 'pidlearn[images]' wandb" in told


class TestSample:
    def test_ours(self, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        file, out = made / "run" / "student.safetensors", tmp_path / "a.png"
        assert main(["sample", str(file), "-o", str(out), "-n", "6", "--seed", "3"]) == 0
        assert capsys.readouterr().out == f"{out}\n"
        images = pid.load(file).student.sample(6, generator=torch.Generator().manual_seed(3))
        assert np.array_equal(pixels(out), image_grid(images))
        assert main(["sample", str(file), "-o", str(out), "-n", "6", "--seed", "3", "--label", "7"]) == 0
        images = pid.load(file).student.sample(6, torch.full((6,), 7), torch.Generator().manual_seed(3))
        assert np.array_equal(pixels(out), image_grid(images))

    def test_beside_its_teacher_from_the_same_noise(self, made: Path, tmp_path: Path, monkeypatch: Any) -> None:
        rows: dict[str, torch.Tensor] = {}
        monkeypatch.setattr(shared, "comparison", lambda given: rows.update(given) or np.zeros((1, 1, 3), np.uint8))
        files = [str(made / "run" / name) for name in ("student.safetensors", "teacher.safetensors")]
        options = ["-o", str(tmp_path / "a.png"), "-n", "3", "--seed", "3"]
        student = pid.load(files[0]).student
        for label, labels in (([], None), (["--label", "7"], torch.full((3,), 7))):
            assert main(["sample", files[0], "--teacher", files[1], *options, *label]) == 0
            assert list(rows) == ["teacher, 249 calls", "student, 1 call"]
            expected = student.sample(3, labels, torch.Generator().manual_seed(3))
            torch.testing.assert_close(rows["student, 1 call"], expected)
        assert rows["teacher, 249 calls"].shape == (3, 1, 8, 8)

    def test_over_the_students_own_span(self, made: Path, begun: Path, tmp_path: Path, monkeypatch: Any) -> None:
        assert distill(made / "tiny.toml", begun, "--set", "steps=1", "t_max=40.0", "t_min=0.01") == 0
        rows: dict[str, torch.Tensor] = {}
        monkeypatch.setattr(shared, "GRID_POINTS", 10)  # the teacher's row is not looked at
        monkeypatch.setattr(shared, "comparison", lambda given: rows.update(given) or np.zeros((1, 1, 3), np.uint8))
        files = [str(begun / name) for name in ("student.safetensors", "teacher.safetensors")]
        assert main(["sample", files[0], "--teacher", files[1], "-o", str(tmp_path / "a.png"), "-n", "2"]) == 0
        expected = pid.load(files[0]).student.sample(2, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(rows["student, 1 call"], expected)

    def test_of_a_teacher_alone(self, made: Path, tmp_path: Path, fails: Any) -> None:
        file, out = made / "run" / "teacher.safetensors", tmp_path / "a.png"
        options = ["-o", str(out), "-n", "3", "--seed", "3", "--calls", "5", "--label", "7"]
        assert main(["sample", "--teacher", str(file), *options]) == 0
        z = 80 * torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(3))
        ode = pid.DenoiserODE(pid.load_teacher(file))
        images = pid.solve(ode, z, pid.karras_grid(6), "euler", torch.full((3,), 7))[-1]
        assert np.array_equal(pixels(out), image_grid(images))

    def test_of_the_official_code(self, tmp_path: Path) -> None:
        network = teacher().model
        torch.save(network.state_dict(), tmp_path / "ema_1.pt")
        assert main(["sample", str(tmp_path / "ema_1.pt"), "-o", str(tmp_path / "a.png"), "-n", "4"]) == 0
        student = pid.Trajectory(network, sigma_data=0.5, event_shape=(1, 8, 8))
        images = student.sample(4, generator=torch.Generator().manual_seed(0))
        assert np.array_equal(pixels(tmp_path / "a.png"), image_grid(images))

    def test_what_it_refuses(self, made: Path, tmp_path: Path, fails: Any) -> None:
        file, out = made / "run" / "student.safetensors", tmp_path / "a.png"
        for label in (10, -1, 10**20):
            assert f"got label {label}, but class labels must lie in 0..9" in fails(
                "sample", file, "-o", out, "--label", label
            )
        for folder in (tmp_path / "no.safetensors", tmp_path / "no" / "student"):
            assert f"there is no file {folder}: check the path" in fails("sample", folder, "-o", out)
        assert f"{tmp_path} is a folder: pass the path of a file" in fails("sample", tmp_path, "-o", out)
        assert "is not a pidlearn student" in fails("sample", made / "run" / "teacher.safetensors", "-o", out)
        (tmp_path / "edm.pkl").write_bytes(b"\x80\x04N.")
        message = fails("sample", tmp_path / "edm.pkl", "-o", out)
        assert "edm.pkl is a pickle, as EDM's teachers are, and no student: leave the student out and pass" in message
        assert "nothing to sample from: give a student's file, a teacher, or both" in fails("sample", "-o", out)
        both = [file, "--teacher", made / "run" / "teacher.safetensors"]
        for command in (["sample", file, "-o", out], ["sample", *both[1:], "-o", out], ["evaluate", *both[1:]]):
            options = ["--real", "digits"] if command[0] == "evaluate" else []
            message = fails(*command, "--calls", 4, "--refine", 0.5, *options)
            assert "got refine = 0.5, but errors are estimated of a student with its teacher: give both" in message
        assert "there is no file no.pkl" in fails("sample", file, "-o", out, "--teacher", "no.pkl")
        other = save_teacher(teacher(), tmp_path / "other.safetensors")
        told = fails("sample", file, "-o", out, "--teacher", other)
        assert "images (1, 8, 8) of 10 classes, the teacher images (1, 8, 8) of 0 classes" in told
        torch.save(teacher().model.state_dict(), tmp_path / "unconditional.pt")
        assert "got label 3 for an unconditional student: leave the label out" in fails(
            "sample", tmp_path / "unconditional.pt", "-o", out, "--label", 3
        )
        points = pid.distill(pid.toy("ring"), steps=1, batch_size=4, progress=False).save(tmp_path / "points")
        assert "one image, (n, C, H, W)" in fails("sample", points, "-o", out)
        assert "tiny.toml, but the images are written as PNG: choose a name that ends in .png" in fails(
            "sample", file, "-o", made / "tiny.toml"
        )
        assert not out.exists()


@pytest.mark.parametrize("method", ["flow_map", "ct"])
@pytest.mark.filterwarnings("ignore:the teacher states no standard deviation")
def test_students_are_called_several_times(
    method: str, made: Path, tmp_path: Path, monkeypatch: Any, fails: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those that add noise between their calls, too: it comes after the starts from the same generator."""
    data = {"data": torch.randn(8, 1, 8, 8)} if method == "ct" else {}
    result = pid.distill(teacher(), method=method, steps=1, batch_size=2, n=5, progress=False, **data)
    file, source = result.save(tmp_path / "student"), save_teacher(teacher(), tmp_path / "teacher.safetensors")
    options = [str(file), "-n", "5", "--seed", "3", "--calls", "3"]
    expected = result.student.sample(5, generator=torch.Generator().manual_seed(3), calls=3)
    assert not torch.equal(expected, result.student.sample(5, generator=torch.Generator().manual_seed(3)))
    assert main(["sample", *options, "-o", str(tmp_path / "a.png")]) == 0
    assert np.array_equal(pixels(tmp_path / "a.png"), image_grid(expected))
    rows: dict[str, torch.Tensor] = {}
    monkeypatch.setattr(shared, "GRID_POINTS", 5)
    monkeypatch.setattr(evaluate_command, "GRID_POINTS", 5)
    monkeypatch.setattr(shared, "comparison", lambda given: rows.update(given) or np.zeros((1, 1, 3), np.uint8))
    assert main(["sample", *options, "--teacher", str(source), "-o", str(tmp_path / "a.png")]) == 0
    torch.testing.assert_close(rows["student, 3 calls"], expected)
    capsys.readouterr()
    assert main(["evaluate", *options, "--teacher", str(source)]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured["calls"] == 3
    if method == "ct":
        assert measured["energy (n = 5)"] < 1
        assert "relative_rmse (n = 5)" not in measured
    else:
        error = pid.metrics.relative_rmse(expected, rows["teacher, 4 calls"])
        assert measured["relative_rmse (n = 5)"] == pytest.approx(error, abs=2e-6)
    one = [made / "run" / "student.safetensors", "--calls", "2"]
    assert "a Trajectory has no multi-step sampler: leave calls out, or pass the teacher" in fails("sample", *one)


def test_the_teacher_takes_the_other_calls_of_a_path(
    made: Path, tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pidlearn.refinement.calibration.IMAGES", 4)
    monkeypatch.setattr("pidlearn.refinement.calibration.SPLITS", (2,))
    monkeypatch.setattr("pidlearn.refinement.calibration.TRIES", 2)
    monkeypatch.setattr("pidlearn.equations.diffusion.EXACT_STEPS", 8)
    monkeypatch.setattr(shared, "GRID_POINTS", 10)  # the teacher's row is not looked at
    rows: dict[str, torch.Tensor] = {}
    monkeypatch.setattr(shared, "comparison", lambda given: rows.update(given) or np.zeros((1, 1, 3), np.uint8))
    teacher_file = made / "run" / "teacher.safetensors"
    student = shutil.copy(made / "run" / "student.safetensors", tmp_path)
    both = [str(student), "--teacher", str(teacher_file), "-n", "5", "--calls", "4"]
    assert main(["sample", *both, "-o", str(tmp_path / "a.png")]) == 0
    result = pid.load(both[0], teacher=pid.load_teacher(teacher_file))
    generator = torch.Generator().manual_seed(0)
    z, labels = result.problem.sample_prior(5, generator), result.problem.sample_labels(5, generator)
    torch.testing.assert_close(rows["student and teacher, 4 calls"], result.generate(z, labels, calls=4))
    assert "measuring how the teacher helps with 4 calls, once per student" in capsys.readouterr().err
    assert main(["evaluate", *both]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["calls"] == 4
    assert "measuring" not in printed.err
    kept = pid.load(both[0])  # what was measured is in the file, which is the same otherwise
    assert kept.student.calibration.keys() == {"4 calls"}
    assert main(["sample", *both, "--refine", "0.4", "-o", str(tmp_path / "a.png")]) == 0
    expected = result.generate(z, labels, calls=4, refine=0.4)
    torch.testing.assert_close(rows["student and teacher, 4 calls for 40 %"], expected)
    assert main(["sample", *both, "--refine", "0", "-o", str(tmp_path / "a.png")]) == 0
    torch.testing.assert_close(rows["student and teacher, 4 calls for 0 %"], result.generate(z, labels))
    capsys.readouterr()
    for share in (-0.1, 1.5):
        with pytest.raises(ValueError, match="refine"):
            evaluate_command.evaluate(both[0], teacher=both[2], refine=share)
    with pytest.raises(ValueError, match="calls"):
        evaluate_command.evaluate(both[0], teacher=both[2], calls=0)
    assert main(["evaluate", *both, "--refine", "0.4"]) == 0
    measured = json.loads(capsys.readouterr().out)
    exact = pid.metrics.relative_rmse(expected, result.problem.exact_samples(z, labels))
    assert measured["relative_rmse (n = 5)"] == pytest.approx(exact, rel=1e-4)
    assert (measured["calls"], measured["refine"]) == (4, 0.4)
    assert kept.config == result.config
    assert same(kept.student.state_dict(), result.student.state_dict())


def test_a_teacher_that_the_student_was_not_trained_with(made: Path, tmp_path: Path, fails: Any) -> None:
    """Of the same shape and classes, with other weights."""
    student, teacher_net = made / "run" / "student.safetensors", pid.load_teacher(made / "run" / "teacher.safetensors")
    with torch.no_grad():
        for weight in teacher_net.parameters():
            weight.mul_(1.2)
    other = save_teacher(teacher_net, tmp_path / "other.safetensors")
    for command in ("sample", "evaluate"):
        assert "holds the student of another teacher than" in fails(command, student, "--teacher", other)


class TestEvaluate:
    def test_figures(self, made: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.setattr(evaluate_command, "GRID_POINTS", 30)  # of 250, as `test_fid` has
        files = [made / "run" / name for name in ("student.safetensors", "teacher.safetensors")]
        options = ["--teacher", str(files[1]), "-n", "70", "--seed", "3", "--real", "digits"]
        assert main(["evaluate", str(files[0]), *options]) == 0
        figures = json.loads(capsys.readouterr().out)
        told = "(pixels, n = 70, 70 real)"
        names = [
            "n",
            "seed",
            "calls",
            "relative_rmse (n = 70)",
            f"frechet {told}",
            f"precision {told}",
            f"recall {told}",
        ]
        assert list(figures) == names
        assert (figures["n"], figures["seed"]) == (70, 3)
        result = pid.load(files[0], pid.load_teacher(files[1]))
        result = replace(result, config=pid.Config(n=30, t_max=80.0, t_min=0.002))
        expected = result.evaluate(70, seed=3)["relative_rmse"]
        assert figures["relative_rmse (n = 70)"] == pytest.approx(expected, rel=1e-4)
        ours = result.student.sample(70, generator=torch.Generator().manual_seed(3))
        as_bytes = [quantize(x) for x in (ours, recipes.load_images({"data": "digits"})[0][:70])]
        frechet = pid.metrics.frechet_distance(*as_bytes)
        assert figures[f"frechet {told}"] == pytest.approx(frechet, abs=2e-6)
        del options[:2]
        assert main(["evaluate", str(files[0]), *options]) == 0  # without its teacher
        del figures["relative_rmse (n = 70)"]
        assert json.loads(capsys.readouterr().out) == figures

    def test_of_a_teacher_alone(
        self, made: Path, monkeypatch: Any, fails: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Its Euler solution, which the student's error refers to."""
        monkeypatch.setattr(shared, "GRID_POINTS", 6)
        file = made / "run" / "teacher.safetensors"
        assert main(["evaluate", "--teacher", str(file), "-n", "70", "--real", "digits"]) == 0
        figures = json.loads(capsys.readouterr().out)
        assert (figures["n"], figures["calls"]) == (70, 5)
        problem = problem_from_teacher(pid.load_teacher(file))
        generator = torch.Generator().manual_seed(0)
        z, labels = problem.sample_prior(70, generator), problem.sample_labels(70, generator)
        images = problem.reference_samples(z, pid.karras_grid(6), labels)
        as_bytes = [quantize(x) for x in (images, recipes.load_images({"data": "digits"})[0][:70])]
        frechet = pid.metrics.frechet_distance(*as_bytes)
        assert figures["frechet (pixels, n = 70, 70 real)"] == pytest.approx(frechet, rel=1e-5)
        assert not any("floor" in name for name in figures)  # half of 70 images are too few for 64 pixels
        assert main(["evaluate", "--teacher", str(file), "-n", "140", "--real", "digits"]) == 0
        figures = json.loads(capsys.readouterr().out)
        real = quantize(recipes.load_images({"data": "digits"})[0][:140])
        floor = pid.metrics.floor(pid.metrics.frechet_distance, real.flatten(1), splits=2)
        assert figures["frechet floor (70 and 70 real)"] == pytest.approx(floor, rel=1e-5)
        assert "nothing to compare with: give reference statistics (fid) or real images" in fails(
            "evaluate", "--teacher", file
        )

    def test_fid(self, made: Path, tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.setattr(evaluate_command, "Inception", lambda weights: lambda images: images.flatten(1)[:, :3])
        np.savez(tmp_path / "reference.npz", mu=np.zeros(3), sigma=np.eye(3))
        files = [made / "run" / name for name in ("student.safetensors", "teacher.safetensors")]
        options = ["--teacher", str(files[1]), "-n", "5", "--fid", str(tmp_path / "reference.npz")]
        assert main(["evaluate", str(files[0]), *options]) == 0
        figures = json.loads(capsys.readouterr().out)
        assert list(figures) == ["n", "seed", "calls", "relative_rmse (n = 5)", "fid (n = 5)"]
        result = pid.load(files[0], pid.load_teacher(files[1]))
        result = replace(result, config=pid.Config(n=250, t_max=80.0, t_min=0.002))
        expected = result.evaluate(5, seed=0)["relative_rmse"]
        assert figures["relative_rmse (n = 5)"] == pytest.approx(expected, rel=1e-4)
        ours = pid.load(files[0]).student.sample(5, generator=torch.Generator().manual_seed(0)).flatten(1)[:, :3]
        reference = pid.metrics.Statistics(torch.zeros(3).double(), torch.eye(3).double())
        assert figures["fid (n = 5)"] == pytest.approx(pid.metrics.frechet_distance(ours, reference), rel=1e-4)

    @pytest.mark.parametrize("kind", ["folder", "zip", "npz"])
    def test_fid_to_images_of_ones_own(
        self, made: Path, tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str], fails: Any, kind: str
    ) -> None:
        monkeypatch.setattr(evaluate_command, "CHUNK", 3)
        monkeypatch.setattr(evaluate_command, "Inception", lambda weights: lambda images: images.flatten(1)[:, 20:23])
        folder, student = tmp_path / "mine", made / "run" / "student.safetensors"
        folder.mkdir()
        images = np.random.default_rng(0).integers(0, 256, (8, 8, 8), np.uint8)
        for i, image in enumerate(images):
            Image.fromarray(image).save(folder / f"{i}.png")
        source = folder if kind == "folder" else tmp_path / f"packed.{kind}"
        if kind == "zip":
            shutil.make_archive(str(source.with_suffix("")), "zip", folder)
        elif kind == "npz":
            np.savez(source, images=images[:, None])
        assert main(["evaluate", str(student), "-n", "5", "--fid", str(source)]) == 0
        figures = json.loads(capsys.readouterr().out)
        ours = pid.load(student).student.sample(5, generator=torch.Generator().manual_seed(0))
        theirs = torch.from_numpy(images).flatten(1)[:, 20:23] / 127.5 - 1
        expected = pid.metrics.frechet_distance(ours.flatten(1)[:, 20:23], theirs)
        assert figures["fid (n = 5)"] == pytest.approx(expected, rel=1e-4)
        for i in range(3, 8):
            (folder / f"{i}.png").unlink()
        assert f"3 samples ({folder}) are too few for a Fréchet distance of 3" in fails(
            "evaluate", student, "-n", 5, "--fid", folder
        )
        for file in folder.iterdir():
            Image.fromarray(images[0, :4, :4]).save(file)
        assert "mine are (1, 4, 4), but the student's are (1, 8, 8): resize them" in fails(
            "evaluate", student, "-n", 5, "--fid", folder
        )

    def test_what_it_refuses_before_it_computes(self, made: Path, tmp_path: Path, fails: Any, monkeypatch: Any) -> None:
        monkeypatch.setattr("pidlearn.equations.diffusion.Diffusion.reference_samples", None)
        monkeypatch.setattr(urllib.request, "urlopen", refuse)
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        both = [made / "run" / "student.safetensors", "--teacher", made / "run" / "teacher.safetensors"]
        np.savez(tmp_path / "reference.npz", mu=np.zeros(2048), sigma=np.eye(2048))
        told = fails("evaluate", *both, "--fid", tmp_path / "reference.npz")
        assert f"{tmp_path}/hub/checkpoints/weights-inception" in told
        assert "(the Inception weights of FID) is missing and could not be downloaded" in told
        assert "no.npz: pass the .npz of mu and sigma" in fails("evaluate", *both, "--fid", tmp_path / "no.npz")
        told = fails("evaluate", tmp_path / "no.safetensors", "--real", "digits")
        assert f"there is no file {tmp_path / 'no.safetensors'}: check the path" in told
        inception = ["--real", "digits", "--inception", tmp_path / "no.pth"]
        assert "no.pth, which should hold the Inception weights of FID" in fails("evaluate", *both, *inception)
        told = fails("evaluate", *both, "--real", "digits", "-n", 64)
        assert "64 samples (-n) are too few for a Fréchet distance of 64 features" in told
        assert "nothing to compare with" in fails("evaluate", both[0])
        assert "of no use without reference statistics" in fails("evaluate", *both, "--inception", tmp_path / "no.pth")
        assert "got n = 1, but a relative error needs at least 2 samples: give a larger -n" in fails(
            "evaluate", *both, "-n", 1
        )
        other = save_teacher(teacher(img_resolution=16), tmp_path / "other.safetensors")
        assert "the teacher images (1, 16, 16) of 0" in fails("evaluate", both[0], "--teacher", other)
        monkeypatch.setitem(pid.data.DATA_SETS, "fashion-mnist", lambda: pid.data.fashion_mnist(tmp_path))
        assert "dataset-fashion-mnist" in fails("evaluate", *both, "--real", "fashion-mnist")

    def test_fid_of_too_few_or_of_other_features(
        self, made: Path, tmp_path: Path, fails: Any, monkeypatch: Any
    ) -> None:
        monkeypatch.setattr(evaluate_command, "Inception", lambda weights: torch.nn.Identity())
        monkeypatch.setattr("pidlearn.equations.diffusion.Diffusion.reference_samples", None)
        student, reference = made / "run" / "student.safetensors", tmp_path / "reference.npz"
        np.savez(reference, mu=np.zeros(64), sigma=np.eye(64))
        told = fails("evaluate", student, "--fid", reference, "-n", 60)
        assert "60 samples (-n) are too few for a Fréchet distance of 64 features" in told
        monkeypatch.setattr(
            evaluate_command, "Inception", lambda weights: lambda images: images.flatten(1).repeat(1, 32)
        )
        told = fails("evaluate", student, "--fid", reference)
        assert "reference.npz holds statistics of 64 features, but Inception has 2048" in told
        told = fails("evaluate", student, "--real", "digits", "--inception", "some", "-n", 3000)
        assert "1797 samples (digits) are too few for a Fréchet distance of 2048 features" in told


def refuse(*_: object, **__: object) -> None:
    raise urllib.error.URLError("no network")


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("1.5s", 1.5), ("30m", 1800), ("12h", 43200), ("2d", 172800)]
)
def test_duration(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "0", "-1h", "inf", "nan", "1w", "1h30m"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"got .*, but .* 30m, 12h or 2d"):
        duration(text)


def started(*command: object, **environment: str) -> subprocess.Popen[str]:
    """A process of this library, on one thread as the tests are."""
    return subprocess.Popen(
        [sys.executable, "-m", *map(str, command)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_sigterm_saves_and_ends_with_143(made: Path, tmp_path: Path) -> None:
    source = recipe(tmp_path, text=RECIPE.replace("steps = 6", "steps = 40"))
    for name in ("whole", "told"):
        shutil.copytree(made / "run", tmp_path / name, ignore=shutil.ignore_patterns("checkpoints", "log.jsonl"))
    with started("pidlearn", "distill", source, "--out", tmp_path / "told") as process:
        log, patience = tmp_path / "told" / "log.jsonl", time.monotonic() + 60
        while not (log.exists() and log.read_bytes().count(b"\n") > 4) and time.monotonic() < patience:
            time.sleep(0.002)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    done = numbers(tmp_path / "told")[-1]
    assert 4 < done < 40
    assert f"the process received SIGTERM at step {done}: " in err
    assert "\r" not in err  # lines instead of a bar
    assert re.search(r"^student: step 1 of 40, loss \S+$", err, re.MULTILINE)
    assert re.search(rf"^student: step {done} of 40, loss \S+, \S+ samples/s, 0:00:\d\d left$", err, re.MULTILINE)
    assert [path.name[:14] for path in (tmp_path / "told" / "checkpoints").glob("step-*")] == [f"step-{done:09d}"]
    assert pid.load(tmp_path / "told" / "student.safetensors").student.sample(1).isfinite().all()
    assert distill(source, tmp_path / "told") == distill(source, tmp_path / "whole") == 0
    assert numbers(tmp_path / "told") == list(range(1, 41))
    assert same(state(tmp_path / "whole"), state(tmp_path / "told"))


@pytest.mark.slow  # test_team.py holds what is underneath
def test_by_two_processes(made: Path, tmp_path: Path) -> None:
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    arguments = ["pidlearn", "distill", made / "tiny.toml", "--out", tmp_path / "run"]
    with started(*launcher, *arguments) as process:
        _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err[-3000:]
    assert err.count("6 steps of 8 samples by 2 processes, 4 in memory at a time") == 1
    assert numbers(tmp_path / "run") == list(range(1, 7))
    one, two = (
        [pid.load_teacher(run / "teacher.safetensors").state_dict(), state(run)]
        for run in (made / "run", tmp_path / "run")
    )
    torch.testing.assert_close(one, two, rtol=0, atol=1e-5)  # rounding, which Adam multiplies
