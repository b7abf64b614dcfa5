"""Ablation of the 2-D recipe: change one setting at a time, and compare with Euler-N and the exact ODE.

    python -m benchmarks.ablation [--seeds 0 1] [--steps 1500] [--data ring checkerboard] [--only NAME ...] [--jobs 2]

Every variant trains the recipe's network from the same weights with the same random numbers. A variant at equal time
gets as many steps as fit into the reference's CPU time, given the cost of its step, which is measured in the same run.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

import pidlearn as pid
from benchmarks.table import RESULTS, Store, Task, spread
from pidlearn.config import resolve_settings
from pidlearn.equations.from_teacher import problem_from_teacher
from pidlearn.evaluation.metrics import rmse, wrong_mode_share

STEPS = 1500
SAMPLES = 8192


class VelocityForm(pid.DenoiserODE):
    """The probability flow in the form of Eq. 8, dx/dt = (x - D) / t, instead of Eq. 9."""

    def lhs(self, x: Tensor, dxdt: Tensor, t: Any) -> Tensor:
        """dx/dt."""
        return dxdt

    def rhs(self, x: Tensor, t: Any, class_labels: Tensor | None = None) -> Tensor:
        """(x - D(x, t)) / t."""
        return self.velocity(x, t, class_labels)


@dataclass(frozen=True)
class Variant:
    """The reference with one setting changed.

    Attributes:
        name: name on the command line and in the table.
        settings: fields of `pidlearn.Config` that differ.
        form: the equation for a teacher, in the form of Eq. 9 or Eq. 8.
        boundary: the student's boundary, "hard" or "soft".
        cost_of: name of the variant with the same cost per step, for a run at equal CPU time; None for equal steps.
    """

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    form: Callable[[Any], pid.DenoiserODE] = pid.DenoiserODE
    boundary: str = "hard"
    cost_of: str | None = None

    def config(self, steps: int, seed: int) -> pid.Config:
        """All settings of a run. With Adam: what the paper's settings do should not hang on another optimiser."""
        recipe = resolve_settings(problem_from_teacher(pid.toy("ring")), pid.Config(optimizer="adam"))[0]
        return replace(recipe, steps=steps, seed=seed, **self.settings)


def variants() -> Iterator[Variant]:
    """The variants, in the order of the table."""
    yield Variant("reference")
    yield Variant("eq8", form=VelocityForm)
    yield Variant("eq8-exact", {"derivative": "exact"}, form=VelocityForm)
    yield Variant("eq8-l2-uniform-index", {"distance": "l2", "time_sampling": "uniform"}, form=VelocityForm)
    yield Variant("linear-grid", {"spacing": "linear"})
    yield Variant("linear-grid-uniform-index", {"spacing": "linear", "time_sampling": "uniform"})
    for n in (10, 18, 35, 80, 1000):
        yield Variant(f"n{n}", {"n": n})
    for n, prefix in ((250, ""), (10, "n10-")):
        for scheme in ("central", "exact", "can"):
            settings = {"n": n, "derivative": scheme}
            yield Variant(prefix + scheme, settings)
            yield Variant(f"{prefix}{scheme}-equal-time", settings, cost_of=scheme)
    for weight in (0.1, 0.3, 1.0, 3.0, 10.0, 100.0):
        yield Variant(f"soft-boundary-{weight:g}", {"boundary_weight": weight}, boundary="soft")
    yield Variant("teacher-gradient", {"stop_gradient": False})
    yield Variant("teacher-gradient-equal-time", {"stop_gradient": False}, cost_of="teacher-gradient")
    yield Variant("l2", {"distance": "l2"})
    yield Variant("l1", {"distance": "l1"})
    yield Variant("uniform-index", {"time_sampling": "uniform"})


def cost(variant: Variant, block: int = 30, rounds: int = 7) -> dict[str, float]:
    """Measure the CPU time of a step relative to the reference: the median over rounds of ``block`` steps of each."""
    configs = [v.config(10**6, 0) for v in (variant, Variant("reference"))]
    runs = [pid.steps(pid.toy("ring"), config=config) for config in configs]
    ratios = []
    for _ in range(rounds):
        spent = []
        for run in runs:
            started = time.process_time()
            list(islice(run, block))
            spent.append(time.process_time() - started)
        ratios.append(spent[0] / spent[1])
    return {"cost": median(ratios[1:])}  # the first round warms up


def student_of(data: str, variant: Variant, steps: int, seed: int) -> pid.Result:
    """Train one variant, from the same weights and with the same random numbers as all others."""
    teacher, config = pid.toy(data), variant.config(steps, seed)
    torch.manual_seed(seed)
    student = pid.Trajectory(
        pid.nets.MLP(teacher.event_shape),
        config.t_max,
        t_min=config.t_min,
        sigma_data=teacher.std,
        boundary=variant.boundary,
    )
    return pid.distill(variant.form(teacher), student, config=config, progress=False)


