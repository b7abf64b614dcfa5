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
SHARE, FINAL = 3, "checkerboard"
"""Candidates have 1 / SHARE of the table's time; the best of them have all of it, on toys with FINAL."""
BEYOND = 2
"""How many rates outside those that all methods try follow a best one at their edge."""
TEXT = f"""Every optimiser with several learning rates; up to {BEYOND} more, each a factor of 2 outside, while the best
is at the edge of those that were tried; then another value of one more setting with the best of them. Each run has 1 /
{SHARE} of the CPU time and of the solved paths of those in the table. The best two, and the best with each value of the
setting, are tried once more with all of it, on toys with another teacher. The settings with the least product of both
errors (RMSE to Euler-250 of one call) serve in the table, with other seeds. Euler-250 is what PID, BOOT and
paths solved by Euler aim at; others aim at the exact ODE, and the corrector at the distribution."""


def search(store: Store, data: str, names: Sequence[str], jobs: int) -> None:
    """Compute what is missing of the search: rounds, each of which depends on those before."""
    final = FINAL if data in TOYS else data
    rounds = [(_rates, data, SHARE), *[(_beyond, data, SHARE)] * BEYOND, (_second_settings, data, SHARE)]
    for propose, on, share in (*rounds, (_finalists, final, 1)):
        budget = subject(on).budget // share
        tasks: dict[str, Task] = {
            f"{name} on {on} for {budget}: {shown(settings)}": (candidate, name, on, settings, budget)
            for name in names
            for settings in propose(store.rows, data, name)
        }
        store.fill(tasks, jobs)


def best(rows: Rows, name: str) -> Settings:
    """The settings that serve in the table: those with the least product of the errors of both rounds."""
    first, again = _errors(rows, name), _errors_again(rows, name)
    finalists = [settings for settings in _promising(rows, name) if shown(settings) in again]
    return min(finalists, key=lambda settings: again[shown(settings)] * first[shown(settings)])


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
        again = _errors_again(rows, name)
        chosen = shown(best(rows, name)) if again else None  # of a search that was interrupted, some have no last round
        for settings, error in _errors(rows, name).items():
            second = f"{again[settings]:.4f}" + " ←" * (settings == chosen) if settings in again else ""
            table.append({"method": name, "settings": settings, "RMSE": f"{error:.4f}", "again": second})
    return table


def at_edge(rows: Rows) -> str:
    """Whose best rate is the least or the largest that was tried, so that another might be better still."""
    names = []
    for name in (name for name in CONTENDERS if _errors_again(rows, name)):
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


def _beyond(rows: Rows, data: str, name: str) -> list[Settings]:
    """The next rate outside, if the best one is at the edge of those that were tried."""
    setting, first, _ = _second(data, name)
    tried = [row for row in _of(rows, name) if row["settings"][setting] == first and not row["whole"]]
    chosen = min(tried, key=lambda row: row["error"])["settings"]
    rates = [row["settings"]["lr"] for row in tried if row["settings"]["optimizer"] == chosen["optimizer"]]
    outside = {min(rates): min(rates) / 2, max(rates): 2 * max(rates)}
    for_all = subject(data).rates[chosen["optimizer"]]
    beyond = [rate for edge, rate in outside.items() if edge == chosen["lr"]]
    return [{**chosen, "lr": rate} for rate in beyond if min(for_all) / 2**BEYOND <= rate <= max(for_all) * 2**BEYOND]


def _second_settings(rows: Rows, data: str, name: str) -> list[Settings]:
    setting, first, second = _second(data, name)
    tried = [row for row in _of(rows, name) if row["settings"][setting] == first and not row["whole"]]
    return [{**min(tried, key=lambda row: row["error"])["settings"], setting: second}]


def _finalists(rows: Rows, data: str, name: str) -> list[Settings]:
    return _promising(rows, name)


def _promising(rows: Rows, name: str) -> list[Settings]:
    """The best two of the first rounds, and the best with each value of the second setting, which comes last."""
    tried = sorted((row for row in _of(rows, name) if not row["whole"]), key=lambda row: row["error"])
    ordered = [row["settings"] for row in tried]
    of_each = {[*settings.values()][-1]: settings for settings in reversed(ordered)}
    return [settings for settings in ordered if settings in ordered[:2] or settings in of_each.values()]


def _second(data: str, name: str) -> tuple[str, Any, Any]:
    """The second setting: its name, the value with which rates are tried, and another one."""
    return CONTENDERS[name].also if data in TOYS else ("batch_size", 64, 32)


def _of(rows: Rows, name: str) -> list[Row]:
    return [row for row in rows.values() if row["method"] == name]


def _errors(rows: Rows, name: str) -> dict[str, float]:
    """Errors of the first rounds by settings."""
    return {shown(row["settings"]): row["error"] for row in _of(rows, name) if not row["whole"]}


def _errors_again(rows: Rows, name: str) -> dict[str, float]:
    """Errors of the finalists with all of the time, by settings; an earlier search may have had others."""
    finalists = _promising(rows, name)
    return {
        shown(row["settings"]): row["error"] for row in _of(rows, name) if row["whole"] and row["settings"] in finalists
    }
