"""The settings of each method: its optimiser, its learning rate and one more, by a search that is the same for all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from benchmarks.methods.contenders import CONTENDERS, Contender
from benchmarks.methods.measure import budgeted_steps, cost, distilled, settings_on
from benchmarks.methods.subjects import TOYS, subject, truth
from benchmarks.table import Store, Task
from pidlearn.evaluation.metrics import rmse
from pidlearn.methods import METHODS, settings_of

__all__ = ["SEED", "TEXT", "at_edge", "best", "candidate", "lines", "search", "shown"]

Settings = dict[str, Any]
Row = dict[str, Any]
Rows = dict[str, Row]

SEED = 100
SHARE, FINALISTS, FINAL = 3, 2, "checkerboard"
"""The first candidates have 1 / SHARE of the table's time; the FINALISTS have all of it, on toys with FINAL."""
TEXT = f"""Every optimiser with several learning rates, then another value of one more setting with the best of them;
each run has 1 / {SHARE} of the CPU time and of the solved paths of those in the table. The best {FINALISTS} are tried
once more with all of it, on toys with another teacher. The settings with the least product of both errors (RMSE to
Euler-250 of one call) serve in the table, with other seeds."""


def search(store: Store, data: str, names: Sequence[str], jobs: int) -> None:
    """Compute what is missing of the search: three rounds, each of which depends on those before."""
    final = FINAL if data in TOYS else data
    for propose, on, share in ((_rates, data, SHARE), (_second_settings, data, SHARE), (_best, final, 1)):
        budget = subject(on).budget // share
        tasks: dict[str, Task] = {
            f"{name} on {on} for {budget}: {shown(settings)}": (candidate, name, on, settings, budget)
            for name in names
            for settings in propose(store.rows, data, name)
        }
        store.fill(tasks, jobs)


def best(rows: Rows, name: str) -> Settings:
    """The settings that serve in the table: those with the least product of the errors of both rounds."""
    first = _errors(rows, name, whole=False)
    again = [row for row in _of(rows, name) if row["whole"]]
    settings: Settings = min(again, key=lambda row: row["error"] * first[shown(row["settings"])])["settings"]
    return settings


def candidate(name: str, data: str, settings: Settings, budget: int) -> Row:
    """Compare one call with Euler-250 after training; infinity for a run that diverged."""
    contender, whole = CONTENDERS[name], subject(data).budget
    options = {**settings, **_paths(data, contender, settings, budget / whole)}
    steps = budgeted_steps(data, cost(data, contender, options), budget)
    run: Any = distilled(data, contender, options, seed=SEED, steps=steps)
    row = {"method": name, "settings": settings, "whole": budget == whole}
    try:
        for _ in run:
            pass
    except ValueError:  # it diverged
        return {**row, "error": math.inf}
    true = truth(data)
    x = run.result().generate(true.z, true.labels).double()
    return {**row, "error": rmse(x, true.euler) / true.unit}


def lines(rows: Rows) -> list[dict[str, str]]:
    """Every candidate, with the errors that it reached."""
    table = []
    for name in (name for name in CONTENDERS if _of(rows, name)):
        again = _errors(rows, name, whole=True)
        chosen = shown(best(rows, name)) if again else None  # of a search that was interrupted, some have no last round
        for settings, error in _errors(rows, name, whole=False).items():
            second = f"{again[settings]:.4f}" + " ←" * (settings == chosen) if settings in again else ""
            table.append({"method": name, "settings": settings, "RMSE": f"{error:.4f}", "again": second})
    return table


def at_edge(rows: Rows) -> str:
    """Whose best rate is the least or the largest that was tried, so that another might be better still."""
    names = []
    for name in (name for name in CONTENDERS if _errors(rows, name, whole=True)):
        chosen = best(rows, name)
        rates = [
            row["settings"]["lr"] for row in _of(rows, name) if row["settings"]["optimizer"] == chosen["optimizer"]
        ]
        if chosen["lr"] in (min(rates), max(rates)):
            names.append(f"{name} ({chosen['lr']:g})")
    return f"At an edge of the rates that were tried: {', '.join(names)}." if names else ""


def shown(settings: Settings) -> str:
    """The settings as text."""
    return ", ".join(f"{key} = {value}" for key, value in settings.items())


def _paths(data: str, contender: Contender, settings: Settings, share: float) -> Settings:
    """The share of the paths that a method solves in advance, as a setting: all would leave no time for training."""
    kind: Any = METHODS[contender.method]
    if "pairs" not in settings_of(kind):
        return {}
    return {"pairs": round(share * {"pairs": kind.pairs, **settings_on(data, contender), **settings}["pairs"])}


def _rates(rows: Rows, data: str, name: str) -> list[Settings]:
    setting, first, _ = _second(data, name)
    rates = subject(data).rates
    return [{"optimizer": optimizer, "lr": lr, setting: first} for optimizer in rates for lr in rates[optimizer]]


def _second_settings(rows: Rows, data: str, name: str) -> list[Settings]:
    setting, first, second = _second(data, name)
    tried = [row for row in _of(rows, name) if row["settings"][setting] == first and not row["whole"]]
    return [{**min(tried, key=lambda row: row["error"])["settings"], setting: second}]


def _best(rows: Rows, data: str, name: str) -> list[Settings]:
    tried = [row for row in _of(rows, name) if not row["whole"]]
    return [row["settings"] for row in sorted(tried, key=lambda row: row["error"])[:FINALISTS]]


def _second(data: str, name: str) -> tuple[str, Any, Any]:
    """The second setting: its name, the value with which rates are tried, and another one."""
    return CONTENDERS[name].also if data in TOYS else ("batch_size", 64, 32)


def _of(rows: Rows, name: str) -> list[Row]:
    return [row for row in rows.values() if row["method"] == name]


def _errors(rows: Rows, name: str, whole: bool) -> dict[str, float]:
    """Errors of a round by settings."""
    return {shown(row["settings"]): row["error"] for row in _of(rows, name) if row["whole"] == whole}
