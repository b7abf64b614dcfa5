"""What the rows say to claims of the paper, of its reviews and of the rebuttal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.methods.tables import mean, passes, runs

__all__ = ["claims"]

Rows = dict[str, dict[str, Any]]


def claims(rows: Rows, data: list[str]) -> list[dict[str, str]]:
    """One line per claim: metrics on each toy, and their meaning."""

    def on_each(name: str, metric: Callable[[str], float]) -> str:
        return f"{name}: " + ", ".join(f"{toy} {metric(toy):.2f}" for toy in data)

    def error(toy: str, method: str, calls: str = "1") -> float:
        return mean(runs(rows, toy, method), calls, "euler")

    def ratio(one: str, two: str) -> str:
        return on_each(f"{one} / {two}", lambda toy: error(toy, one) / error(toy, two))

    def more_calls(method: str) -> str:
        return on_each(f"{method}, 4 calls / 1", lambda toy: error(toy, method, "4") / error(toy, method))

    def cost(*methods: str) -> str:
        return ", ".join(f"{name} {passes(runs(rows, data[0], name)[0]):.1f}" for name in methods)

    return [
        {
            "claim": "paper: PID is better than BOOT, since its boundary is hard",
            "metrics": f"{ratio('BOOT', 'PID')}; {ratio('PID, soft boundary', 'PID')}",
            "meaning": "errors: what the bootstrap costs, and what a soft boundary costs PID itself",
        },
        {
            "claim": "paper: PID costs less per step than CD and PD",
            "metrics": cost("PID", "CD", "PD"),
            "meaning": "forward passes per sample",
        },
        {
            "claim": "paper: finite differences are better than exact derivatives",
            "metrics": ratio("PID, exact derivative", "PID"),
            "meaning": "errors at equal time",
        },
        {
            "claim": "paper: without data, PID is as good as methods with data",
            "metrics": f"{ratio('CD', 'PID')}; {ratio('PD', 'PID')}; {ratio('Lagrangian map, data', 'PID')}",
            "meaning": "errors of methods that need data, relative to PID's",
        },
        {
            "claim": "rebuttal: learning an operator on solved paths costs more",
            "metrics": f"{cost('PID', 'DSNO', 'endpoint regression')}; {ratio('endpoint regression', 'PID')}",
            "meaning": "forward passes; errors: the simplest regression on solved pairs at equal time",
        },
        {
            "claim": "reviews: more calls do not help PID",
            "metrics": "; ".join(map(more_calls, ("Lagrangian map, own path", "2-rectified flow", "PD"))),
            "meaning": "errors with four calls, relative to one; PD needs data",
        },
    ]
