"""What the rows say to claims of the paper, of its reviews and of the rebuttal."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from benchmarks.methods.contenders import CONTENDERS
from benchmarks.methods.subjects import TOYS
from benchmarks.methods.tables import all_passes, mean, runs
from pidlearn.methods import PD

__all__ = ["RULE", "claims"]

Rows = dict[str, dict[str, Any]]
Ratios = dict[str, dict[str, float]]
"""Of one metric of two methods on each toy: {"CD / PID": {"ring": 3.5}}; NaN where a row is missing."""

REFERENCES = {"euler": "Euler-250", "exact": "the exact ODE"}
"""What errors are to, by their names in the rows."""
BETTER, AS_GOOD = 1.05, 0.95
PAPERS_PD = 5.0
"""Forward passes per sample of PD with two teacher steps for one: three with a gradient, and two for the target."""
SOLVED = ("DSNO", "endpoint regression", "endpoint, DPM-Solver++ pairs")
RULE = f"""Verdicts: a ratio of at least {BETTER} supports the claim that a method is better or cheaper, one of at least
{AS_GOOD} that it is as good. A claim is supported if all of its ratios support it, not supported if none does, and else
partly, with the ratios against it. It has no verdict if a row is missing."""


def claims(rows: Rows, data: list[str]) -> list[dict[str, str]]:
    """One line per claim: ratios on each toy, their meaning, and whether they support the claim, as `RULE` says.

    On images only of methods that are trained on them.
    """

    def trained(name: str) -> bool:
        return set(data) <= {*TOYS} or CONTENDERS[name].on_images is not None

    def error(toy: str, method: str, calls: str = "1", reference: str = "euler") -> float:
        return mean(runs(rows, toy, method), calls, reference)

    def cost(toy: str, method: str) -> float:
        return all_passes(toy, method, runs(rows, toy, method))

    def on_each(ratio: Callable[[str], float]) -> dict[str, float]:
        return {toy: ratio(toy) for toy in data}

    def errors(*methods: str, of: str = "PID") -> Ratios:
        return {
            f"{name} / {of}, to {REFERENCES[key]}": on_each(
                lambda toy, name=name, key=key: error(toy, name, "1", key) / error(toy, of, "1", key)
            )
            for name in methods
            if trained(name)
            for key in REFERENCES
        }

    def costs(*methods: str) -> Ratios:
        return {
            f"passes of {name} / PID": on_each(lambda toy, name=name: cost(toy, name) / cost(toy, "PID"))
            for name in methods
            if trained(name)
        }

    def more_calls(*methods: str) -> Ratios:
        return {
            f"{name}, 1 call / 4, to {REFERENCES[key]}": on_each(
                lambda toy, name=name, key=key: error(toy, name, "1", key) / error(toy, name, "4", key)
            )
            for name in methods
            for key in REFERENCES
        }

    lines = [
        _line(
            "paper: PID is better than BOOT", errors("BOOT"), "errors; both have a hard boundary: the bootstrap's cost"
        ),
        _line(
            "paper: a hard boundary is better than a soft one",
            errors("PID, soft boundary") | errors("BOOT, soft boundary", of="BOOT"),
            "errors of the same method with both",
        ),
        _line(
            "paper: PID costs less per step than CD and PD",
            costs("CD", "PD")
            | {
                "passes of PD with the paper's two teacher steps / PID": on_each(
                    lambda toy: PAPERS_PD / cost(toy, "PID")
                )
            },
            f"forward passes per sample; PD's first stage takes {PD.teacher_steps} steps of the teacher here",
        ),
        _line(
            "paper: finite differences are better than exact derivatives",
            errors("PID, exact derivative"),
            "errors; the target of differences is Euler-250, that of exact derivatives the ODE",
        ),
        _line(
            "paper: without data, PID is as good as methods with data",
            errors("CD", "PD", "Lagrangian map, data"),
            "errors of methods that need data, relative to PID's",
            AS_GOOD,
        ),
        _line(
            "rebuttal: learning an operator on solved paths costs more",
            costs(*SOLVED),
            "forward passes per sample, those that solve the paths included, by Euler-250 or by DPM-Solver++ with few "
            "calls",
        ),
        _line(
            "reviews: PID is as good as an operator on solved paths",
            errors(*SOLVED),
            "errors of DSNO and of the simplest regression on solved pairs, relative to PID's",
            AS_GOOD,
        ),
        _line(
            "reviews: more calls, which PID cannot use, make samples better",
            more_calls("Lagrangian map, own path", "2-rectified flow", "PD"),
            "errors with one call, relative to four, of methods that can use them; PD needs data",
        ),
    ]
    return [line for line in lines if line["metrics"]]


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
