"""Tables of the errors."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import geometric_mean
from typing import Any

from benchmarks.faster.changes import DATA, RECIPES, STEPS, TOYS, changes
from benchmarks.table import spread


def diverged(row: dict[str, Any]) -> bool:
    """Whether training stopped as diverged, or ended with samples far from all data."""
    return row["error"] is None or not row["error"] <= 10  # false for NaN, which diverged, too


def lines(rows: dict[str, dict[str, Any]], names: Sequence[str]) -> list[dict[str, str]]:
    """One line per change: its error on each of the data, and the geometric mean of its ratios to what it changes."""
    changed = "Muon" if names == TOYS else "reference"
    table = []
    for name in changes(names[0]):
        line, ratios, seconds = {"change": name}, [], []
        for data in names:
            ours, theirs = (
                [r for key, r in sorted(rows.items()) if key.startswith(f"{data}/{n}/")] for n in (name, changed)
            )
            if ours:
                errors = [r["error"] for r in ours if not diverged(r)]
                words = [spread(errors, 4)] if errors else []
                line[data] = " or ".join(words + ["diverged"] * (len(errors) < len(ours)))
                line[f"{data}, steps"] = f"{ours[0]['steps']:,.0f}"
                seconds += [r["seconds"] for r in ours]
                both = [(a, b) for a, b in zip(ours, theirs, strict=False) if not (diverged(a) or diverged(b))]
                ratios += [a["error"] / b["error"] for a, b in both]
        if len(line) > 1:
            line |= {f"to {changed}": f"{geometric_mean(ratios):.2f}" if ratios else "", "CPU s": spread(seconds, 0)}
            table.append(line)
    return table


def _by_seed(rows: dict[str, dict[str, Any]], beginning: str) -> list[dict[str, Any]]:
    """The rows whose names begin so, in the order of their seeds and not of the runs' ends."""
    return [row for key, row in sorted(rows.items()) if key.startswith(beginning)]


def unseen_lines(rows: dict[str, dict[str, Any]]) -> list[dict[str, str]]:
    """One line per unseen problem: the errors of both recipes, and their ratio."""
    table = []
    for data in DATA["unseen"]:
        old, new = (_by_seed(rows, f"{data}/{name}/") for name in RECIPES)
        if new:
            ratios = [b["error"] / a["error"] for a, b in zip(old, new, strict=True)]
            table.append(
                {
                    "problem": data,
                    "the first release's": spread([r["error"] for r in old], 4),
                    "its steps": f"{old[0]['steps']:,}",
                    "today's": spread([r["error"] for r in new], 4),
                    "steps": f"{new[0]['steps']:,}",
                    "ratio": f"{geometric_mean(ratios):.2f}",
                }
            )
    return table


TEXT = {
    "toys": f"""RMSE to Euler-250 of one call on new noise, in data units (scale about 1), after the CPU time that
{STEPS["ring"]:,} steps of the reference take, or half of it where a row says so; means over the seeds ± half of the
range. From "Muon" on, each row changes one thing more than the optimiser. The last column is the ratio to Muon's own
error, the geometric mean over toys and seeds.""",
    "odes": f"""Error over the whole path, from new initial values, relative to the standard deviation over times and
initial values, after the CPU time that {STEPS["pendulum"]:,} steps of today's recipe take, the reference: windows one
after another, with batches of 128; means over the seeds ± half of the range.""",
    "unseen": """Two random mixtures and two ODEs that had no part in the choice of today's recipes: those of the first
release, with Adam, and today's for the same CPU time. Mixtures: RMSE to Euler-250 of one call on new noise, in data
units. ODEs: over the whole path, from new initial values, relative to the standard deviation over times and initial
values. Means over the seeds ± half of the range; the ratio is the geometric mean over the seeds.""",
    "digits": f"""RMSE of one call to Euler-250 on new noise, relative to the standard deviation of the teacher's
samples, after the CPU time that {STEPS["digits"]} steps of the reference take, a fifth of the recipe's own, solved
paths included; means over the seeds ± half of the range.""",
    "digits-mlp": f"""RMSE of one call to Euler-250 on new noise, relative to the standard deviation of the teacher's
samples, after the CPU time of the recipe, {STEPS["digits-mlp"]:,} steps of the reference, solved paths included; means
over the seeds ± half of the range.""",
}
COSTS = """How many steps have that time is measured in turns with the reference, right before each run. The runs
themselves shared their cores with others, which slows them by different amounts: their CPU seconds are in the last
column, and ratios within a tenth of 1 say little."""
TITLES = {
    "toys": "",
    "odes": ", ODEs",
    "unseen": ", unseen problems",
    "digits": ", digits with a U-Net",
    "digits-mlp": ", digits with an MLP",
}
