"""One recipe under study: what all parts of the benchmark share."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pidlearn as pid
from benchmarks.images import Images, digits, timed, train_classifier
from benchmarks.student.settings import Size
from benchmarks.table import Row, Store
from pidlearn import data, recipes
from pidlearn.equations.from_teacher import problem_from_teacher
from pidlearn.equations.problem import Problem
from pidlearn.equations.solvers import walk
from pidlearn.evaluation import metrics
from pidlearn.teachers import load_teacher
from pidlearn.utils import safetensors
from pidlearn.utils.batching import in_chunks
from pidlearn.utils.fingerprint import digest

SETS = 5
"""Sets of real images that samples are compared with, if there are as many."""

SOLVED, SOLVED_BEFORE = "pidlearn benchmark solution 2", "pidlearn benchmark solution"
"""Format of cached solutions."""


class Study:
    """A recipe's problem, samples, reference solutions, real images and rows; each is computed when first used.

    Args:
        source: name or file of the recipe.
        size: how much is measured.
        device: the device for training and sampling.
        work: folder of the folders of runs.
        out: folder of the table.
        command: the command for the whole table.
    """

    def __init__(self, source: str, size: Size, device: torch.device, work: Path, out: Path, command: str) -> None:
        self.source, self.size, self.device, self.out = source, size, device, out
        self.recipe = recipes.read(source)
        self.folder = work / self.recipe.name
        self.table = f"student-{self.recipe.name}"
        self.store = Store(out, self.table, command, device, size=asdict(size), recipe=str(self.recipe))

    def add(self, key: str, row: Row) -> None:
        """Store a row, and print it."""
        self.store.add(key, row)
        print(f"{key}: { ({name: value for name, value in row.items() if name != 'curve'}) }", flush=True)

    @cached_property
    def problem(self) -> Problem:
        """The teacher's problem."""
        return problem_from_teacher(load_teacher(self.folder / "teacher.safetensors").to(self.device))

    @cached_property
    def noise(self) -> tuple[Tensor, Tensor | None]:
        """Starts and labels, the same for all samplers."""
        generator, n = torch.Generator().manual_seed(1), self.size.samples
        return self.problem.sample_prior(n, generator), self.problem.sample_labels(n, generator)

    def first(self, count: int | None) -> tuple[Tensor, Tensor | None]:
        """The first ``count`` rows of `noise`; all for None."""
        z, labels = self.noise
        return z[:count], None if labels is None else labels[:count]

    @cached_property
    def judge(self) -> Images:
        """Real images at the recipe's resolution, and a classifier trained on them."""
        table: Any = self.recipe.teacher
        if table["data"] == "digits":
            return digits()
        test, labels = data.fashion_mnist(split="test")
        test = recipes.resize(test, table.get("resolution"))
        return train_classifier(*recipes.load_images(table), test, labels, epochs=4)

    @cached_property
    def real(self) -> list[Tensor]:
        """Disjoint sets of training images, as large as the set of samples, since one set's distance varies much."""
        n = self.size.samples
        return [self.judge.train[first : first + n] for first in range(0, len(self.judge.train) - n + 1, n)][:SETS]

    def frechet(self, x: Tensor, sets: list[Tensor]) -> list[float]:
        """The Fréchet distances to sets of images, on the classifier's features."""
        return [metrics.frechet_distance(x, real, self.judge.features) for real in sets]

    def solve(self, method: str, n: int, count: int | None = None) -> tuple[Tensor, float]:
        """Solve from the first ``count`` starts on n grid points; returns the endpoints and the seconds."""

        def endpoint(z: Tensor, labels: Tensor | None) -> Tensor:
            # A deque of one drops each earlier state of the path.
            return deque(walk(self.problem.ode, z, pid.karras_grid(n), method, labels), maxlen=1).pop()

        return self.clocked(lambda: in_chunks(endpoint, *self.first(count)))

    def euler(self, n: int, count: int) -> tuple[Tensor, float]:
        """`solve` with Euler's method, cached in the folder, since a fine grid takes minutes."""
        teacher = digest((self.folder / "teacher.safetensors").read_bytes())
        path = self.folder / "solved" / f"euler-{n}-of-{count}-{teacher}.safetensors"
        if not path.exists():
            x, seconds = self.solve("euler", n, count)
            path.parent.mkdir(exist_ok=True)
            safetensors.write(path, {"x": x}, {"format": SOLVED, "seconds": repr(seconds)})
        tensors, text = safetensors.read(path, SOLVED, SOLVED_BEFORE)
        return tensors["x"].to(self.device), float(text["seconds"])

    @cached_property
    def target(self) -> Tensor:
        """The teacher's Euler-250 solution from `noise`."""
        return self.euler(250, self.size.samples)[0]

    @cached_property
    def unit(self) -> float:
        """The target's standard deviation about its mean, the unit of errors."""
        return (self.target - self.target.mean(0)).square().mean().sqrt().item()

    def clocked(self, make: Callable[[], Any]) -> tuple[Any, float]:
        """Call ``make``; returns its result and its seconds: CPU time, or wall-clock time if a GPU computes."""
        if self.device.type == "cpu":
            return timed(make)
        started = time.perf_counter()
        result = make()
        torch.cuda.synchronize(self.device)
        return result, time.perf_counter() - started

    def metrics(self, x: Tensor, calls: int, seconds: float) -> Row:
        """Metrics of samples from `noise`, against the target and against real images."""
        x, target, judge, labels = x.cpu(), self.target.cpu(), self.judge, self.noise[1]
        correct = None if labels is None else (judge.classify(x).argmax(1) == labels.cpu()).double().mean().item()
        return {
            "calls": calls,
            "RMSE/std": metrics.relative_rmse(x, target),
            "agreement": metrics.agreement(x, target, judge.classify),
            "as labelled": correct,
            "FD": self.frechet(x, self.real),
            "energy": metrics.energy_distance(x, self.real[0]),
            "s / 1,000": 1000 * seconds / len(x),
        }
