"""What `benchmarks.student` measured, as a table and as curves; and what its rows are called."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from matplotlib import colormaps
from matplotlib.figure import Figure

from benchmarks.images import SAMPLES
from benchmarks.table import Row, Store, spread
from pidlearn.recipes import Recipe
from pidlearn.viewer import plot

STUDENT = "student, 1 call"
RUN = "the recipe's run (its seconds\ninclude following its error)"
SHORT = {"init": "teacher", "derivative": "forward", "n": 250}
"""What a short run is unless it says otherwise."""
SWEEPS = {
    "starts": ("init", ("random", "official", "teacher")),
    "derivatives": ("derivative", ("forward", "central", "exact")),
}
"""Parts of short runs, what each of them varies, and over which choices."""
MOST_RMSE, MOST_FRECHET = 0.25, 1.25
"""The goals: RMSE/std, and the Fréchet distance in those of the teacher's Euler-250."""


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        steps: of a short run.
        samples: from which figures are.
        few: of these, those whose error is followed in training, and that are taken along many grids.
        points: grid points of students, and of Euler's method beside them.
    """

    steps: int = 1000
    samples: int = SAMPLES
    few: int = 256
    points: tuple[int, ...] = (18, 40, 80, 250, 1000)


def short_key(**choice: Any) -> str:
    """The row of a short run: several parts ask for the one that chooses nothing."""
    differs = [f"{name}={value}" for name, value in choice.items() if SHORT[name] != value]
    return f"short, {differs[0] if differs else 'reference'}"


COLUMNS = {"calls": "d", **dict.fromkeys(("RMSE/std", "agreement", "as labelled"), ".3f"), "FD": ".2f"}
COLUMNS |= {"energy": ".4f", "s / 1,000": ".3g", **dict.fromkeys(("s", "CPU s"), ".0f"), "cost": ".2f"}
"""Of the tables, and how their figures are written."""


def lines(first: str, rows: dict[str, Row], columns: dict[str, str] = COLUMNS) -> list[dict[str, str]]:
    """Rows as text, in those columns that have figures."""
    told = {c: how for c, how in columns.items() if any(row.get(c) is not None for row in rows.values())}

    def shown(value: Any, how: str) -> str:
        if value is None:
            return ""
        return spread(value, int(how[1:-1])) if isinstance(value, list) else format(value, how)

    return [{first: name, **{c: shown(row.get(c), how) for c, how in told.items()}} for name, row in rows.items()]


def publish(store: Store, recipe: Recipe, size: Size) -> None:
    """The table and the curves, of all the rows that there are."""
    rows = store.rows
    sections: dict[str, list[dict[str, str]]] = {}
    compared = {key: row for key, row in rows.items() if key.startswith(("teacher, ", "real images, ", STUDENT))}
    if compared:
        sections["The student beside solvers"] = lines("sampler", compared)
    if "run" in rows:
        sections["Survival"] = [survived(rows["run"], recipe.config.steps)]
    for part, (name, values) in SWEEPS.items():
        found = {value: rows[key] for value in values if (key := short_key(**{name: value})) in rows}
        if part == "derivatives" and "forward" in found:
            found = {value: row | {"cost": cost(row) / cost(found["forward"])} for value, row in found.items()}
        if found:
            sections[part.capitalize()] = lines(name, found)
    if found := {str(n): rows[key] for n in size.points if (key := f"points, N={n}") in rows}:
        sections["Points"] = lines("N", found, dict.fromkeys(next(iter(found.values())), ".3f"))
    if not sections:
        return
    store.publish(f"A student of {recipe.name}", f"{goals(rows)}{text(store, recipe, size)}", sections)
    curves(rows).savefig(store.path.with_name(f"{store.path.stem}-curves.png"), dpi=130)


def cost(row: Row) -> float:
    """Seconds of a training: on a CPU those that it was given, whoever else was busy."""
    return row["s"] if row["CPU s"] is None else row["CPU s"]


def goals(rows: dict[str, Row]) -> str:
    """Whether the student is as near as it should be, and by how much."""
    if STUDENT not in rows:
        return ""
    mine, teacher = rows[STUDENT], rows["teacher, Euler-250"]
    ratios = [ours / theirs for ours, theirs in zip(mine["FD"], teacher["FD"], strict=True)]
    figures = {"RMSE/std": ([mine["RMSE/std"]], MOST_RMSE), "FD / the teacher's": (ratios, MOST_FRECHET)}
    return f"Goals: {'; '.join(goal(name, *figure) for name, figure in figures.items())}.\n\n"


def goal(name: str, values: list[float], most: float) -> str:
    """Whether it is reached, by how much, and whether it depends on which real images are looked at."""
    mean = sum(values) / len(values)
    met = f"{'met' if mean <= most else 'missed'} by {abs(mean / most - 1):.0%}"
    return f"{name} {spread(values, 3)} of at most {most}, {met}"


def text(store: Store, recipe: Recipe, size: Size) -> str:
    """What the figures are."""
    rows, config = store.rows, recipe.config
    told = ""
    if run := rows.get("run"):
        trained = "" if run["teacher s"] is None else f", trained in {run['teacher s']:.0f} s"
        told = (
            f"Teacher: {run['weights'] / 1e6:.2f} million weights{trained}. Student: {config.steps:,} steps of "
            f"{config.batch_size} in {run['s']:.0f} s, in which its error was followed. The classifier is right on "
            f"{run['classifier']:.1%} of test images. "
        )
        told += longer(rows, config.steps, size.steps)
    clock = "seconds" if "gpu" in store.facts else "CPU seconds"
    return (
        f"{told}All from the same noise and labels, n = {size.samples:,}, seed 1. RMSE/std and class agreement are to "
        f"the teacher's own Euler-250; FD is the Fréchet distance on the classifier's 32 features to n training "
        f"images, the mean over up to five such sets, ± half of its range; energy the energy distance on pixels to the "
        f"first set; “as labelled”: the classifier says the label that was asked for; s / 1,000: {clock} a thousand "
        f"images. Short runs: {size.steps:,} steps, seed 0, "
        f"{', '.join(f'{k} = {v}' for k, v in SHORT.items())} but for what is said; s: seconds of training by the "
        f"clock; cost: {clock} over forward's. Points: errors over the std, of {size.few:,} samples."
    )


def longer(rows: dict[str, Row], steps: int, few: int) -> str:
    """What two whole runs of the recipe, a short and a long one, say of longer ones."""
    short = rows.get(short_key())
    if short is None or steps <= few:
        return ""
    before, after = short["RMSE/std"], rows[STUDENT]["RMSE/std"]
    factor = (after / before) ** (1 / math.log2(steps / few))
    return (
        f"After {few:,} steps RMSE/std is {before:.3f}, after {steps:,} it is {after:.3f}: each doubling of the run "
        f"leaves {factor:.2f} of it. If that went on, {4 * steps:,} steps would reach {after * factor**2:.3f}, which "
        f"was not tried. "
    )


def survived(run: Row, steps: int) -> dict[str, str]:
    """The line of the kill, if there was one."""
    if "killed at step" not in run:
        return {"killed by SIGKILL": "no: the run was done before one was due"}
    apart = run["their losses differ by"]
    told = {"killed by SIGKILL": f"at step {run['killed at step']:,} of {steps:,}"}
    told |= {name: f"{run[name]:,}" for name in ("resumed from", "steps done twice")}
    return told | {"their losses": "" if apart is None else f"differ by {apart:.1g}" if apart else "equal, bit for bit"}


def curves(rows: dict[str, Row]) -> Figure:
    """The error against images seen and against seconds, of every run."""
    drawn = {key.removeprefix("short, "): row for key, row in rows.items() if row.get("curve")}
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for which, (axes, label) in enumerate(zip(panels, ("images seen", "seconds of training"), strict=True)):
        for name, row in drawn.items():
            *x, errors = zip(*row["curve"], strict=True)
            axes.plot(x[which], errors, label=RUN if name == "run" else name, **style(name, list(drawn)))
        if killed := rows.get("run", {}).get("killed"):
            axes.axvline(killed[which], color=plot.STUDENT, lw=1, ls=":", label="killed, and run again")
        axes.axhline(MOST_RMSE, color="0.6", lw=1, ls="--", zorder=0, label="goal")
        axes.set(xscale="log", yscale="log", xlabel=label)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
    panels[0].set_ylabel("RMSE/std to Euler-250")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", fontsize=8, frameon=False)
    return figure


def style(name: str, names: list[str]) -> dict[str, Any]:
    """Colours by what a run varies."""
    if "=" not in name:
        return {"color": "k"} if name == "reference" else {"color": plot.STUDENT, "lw": 2.5}
    kind = name.partition("=")[0]
    alike = [other for other in names if other.startswith(f"{kind}=")]
    shades = colormaps[{"init": "Blues", "derivative": "Greens", "n": "Purples"}[kind]]
    return {"color": shades(0.45 + 0.5 * alike.index(name) / len(alike)), "lw": 1.2}
