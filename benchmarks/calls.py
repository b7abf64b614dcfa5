"""What more calls than one are worth, and how well errors are known in advance: `python -m benchmarks.calls`.

The student of the default recipe, with its teacher at hand, compared with the teacher's own few-step solvers at the
same number of calls. All errors are those of new noise to the exact ODE. Students of images are not trained here:
`--data digits` reads what `pidlearn distill digits --out out/digits` wrote.
"""

from __future__ import annotations

import argparse
import math
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from scipy.stats import spearmanr
from torch import Tensor

import pidlearn as pid
from benchmarks.images import train_classifier
from benchmarks.kept import kept
from benchmarks.table import RESULTS, Store, Task, spread
from pidlearn import recipes
from pidlearn.equations.solvers import solve_end
from pidlearn.refinement.certificate import size
from pidlearn.teachers import load_teacher
from pidlearn.utils.fingerprint import digest

TOYS = ("ring", "checkerboard", "moons", "spiral", "grid", "anisotropic")
IMAGES = ("digits", "fashion-mnist")
"""Recipes whose students are measured."""
SEEDS, SAMPLES, FEW = (0, 1, 2), 8192, 1024
"""How many samples are compared, of toys and of images."""
CALLS = tuple(range(2, 21))
SHOWN = (2, 3, 5, 7, 9, 13, 17, 20)
"""Of all calls, those in the table, and those of images."""
EXTRA = (1, 2, 3, 5, 8, 12)
REFINED = {3: (0.1, 10), 9: (0.5, 14), 13: (0.5, 22)}
"""By the mean number of calls: the share of the samples that is refined, and their calls."""

Row = dict[str, Any]

TEXT = """{students}, and `result.generate(z, calls=k)`: RMSE to the exact ODE (DPM-Solver++(2M) with 250 calls) on
{samples:,} new noise samples, as a multiple of the student's own with one call; in brackets that of the best plain
solver with as many calls (Euler, Heun, EDM's Heun, DPM-Solver-2, DPM-Solver++(2M)). {seeds}"""
ESTIMATES = """`result.error_estimate(z, calls=m)`: rank correlation (Spearman) with the true error; the share of
samples within twice the estimate, which is to be 90 %; and the share of the samples in a wrong mode that is among the
twentieth with the largest estimates, in brackets with the largest true errors. A wrong mode is another nearest
component, or another class of a classifier: where modes touch, a small error suffices, and not even the true errors
know which."""
PLANS = ", ".join(f"{mean} (k = {k}, share = {share:g})" for mean, (share, k) in REFINED.items())
WHERE_NEEDED = f"""`generate(z, calls=k, refine=share)` by the mean number of calls: {PLANS}.
One call makes the sample, and one more finds the worst. RMSE as a multiple of that with one call; in brackets, that of
`generate(z, calls=k)` with as many calls for each sample."""


@dataclass(frozen=True)
class Subject:
    """A student, and noise whose samples are known.

    Attributes:
        result: the student with its teacher.
        z: (n, *event), and labels (n,) or None.
        exact: the ends of their paths, (n, *event) float64.
        mode: of samples (n, *event): the nearest component (n,), or the class of images.
        calls: how many are tried.
        keep: called after each of them: calibrating a student of images takes minutes, and a run may be stopped.
    """

    result: Any
    z: Tensor
    labels: Tensor | None
    exact: Tensor
    mode: Callable[[Tensor], Tensor]
    calls: tuple[int, ...]
    keep: Callable[[], object] = lambda: None


def toy(name: str, seed: int) -> Subject:
    """A toy's student, trained here."""
    teacher = pid.toy(name)
    result = pid.distill(teacher, seed=seed, progress=False)
    problem: Any = result.problem
    z = problem.sample_prior(SAMPLES, torch.Generator().manual_seed(10**6))
    return Subject(result, z, None, problem.exact_samples(z.double()), teacher.component, CALLS)


