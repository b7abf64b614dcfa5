"""The measurements of `benchmarks.student` as tables and curves."""

from __future__ import annotations

import math
from typing import Any

from matplotlib import colormaps
from matplotlib.figure import Figure

from benchmarks.student.settings import SHORT, STUDENT, SWEEPS, Size, short_key
from benchmarks.table import Row, Store, spread
from pidlearn.recipes import Recipe
from pidlearn.viewer import plot

RUN = "the recipe's run (its seconds\ninclude tracking its error)"
MOST_RMSE, MOST_FRECHET = 0.25, 1.25
"""The goals: the largest RMSE/std, and the largest Fréchet distance relative to that of the teacher's Euler-250."""

COLUMNS = {"calls": "d", **dict.fromkeys(("RMSE/std", "agreement", "as labelled"), ".3f"), "FD": ".2f"}
COLUMNS |= {"energy": ".4f", "s / 1,000": ".3g", **dict.fromkeys(("s", "CPU s"), ".0f"), "cost": ".2f"}
"""Columns of the tables, and their number formats."""


def lines(first: str, rows: dict[str, Row], columns: dict[str, str] = COLUMNS) -> list[dict[str, str]]:
    """Rows as text, without empty columns; a list becomes its mean and half of its range."""
    filled = {c: spec for c, spec in columns.items() if any(row.get(c) is not None for row in rows.values())}

    def cell(value: Any, spec: str) -> str:
        if value is None:
            return ""
        return spread(value, int(spec[1:-1])) if isinstance(value, list) else format(value, spec)

    return [{first: name, **{c: cell(row.get(c), spec) for c, spec in filled.items()}} for name, row in rows.items()]


def publish(store: Store, recipe: Recipe, size: Size) -> None:
    """Write the tables and the curves of all rows so far."""
    rows = store.rows
    sections: dict[str, list[dict[str, str]]] = {}
    compared = {key: row for key, row in rows.items() if key.startswith(("teacher, ", "real images, ", STUDENT))}
    if compared:
        sections["The student compared with solvers"] = lines("sampler", compared)
    if "run" in rows:
        sections["Survival"] = [survival_line(rows["run"], recipe.config.steps)]
    for part, (name, values) in SWEEPS.items():
        sweep = {value: rows[key] for value in values if (key := short_key(**{name: value})) in rows}
        if part == "derivatives" and "forward" in sweep:
            sweep = {value: row | {"cost": cost(row) / cost(sweep["forward"])} for value, row in sweep.items()}
        if sweep:
            sections[part.capitalize()] = lines(name, sweep)
    if points := {str(n): rows[key] for n in size.points if (key := f"points, N={n}") in rows}:
        sections["Points"] = lines("N", points, dict.fromkeys(next(iter(points.values())), ".3f"))
    if not sections:
        return
    store.publish(f"A student of {recipe.name}", f"{goals(rows)}{text(store, recipe, size)}", sections)
    curves(rows).savefig(store.path.with_name(f"{store.path.stem}-curves.png"), dpi=130)


def cost(row: Row) -> float:
    """Seconds of a training: CPU time on a CPU, so that other processes do not count."""
    return row["s"] if row["CPU s"] is None else row["CPU s"]


def goals(rows: dict[str, Row]) -> str:
    """Whether the student reaches the goals, as a sentence."""
    if STUDENT not in rows:
        return ""
    student, teacher = rows[STUDENT], rows["teacher, Euler-250"]
    ratios = [ours / theirs for ours, theirs in zip(student["FD"], teacher["FD"], strict=True)]
    metrics = {"RMSE/std": ([student["RMSE/std"]], MOST_RMSE), "FD / the teacher's": (ratios, MOST_FRECHET)}
    return f"Goals: {'; '.join(goal(name, *values) for name, values in metrics.items())}.\n\n"


def goal(name: str, values: list[float], most: float) -> str:
    """How far a mean is below or above the largest that is allowed, and how much it varies over sets of real images."""
    mean = sum(values) / len(values)
    side = "below" if mean <= most else "above"
    return f"{name} {spread(values, 3)}, {abs(mean / most - 1):.0%} {side} the limit of {most}"


