"""Measure the accuracy of the default recipes, without any settings: 2-D diffusions, and ODEs of the zoo and others.

    python -m benchmarks.learning [--only NAME ...] [--steps N] [--jobs 2]

The other systems are passed as a user would pass them: vector field, initial values and time span.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pidlearn as pid
from benchmarks.table import RESULTS, Store, Task, spread
from pidlearn.config import resolve_settings
from pidlearn.equations.from_teacher import problem_from_teacher
from pidlearn.equations.systems import SYSTEMS
from pidlearn.evaluation.metrics import relative_rmse, rmse, wrong_mode_share

SAMPLES, EULER = 8192, 250
STARTS, TIMES = 4096, 201

UNSEEN = {"unseen-1": 101, "unseen-2": 102, "unseen-3": 103}
"""Random mixtures, and the seed of each."""

DIFFUSIONS = ("ring", "checkerboard", "moons", "spiral", "grid", "anisotropic", *UNSEEN)
SEEDS = 3


def unseen(seed: int) -> pid.GaussianMixture:
    """A random mixture of 4 to 7 anisotropic modes with unequal weights, in a square of side 2.6."""
    g = torch.Generator().manual_seed(seed)
    k = int(torch.randint(4, 8, (1,), generator=g))
    means = 1.3 * (2 * torch.rand(k, 2, generator=g, dtype=torch.float64) - 1)
    stds = 0.07 * (0.4 / 0.07) ** torch.rand(k, 2, generator=g, dtype=torch.float64)
    angle = math.pi * torch.rand(k, generator=g, dtype=torch.float64)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).reshape(k, 2, 2)
    covs = turn @ torch.diag_embed(stds**2) @ turn.mT
    return pid.GaussianMixture(means, (covs + covs.mT) / 2, 0.2 + torch.rand(k, generator=g))


def fitzhugh_nagumo(x: Tensor, t: Tensor) -> Tensor:
    """A neuron under constant current: v spikes, w recovers slowly."""
    v, w = x.unbind(1)
    return torch.stack([v - v**3 / 3 - w + 0.5, 0.08 * (v + 0.7 - 0.8 * w)], 1)


def duffing(x: Tensor, t: Tensor) -> Tensor:
    """A driven, damped oscillator in a double well: x'' = x - x^3 - 0.3 x' + cos(t) / 2."""
    y, v = x.unbind(1)
    return torch.stack([v, y - y**3 - 0.3 * v + 0.5 * t.cos()], 1)


def chain(x: Tensor, t: Tensor) -> Tensor:
    """Three masses and four springs between two walls, damped: six dimensions."""
    q, v = x.split(3, 1)
    between = torch.nn.functional.pad(q, (1, 1))
    return torch.cat([v, between[:, 2:] - 2 * q + between[:, :-2] - 0.1 * v], 1)


def harmonic(x: Tensor, t: Tensor) -> Tensor:
    """The harmonic oscillator x'' = -x."""
    return torch.stack([x[:, 1], -x[:, 0]], 1)


OWN = {
    "fitzhugh_nagumo": pid.System(fitzhugh_nagumo, (-2.0, -0.5), (2.0, 1.5), 0.0, 40.0, ("v", "w")),
    "forced_duffing": pid.System(duffing, (-1.5, -1.5), (1.5, 1.5), 0.0, 10.0, ("x", "v")),
    "chain_6d": pid.System(chain, (-1.0,) * 6, (1.0,) * 6, 0.0, 10.0, ("q1", "q2", "q3", "v1", "v2", "v3")),
    "harmonic_backwards": pid.System(harmonic, (-1.0, -1.0), (1.0, 1.0), 10.0, 0.0, ("x", "v")),
}
"""Systems outside the zoo."""


def problem(name: str) -> dict[str, Any]:
    """What `pidlearn.distill` gets: a teacher, and of an ODE its initial values and time span."""
    if name in DIFFUSIONS:
        return {"teacher": unseen(UNSEEN[name]) if name in UNSEEN else pid.toy(name)}
    system = {**SYSTEMS, **OWN}[name]
    span = {"t_start": system.t_start, "t_end": system.t_end}
    return {"teacher": pid.VelocityODE(system.f), "prior": system.prior, **span}


def row(name: str, seed: int, steps: int | None) -> dict[str, float]:
    """Distil one teacher or system, and compare the student with other solutions."""
    started = time.process_time()
    result: Any = pid.distill(**problem(name), seed=seed, steps=steps, progress=False)
    row = {"seconds": time.process_time() - started, "steps": len(result.history["loss"])}
    if name not in DIFFUSIONS:
        integrator = "Radau" if {**SYSTEMS, **OWN}[name].stiff else None
        row["evaluate"] = result.evaluate(integrator=integrator)["relative_rmse"]
    return errors(name, result.student) | row


@torch.no_grad()
def errors(name: str, student: Any) -> dict[str, float]:
    """The errors of a student on new noise or initial values."""
    return (diffusion_errors if name in DIFFUSIONS else path_errors)(name, student)


