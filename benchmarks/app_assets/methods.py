"""Assets of the page Methods: students of each method along their paths, and what the benchmark measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import pidlearn as pid
from app.shared import assets
from app.views.methods.model import CALLS, FRAMES, METHODS, STARTS, TOY
from benchmarks.app_assets.common import SEED, Metrics
from benchmarks.methods.contenders import CONTENDERS
from benchmarks.methods.measure import budgeted_steps, cost, distilled
from benchmarks.methods.search import best
from benchmarks.methods.subjects import subject
from benchmarks.methods.tables import mean, runs
from benchmarks.table import RESULTS
from pidlearn.students.flow_map import ConsistencyFunction, FlowMap
from pidlearn.students.progressive import ProgressiveStudent

__all__ = ["paths", "tasks"]


def tasks() -> Iterator[tuple[Path, Callable[[Path], Metrics]]]:
    """Yield each file and the function that makes it."""
    yield Path("methods", "measured.json"), save_measurements
    for name in METHODS:
        yield Path("methods", f"{TOY}-{name}.npz"), partial(save_paths, name)


def save_measurements(path: Path) -> Metrics:
    """Save the benchmark's rows at equal time: means over its seeds, by method and number of calls."""
    document = json.loads((RESULTS / "methods.json").read_text())
    table: dict[str, Any] = {}
    for name, shown in METHODS.items():
        rows = runs(document["rows"], TOY, shown.contender)
        calls = {k: {metric: mean(rows, k, metric) for metric in metrics} for k, metrics in rows[0]["calls"].items()}
        steps = float(np.mean([row["steps"] for row in rows]))
        table[name] = {"calls": calls, "steps": steps, "seeds": len(rows)}
    floor, command = document["rows"][f"{TOY}/Euler-250"]["energy floor"], document["facts"]["command"]
    path.write_text(json.dumps({"command": command, "energy floor": floor, "rows": table}, indent=1) + "\n")
    return {}


def save_paths(name: str, path: Path) -> Metrics:
    """Train as the benchmark does, and save the student's paths from the scene's starts, by number of calls."""
    contender = CONTENDERS[METHODS[name].contender]
    search = json.loads((RESULTS / "methods-search.json").read_text())["rows"]
    settings = best(search, contender.name)
    steps = budgeted_steps(TOY, cost(TOY, contender, settings), subject(TOY).budget)
    run: Any = distilled(TOY, contender, settings, seed=SEED, steps=steps)
    for _ in run:
        pass
    student = run.result().student
    arrays = assets.scene_arrays(TOY)
    z, times = torch.from_numpy(arrays["starts"][:STARTS]), torch.from_numpy(arrays["times"][::FRAMES])
    scale = np.hypot(arrays["sigma_data"], times.numpy())[:, None, None]
    packed = {}
    for calls in CALLS:
        try:
            moved = paths(student, z, times, calls).numpy() / scale
        except ValueError:  # of students with one call
            continue
        unit = np.abs(moved).max() / 32767  # int16: a step is 1e-4 of the picture
        packed |= {f"paths {calls}": np.round(moved / unit).astype(np.int16), f"unit {calls}": unit}
    np.savez_compressed(path, **packed)
    return {"steps": steps, **run.result().evaluate()}


@torch.no_grad()
def paths(student: Any, z: Tensor, times: Tensor, calls: int) -> Tensor:
    """Where samples are at each time (F,) if the student is called ``calls`` times, (F, B, 2).

    Raises:
        ValueError: a number of calls that the student cannot make use of.
    """
    if isinstance(student, ProgressiveStudent):
        student.generate(z[:1], calls=calls)  # raises
        student = student.stages[student.numbers.index(calls)]
    if not isinstance(student, FlowMap):
        if calls > 1:
            raise ValueError("a path has one call")
        return student.trajectory(z, times)
    generator, x, rows = torch.Generator().manual_seed(SEED), z, []
    nodes = pid.karras_grid(calls + 1, student.t_min, student.t_max)
    for s, t in pairwise(nodes):
        is_last = t == nodes[-1]
        end = student.t_min if isinstance(student, ConsistencyFunction) else t
        target = student(x, s, end)
        for frame in times[(times <= s) & ((times > t) | is_last)]:
            # A network of one time takes straight steps; one that also takes the end of a step has a path.
            on_path = student.takes_end_time
            moved = student(x, s, frame) if on_path else torch.lerp(target, x, float((frame - end) / (s - end)))
            rows.append(moved)
        x = target
        if isinstance(student, ConsistencyFunction) and not is_last:  # noise is added before the next call
            noise = torch.randn(z.shape, generator=generator)
            x = target + (t**2 - student.t_min**2).sqrt().float() * noise
    return torch.stack(rows)
