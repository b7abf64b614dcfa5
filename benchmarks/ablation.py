"""What each choice of the 2-D recipe is worth: one thing changed at a time, against Euler-N and the exact ODE.

    python -m benchmarks.ablation [--seeds 0 1] [--steps 1500] [--data ring checkerboard] [--only NAME ...] [--jobs 2]

Every variant trains the recipe's network from the same weights on the same random numbers. At equal time a variant
gets as many steps as take the CPU time of the reference's, by the cost of its step as measured in this very run.
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
from pidlearn.equations.from_teacher import problem_from_teacher
from pidlearn.evaluation.metrics import rmse, wrong_mode_share
from pidlearn.run import resolve_settings

STEPS = 1500
SAMPLES = 8192


class VelocityForm(pid.DenoiserODE):
    """The probability flow as Eq. 8 states it, dx/dt against (x - D) / t; all else stays the diffusion's."""

    def lhs(self, x: Tensor, dxdt: Tensor, t: Any) -> Tensor:
        """dx/dt."""
        return dxdt

    def rhs(self, x: Tensor, t: Any, class_labels: Tensor | None = None) -> Tensor:
        """(x - D(x, t)) / t."""
        return self.velocity(x, t, class_labels)


@dataclass(frozen=True)
class Variant:
    """The reference with one choice changed.

    Attributes:
        name: for the command line and the table.
        choices: fields of `pidlearn.Config` that differ.
        form: how the equation is stated.
        boundary: of the student.
        costly: another variant's name whose step costs as much; the steps are then those of equal CPU time.
    """

    name: str
    choices: dict[str, Any] = field(default_factory=dict)
    form: Callable[[Any], pid.DenoiserODE] = pid.DenoiserODE
    boundary: str = "hard"
    costly: str | None = None

    def config(self, steps: int, seed: int) -> pid.Config:
        """All the choices of a run."""
        recipe = resolve_settings(problem_from_teacher(pid.toy("ring")), pid.Config())[0]
        return replace(recipe, steps=steps, seed=seed, **self.choices)


def variants() -> Iterator[Variant]:
    """The rows of the table."""
    yield Variant("reference")
    yield Variant("eq8", form=VelocityForm)
    yield Variant("eq8-exact", {"derivative": "exact"}, form=VelocityForm)
    yield Variant("eq8-l2-uniform-index", {"distance": "l2", "index": "uniform"}, form=VelocityForm)
    yield Variant("linear-grid", {"spacing": "linear"})
    yield Variant("linear-grid-uniform-index", {"spacing": "linear", "index": "uniform"})
    for n in (10, 18, 35, 80, 1000):
        yield Variant(f"n{n}", {"n": n})
    for n, prefix in ((250, ""), (10, "n10-")):
        for scheme in ("central", "exact", "can"):
            choices = {"n": n, "derivative": scheme}
            yield Variant(prefix + scheme, choices)
            yield Variant(f"{prefix}{scheme}-equal-time", choices, costly=scheme)
    for weight in (0.1, 0.3, 1.0, 3.0, 10.0, 100.0):
        yield Variant(f"soft-boundary-{weight:g}", {"boundary_weight": weight}, boundary="soft")
    yield Variant("teacher-gradient", {"stop_gradient": False})
    yield Variant("teacher-gradient-equal-time", {"stop_gradient": False}, costly="teacher-gradient")
    yield Variant("l2", {"distance": "l2"})
    yield Variant("l1", {"distance": "l1"})
    yield Variant("uniform-index", {"index": "uniform"})


def cost(variant: Variant, block: int = 30, rounds: int = 7) -> dict[str, float]:
    """CPU time of a step relative to the reference's, the two measured in turns: the median of the rounds."""
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
    """Train one variant, from the same weights on the same random numbers as all others."""
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
    """Train one variant and measure it on fresh noise."""
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
    """Fresh noise (SAMPLES, 2) float64 at the prior end, and where the exact ODE takes it."""
    config = Variant("reference").config(1, 0)
    generator = torch.Generator().manual_seed(10**6)
    z = (config.t_max * torch.randn(SAMPLES, 2, generator=generator)).double()
    ends = torch.tensor([config.t_max, config.t_min], dtype=torch.float64)
    return z, pid.solve(pid.DenoiserODE(pid.toy(data)), z, ends, "scipy", rtol=1e-8, atol=1e-8)[-1]


@cache
def euler_end(data: str, n: int, spacing: str) -> Tensor:
    """Where Euler's method in float64 takes the same noise on the student's own grid."""
    grid = pid.Config(n=n, spacing=spacing).grid()
    return pid.solve(pid.DenoiserODE(pid.toy(data)), truth(data)[0], grid)[-1]


def row_of(rows: dict[str, dict[str, float]], data: str, variant: str) -> dict[str, dict[str, float]]:
    """The rows of one variant, by seed."""
    prefix = f"{data}/{variant}/seed "
    return {key.removeprefix(prefix): found for key, found in rows.items() if key.startswith(prefix)}


def line(variant: Variant, rows: list[dict[str, float]]) -> dict[str, str]:
    """One line of the table, over the seeds."""

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


TEXT = f"""The reference is the default recipe at fewer steps: Eq. 9, forward difference, karras grid of N = 250,
pseudo-Huber distance, log-normal index, stop-gradient, hard boundary. Each other row changes what its name says.
Errors are of one call of the student on {SAMPLES:,} fresh noises, in data units (scale about 1), to Euler's method on
the student's own grid and to the exact ODE (SciPy, rtol 1e-8), both in float64. Figures are means over the seeds
± half their range; CPU seconds are of one thread."""


def main() -> None:
    """Fill the table and publish it."""
    table = {variant.name: variant for variant in variants()}
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ablation", description="The ablation table.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, default=STEPS, help="of the reference; the recipe itself takes more")
    parser.add_argument("--data", nargs="+", default=["ring", "checkerboard"], help="names of pidlearn.toy")
    parser.add_argument("--only", nargs="+", default=list(table), choices=table, metavar="NAME", help=", ".join(table))
    parser.add_argument("--jobs", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the tables")
    given = parser.parse_args()

    reference = str(Variant("reference").config(given.steps, 0))
    store = Store(given.out, "ablation", f"python -m benchmarks.ablation --steps {given.steps}", track_error=reference)
    costly = {table[name].costly for name in given.only} - {None}
    store.fill({f"cost/{name}": (cost, table[name]) for name in table if name in costly}, 1)
    tasks: dict[str, Task] = {}
    for seed in given.seeds:
        for data in given.data:
            for name in given.only:
                factor = store.rows[f"cost/{table[name].costly}"]["cost"] if table[name].costly else 1.0
                tasks[f"{data}/{name}/seed {seed}"] = (row, data, table[name], round(given.steps / factor), seed)
    store.fill(tasks, given.jobs)
    publish(store, table)


def publish(store: Store, table: dict[str, Variant]) -> None:
    """A section for each data set, of all the rows that there are."""
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
