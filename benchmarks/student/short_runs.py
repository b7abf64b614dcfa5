"""Short runs that change one setting: how the student starts, the derivative scheme, the number of grid points."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pidlearn as pid
from benchmarks.student.settings import SHORT, SWEEPS, short_key
from benchmarks.student.study import Study
from benchmarks.table import Row
from pidlearn.evaluation import metrics
from pidlearn.students.base import as_student


def measure_sweep(study: Study, part: str) -> None:
    """Do a part of `SWEEPS`."""
    name, values = SWEEPS[part]
    for value in values:
        if short_key(**{name: value}) not in study.store.rows:
            student_of(study, **{name: value})


def measure_points(study: Study) -> None:
    """Do the part "points": the error to Euler's method on the finest grid, and on the student's own grid."""
    count, finest = study.size.few, max(study.size.points)
    for n in study.size.points:
        if f"points, N={n}" not in study.store.rows:
            x = as_student(student_of(study, n=n), study.problem).generate(*study.first(count))
            exact, own = study.euler(finest, count)[0], study.euler(n, count)[0]
            pairs = {f"to Euler-{finest}": (x, exact), "to Euler-N": (x, own), "Euler-N itself": (own, exact)}
            study.add(f"points, N={n}", {name: metrics.relative_rmse(*pair) for name, pair in pairs.items()})


def student_of(study: Study, **setting: Any) -> Any:
    """The student of a short run: loaded from its file, or trained and added to the rows."""
    key = short_key(**setting)
    path = study.folder / "short" / f"{key.removeprefix('short, ')}.safetensors"
    if key not in study.store.rows or not path.exists():
        result, row = train(study, {**SHORT, **setting})
        result.save(path)
        study.add(key, row)
    return pid.load(path, teacher=study.problem.teacher).student.to(study.device)


def train(study: Study, settings: dict[str, Any]) -> tuple[pid.Result, Row]:
    """Train a short run; its seconds do not include tracking its error."""
    size, (z, labels) = study.size, study.noise
    few, few_labels = study.first(size.few)
    config = replace(study.recipe.config, steps=size.steps, seed=0, **settings)
    run, curve = pid.steps(study.problem.teacher, config=config), []
    tracking, tracking_cpu = 0.0, 0.0  # seconds
    started = time.process_time()
    for step in run:
        if step.number % max(1, size.steps // 40) == 0 or step.number == size.steps:
            clock, cpu = time.perf_counter(), time.process_time()
            x = run.result().generate(few, few_labels)
            error = metrics.rmse(x, study.target[: len(x)]) / study.unit
            curve.append([step.samples, step.seconds - tracking, error])
            tracking += time.perf_counter() - clock
            tracking_cpu += time.process_time() - cpu
    cpu = time.process_time() - started - tracking_cpu
    result = run.result()
    x, seconds = study.clocked(lambda: result.generate(z, labels))
    spent = {"s": curve[-1][1], "CPU s": cpu if study.device.type == "cpu" else None, "curve": curve}
    return result, study.metrics(x, 1, seconds) | spent
