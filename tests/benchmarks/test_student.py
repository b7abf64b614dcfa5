"""The benchmark of a real student at toy size: resumed, interrupted, killed, finished, and not repeated."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import pidlearn as pid
from benchmarks import table
from benchmarks.student import __main__ as student
from benchmarks.student import full_run, settings, tables
from benchmarks.student import study as study_module
from pidlearn.cli import commands
from pidlearn.training import checkpoints

DONE_BEFORE = 4
"""Steps that the run did before the benchmark started."""


def dry_run(folder: Path, *arguments: str) -> dict[str, Any]:
    """Run the command in that folder; returns its rows."""
    student.main(["--dry-run", "--out", str(folder / "out"), "--work", str(folder), *arguments])
    return rows(folder)


def rows(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "out" / "student-toy.json").read_text())["rows"]


def log(folder: Path, name: str = "log") -> dict[int, Any]:
    lines = map(json.loads, (folder / "toy" / f"{name}.jsonl").read_text().splitlines())
    return {line["number"]: line for line in lines}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder with all rows, and the rows when the command was interrupted at its third short run.

    The run itself was started before the benchmark.
    """
    folder = tmp_path_factory.mktemp("student")
    (folder / "toy.toml").write_text(student.TOY)
    commands.distill(str(folder / "toy.toml"), out=folder / "toy", max_images=32 * DONE_BEFORE, save_every=2)
    begun, steps = count(), pid.steps

    def interrupted(*args: Any, **options: Any) -> Any:
        if next(begun) == 2:
            raise KeyboardInterrupt
        return steps(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pid, "steps", interrupted)
        with pytest.raises(KeyboardInterrupt):
            dry_run(folder)
    before = rows(folder)
    dry_run(folder)
    return folder, before


@pytest.mark.slow
def test_every_row_is_there_and_what_was_there_stays(done: tuple[Path, dict[str, Any]]) -> None:
    folder, before = done
    after = rows(folder)
    real = ["real images, test against train", "real images, train against train"]
    short = ["init=random", "init=official", "reference", "derivative=central", "derivative=exact", "n=18"]
    first = [*(f"teacher, {name}" for name in settings.SAMPLERS), "student, 1 call", *real, "run"]
    first += [f"short, {name}" for name in short[:2]]
    assert list(before) == first
    assert list(after) == [*first, *(f"short, {name}" for name in short[2:]), "points, N=18", "points, N=250"]
    assert {key: after[key] for key in before} == before
    text = (folder / "out" / "student-toy.md").read_text()
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == [
        "The student compared with solvers",
        "Survival",
        "Starts",
        "Derivatives",
        "Points",
    ]


