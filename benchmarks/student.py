"""A real student, end to end: trained, killed on the way, and held against its teacher's own solvers.

    python -m benchmarks.student [--recipe fashion-mnist] [--device D] [--parts main starts derivatives points]

The part "main" is `pidlearn distill RECIPE` in a process of its own, which is killed once behind its middle and then
started again. Short runs say what the choices are worth: how the copy of the teacher's network starts, how dx/dt is
taken, and the number N of grid points. WORK/RECIPE holds teacher, student and logs; a run that is there goes on, and
an interrupted command, repeated, continues. ``--dry-run`` does all of it in seconds, at toy size and elsewhere.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pidlearn as pid
from benchmarks.images import Images, digits, judged, timed
from benchmarks.student_table import SHORT, STUDENT, SWEEPS, Size, publish, short_key
from benchmarks.table import RESULTS, Row, Store
from benchmarks.unet import grid
from pidlearn import data, recipes
from pidlearn.cli.shared import resolve_device
from pidlearn.equations.from_teacher import problem_from_teacher
from pidlearn.equations.problem import Problem
from pidlearn.equations.solvers import SOLVERS, walk
from pidlearn.evaluation import images, metrics
from pidlearn.run import resolve_settings
from pidlearn.students.base import as_student
from pidlearn.teachers import load_teacher
from pidlearn.training import checkpoints
from pidlearn.utils.batching import in_chunks
from pidlearn.utils.files import write_atomically
from pidlearn.utils.fingerprint import digest

SAMPLERS = {
    "Euler-250": ("euler", 250),
    **{f"Euler-{n}": ("euler", n) for n in (40, 18, 10)},
    "Heun-18": ("heun", 18),
    **{f"DPM-Solver++(2M)-{n}": ("dpm++", n) for n in (40, 18, 10)},
}
"""Of the teacher: a method, and the points of its grid."""
POLL = 0.02
"""Seconds between two looks at a log."""
SETS = 5
"""Sets of real images that samples are held against, where there are so many."""


SIZES = {
    "fashion-mnist": Size(steps=300, samples=1000, points=(18, 80, 250)),  # for a CPU
    "fashion-mnist-32": Size(),
    "digits": Size(samples=1500),
}
TOY_SIZE = Size(8, 80, 16, (18, 250))
TOY = """
base = "digits"
[teacher]
data = "digits"
labels = true
[teacher.network]
model_channels = 8
channel_mult = [1]
num_blocks = 1
attn_resolutions = []
dropout = 0.0
[teacher.training]
steps = 16
batch_size = 32
[config]
steps = 64
batch_size = 32
"""
"""The recipe of a dry run."""


class Study:
    """One recipe: its run in ``work``, and what is measured of it and beside it, to be told in ``out``."""

    def __init__(self, source: str, size: Size, device: torch.device, work: Path, out: Path, command: str) -> None:
        self.source, self.size, self.device, self.out = source, size, device, out
        self.recipe = recipes.read(source)
        self.folder = work / self.recipe.name
        self.log, self.before = self.folder / "log.jsonl", self.folder / "log-before-kill.jsonl"
        self.table = f"student-{self.recipe.name}"
        self.store = Store(out, self.table, command, device, size=asdict(size), recipe=str(self.recipe))

    def add(self, key: str, row: Row) -> None:
        """Keep a row, and say so."""
        self.store.add(key, row)
        print(f"{key}: { ({name: value for name, value in row.items() if name != 'curve'}) }", flush=True)

    @cached_property
    def problem(self) -> Problem:
        """What is solved."""
        return problem_from_teacher(load_teacher(self.folder / "teacher.safetensors").to(self.device))

    @cached_property
    def noise(self) -> tuple[Tensor, Tensor | None]:
        """Starts and labels, the same for all."""
        generator = torch.Generator().manual_seed(1)
        return self.problem.sample_prior(self.size.samples, generator), self.problem.sample_labels(
            self.size.samples, generator
        )

    def first(self, count: int | None) -> tuple[Tensor, Tensor | None]:
        """So many of `noise`; all for None."""
        z, labels = self.noise
        return z[:count], None if labels is None else labels[:count]

    @cached_property
    def judge(self) -> Images:
        """Real images at the recipe's resolution, and a classifier trained on them."""
        table = self.recipe.teacher
        if table["data"] == "digits":
            return digits()
        test, labels = data.fashion_mnist(split="test")
        return judged(*recipes.load_images(table), recipes.resize(test, table.get("resolution")), labels, epochs=4)

    @cached_property
    def real(self) -> list[Tensor]:
        """Sets of training images, as many as there are samples: a distance to one of them owes much to chance."""
        n = self.size.samples
        return [self.judge.train[first : first + n] for first in range(0, len(self.judge.train) - n + 1, n)][:SETS]

    def frechet(self, x: Tensor, sets: list[Tensor]) -> list[float]:
        """The Fréchet distances to sets of images, on the classifier's features."""
        return [metrics.frechet_distance(x, real, self.judge.features) for real in sets]

    def solved(self, method: str, n: int, count: int | None = None) -> tuple[Tensor, float]:
        """Where the teacher's solver takes the first so many starts on n grid points, and the seconds it needs."""

        def end(z: Tensor, labels: Tensor | None) -> Tensor:
            return deque(walk(self.problem.ode, z, pid.karras_grid(n), method, labels), maxlen=1).pop()

        return self.clocked(lambda: in_chunks(end, *self.first(count)))

    def euler(self, n: int, count: int) -> tuple[Tensor, float]:
        """`solved` by Euler, kept in the folder: a fine grid takes minutes."""
        of = digest((self.folder / "teacher.safetensors").read_bytes())
        path = self.folder / "solved" / f"euler-{n}-of-{count}-{of}.pt"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            torch.save(self.solved("euler", n, count), part := path.with_suffix(".part"))
            part.replace(path)
        x, seconds = torch.load(path, map_location=self.device, weights_only=True)
        return x, seconds

    @cached_property
    def target(self) -> Tensor:
        """The teacher's own Euler-250."""
        return self.euler(250, self.size.samples)[0]

    @cached_property
    def unit(self) -> float:
        """The target's standard deviation about its mean, in which errors are told."""
        return (self.target - self.target.mean(0)).square().mean().sqrt().item()

    def clocked(self, make: Callable[[], Any]) -> tuple[Any, float]:
        """What it makes, and the seconds that it takes: of the CPU, or of the clock where a GPU works."""
        if self.device.type == "cpu":
            return timed(make)
        started = time.perf_counter()
        made = make()
        torch.cuda.synchronize(self.device)
        return made, time.perf_counter() - started

    def figures(self, x: Tensor, calls: int, seconds: float) -> Row:
        """How near samples are to the target, and to real images."""
        x, target, judge, labels = x.cpu(), self.target.cpu(), self.judge, self.noise[1]
        asked = None if labels is None else (judge.classify(x).argmax(1) == labels.cpu()).double().mean().item()
        return {
            "calls": calls,
            "RMSE/std": metrics.relative_rmse(x, target),
            "agreement": metrics.agreement(x, target, judge.classify),
            "as labelled": asked,
            "FD": self.frechet(x, self.real),
            "energy": metrics.energy_distance(x, self.real[0]),
            "s / 1,000": 1000 * seconds / len(x),
        }

    # The recipe's own run.

    def finished(self) -> bool:
        """Whether the student is there and has had all its steps."""
        path = self.folder / "student.safetensors"
        return path.exists() and pid.load(path).stopped is None

    def distil(self) -> None:
        """Run the command line, kill it once behind the middle, and run it again to its end."""
        for part in ("teacher-checkpoints", "checkpoints"):  # or another process's steps would be taken for its own
            with checkpoints.claimed(self.folder / part):
                pass
        steps, last = self.recipe.config.steps, _last(self.log)
        every, killed = max(1, steps // 8), False
        options = {"out": self.folder, "save-every": every, "reference": self.size.few, "device": self.device}
        command = [sys.executable, "-m", "pidlearn", "distill", self.source]
        command += [part for name, value in options.items() for part in (f"--{name}", str(value))]
        with subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}) as process, _ended_with_us(process):
            while process.poll() is None and not self.before.exists():
                line = _last(self.log)
                number = json.loads(line)["number"] if line not in (b"", last) else 0  # an earlier run's does not count
                saved = max((int(path.name[5:14]) for path in self.folder.glob("checkpoints/step-*.pt")), default=0)
                if number > steps / 2 and number - saved >= every / 4:
                    process.kill()
                    killed = process.wait() == -signal.SIGKILL  # or it was done just before
                    if killed:
                        write_atomically(self.before, self.log.read_bytes())
                time.sleep(POLL)
        if killed:
            self.distil()
        elif process.returncode:
            raise SystemExit(process.returncode)

    @cached_property
    def student(self) -> Any:
        """The one of the recipe's run."""
        found = pid.load(self.folder / "student.safetensors", teacher=self.problem.teacher)
        if found.config != resolve_settings(self.problem, self.recipe.config)[0]:
            raise ValueError(f"{self.folder} holds the student of another recipe: move it, or take another --work")
        return found.student.to(self.device)

    def run(self) -> Row:
        """What the logs tell of the recipe's run."""
        lines = _lines(self.log)
        curve = [[x["samples"], x["seconds"], x["error"] / self.unit] for x in lines.values() if "error" in x]
        row = {"s": lines[max(lines)]["seconds"], "curve": curve}
        training = checkpoints.load_newest(self.folder / "teacher-checkpoints")
        row["teacher s"] = training and training["trainer"]["history"]["seconds"][-1].item()
        row["weights"] = sum(p.numel() for p in self.problem.teacher.parameters())
        return row | (survival(_lines(self.before), lines) if self.before.exists() else {})

    def main(self) -> None:
        """The run, the student, the teacher's solvers and real images."""
        if "run" in self.store.rows:
            return
        if not self.finished():
            self.distil()
        student = self.student  # one of another recipe is refused before minutes are spent on its teacher
        for name, (method, n) in SAMPLERS.items():
            if f"teacher, {name}" not in self.store.rows:
                x, seconds = self.euler(n, self.size.samples) if n == 250 else self.solved(method, n)
                self.add(f"teacher, {name}", self.figures(x, (n - 1) * SOLVERS[method]().nfe, seconds))
        x, seconds = self.clocked(lambda: as_student(student, self.problem).generate(*self.noise))
        self.add(STUDENT, self.figures(x, 1, seconds))
        first, *others = self.real
        floors = {"test": (self.judge.test[: self.size.samples], self.real), "train": (first, others)}
        for name, (some, sets) in floors.items():
            if sets:
                energy = metrics.energy_distance(some, sets[0])
                self.add(f"real images, {name} against train", {"FD": self.frechet(some, sets), "energy": energy})
        classes = self.problem.label_dim
        labels = torch.arange(classes, device=self.device) if classes else None
        picture = grid(self.problem, student, self.noise[0][: classes or 12], labels)
        images.save_png(picture, self.out / f"{self.table}.png")
        self.add("run", self.run() | {"classifier": self.judge.accuracy})

    # Short runs.

    def short(self, **choice: Any) -> Any:
        """The student of a short run, trained unless it was kept."""
        key = short_key(**choice)
        path = self.folder / "short" / f"{key.removeprefix('short, ')}.safetensors"
        if key not in self.store.rows or not path.exists():
            result, row = self.trained({**SHORT, **choice})
            result.save(path)
            self.add(key, row)
        return pid.load(path, teacher=self.problem.teacher).student.to(self.device)

    def trained(self, choices: dict[str, Any]) -> tuple[pid.Result, Row]:
        """A short run: its seconds are of training alone, not of following its error."""
        size, (z, labels) = self.size, self.noise
        few, some = self.first(size.few)
        config = replace(self.recipe.config, steps=size.steps, seed=0, **choices)
        run, curve, aside, aside_cpu = pid.steps(self.problem.teacher, config=config), [], 0.0, 0.0
        started = time.process_time()
        for step in run:
            if step.number % max(1, size.steps // 40) == 0 or step.number == size.steps:
                clock, cpu = time.perf_counter(), time.process_time()
                x = run.result().generate(few, some)
                curve.append([step.samples, step.seconds - aside, metrics.rmse(x, self.target[: len(x)]) / self.unit])
                aside, aside_cpu = aside + time.perf_counter() - clock, aside_cpu + time.process_time() - cpu
        cpu = time.process_time() - started - aside_cpu
        result = run.result()
        x, seconds = self.clocked(lambda: result.generate(z, labels))
        spent = {"s": curve[-1][1], "CPU s": cpu if self.device.type == "cpu" else None, "curve": curve}
        return result, self.figures(x, 1, seconds) | spent

    def points(self) -> None:
        """The number of grid points: the error to the finest Euler, and to Euler on the student's own grid."""
        count, finest = self.size.few, max(self.size.points)
        for n in self.size.points:
            if f"points, N={n}" not in self.store.rows:
                x = as_student(self.short(n=n), self.problem).generate(*self.first(count))
                exact, own = self.euler(finest, count)[0], self.euler(n, count)[0]
                pairs = {f"to Euler-{finest}": (x, exact), "to Euler-N": (x, own), "Euler-N itself": (own, exact)}
                self.add(f"points, N={n}", {name: metrics.relative_rmse(*pair) for name, pair in pairs.items()})


def survival(before: dict[int, Row], after: dict[int, Row]) -> Row:
    """What a kill cost, by the logs before it and at the end: a step that was done once has kept its seconds.

    Nothing where no step was done twice: it was another process that trained, and it was not killed.
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


@contextmanager
def _ended_with_us(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Whatever ends the wait for a process asks it to save and end, too, and waits for that."""
    try:
        yield
    except BaseException:
        process.terminate()
        process.wait()
        raise


def _last(path: Path) -> bytes:
    """The last whole line of a log that another process writes."""
    if not path.exists():
        return b""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        return b"\n".join(file.read().split(b"\n")[-2:-1])


def _lines(path: Path) -> dict[int, Row]:
    """The whole lines of a log, by step."""
    lines = [json.loads(line) for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    return {line["number"]: line for line in lines}


def main(arguments: list[str] | None = None) -> None:
    """Do what has no row yet, and publish."""
    parts = ["main", *SWEEPS, "points"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", choices=SIZES, default="fashion-mnist")
    parser.add_argument("--device", help="cpu, cuda, ...; a GPU if there is one")
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--dry-run", action="store_true", help="toy size, on the CPU, in a temporary folder")
    parser.add_argument("--out", type=Path, help="folder of the table (benchmarks/results)")
    parser.add_argument("--work", type=Path, help="folder of the folders of runs (out)")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    out, work = args.out or RESULTS, args.work or Path("out")
    source, size, device = args.recipe, SIZES[args.recipe], resolve_device("cpu" if args.dry_run else args.device)
    command = f"python -m benchmarks.student --recipe {args.recipe}"
    if args.dry_run:
        elsewhere = Path(tempfile.mkdtemp(prefix="pidlearn-student-"))
        out, work, size = args.out or elsewhere, args.work or elsewhere, TOY_SIZE
        command = "python -m benchmarks.student --dry-run"
        print(f"Table: {out}. Run: {work}")
        work.mkdir(parents=True, exist_ok=True)
        source = str(work / "toy.toml")
        Path(source).write_text(TOY, encoding="utf-8")
    study = Study(source, size, device, work, out, command)
    if "main" not in args.parts and not (study.folder / "teacher.safetensors").exists():
        parser.error(f"there is no teacher in {study.folder} yet: run the part main first, with the same --work")
    for part in sorted(args.parts, key=parts.index):  # which starts with the teacher
        if part in SWEEPS:
            name, values = SWEEPS[part]
            for value in values:
                if short_key(**{name: value}) not in study.store.rows:
                    study.short(**{name: value})
        else:
            {"main": study.main, "points": study.points}[part]()
    publish(study.store, study.recipe, size)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    main()
