"""The tables and the figure of the rows."""

from __future__ import annotations

import math
from typing import Any

from matplotlib.figure import Figure

from benchmarks.methods.contenders import CONTENDERS, SOLVERS
from benchmarks.methods.measure import CALLS, needs, relative_time, solving
from benchmarks.methods.subjects import TOYS, subject
from benchmarks.table import spread

__all__ = ["all_passes", "figure", "lines", "looks", "mean", "measured", "passes", "runs", "text"]

Rows = dict[str, dict[str, Any]]

FAMILIES = {
    "tab:blue": ("pid", "corrector"),
    "tab:orange": ("boot", "freeflow"),
    "tab:green": ("flow_map",),
    "tab:purple": ("cd", "ct", "scm"),
    "tab:brown": ("pd",),
    "tab:red": ("endpoint", "dsno", "reflow"),
}
"""Colours, and the methods that have them in the figure."""
MARKERS = "osD^v"
FILLS = {"noise": "full", "paths": "left", "data": "none"}
"""How full the markers of a method are, by what it needs."""


def text(limit: dict[str, Any], data: str) -> str:
    """What the tables show."""
    if "budget" in limit:
        of = f"the CPU time that {limit['budget']:,} steps of PID with Adam took on the same processor"
        planned = """Steps: planned by what a few cost right before, in turns with steps of PID with Adam: their CPU
time is 1 of "a step". Processors are shared, so that CPU s differ. """
    else:
        planned = "Where two processors are named, CPU s of different rows do not compare. "
        of = f"{limit['steps']:,} steps"
    if data in TOYS:
        unit, exact, wrong = "in data units (scale about 1)", "SciPy, rtol 1e-8", "nearest to another component"
        search = "methods-search.md"
    else:
        unit, exact, wrong = (
            "relative to the standard deviation of the teacher's samples",
            "Heun with 498 calls",
            "of another class",
        )
        search = f"methods-search-{data}.md"
    return f"""Each method had {of}, its solved paths included, and the same network. Errors are those of
{subject(data).samples:,} new noise samples, {unit}, to Euler-250 and to the exact ODE ({exact}); after a
semicolon those of 2, 4 and 8 calls, where the student can make use of them. Consistency students add noise between
calls, so that only their distribution is compared then. Wrong mode: {wrong} than the exact sample. Energy: energy
distance to other samples of the teacher, times 1e4.
Passes: forward passes of the network per training sample, where one with a gradient counts three, and a call of the
teacher one, plus those that solved the paths, shared out among all training samples. The tangent of forward-mode AD is
another pass.
{planned}Kept: what training holds between steps besides the teacher, so no activations: networks, gradients, the
optimiser's state, solved paths.
Means over the seeds ± half of the range; one thread. The search (`{search}`) trained with another seed, and
compared on the same noise."""


def measured(rows: Rows) -> list[str]:
    """The names of the subjects that rows are of; rows themselves stand in the order in which they were computed."""
    names = {key.split("/")[0] for key in rows}
    return [name for name in (*TOYS, "digits") if name in names]


def runs(rows: Rows, data: str, name: str) -> list[dict[str, Any]]:
    """The rows of one method on one toy, over the seeds."""
    return [row for key, row in rows.items() if key.startswith(f"{data}/{name}/seed ")]


def lines(rows: Rows, data: str) -> list[dict[str, str]]:
    """One section: solvers, then methods, ordered by their error."""
    euler = rows[f"{data}/Euler-250"]
    table = [
        {
            "method": "Euler-250 itself",
            "RMSE to Euler-250": "0",
            "to the exact ODE": f"{euler['exact']:.4f}",
            "energy": f"{1e4 * euler['energy']:.1f} (floor {1e4 * euler['energy floor']:.1f})",
        }
    ]
    table += [_line(name, [rows[f"{data}/{name}"]]) for name in SOLVERS if f"{data}/{name}" in rows]
    results = {name: runs(rows, data, name) for name in CONTENDERS}
    ordered = sorted((name for name in results if results[name]), key=lambda name: mean(results[name], "1", "euler"))
    table += [
        {**_line(name, results[name]), "needs": needs(CONTENDERS[name]), **_costs(data, name, results[name])}
        for name in ordered
    ]
    columns = list(dict.fromkeys(key for line in table for key in line))
    return [{column: line.get(column, "") for column in columns} for line in table]


def _line(name: str, results: list[dict[str, Any]]) -> dict[str, str]:
    """Errors of one method; its calls are those that all seeds have."""
    calls = [str(k) for k in CALLS if str(k) in results[0]["calls"]]

    def over(metric: str, digits: int, factor: float = 1.0, percent: bool = False) -> str:
        first, *rest = calls[:1] if _adds_noise(name) and metric != "energy" else calls
        one = spread([factor * row["calls"][first][metric] for row in results], digits, percent)
        more = [f"{factor * (100 if percent else 1) * mean(results, k, metric):.{digits}f}" for k in rest]
        return "; ".join([one if first == "1" else f"({first} calls) {one}", *more])

    return {
        "method": name,
        "RMSE to Euler-250": over("euler", 4),
        "to the exact ODE": over("exact", 4),
        "wrong mode": over("wrong", 1, percent=True),
        "energy": over("energy", 1 if max(mean(results, k, "energy") for k in calls) < 1 else 0, 1e4),
    }