def row(data: str, variant: Variant, steps: int, seed: int) -> dict[str, float]:
    """Train one variant, and evaluate it on new noise."""
    teacher = pid.toy(data)
    started = time.process_time()
    result = student_of(data, variant, steps, seed)
    seconds = time.process_time() - started
    config = result.config
    z, exact = truth(data)
    euler = euler_end(data, config.n, config.spacing)
    with torch.no_grad():
        x = result.student(z.float(), config.t_min).double()
    return {
        "euler": rmse(x, euler),
        "euler_wrong": wrong_mode_share(x, euler, teacher),
        "exact": rmse(x, exact),
        "exact_wrong": wrong_mode_share(x, exact, teacher),
        "teacher": rmse(euler, exact),
        "seconds": seconds,
        "steps": len(result.history["loss"]),
    }


@cache
def truth(data: str) -> tuple[Tensor, Tensor]:
    """New noise (SAMPLES, 2) float64 from the prior, and the exact ODE's endpoints from it."""
    config = Variant("reference").config(1, 0)
    generator = torch.Generator().manual_seed(10**6)
    z = (config.t_max * torch.randn(SAMPLES, 2, generator=generator)).double()
    ends = torch.tensor([config.t_max, config.t_min], dtype=torch.float64)
    return z, pid.solve(pid.DenoiserODE(pid.toy(data)), z, ends, "scipy", rtol=1e-8, atol=1e-8)[-1]


@cache
def euler_end(data: str, n: int, spacing: str) -> Tensor:
    """Endpoints of Euler's method in float64 from the same noise, on the student's own grid."""
    grid = pid.Config(n=n, spacing=spacing).grid()
    return pid.solve(pid.DenoiserODE(pid.toy(data)), truth(data)[0], grid)[-1]


def row_of(rows: dict[str, dict[str, float]], data: str, variant: str) -> dict[str, dict[str, float]]:
    """The rows of one variant, by seed."""
    prefix = f"{data}/{variant}/seed "
    return {key.removeprefix(prefix): row for key, row in rows.items() if key.startswith(prefix)}


def line(variant: Variant, rows: list[dict[str, float]]) -> dict[str, str]:
    """One line of the table: means over the seeds."""

    def over_seeds(name: str, digits: int, percent: bool = False) -> str:
        return spread([row[name] for row in rows], digits, percent)

    return {
        "variant": variant.name,
        "steps": f"{rows[0]['steps']:.0f}",
        "CPU s": over_seeds("seconds", 0),
        "RMSE to Euler-N": over_seeds("euler", 4),
        "wrong mode": over_seeds("euler_wrong", 2, percent=True),
        "RMSE to the exact ODE": over_seeds("exact", 4),
        "its wrong mode": over_seeds("exact_wrong", 2, percent=True),
        "Euler-N itself": over_seeds("teacher", 4),
    }


TEXT = f"""The reference is the default recipe with Adam and fewer steps: Eq. 9, forward difference, Karras grid with
N = 250, pseudo-Huber distance, log-normal time sampling, stop-gradient, hard boundary. Every other row changes the
setting in its name. Errors are those of one student call on {SAMPLES:,} new noise samples, in data units (scale about
1), compared with Euler's method on the student's own grid and with the exact ODE (SciPy, rtol 1e-8), both in float64.
Values are means over the seeds ± half of the range; CPU seconds are for one thread."""


def main() -> None:
    """Compute the missing rows, and publish the table."""
    table = {variant.name: variant for variant in variants()}
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ablation", description="Write the ablation table.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument(
        "--steps", type=int, default=STEPS, help="training steps of the reference; the recipe itself takes more"
    )
    parser.add_argument("--data", nargs="+", default=["ring", "checkerboard"], help="names of pidlearn.toy")
    parser.add_argument("--only", nargs="+", default=list(table), choices=table, metavar="NAME", help=", ".join(table))
    parser.add_argument("--jobs", type=int, default=2, help="number of processes, with one thread each")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the table")
    args = parser.parse_args()

    reference = str(Variant("reference").config(args.steps, 0))
    store = Store(args.out, "ablation", f"python -m benchmarks.ablation --steps {args.steps}", reference=reference)
    with_cost = {table[name].cost_of for name in args.only} - {None}
    store.fill({f"cost/{name}": (cost, table[name]) for name in table if name in with_cost}, 1)
    tasks: dict[str, Task] = {}
    for seed in args.seeds:
        for data in args.data:
            for name in args.only:
                factor = store.rows[f"cost/{table[name].cost_of}"]["cost"] if table[name].cost_of else 1.0
                tasks[f"{data}/{name}/seed {seed}"] = (row, data, table[name], round(args.steps / factor), seed)
    store.fill(tasks, args.jobs)
    publish(store, table)


def publish(store: Store, table: dict[str, Variant]) -> None:
    """Write one section per data set, with all rows so far."""
    sections: dict[str, list[dict[str, str]]] = {}
    for data in dict.fromkeys(key.split("/")[0] for key in store.rows if not key.startswith("cost/")):
        for name, variant in table.items():
            rows = list(row_of(store.rows, data, name).values())
            if rows:
                sections.setdefault(data, []).append(line(variant, rows))
    seeds = sorted({key.split("/seed ")[1] for key in store.rows if "/seed " in key})
    store.publish("Ablation of the 2-D recipe", f"{TEXT} Seeds {', '.join(seeds)}.", sections)


if __name__ == "__main__":
    main()
