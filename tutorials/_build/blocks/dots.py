"""Dot plots of measured tables: one row per thing measured, with the range over its seeds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator
from show import STUDENT, TEACHER, THIRD, chart

from benchmarks.methods.contenders import CONTENDERS
from benchmarks.methods.measure import needs
from benchmarks.table import RESULTS

MARKS = {50: (1,), 8: (1, 3), 3: (1, 2, 5), 0: (1, 2, 3, 4, 5, 6, 8)}
"""By the least ratio of an axis' largest value to its smallest: the first digits of the numbers at it."""
ONE_CALL = ("calls", "1", "euler")
"""RMSE of one call to Euler-250, in a row of `benchmarks.methods`."""

Panel = Mapping[str, Sequence[float]]
"""What was measured by its name, one value per seed."""


def measured(name: str) -> dict[str, dict[str, Any]]:
    """The rows of a table that a benchmark has published."""
    rows: dict[str, dict[str, Any]] = json.loads((RESULTS / f"{name}.json").read_text())["rows"]
    return rows


def by_seed(rows: Mapping[str, Mapping[str, Any]], *keys: str) -> dict[str, list[float]]:
    """One value of each row, gathered over seeds: rows are named "ring/seed 0" or "student, seed 0"."""
    values: dict[str, list[float]] = {}
    for name, row in rows.items():
        value: Any = row
        for key in keys:
            value = value.get(key) if value else None
        if value is not None:
            values.setdefault(name.partition("seed ")[0].rstrip("/, "), []).append(value)
    return values


def ordered(panel: Panel) -> dict[str, Sequence[float]]:
    """The rows from the least mean to the largest."""
    return dict(sorted(panel.items(), key=lambda item: sum(item[1]) / len(item[1])))


def dots(panels: Mapping[str, Panel], alt: str, colours: Mapping[str, str] = {}, line: str = "") -> str:
    """A chart with a logarithmic axis per panel: dots are means, lines go from the least to the largest value.

    Args:
        panels: by their axis' label. Those that measure the same things stand next to each other, others below.
        alt: what the chart shows, for those who do not see it.
        colours: of names; others have the student's.
        line: name of a row whose mean is drawn through its panel, to compare the others with.
    """
    names = [list(panel) for panel in panels.values()]
    in_a_row = all(each == names[0] for each in names)
    heights = [0.24 * len(each) + 0.7 for each in names]
    shape = (1, len(names)) if in_a_row else (len(names), 1)
    size = (7.5, heights[0]) if in_a_row else (7.5, sum(heights))
    ratios = None if in_a_row else heights
    figure, axes = plt.subplots(
        *shape, figsize=size, sharey=in_a_row, squeeze=False, height_ratios=ratios, layout="constrained"
    )
    for axis, (label, panel) in zip(axes.flat, panels.items(), strict=True):
        for place, (name, values) in enumerate(panel.items()):
            colour = colours.get(name, STUDENT)
            axis.plot([min(values), max(values)], [place, place], color=colour, lw=1.5)
            axis.plot(sum(values) / len(values), place, "o", color=colour, ms=5)
        if line in panel:
            axis.axvline(sum(panel[line]) / len(panel[line]), color=colours.get(line, STUDENT), lw=0.6, alpha=0.6)
        axis.set(xscale="log", xlabel=label, yticks=range(len(panel)), yticklabels=panel)
        axis.set_ylim(len(panel) - 0.5, -0.5)
        _mark(axis, max(map(max, panel.values())) / min(map(min, panel.values())))
        axis.grid(axis="y", alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    html = chart(figure, alt)
    plt.close(figure)
    return html


def methods(table: str, alt: str) -> str:
    """The error of one call of every method on three toys, coloured by what it needs."""
    rows = {key: row for key, row in measured(table).items() if "/seed " in key}
    errors = {
        toy: by_seed({key.removeprefix(f"{toy}/"): row for key, row in rows.items() if key.startswith(toy)}, *ONE_CALL)
        for toy in dict.fromkeys(key.partition("/")[0] for key in rows)
    }
    names = ordered(next(iter(errors.values())))
    colours = {"noise": STUDENT, "data": THIRD, "paths": TEACHER}
    panels = {toy: {name: each[name] for name in names} for toy, each in errors.items()}
    return dots(panels, alt, {name: colours[needs(CONTENDERS[name])] for name in names})


def _mark(axis: Axes, ratio: float) -> None:
    """Few marks, in plain numbers, on an axis whose largest value is this many times the least."""
    axis.xaxis.set_major_locator(LogLocator(subs=next(marks for least, marks in MARKS.items() if ratio > least)))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter("{x:g}")