def mean(results: list[dict[str, Any]], calls: str, metric: str) -> float:
    """The mean over the seeds of a metric at a number of calls; NaN without results."""
    return _mean([row["calls"][calls][metric] for row in results])


def all_passes(data: str, name: str, results: list[dict[str, Any]]) -> float:
    """Forward passes per training sample, those that solved the paths included; the mean over the seeds."""
    return _mean([passes(row) + solving(data, CONTENDERS[name], row) for row in results])


def _mean(values: list[float]) -> float:
    return float(sum(values) / len(values)) if values else float("nan")


def _costs(data: str, name: str, results: list[dict[str, Any]]) -> dict[str, str]:
    row = results[0]
    solved = all_passes(data, name, results) - _mean([passes(r) for r in results])
    step = _mean([r.get("step / PID step", math.nan) for r in results])  # of rows at equal CPU time
    return {
        "passes": f"{passes(row):.1f}" + (f" + {solved:.1f}" if row["pairs"] else ""),
        "of the teacher": f"{row['teacher']:.1f}" + (f" + {row['pairs']:.0f} paths" if row["pairs"] else ""),
        "steps": f"{_mean([r['steps'] for r in results]):,.0f}",
        **({} if math.isnan(step) else {"a step": f"{step:.2f}"}),
        "CPU s": spread([r["seconds"] for r in results], 0),
        "kept, MB": f"{row['megabytes']:.1f}",
    }


def passes(row: dict[str, Any]) -> float:
    """Forward passes per training sample; one with a gradient counts three."""
    return float(3 * row["with gradient"] + row["without gradient"] + row["teacher"])


def looks() -> dict[str, dict[str, Any]]:
    """How each method is drawn: a colour per family, a marker of its own within it, and filled as `FILLS` says."""
    table: dict[str, dict[str, Any]] = {}
    for name, contender in CONTENDERS.items():
        colour = next(colour for colour, methods in FAMILIES.items() if contender.method in methods)
        marker = MARKERS[sum(look["color"] == colour for look in table.values())]
        fill = {"fillstyle": FILLS[needs(contender)], "markerfacecoloralt": "white"}
        table[name] = {"color": colour, "marker": marker, "ms": 6, **fill}
    return table


def figure(rows: Rows) -> Figure:
    """Errors to the exact ODE: left, against calls of the student; right, of one call against the cost of a sample."""
    names = measured(rows)
    fig = Figure(figsize=(8.6, 2 + 3.1 * len(names)), layout="constrained")
    axes = fig.subplots(len(names), 2, squeeze=False)
    for line, data in zip(axes, names, strict=True):
        for solver, style in zip(SOLVERS, ("-", "--", ":"), strict=True):
            calls = rows[f"{data}/{solver}"]["calls"]
            errors = [c["exact"] for c in calls.values()]
            line[0].plot([int(k) for k in calls], errors, style, color=".6", label=solver)
        most = next(iter(rows[f"{data}/Euler"]["calls"].values()))["exact"]  # Heun's first errors are far above
        for name, look in looks().items():
            if not (results := runs(rows, data, name)):
                continue
            calls = [k for k in results[0]["calls"] if k == "1" or not _adds_noise(name)]
            errors = [mean(results, k, "exact") for k in calls]
            most = max(most, *errors)
            line[0].plot([int(k) for k in calls], errors, label=name, **look)
            cost = _mean([relative_time(data, CONTENDERS[name], row) for row in results])
            line[1].plot(cost, errors[0], ls="", **look)
        for ax in line:
            ax.set(xscale="log", yscale="log")
            low, high = ax.get_ylim()  # without the line, which may be far below
            ax.axhline(rows[f"{data}/Euler-250"]["exact"], color="k", lw=0.6)
            ax.set_ylim(low, min(high, 2 * most))
            if high < 10 * low:  # less than a decade, in which a logarithmic axis has no numbers
                ax.set_yscale("linear")
        line[0].set(title=f"{data}, by calls", ylabel="RMSE to the exact ODE")
        line[1].set(title=f"{data}, one call, by cost")
        for ax, ticks in zip(line, ((*CALLS, 16, 32), (0.5, 1, 2, 4, 8)), strict=True):
            limits = ax.get_xlim()  # of the data
            ax.set(xticks=ticks, xticklabels=ticks)
            ax.minorticks_off()
            ax.set_xlim(limits)
    axes[-1, 0].set_xlabel("calls of the student, or of the teacher (grey)")
    axes[-1, 1].set_xlabel("CPU time per training sample; PID with Adam: 1")
    handles = {label: h for ax in axes[:, 0] for h, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    title = "Thin line: Euler-250. Filled: needs only noise; half: solved paths; white: data."
    fig.legend(handles.values(), handles, loc="outside upper center", ncols=3, fontsize=9, title=title)
    return fig


def _adds_noise(name: str) -> bool:
    """Whether noise is added between calls, so that a sample does not belong to its z any more."""
    return name in CONTENDERS and CONTENDERS[name].method in ("cd", "ct", "scm")
