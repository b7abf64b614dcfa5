"""Runs with one change each, at the reference's CPU time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from statistics import median
from typing import Any
from unittest import mock

import torch

import pidlearn as pid
from benchmarks import learning
from benchmarks.faster.changes import DATA, STEPS, Change, changes
from benchmarks.faster.methods import AfterRegression, CoarseToFine
from benchmarks.methods.subjects import subject, truth
from pidlearn import recipes
from pidlearn.evaluation.metrics import rmse
from pidlearn.students.build import as_trajectory, build_student
from pidlearn.training.loop import DivergedError

LEARNING = (*DATA["odes"], *DATA["unseen"])
"""Problems of `benchmarks.learning`."""


def scheduled(change: Change) -> AbstractContextManager[Any]:
    """A context in which training has the schedule of a change."""
    return mock.patch("pidlearn.training.trainer.schedule", change.schedule) if change.schedule else nullcontext()


def started(data: str, change: Change, steps: int, seed: int) -> Iterator[Any]:
    """The steps of a run, not yet taken."""
    settings = {"steps": steps, "seed": seed, **change.settings}
    if data in LEARNING:
        return pid.steps(**learning.problem(data), **settings)
    problem, student = subject(data).problem, None
    config = recipes.read(data).config if data == "digits" else None
    if change.network:
        torch.manual_seed(seed)
        usual: Any = build_student(problem)
        network = pid.nets.MLP(**{**usual.network.options, **change.network})
        if "fourier" not in change.network:
            network.frequencies.copy_(usual.network.frequencies)
        student = as_trajectory(network, problem)
    return pid.steps(problem.teacher, student, config=config, **settings)


def cost(data: str, change: Change) -> tuple[float, float]:
    """The CPU time of a step, and of what comes before the first, both in steps of the reference.

    The first is the median over rounds of some steps of each; paths are solved in the first round, which also warms up.
    """
    block, rounds = (3, 5) if data == "digits" else (30, 7)
    runs = [started(data, one, 10**6, 0) for one in (change, changes(data)["reference"])]
    spent = []
    for _ in range(rounds):
        spent.append([])
        for run in runs:
            begun = time.process_time()
            list(islice(run, block))
            spent[-1].append(time.process_time() - begun)
    (first, warm), *rest = spent
    ratio = median(ours / theirs for ours, theirs in rest)
    return ratio, max(0.0, block * (first - ratio * warm) / median(theirs for _, theirs in rest))


def costs(data: str, change: Change) -> tuple[float, float]:
    """The costs of a whole run, of which a first share of the steps may have another one."""
    per_step, before = cost(data, change)
    method = change.settings.get("method")
    if not isinstance(method, AfterRegression | CoarseToFine):
        return per_step, 0.0
    rest, _ = cost(data, Change({name: value for name, value in change.settings.items() if name != "method"}))
    return method.share * per_step + (1 - method.share) * rest, before


def row(data: str, name: str, seed: int) -> dict[str, float | None]:
    """Train with one change for its share of the reference's CPU time; the error of one call to Euler-250.

    A run that diverges has none.
    """
    change, steps = changes(data)[name], STEPS[data]
    if name != "reference":
        per_step, before = costs(data, change)
        steps = round((steps * change.time * (1 - change.polish_share) - before) / per_step)
    begun = time.process_time()
    try:
        with scheduled(change):
            run: Any = started(data, change, steps, seed)
            for _ in run:
                pass
    except DivergedError:
        return {"error": None, "steps": steps, "seconds": time.process_time() - begun}
    if change.polish:
        change.polish(run, (time.process_time() - begun) * change.polish_share / (1 - change.polish_share))
    seconds = time.process_time() - begun
    return {"error": error(data, run.result()), "steps": steps, "seconds": seconds}


def error(data: str, result: Any) -> float:
    """The error of a run's result on new noise or initial values."""
    if data in LEARNING:
        return learning.errors(data, result.student)["error"]
    true = truth(data)
    return rmse(result.generate(true.z, true.labels).double(), true.euler) / true.unit
