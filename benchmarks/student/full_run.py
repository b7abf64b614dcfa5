"""The recipe's own run: `pidlearn distill`, killed once and resumed, then compared with the teacher's solvers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import pidlearn as pid
from benchmarks.student.settings import SAMPLERS, STUDENT
from benchmarks.student.study import Study
from benchmarks.table import Row
from benchmarks.unet import image_rows
from pidlearn.config import resolve_settings
from pidlearn.equations.solvers import SOLVERS
from pidlearn.evaluation import images, metrics
from pidlearn.students.base import as_student
from pidlearn.training import checkpoints
from pidlearn.utils.files import write_atomically

POLL = 0.02
"""Seconds between two reads of a log."""


def measure(study: Study) -> None:
    """Do the part "main": the run, its student, the teacher's solvers and real images."""
    if "run" in study.store.rows:
        return
    if not is_finished(study):
        distil(study)
    student = load_student(study)  # now, so that another recipe's is refused before minutes are spent on solvers
    for name, (method, n) in SAMPLERS.items():
        if f"teacher, {name}" not in study.store.rows:
            x, seconds = study.euler(n, study.size.samples) if n == 250 else study.solve(method, n)
            study.add(f"teacher, {name}", study.metrics(x, (n - 1) * SOLVERS[method]().nfe, seconds))
    x, seconds = study.clocked(lambda: as_student(student, study.problem).generate(*study.noise))
    study.add(STUDENT, study.metrics(x, 1, seconds))
    add_real_images(study)
    classes = study.problem.label_dim
    labels = torch.arange(classes, device=study.device) if classes else None
    picture = image_rows(study.problem, student, study.noise[0][: classes or 12], labels)
    images.save_png(picture, study.out / f"{study.table}.png")
    study.add("run", run_row(study) | {"classifier": study.judge.accuracy})


def add_real_images(study: Study) -> None:
    """Add the distances between sets of real images, the least that samples can be expected to reach."""
    first, *others = study.real
    floors = {"test": (study.judge.test[: study.size.samples], study.real), "train": (first, others)}
    for name, (x, sets) in floors.items():
        if sets:
            energy = metrics.energy_distance(x, sets[0])
            study.add(f"real images, {name} against train", {"FD": study.frechet(x, sets), "energy": energy})


def is_finished(study: Study) -> bool:
    """Whether the student's file exists and its run did all steps."""
    path = study.folder / "student.safetensors"
    return path.exists() and pid.load(path).stopped is None


def load_student(study: Study) -> Any:
    """Load the student of the recipe's run.

    Raises:
        ValueError: a student that was trained with other settings.
    """
    result = pid.load(study.folder / "student.safetensors", teacher=study.problem.teacher)
    if result.config != resolve_settings(study.problem, study.recipe.config)[0]:
        raise ValueError(f"{study.folder} holds the student of another recipe: move it, or use another --work")
    return result.student.to(study.device)


def distil(study: Study) -> None:
    """Run `pidlearn distill` in its own process, kill it once after half of its steps, and run it again to the end."""
    for part in ("teacher-checkpoints", "checkpoints"):  # refuse a folder in which another process trains
        with checkpoints.claimed(study.folder / part):
            pass
    log, before_kill = _log(study), _log_before_kill(study)
    last = last_line(log)
    killed = False
    options = {
        "out": study.folder,
        "save-every": save_every(study),
        "track-error": study.size.few,
        "device": study.device,
    }
    command = [sys.executable, "-m", "pidlearn", "distill", study.source]
    command += [part for name, value in options.items() for part in (f"--{name}", str(value))]
    with subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}) as process, _terminated(process):
        while process.poll() is None and not before_kill.exists():
            if is_due(study, last):
                process.send_signal(signal.SIGSTOP)  # while it stands still, no checkpoint comes in between
                if is_due(study, last):
                    process.kill()
                    killed = process.wait() == -signal.SIGKILL  # False if the process had just ended by itself
                else:
                    process.send_signal(signal.SIGCONT)
                if killed:
                    write_atomically(before_kill, log.read_bytes())
            time.sleep(POLL)
    if killed:
        distil(study)
    elif process.returncode:
        raise SystemExit(process.returncode)


def save_every(study: Study) -> int:
    """Steps between two checkpoints: an eighth of the run."""
    return max(1, study.recipe.config.steps // 8)


def is_due(study: Study, before: bytes) -> bool:
    """Whether the run has done half of its steps and some since its checkpoint, which will have to be done twice.

    `before` is the last line of the log before this process began.
    """
    line = last_line(_log(study))
    number = json.loads(line)["number"] if line not in (b"", before) else 0
    names = (path.name for path in study.folder.glob("checkpoints/step-*.safetensors"))
    saved = max((int(name[5:14]) for name in names), default=0)
    return number > study.recipe.config.steps / 2 and number - saved >= save_every(study) / 4


def run_row(study: Study) -> Row:
    """The row of the recipe's run, from its logs."""
    lines, before_kill = read_log(_log(study)), _log_before_kill(study)
    curve = [[x["samples"], x["seconds"], x["error"] / study.unit] for x in lines.values() if "error" in x]
    row = {"s": lines[max(lines)]["seconds"], "curve": curve}
    training = checkpoints.load_newest(study.folder / "teacher-checkpoints")
    row["teacher s"] = training and training["trainer"]["history"]["seconds"][-1].item()
    row["weights"] = sum(p.numel() for p in study.problem.teacher.parameters())
    return row | (survival(read_log(before_kill), lines) if before_kill.exists() else {})


def survival(before: dict[int, Row], after: dict[int, Row]) -> Row:
    """The cost of a kill, from the log before it and the final log.

    Steps that were done once have the same seconds in both logs. Empty if no step was done twice: then the process that
    trained was another one, and was not killed.
    """
    last = max(before)
    kept = max((n for n in before if after[n]["seconds"] == before[n]["seconds"]), default=0)
    if kept == last:
        return {}
    pairs = [(before[n]["loss"], after[n]["loss"]) for n in before if n > kept]
    return {
        "killed at step": last,
        "resumed from": kept,
        "steps done twice": len(pairs),
        "their losses differ by": max((abs(a - b) / abs(a) for a, b in pairs), default=None),
        "killed": [before[last]["samples"], before[last]["seconds"]],
    }


def last_line(path: Path) -> bytes:
    """The last complete line of a log that another process writes; empty if there is none."""
    if not path.exists():
        return b""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        return b"\n".join(file.read().split(b"\n")[-2:-1])


def read_log(path: Path) -> dict[int, Row]:
    """The complete lines of a log, by step."""
    lines = [json.loads(line) for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    return {line["number"]: line for line in lines}


def _log(study: Study) -> Path:
    return study.folder / "log.jsonl"


def _log_before_kill(study: Study) -> Path:
    return study.folder / "log-before-kill.jsonl"


@contextmanager
def _terminated(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """On any exception, ask the process to save and end, and wait until it has."""
    try:
        yield
    except BaseException:
        process.terminate()
        process.send_signal(signal.SIGCONT)  # one that stands still would never see it
        process.wait()
        raise