@pytest.mark.slow
def test_a_run_that_is_there_goes_on_and_repeats_after_the_kill_what_it_did(done: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = done
    before, after, row = log(folder, "log-before-kill"), log(folder), rows(folder)["run"]
    assert list(after) == list(range(1, 65))
    assert [n for n in after if "error" not in after[n]] == list(
        range(1, DONE_BEFORE + 1)
    )  # none was followed before us
    twice = [n for n in before if before[n]["seconds"] != after[n]["seconds"]]
    assert twice == list(range(row["resumed from"] + 1, row["killed at step"] + 1))
    assert len(twice) == row["steps done twice"] >= 2
    assert row["killed at step"] > 32
    assert row["resumed from"] % 8 == 0
    assert [before[n]["loss"] for n in before] == [after[n]["loss"] for n in before]
    assert row["their losses differ by"] == 0


@pytest.mark.slow
def test_the_teachers_euler_250_is_the_measure(done: tuple[Path, dict[str, Any]]) -> None:
    found = rows(done[0])
    exact = found["teacher, Euler-250"]
    assert (exact["RMSE/std"], exact["agreement"]) == (0, 1)
    calls = {key.removeprefix("teacher, "): row["calls"] for key, row in found.items() if key.startswith("teacher, ")}
    assert calls == {
        "Euler-250": 249,
        "Euler-40": 39,
        "Euler-18": 17,
        "Euler-10": 9,
        "Heun-18": 34,
        "DPM-Solver++(2M)-40": 39,
        "DPM-Solver++(2M)-18": 17,
        "DPM-Solver++(2M)-10": 9,
    }
    errors = [found[f"teacher, Euler-{n}"]["RMSE/std"] for n in (250, 40, 18, 10)]
    assert errors == sorted(set(errors))
    assert found["points, N=250"]["Euler-N itself"] == 0 < found["points, N=18"]["Euler-N itself"]
    # The curves are in the table's unit: they end, on a part of its samples, near its figures.
    for key in ("student, 1 call", "short, reference", "short, init=random"):
        curve = found["run" if key.startswith("student") else key]["curve"]
        assert curve[-1][2] == pytest.approx(found[key]["RMSE/std"], rel=0.2)


@pytest.mark.slow
def test_what_is_done_is_not_done_again(
    done: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def again(*args: Any, **options: Any) -> None:
        raise AssertionError("computed again")

    before = (done[0] / "out" / "student-toy.json").read_bytes()
    shutil.copytree(done[0] / "out", tmp_path / "out")  # and of the run itself nothing is left
    for module, name in (
        (full_run.subprocess, "Popen"),
        (study_module, "walk"),
        (study_module, "digits"),
        (pid, "steps"),
    ):
        monkeypatch.setattr(module, name, again)
    monkeypatch.setattr(pid.Trajectory, "forward", again)
    (tmp_path / "out" / "student-toy.md").unlink()
    dry_run(tmp_path)
    assert (tmp_path / "out" / "student-toy.json").read_bytes() == before
    assert (tmp_path / "out" / "student-toy.md").read_text() == (done[0] / "out" / "student-toy.md").read_text()


@pytest.mark.slow
def test_pictures(done: tuple[Path, dict[str, Any]]) -> None:
    with Image.open(done[0] / "out" / "student-toy.png") as picture:
        assert picture.format == "PNG"
        # Ten classes of 8 pixels six times as large, two between them; three samplers under one another.
        assert picture.width > 10 * 50
        assert 3 * 50 < picture.height < 4 * 50
    with Image.open(done[0] / "out" / "student-toy-curves.png") as picture:
        assert (picture.format, picture.size) == ("PNG", (1300, 546))
    names = [line.get_label() for line in tables.curves(rows(done[0])).axes[0].lines]
    assert {tables.RUN, "init=random", "derivative=exact", "n=18", "killed and resumed", "goal"} < {*names}


@pytest.mark.slow
def test_a_run_that_was_done_before_is_not_said_to_be_killed(
    done: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(done[0] / "toy", tmp_path / "toy")
    (tmp_path / "toy" / "log-before-kill.jsonl").unlink()
    monkeypatch.setattr(full_run, "SAMPLERS", {"Euler-250": ("euler", 250)})  # which is kept
    found = dry_run(tmp_path, "--parts", "main")
    assert "killed at step" not in found["run"]
    assert found["student, 1 call"]["RMSE/std"] == rows(done[0])["student, 1 call"]["RMSE/std"]
    text = (tmp_path / "out" / "student-toy.md").read_text()
    assert "no: the run had ended before" in text
    assert "Starts" not in text


@pytest.mark.slow
def test_the_student_of_another_recipe_is_refused(
    done: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(done[0] / "toy", tmp_path / "toy")
    monkeypatch.setattr(student, "TOY", f"{student.TOY}lr = 0.5\n")
    with pytest.raises(ValueError, match="student of another recipe"):
        dry_run(tmp_path, "--parts", "main")


def test_a_folder_in_which_another_process_trains_is_refused(tmp_path: Path) -> None:
    with checkpoints.claimed(tmp_path / "toy" / "checkpoints"), pytest.raises(ValueError, match="another run uses"):
        dry_run(tmp_path, "--parts", "main")


@pytest.mark.slow
def test_sigterm_ends_the_run_too(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.student", "--dry-run", "--out", tmp_path, "--work", tmp_path]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while not full_run.last_line(tmp_path / "toy" / "log.jsonl"):
            time.sleep(0.01)
        process.terminate()
    with checkpoints.claimed(tmp_path / "toy" / "checkpoints"):
        assert len(log(tmp_path)) < 64


def test_a_dry_run_writes_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(student.tempfile, "tempdir", str(tmp_path))
    before = {path: path.stat().st_mtime_ns for path in table.RESULTS.iterdir()}
    with pytest.raises(SystemExit):
        student.main(["--dry-run", "--parts", "starts"])
    assert f"there is no teacher in {tmp_path}" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in table.RESULTS.iterdir()} == before


@pytest.mark.parametrize(("again", "apart"), [(0.5, 0.0), (0.75, 0.5)])
def test_what_a_kill_cost_is_read_off_the_logs(again: float, apart: float) -> None:
    before = {n: {"loss": 0.5, "seconds": float(n), "samples": 8 * n} for n in range(1, 8)}
    after = {n: line if n <= 5 else {**line, "loss": again, "seconds": 100.0 + n} for n, line in before.items()}
    found = full_run.survival(before, after)
    assert (found["killed at step"], found["resumed from"], found["steps done twice"]) == (7, 5, 2)
    assert (found["their losses differ by"], found["killed"]) == (apart, [56, 7.0])


def test_a_kill_after_which_no_step_was_done_twice_was_none() -> None:
    before = {n: {"loss": 0.5, "seconds": float(n), "samples": 8 * n} for n in range(1, 8)}
    assert full_run.survival(before, before | {8: {"loss": 0.5, "seconds": 8.0, "samples": 64}}) == {}


def test_a_line_that_is_being_written_is_none(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    assert full_run.last_line(path) == b""
    path.write_text('{"number": 1}')
    assert full_run.last_line(path) == b""
    path.write_text('{"number": 1}\n' * 1000 + '{"number": 2}\n{"num')
    assert full_run.last_line(path) == b'{"number": 2}'
    assert full_run.read_log(path) == {1: {"number": 1}, 2: {"number": 2}}


def test_facts_name_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(table.Store(tmp_path, "name", "command").facts) == ["command", "torch", "cpu", "threads"]
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    store = table.Store(tmp_path, "name", "command", torch.device("cuda", 0))
    assert list(store.facts) == ["command", "torch", "gpu", "threads"]
    store.publish("Title", "Text.", {})
    assert "a GPU, one thread per run" in (tmp_path / "name.md").read_text()


def test_rows_that_mean_the_same_anywhere_name_their_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for cpu in ("one", "another"):
        monkeypatch.setattr(table, "_cpu", lambda cpu=cpu: cpu)
        store = table.Store(tmp_path, "name", "command", None)
        store.add(f"row on {cpu}", {"value": 1})
    assert store.rows == {"row on one": {"value": 1, "cpu": "one"}, "row on another": {"value": 1, "cpu": "another"}}
    store.publish("Title", "Text.", {})
    assert "one and another, one thread per run" in (tmp_path / "name.md").read_text()
    with pytest.raises(ValueError, match="move the file"):
        table.Store(tmp_path, "name", "command")
