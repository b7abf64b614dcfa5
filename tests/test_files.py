"""Where files are written, and what is written over."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import pidlearn as pid
from pidlearn.students import files
from pidlearn.training import loggers
from pidlearn.training.history import Step
from pidlearn.utils.files import write_atomically

TINY = {"steps": 4, "batch_size": 8, "n": 10, "progress": False}


def ring(**options: object) -> pid.Result:
    torch.manual_seed(5)
    return pid.distill(pid.toy("ring"), pid.nets.MLP(2, width=8, depth=1, fourier=4), **{**TINY, **options})


def test_descriptions_are_those_of_earlier_checkpoints() -> None:
    """Whether a run may be resumed is decided by them; the text is that of 0.2.0.dev0 before networks took times."""
    student = pid.Trajectory(pid.nets.MLP((2,), label_dim=3), event_shape=(2,), c_in=0.0125)
    network = "{'event_shape': (2,), 'width': 64, 'depth': 5, 'fourier': 64, 'harmonics': 6, 'norm': False, "
    assert str(files.describe(student)) == (
        "{'t_max': 80.0, 't_min': 0.002, 'sigma_data': 0.5, 'c_in': 0.0125, 'event_shape': (2,), 'boundary': 'hard', "
        "'time': 'log', 'network': ['MLP', " + network + "'label_dim': 3, 'end_time': False}]}"
    )


def test_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    target, link = tmp_path / "disk" / "student", tmp_path / "student"
    link.symlink_to(target)
    for contents in (b"new", b"over"):  # of a link to nothing, too
        write_atomically(link, contents)
        assert link.is_symlink()
        assert target.read_bytes() == contents
    assert [path.name for path in target.parent.iterdir()] == ["student"]


def test_nothing_but_files_is_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", Path(os.devnull)):
        with pytest.raises(ValueError, match=f"{path} is a device, FIFO or socket, .*: pass the path of a file"):
            write_atomically(path, b"")
    with pytest.raises(ValueError, match=f"{tmp_path} is a folder: pass the path of a file"):
        write_atomically(tmp_path, b"")
    assert [path.name for path in tmp_path.iterdir()] == ["fifo"]


def test_what_a_killed_process_left_half_written_is_cleared(tmp_path: Path) -> None:
    code = (
        "import os, signal; from pathlib import Path; from pidlearn.utils.files import write_atomically\n"
        "os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"write_atomically(Path({str(tmp_path / 'a')!r}), b'1')"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    theirs = [tmp_path / f".a.{os.getppid()}.part", tmp_path / ".a.mine.part", tmp_path / ".b.99999999.part"]
    for path in theirs:  # of a process that is alive, of no process, of another file
        path.write_text("")
    assert len(list(tmp_path.iterdir())) == 4
    write_atomically(tmp_path / "a", b"2")
    assert set(tmp_path.iterdir()) == {*theirs, tmp_path / "a"}


def test_pictures_make_their_folder(tmp_path: Path) -> None:
    result = ring()
    result.plot(tmp_path / "a" / "figure.png")
    result.watch(starts=2).save(tmp_path / "b" / "scene.html")
    assert (tmp_path / "a" / "figure.png").stat().st_size > 1000
    assert (tmp_path / "b" / "scene.html").read_text(encoding="utf-8") == result.watch(starts=2).html()


def test_a_callback_may_change_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    log = loggers.jsonl("log.jsonl")
    ring(checkpoints="run", save_every=2, callbacks=[log, lambda step: os.chdir(tmp_path / "other")])
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 4
    assert len(list((tmp_path / "run").glob("step-*"))) == 2
    assert not list((tmp_path / "other").iterdir())


def test_a_kill_at_a_checkpoint_loses_no_line_of_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every moment, the log has all steps of the newest checkpoint: those after it are run again."""
    log, run = tmp_path / "log.jsonl", tmp_path / "run"
    lines = []

    def save(*args: object, **_: object) -> None:
        lines.append(len(log.read_text().splitlines()))

    monkeypatch.setattr("pidlearn.training.driver.save", save)
    ring(checkpoints=run, save_every=2, callbacks=[loggers.jsonl(log)])
    assert lines == [2, 4]


def test_a_checkpoint_is_saved_though_a_callback_fails(tmp_path: Path) -> None:
    def fail(step: Step) -> None:
        if step.number == 2:
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        ring(checkpoints=tmp_path, save_every=2, callbacks=[fail])
    assert [path.name[:14] for path in tmp_path.glob("step-*")] == ["step-000000002"]


def test_a_log_to_a_fifo_does_not_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log")
    reader = os.open(tmp_path / "log", os.O_RDONLY | os.O_NONBLOCK)
    loggers.jsonl(tmp_path / "log")(Step(1, 1, 0.5, 0.1, 8, 0.25))
    assert os.read(reader, 1000).startswith(b'{"number": 1, ')
    os.close(reader)


def test_a_student_before_its_first_step_is_saved(tmp_path: Path) -> None:
    result = pid.steps(pid.toy("ring"), pid.nets.MLP(2, width=8, depth=1, fourier=4), steps=2).result()
    loaded = pid.load(result.save(tmp_path / "student"))
    assert len(loaded.history["loss"]) == 0
    z = torch.ones(3, 2)
    assert torch.equal(loaded.student.generate(z), result.student.generate(z))