def images(name: str, folder: Path) -> Subject:
    """A recipe's student, read from the folder of its run, with what an earlier call has calibrated and solved."""
    files = [folder / f"{part}.safetensors" for part in ("teacher", "student")]
    of_teacher, of_student = (digest(file.read_bytes()) for file in files)
    calibrated = folder / f"calibrated-{of_student}.safetensors"
    teacher = load_teacher(files[0])
    result = pid.load(calibrated if calibrated.exists() else files[1], teacher)
    problem: Any = result.problem
    generator = torch.Generator().manual_seed(10**6)
    z, labels = problem.sample_prior(FEW, generator), problem.sample_labels(FEW, generator)
    real, classes = recipes.load_images(recipes.read(name).teacher)  # type: ignore[arg-type]  # a table, in both recipes
    rest = len(real) // 6
    judge = train_classifier(real[rest:], classes[rest:], real[:rest], classes[:rest], epochs=60 if rest < 1000 else 4)

    def mode(x: Tensor) -> Tensor:
        return judge.classify(x.float()).argmax(1)

    exact = kept(folder / f"exact-{FEW}-{of_teacher}.pt", lambda: problem.exact_samples(z, labels)).double()
    return Subject(result, z, labels, exact, mode, SHOWN, lambda: result.save(calibrated))


def row(subject_of: Callable[..., Subject], *which: Any) -> Row:
    """Measure a student with each number of calls, and compare estimates with true errors."""
    of = subject_of(*which)
    result, z, labels, exact = of.result, of.z, of.labels, of.exact
    x = result.generate(z, labels)
    true, wrong = size(x - exact), of.mode(x.double()) != of.mode(exact)
    started = time.process_time()
    errors = {"1": rms(true)}
    for k in of.calls:
        errors[str(k)] = rms(size(result.generate(z, labels, calls=k) - exact))
        of.keep()
    seconds = time.process_time() - started
    estimates = {}
    for m in EXTRA:
        estimate = result.error_estimate(z, labels, calls=m)
        estimates[str(m)] = {
            "rank": float(spearmanr(estimate, true)[0]),
            "within": (true <= 2 * estimate).double().mean().item(),
            "wrong": among_the_worst(wrong, estimate),
        }
    refined = {}
    for mean, (share, calls) in REFINED.items():
        refined[str(mean)] = rms(size(result.generate(z, labels, calls=calls, refine=share) - exact))
        of.keep()
    plans = {name: kept for name, kept in result.student.calibration.items() if "times" in kept}
    return {
        "errors": errors,
        "refined": refined,
        "estimates": estimates,
        "wrong": int(wrong.sum()),
        "wrong, by true errors": among_the_worst(wrong, true),
        "plans": plans,
        "CPU s": seconds,
    }


