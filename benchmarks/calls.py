"""What more calls than one are worth, and how well errors are known in advance: `python -m benchmarks.calls`.

The student of the default recipe, with its teacher at hand, compared with the teacher's own few-step solvers at the
same number of calls. All errors are those of new noise to the exact ODE.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor

import pidlearn as pid
from benchmarks.table import RESULTS, Store, Task, spread
from pidlearn.equations.solvers import solve_end
from pidlearn.refinement.certificate import size

TOYS = ("ring", "checkerboard", "moons", "spiral", "grid", "anisotropic")
SEEDS, SAMPLES = (0, 1, 2), 8192
CALLS = tuple(range(2, 21))
SHOWN = (2, 3, 5, 7, 9, 13, 17, 20)
EXTRA = (1, 2, 3, 5, 8, 12)
REFINED = {3: (0.1, 10), 9: (0.5, 14), 13: (0.5, 22)}
"""By the mean number of calls: the share of the samples that is refined, and their calls."""

Row = dict[str, Any]

TEXT = f"""Students of `pidlearn.distill(teacher, seed=seed)`, and `result.generate(z, calls=k)`: RMSE to the exact ODE
(DPM-Solver++(2M) with 250 calls in float64) on {SAMPLES:,} new noise samples, as a multiple of the student's own with
one call; in brackets that of the best plain solver with as many calls (Euler, Heun, EDM's Heun, DPM-Solver-2,
DPM-Solver++(2M)). Means over the seeds ± half of the range."""
ESTIMATES = """`result.error_estimate(z, calls=m)`: rank correlation (Spearman) with the true error; the share of
samples within twice the estimate, which is to be 90 %; and the share of the samples in a wrong mode that is among the
twentieth with the largest estimates."""
PLANS = ", ".join(f"{mean} (k = {k}, share = {share:g})" for mean, (share, k) in REFINED.items())
WHERE_NEEDED = f"""`generate(z, calls=k, refine=share)` by the mean number of calls: {PLANS}.
One call makes the sample, and one more finds the worst. RMSE as a multiple of that with one call; in brackets, that of
`generate(z, calls=k)` with as many calls for each sample."""


def row(name: str, seed: int) -> Row:
    """Distil, measure with each number of calls, and compare estimates with true errors."""
    teacher = pid.toy(name)
    result: Any = pid.distill(teacher, seed=seed, progress=False)
    problem = result.problem
    z = problem.sample_prior(SAMPLES, torch.Generator().manual_seed(10**6))
    exact = problem.exact_samples(z.double())
    x = result.generate(z)
    true, wrong = size(x - exact), teacher.component(x.double()) != teacher.component(exact)
    started = time.process_time()
    errors = {"1": rms(true)} | {str(k): rms(size(result.generate(z, calls=k) - exact)) for k in CALLS}
    seconds = time.process_time() - started
    estimates = {}
    for m in EXTRA:
        estimate = result.error_estimate(z, calls=m)
        worst = estimate.topk(SAMPLES // 20).indices
        estimates[str(m)] = {
            "rank": float(spearmanr(estimate, true)[0]),
            "within": (true <= 2 * estimate).double().mean().item(),
            "wrong": (wrong[worst].sum() / wrong.sum().clamp(min=1)).item(),
        }
    refined = {
        str(mean): rms(size(result.generate(z, calls=calls, refine=share) - exact))
        for mean, (share, calls) in REFINED.items()
    }
    plans = {name: kept for name, kept in result.student.calibration.items() if "solver" in kept}
    return {
        "errors": errors,
        "refined": refined,
        "estimates": estimates,
        "wrong": int(wrong.sum()),
        "plans": plans,
        "CPU s": seconds,
    }


def solver_row(name: str) -> Row:
    """The teacher alone: the error of each solver by calls."""
    ode = pid.DenoiserODE(pid.toy(name))
    z = 80.0 * torch.randn(SAMPLES, 2, generator=torch.Generator().manual_seed(10**6))
    exact = solve_end(ode, z.double(), pid.karras_grid(251), "dpm++")
    table: Row = {}
    for k in (1, *CALLS):
        table[str(k)] = {solver: rms(size(x - exact)) for solver, x in plain(ode, z.double(), k)}
    return table


def plain(ode: Any, z: Tensor, calls: int) -> list[tuple[str, Tensor]]:
    """The samples of each solver with this number of calls, if it has steps for it."""
    samples = [(name, solve_end(ode, z, pid.karras_grid(calls + 1), name)) for name in ("euler", "dpm++")]
    if calls % 2 == 0:
        samples += [(name, solve_end(ode, z, pid.karras_grid(calls // 2 + 1), name)) for name in ("heun", "dpm")]
    elif calls > 1:  # the last step, to t = 0, is one of Euler
        grid = torch.cat([pid.karras_grid((calls + 1) // 2), torch.zeros(1, dtype=torch.float64)])
        samples.append(("edm", solve_end(ode, z, grid, "heun")))
    return samples


def rms(errors: Tensor) -> float:
    """The root mean square of errors (n,)."""
    return errors.square().mean().sqrt().item()


def main() -> None:
    """Compute the missing rows, and publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(TOYS), choices=TOYS, metavar="TOY")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--jobs", type=int, default=2, help="number of processes, with one thread each")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the tables")
    args = parser.parse_args()
    store = Store(args.out, "calls", "python -m benchmarks.calls", samples=SAMPLES)
    tasks: dict[str, Task] = {f"{toy}/solvers": (solver_row, toy) for toy in args.only}
    tasks |= {f"{toy}/seed {seed}": (row, toy, seed) for seed in args.seeds for toy in args.only}
    store.fill(tasks, args.jobs)
    store.publish(
        "More calls than one",
        TEXT,
        {
            "Errors by calls": call_lines(store.rows),
            f"Calls where they are needed\n\n{WHERE_NEEDED}": refined_lines(store.rows),
            f"Estimates\n\n{ESTIMATES}": estimate_lines(store.rows),
        },
    )
    figure(store.rows, args.out / "calls.png")