def diffusion_errors(name: str, student: Any) -> dict[str, float]:
    """Compare a student of a 2-D diffusion with Euler's method in float64."""
    teacher, grid = problem(name)["teacher"], pid.karras_grid(EULER)
    z = (grid[0] * torch.randn(SAMPLES, 2, generator=torch.Generator().manual_seed(10**6))).float()
    euler = pid.solve(pid.DenoiserODE(teacher), z.double(), grid)[-1]
    x = student(z, grid[-1]).double()
    return {"error": rmse(x, euler), "wrong": wrong_mode_share(x, euler, teacher)}


def path_errors(name: str, student: Any) -> dict[str, float]:
    """Compare a student of an ODE with SciPy over the whole path."""
    system = {**SYSTEMS, **OWN}[name]
    z = system.prior(STARTS, torch.Generator().manual_seed(10**6))
    grid = torch.linspace(system.t_start, system.t_end, TIMES, dtype=torch.float64)
    exact = pid.solve(system.ode, z.double(), grid, "scipy", rtol=1e-8, atol=1e-8)
    x = torch.stack([student(z, t) for t in grid]).double()
    # (TIMES, STARTS, d) to (STARTS,): the relative RMSE of each path.
    of_paths = ((x - exact) / exact.flatten(0, 1).std(0)).square().mean((0, 2)).sqrt()
    x, exact = x.flatten(0, 1), exact.flatten(0, 1)
    return {
        "error": relative_rmse(x, exact),
        "worst coordinate": max(map(relative_rmse, x.T, exact.T)),
        "median path": of_paths.median().item(),
        "worst hundredth": of_paths.quantile(0.99).item(),
    }


def diffusion_lines(store: Store) -> list[dict[str, str]]:
    """The table of the diffusions."""
    lines = []
    for name in DIFFUSIONS:
        rows = [row for key, row in store.rows.items() if key.startswith(f"{name}/")]
        if rows:
            line = {
                "teacher": name,
                "seeds": f"{len(rows)}",
                "RMSE to Euler-250": spread([row["error"] for row in rows], 4),
                "largest": f"{max(row['error'] for row in rows):.4f}",
                "wrong mode": spread([row["wrong"] for row in rows], 2, percent=True),
                "CPU s": spread([row["seconds"] for row in rows], 0),
                "steps": f"{rows[0]['steps']}",
            }
            lines.append(line)
    return lines


def ode_lines(store: Store) -> list[dict[str, str]]:
    """The table of the ODEs."""
    lines = []
    for name in (*SYSTEMS, *OWN):
        rows = [row for key, row in store.rows.items() if key.startswith(f"{name}/")]
        if rows:
            line = {
                "system": name,
                "from": "the zoo" if name in SYSTEMS else "a user",
                "seeds": f"{len(rows)}",
                "relative RMSE": spread([row["error"] for row in rows], 4),
                "largest": f"{max(row['error'] for row in rows):.4f}",
                "of the worst coordinate": spread([row["worst coordinate"] for row in rows], 4),
                "median path": spread([row["median path"] for row in rows], 4),
                "1 path in 100 above": spread([row["worst hundredth"] for row in rows], 4),
                "largest, other starts": f"{max(row['evaluate'] for row in rows):.4f}",
                "CPU s": spread([row["seconds"] for row in rows], 0),
                "steps": f"{rows[0]['steps']}",
            }
            lines.append(line)
    return lines


TEXT = f"""`pidlearn.distill` with only the teacher and a seed (for an ODE also its initial values and time span).
Diffusions: one student call on {SAMPLES:,} new noise samples, compared with Euler-{EULER} in float64, in data units
(scale about 1); means over the seeds ± half of the range. A sample is in a wrong mode if its most responsible component
differs from the reference's; where components overlap (moons, spiral), a small error suffices. ODEs: the error over the
whole path ({STARTS:,} new initial values, {TIMES} times), compared with SciPy (rtol 1e-8) and relative to the standard
deviation over times and initial values. A few initial values, near those whose paths the ODE itself separates, cause
most of the error, so the table gives the median over paths as well, and the largest error that
`result.evaluate()` reports, on other initial values. CPU seconds are for one thread."""


def main() -> None:
    """Compute the missing rows, and publish both tables."""
    runs = [(name, seed) for name in (*DIFFUSIONS, *SYSTEMS, *OWN) for seed in range(SEEDS)]
    names = [f"{name}/seed {seed}" for name, seed in runs]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning", description="Write the learning tables.")
    parser.add_argument("--only", nargs="+", default=names, choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--steps", type=int, help="training steps, instead of each recipe's own")
    parser.add_argument("--jobs", type=int, default=2, help="number of processes, with one thread each")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the tables")
    args = parser.parse_args()

    tasks: dict[str, Task] = {f"{name}/seed {seed}": (row, name, seed, args.steps) for name, seed in runs}
    kinds = {"2-D": pid.toy("ring"), "ODE": pid.system("pendulum")}
    recipes = {
        kind: str(resolve_settings(problem_from_teacher(teacher), pid.Config())[0]) for kind, teacher in kinds.items()
    }
    command = "python -m benchmarks.learning" + (f" --steps {args.steps}" if args.steps else "")
    store = Store(args.out, "learning", command, recipes=recipes)
    store.fill({name: tasks[name] for name in args.only}, args.jobs)
    both = {"2-D diffusions": diffusion_lines(store), "ODEs": ode_lines(store)}
    store.publish("Accuracy of the default recipes", TEXT, {heading: lines for heading, lines in both.items() if lines})


if __name__ == "__main__":
    main()