def text(store: Store, recipe: Recipe, size: Size) -> str:
    """The text above the tables."""
    rows, config = store.rows, recipe.config
    paragraph = ""
    if run := rows.get("run"):
        trained = "" if run["teacher s"] is None else f", trained in {run['teacher s']:.0f} s"
        paragraph = (
            f"Teacher: {run['weights'] / 1e6:.2f} million weights{trained}. Student: {config.steps:,} steps of "
            f"{config.batch_size} in {run['s']:.0f} s, which includes tracking its error. The classifier is right on "
            f"{run['classifier']:.1%} of test images. "
        )
        paragraph += extrapolation(rows, config.steps, size.steps)
    clock = "seconds" if "gpu" in store.facts else "CPU seconds"
    return (
        f"{paragraph}All samplers start from the same noise and labels, n = {size.samples:,}, seed 1. RMSE/std and "
        f"class agreement compare with the teacher's own Euler-250. FD: the Fréchet distance on the classifier's 32 "
        f"features to n training images, mean over up to five such sets ± half of the range. Energy: the energy "
        f"distance on pixels to the first set. “As labelled”: the share of samples that the classifier assigns to "
        f"their label. s / 1,000: {clock} per thousand images. Short runs: {size.steps:,} steps, seed 0, "
        f"{', '.join(f'{k} = {v}' for k, v in SHORT.items())} except for the setting that the row names. s: wall-clock "
        f"seconds of training. Cost: {clock} relative to forward. Points: errors over the std, of {size.few:,} samples."
    )


def extrapolation(rows: dict[str, Row], steps: int, short_steps: int) -> str:
    """What a short and a long run of the recipe predict for a longer one, as a sentence."""
    short = rows.get(short_key())
    if short is None or steps <= short_steps:
        return ""
    before, after = short["RMSE/std"], rows[STUDENT]["RMSE/std"]
    factor = (after / before) ** (1 / math.log2(steps / short_steps))  # per doubling of the run
    return (
        f"After {short_steps:,} steps RMSE/std is {before:.3f}, after {steps:,} it is {after:.3f}: a factor of "
        f"{factor:.2f} for each doubling of the run. Extrapolated, {4 * steps:,} steps would reach "
        f"{after * factor**2:.3f}, which was not tried. "
    )


def survival_line(run: Row, steps: int) -> dict[str, str]:
    """The line of the table on the kill."""
    if "killed at step" not in run:
        return {"killed by SIGKILL": "no: the run had ended before"}
    difference = run["their losses differ by"]
    line = {"killed by SIGKILL": f"at step {run['killed at step']:,} of {steps:,}"}
    line |= {name: f"{run[name]:,}" for name in ("resumed from", "steps done twice")}
    losses = "" if difference is None else f"differ by {difference:.1g}" if difference else "equal, bit for bit"
    return line | {"their losses": losses}


def curves(rows: dict[str, Row]) -> Figure:
    """Plot the error of every run against images seen and against seconds."""
    drawn = {key.removeprefix("short, "): row for key, row in rows.items() if row.get("curve")}
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for column, (axes, label) in enumerate(zip(panels, ("images seen", "seconds of training"), strict=True)):
        for name, row in drawn.items():
            *x, errors = zip(*row["curve"], strict=True)
            axes.plot(x[column], errors, label=RUN if name == "run" else name, **style(name, list(drawn)))
        if killed := rows.get("run", {}).get("killed"):
            axes.axvline(killed[column], color=plot.STUDENT, lw=1, ls=":", label="killed and resumed")
        axes.axhline(MOST_RMSE, color="0.6", lw=1, ls="--", zorder=0, label="goal")
        axes.set(xscale="log", yscale="log", xlabel=label)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
    panels[0].set_ylabel("RMSE/std to Euler-250")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", fontsize=8, frameon=False)
    return figure


def style(name: str, names: list[str]) -> dict[str, Any]:
    """Line style of a run: a colour for each setting that runs change, a shade for each value."""
    if "=" not in name:
        return {"color": "k"} if name == "reference" else {"color": plot.STUDENT, "lw": 2.5}
    kind = name.partition("=")[0]
    same_kind = [other for other in names if other.startswith(f"{kind}=")]
    shades = colormaps[{"init": "Blues", "derivative": "Greens", "n": "Purples"}[kind]]
    return {"color": shades(0.45 + 0.5 * same_kind.index(name) / len(same_kind)), "lw": 1.2}