def runs(rows: dict[str, Row], toy: str) -> list[Row]:
    """The rows of one toy over the seeds."""
    return [row for key, row in rows.items() if key.startswith(f"{toy}/seed ")]


def call_lines(rows: dict[str, Row]) -> list[dict[str, str]]:
    """One line per toy, and the geometric mean over them."""
    toys = [toy for toy in TOYS if runs(rows, toy)]
    lines = []
    for toy in toys:
        of = runs(rows, toy)
        line = {"teacher": toy, "one call": spread([row["errors"]["1"] for row in of], 4)}
        for k in map(str, SHOWN):
            best = min(rows[f"{toy}/solvers"][k].values())
            own = sum(row["errors"]["1"] for row in of) / len(of)
            line[f"{k} calls"] = (
                f"{spread([row['errors'][k] / row['errors']['1'] for row in of], 2)} ({best / own:.0f})"
            )
        lines.append(line)
    means = {f"{k} calls": _geometric_mean(rows, "errors", str(k)) for k in SHOWN}
    return [*lines, {"teacher": "geometric mean", "one call": "", **means}]


def refined_lines(rows: dict[str, Row]) -> list[dict[str, str]]:
    """One line per toy, and the geometric mean over them: calls spent on the worst samples."""
    lines = []
    for toy in (toy for toy in TOYS if runs(rows, toy)):
        of, line = runs(rows, toy), {"teacher": toy}
        for k in map(str, REFINED):
            several, alike = ([row[kind][k] / row["errors"]["1"] for row in of] for kind in ("refined", "errors"))
            line[f"{k} calls on average"] = f"{spread(several, 2)} ({sum(alike) / len(alike):.2f})"
        lines.append(line)
    means = {f"{k} calls on average": _geometric_mean(rows, "refined", str(k)) for k in REFINED}
    return [*lines, {"teacher": "geometric mean", **means}]


def _geometric_mean(rows: dict[str, Row], kind: str, calls: str) -> str:
    """Of errors as multiples of those of one call, over toys and seeds."""
    of = [row for toy in TOYS for row in runs(rows, toy)]
    return f"{math.exp(sum(math.log(row[kind][calls] / row['errors']['1']) for row in of) / len(of)):.2f}"


def estimate_lines(rows: dict[str, Row]) -> list[dict[str, str]]:
    """One line per toy: rank correlation by calls, and what 12 calls know."""
    lines = []
    for toy in (toy for toy in TOYS if runs(rows, toy)):
        of, most = runs(rows, toy), str(EXTRA[-1])
        line = {"teacher": toy}
        line |= {f"rank, {m} calls": spread([row["estimates"][str(m)]["rank"] for row in of], 2) for m in EXTRA}
        line[f"within twice, {most}"] = spread([row["estimates"][most]["within"] for row in of], 1, percent=True)
        line[f"wrong modes, {most}"] = spread([row["estimates"][most]["wrong"] for row in of], 0, percent=True)
        line["of samples"] = " ".join(str(row["wrong"]) for row in of)
        lines.append(line)
    return lines


def figure(rows: dict[str, Row], path: Path) -> None:
    """Error against calls: the student with its teacher, and the teacher alone."""
    import matplotlib.pyplot as plt

    toys = [toy for toy in TOYS if runs(rows, toy)]
    fig, axes = plt.subplots(2, (len(toys) + 1) // 2, figsize=(11, 6.2), sharex=True, squeeze=False)
    for ax, toy in zip(axes.flat, toys, strict=False):
        solvers = rows[f"{toy}/solvers"]
        best = [min(solvers[str(k)].values()) for k in (1, *CALLS)]
        ax.plot((1, *CALLS), best, color="0.6", label="best plain solver")
        for row in runs(rows, toy):
            errors = [row["errors"][str(k)] for k in (1, *CALLS)]
            ax.plot((1, *CALLS), errors, "o-", ms=3, color="tab:blue", label="student, then teacher")
            refined = [row["errors"]["1"], *(row["refined"][str(k)] for k in REFINED)]
            ax.plot((1, *REFINED), refined, "s--", ms=4, color="tab:orange", label="calls where they are needed")
        ax.set(title=toy, yscale="log")
    for ax in axes[-1]:
        ax.set(xlabel="calls per sample, on average", xticks=[1, 5, 10, 15, 20])
    for ax in axes[:, 0]:
        ax.set_ylabel("RMSE to the exact ODE")
    handles = dict(zip(*reversed(axes[0, 0].get_legend_handles_labels()), strict=True))
    fig.legend(handles.values(), handles, loc="upper center", ncols=3, frameon=False)
    fig.tight_layout(rect=(0, 0, 1, 0.95))
    fig.savefig(path, dpi=100)
    plt.close(fig)


if __name__ == "__main__":
    main()
