"""What the rows say to claims of the paper, of its reviews and of the rebuttal."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from benchmarks.methods.tables import all_passes, mean, runs

__all__ = ["RULE", "claims"]

Rows = dict[str, dict[str, Any]]
Ratios = dict[str, dict[str, float]]
"""Of one metric of two methods on each toy: {"CD / PID": {"ring": 3.5}}; NaN where a row is missing."""

BETTER, AS_GOOD = 1.05, 0.95
RULE = f"""Verdicts: a ratio of at least {BETTER} supports the claim that a method is better or cheaper, one of at least
{AS_GOOD} that it is as good. A claim is supported if all of its ratios support it, not supported if none does, and else
partly, with the ratios against it. It has no verdict if a row is missing."""


def claims(rows: Rows, data: list[str]) -> list[dict[str, str]]:
    """One line per claim: ratios on each toy, their meaning, and whether they support the claim, as `RULE` says."""

    def error(toy: str, method: str, calls: str = "1") -> float:
        return mean(runs(rows, toy, method), calls, "euler")

    def cost(toy: str, method: str) -> float:
        return all_passes(toy, method, runs(rows, toy, method))

    def on_each(ratio: Callable[[str], float]) -> dict[str, float]:
        return {toy: ratio(toy) for toy in data}

    def errors(*methods: str) -> Ratios:
        return {
            f"{name} / PID": on_each(lambda toy, name=name: error(toy, name) / error(toy, "PID")) for name in methods
        }

    def costs(*methods: str) -> Ratios:
        return {
            f"passes of {name} / PID": on_each(lambda toy, name=name: cost(toy, name) / cost(toy, "PID"))
            for name in methods
        }

    def more_calls(*methods: str) -> Ratios:
        return {
            f"{name}, 4 calls / 1": on_each(lambda toy, name=name: error(toy, name, "4") / error(toy, name))
            for name in methods
        }

    return [
        _line(
            "paper: PID is better than BOOT, since its boundary is hard",
            errors("BOOT", "PID, soft boundary"),
            "errors: what the bootstrap costs, and what a soft boundary costs PID itself",
        ),
        _line("paper: PID costs less per step than CD and PD", costs("CD", "PD"), "forward passes per sample"),
        _line(
            "paper: finite differences are better than exact derivatives",
            errors("PID, exact derivative"),
            "errors",
        ),
        _line(
            "paper: without data, PID is as good as methods with data",
            errors("CD", "PD", "Lagrangian map, data"),
            "errors of methods that need data, relative to PID's",
            AS_GOOD,
        ),
        _line(
            "rebuttal: learning an operator on solved paths costs more",
            costs("DSNO", "endpoint regression") | errors("DSNO", "endpoint regression"),
            "forward passes per sample, those that solve the paths included; errors, of the simplest "
            "regression on solved pairs, too",
        ),
        _line(
            "reviews: more calls do not help PID",
            more_calls("Lagrangian map, own path", "2-rectified flow", "PD"),
            "errors with four calls, relative to one, of methods that can use them; PD needs data",
            AS_GOOD,
        ),
    ]


def _line(claim: str, ratios: Ratios, meaning: str, least: float = BETTER) -> dict[str, str]:
    metrics = [
        f"{name}: " + ", ".join("no rows" if math.isnan(value) else f"{toy} {value:.2f}" for toy, value in of.items())
        for name, of in ratios.items()
    ]
    return {"claim": claim, "metrics": "; ".join(metrics), "meaning": meaning, "verdict": _verdict(ratios, least)}


def _verdict(ratios: Ratios, least: float) -> str:
    values = [value for of in ratios.values() for value in of.values()]
    if any(map(math.isnan, values)):
        return ""
    if all(value >= least for value in values):
        return "supported"
    if all(value < least for value in values):
        return "not supported"
    against = {name: [toy for toy, value in of.items() if value < least] for name, of in ratios.items()}
    return "partly; against it: " + ", ".join(f"{name} ({', '.join(toys)})" for name, toys in against.items() if toys)