def among_the_worst(wrong: Tensor, errors: Tensor) -> float:
    """Of samples (n,) bool, the share that is among the twentieth with the largest errors (n,)."""
    worst = errors.topk(len(errors) // 20).indices
    return (wrong[worst].sum() / wrong.sum().clamp(min=1)).item()


def solver_row(name: str) -> Row:
    """A toy's teacher alone: the error of each solver by calls."""
    ode = pid.DenoiserODE(pid.toy(name))
    z = 80.0 * torch.randn(SAMPLES, 2, generator=torch.Generator().manual_seed(10**6))
    return solved(ode, z.double(), None, solve_end(ode, z.double(), pid.karras_grid(251), "dpm++"), CALLS)


def solver_row_of_images(name: str, folder: Path) -> Row:
    """The same of a recipe's teacher."""
    of = images(name, folder)
    return solved(of.result.problem.ode, of.z, of.labels, of.exact, of.calls)


def solved(ode: Any, z: Tensor, labels: Tensor | None, exact: Tensor, calls: tuple[int, ...]) -> Row:
    """The error of each solver by calls."""
    return {str(k): {solver: rms(size(x - exact)) for solver, x in plain(ode, z, k, labels)} for k in (1, *calls)}


def plain(ode: Any, z: Tensor, calls: int, labels: Tensor | None = None) -> list[tuple[str, Tensor]]:
    """The samples of each solver with this number of calls, if it has steps for it."""
    tries = [("euler", "euler", pid.karras_grid(calls + 1)), ("dpm++", "dpm++", pid.karras_grid(calls + 1))]
    if calls % 2 == 0:
        tries += [(name, name, pid.karras_grid(calls // 2 + 1)) for name in ("heun", "dpm")]
    elif calls > 1:  # the last step, to t = 0, is one of Euler
        tries.append(
            ("edm", "heun", torch.cat([pid.karras_grid((calls + 1) // 2), torch.zeros(1, dtype=torch.float64)]))
        )
    return [(name, solve_end(ode, z, grid, solver, labels)) for name, solver, grid in tries]


def rms(errors: Tensor) -> float:
    """The root mean square of errors (n,)."""
    return errors.square().mean().sqrt().item()


def main() -> None:
    """Compute the missing rows, and publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="toys", choices=("toys", *IMAGES))
    parser.add_argument("--only", nargs="+", default=list(TOYS), choices=TOYS, metavar="TOY")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="of toys")
    parser.add_argument("--jobs", type=int, default=2, help="number of processes, with one thread each")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the tables")
    args = parser.parse_args()
    name, command, title = "calls", "python -m benchmarks.calls", "More calls than one"
    tasks: dict[str, Task]
    if args.data == "toys":
        samples, seeds = SAMPLES, "Means over the seeds ± half of the range."
        students = "Students of `pidlearn.distill(teacher, seed=seed)`"
        tasks = {f"{which}/solvers": (solver_row, which) for which in args.only}
        tasks |= {f"{which}/seed {seed}": (row, toy, which, seed) for seed in args.seeds for which in args.only}
    else:
        samples, seeds, folder = FEW, "One student.", Path("out", args.data)
        students = f"The student of `pidlearn distill {args.data} --out {folder}`"
        tasks = {
            f"{args.data}/solvers": (solver_row_of_images, args.data, folder),
            f"{args.data}/seed 0": (row, images, args.data, folder),
        }
        name, command, title = f"{name}-{args.data}", f"{command} --data {args.data}", f"{title}: images"
    store = Store(args.out, name, command, samples=samples)
    store.fill(tasks, args.jobs)
    store.publish(
        title,
        textwrap.fill(TEXT.format(students=students, samples=samples, seeds=seeds), 116, break_on_hyphens=False),
        {
            "Errors by calls": call_lines(store.rows),
            f"Calls where they are needed\n\n{WHERE_NEEDED}": refined_lines(store.rows),
            f"Estimates\n\n{ESTIMATES}": estimate_lines(store.rows),
        },
    )
    figure(store.rows).savefig(args.out / f"{name}.png", dpi=100)


def subjects(rows: dict[str, Row]) -> list[str]:
    """The names of toys or images that rows are of."""
    return [name for name in (*TOYS, *IMAGES) if runs(rows, name)]


def runs(rows: dict[str, Row], toy: str) -> list[Row]:
    """The rows of one toy over the seeds."""
    return [row for key, row in rows.items() if key.startswith(f"{toy}/seed ")]


def call_lines(rows: dict[str, Row]) -> list[dict[str, str]]:
    """One line per toy, and the geometric mean over them."""
    lines = []
    for toy in subjects(rows):
        of = runs(rows, toy)
        line = {"teacher": toy, "one call": spread([row["errors"]["1"] for row in of], 4)}
        for k in map(str, SHOWN):
            best = min(rows[f"{toy}/solvers"][k].values())
            own = sum(row["errors"]["1"] for row in of) / len(of)
            line[f"{k} calls"] = (
                f"{spread([row['errors'][k] / row['errors']['1'] for row in of], 2)} ({best / own:.2g})"
            )
        lines.append(line)
    means = {f"{k} calls": _geometric_mean(rows, "errors", str(k)) for k in SHOWN}
    return [*lines, {"teacher": "geometric mean", "one call": "", **means}] if len(lines) > 1 else lines


def refined_lines(rows: dict[str, Row]) -> list[dict[str, str]]:
    """One line per toy, and the geometric mean over them: calls spent on the worst samples."""
    lines = []
    for toy in subjects(rows):
        of, line = runs(rows, toy), {"teacher": toy}
        for k in map(str, REFINED):
            several, alike = ([row[kind][k] / row["errors"]["1"] for row in of] for kind in ("refined", "errors"))
            line[f"{k} calls on average"] = f"{spread(several, 2)} ({sum(alike) / len(alike):.2f})"
        lines.append(line)
    means = {f"{k} calls on average": _geometric_mean(rows, "refined", str(k)) for k in REFINED}
    return [*lines, {"teacher": "geometric mean", **means}] if len(lines) > 1 else lines


def _geometric_mean(rows: dict[str, Row], kind: str, calls: str) -> str:
    """Of errors as multiples of those of one call, over toys and seeds."""
    of = [row for name in subjects(rows) for row in runs(rows, name)]
    return f"{math.exp(sum(math.log(row[kind][calls] / row['errors']['1']) for row in of) / len(of)):.2f}"


def estimate_lines(rows: dict[str, Row]) -> list[dict[str, str]]:
    """One line per toy: rank correlation by calls, and what 12 calls know."""
    lines = []
    for toy in subjects(rows):
        of, most = runs(rows, toy), str(EXTRA[-1])
        line = {"teacher": toy}
        line |= {f"rank, {m} calls": spread([row["estimates"][str(m)]["rank"] for row in of], 2) for m in EXTRA}
        line[f"within twice, {most}"] = spread([row["estimates"][most]["within"] for row in of], 1, percent=True)
        seen, known = [row["estimates"][most]["wrong"] for row in of], [row["wrong, by true errors"] for row in of]
        line[f"wrong modes, {most}"] = f"{spread(seen, 0, percent=True)} ({100 * sum(known) / len(known):.0f})"
        line["of samples"] = " ".join(str(row["wrong"]) for row in of)
        lines.append(line)
    return lines


def figure(rows: dict[str, Row]) -> Figure:
    """Error against calls: the student with its teacher, and the teacher alone."""
    toys = subjects(rows)
    above, across = min(2, len(toys)), (len(toys) + 1) // 2
    size = (max(7.6, 3.7 * across), 3.1 * above)
    fig = Figure(figsize=size)
    axes = fig.subplots(above, across, sharex=True, squeeze=False)
    for ax, toy in zip(axes.flat, toys, strict=False):
        solvers = rows[f"{toy}/solvers"]
        calls = [int(k) for k in solvers]
        ax.plot(calls, [min(errors.values()) for errors in solvers.values()], color="0.6", label="best plain solver")
        for row in runs(rows, toy):
            errors = [row["errors"][k] for k in solvers]
            ax.plot(calls, errors, "o-", ms=3, color="tab:blue", label="student, then teacher")
            refined = [row["errors"]["1"], *(row["refined"][str(k)] for k in REFINED)]
            ax.plot((1, *REFINED), refined, "s--", ms=4, color="tab:orange", label="calls where they are needed")
        ax.set(title=toy, yscale="log")
    for ax in axes[-1]:
        ax.set(xlabel="calls per sample, on average", xticks=[1, 5, 10, 15, 20])
    for ax in axes[:, 0]:
        ax.set_ylabel("RMSE to the exact ODE")
    handles = dict(zip(*reversed(axes[0, 0].get_legend_handles_labels()), strict=True))
    fig.legend(handles.values(), handles, loc="upper center", ncols=3, frameon=False)
    fig.tight_layout(rect=(0, 0, 1, 1 - 0.3 / size[1]))
    return fig


if __name__ == "__main__":
    main()
