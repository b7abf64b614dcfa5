"""The methods that are compared, and what their search may change."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["CONTENDERS", "SOLVERS", "Contender"]

PAIRS = {"solver": "dpm++", "n": 18, "pairs": 2048}
"""Solved paths of images, which cost more than those of toys."""


@dataclass(frozen=True)
class Contender:
    """A row of the tables.

    Attributes:
        name: in the tables.
        method: its name in `pidlearn.methods.METHODS`.
        settings: its settings, those of the method among them.
        also: a second setting on toys: its name, the value with which the rates are tried, and another one, which is
            tried with the best rate.
        on_images: what is set besides for images, where the second setting is the batch's size; None if it takes part
            only on toys.
    """

    name: str
    method: str
    settings: dict[str, Any] = field(default_factory=dict)
    also: tuple[str, Any, Any] = ("batch_size", 256, 128)
    on_images: dict[str, Any] | None = field(default_factory=dict)


CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender("PID", "pid"),
        Contender("PID, exact derivative", "pid", {"derivative": "exact"}),
        Contender("PID, soft boundary", "pid", {"boundary_weight": 3.0}, on_images=None),
        Contender("BOOT", "boot"),
        Contender("BOOT, soft boundary", "boot", {"boundary_weight": 1.0}, on_images=None),
        Contender("FreeFlow, prediction", "freeflow"),
        # at_end and at_start keep their defaults: a search for the least error of one call would give few calls away.
        Contender("Lagrangian map, own path", "flow_map", {"identity": "lagrangian"}),
        Contender("Lagrangian map, data", "flow_map", {"identity": "lagrangian", "points": "data"}),
        Contender("Eulerian map", "flow_map", {"identity": "eulerian", "points": "data"}, ("n", 40, 80)),
        Contender("MeanFlow", "flow_map", {"identity": "meanflow", "points": "data"}),
        Contender("shortcut", "flow_map", {"identity": "semigroup", "points": "data"}, ("n", 9, 17)),
        Contender("CD", "cd", {}, ("n", 18, 40)),
        Contender("CT", "ct", {}, ("n", 81, 161)),
        Contender("sCM", "scm", {}, ("c", 0.1, 0.3)),
        Contender("PD", "pd", {}, ("calls", 4, 8)),
        Contender("endpoint regression", "endpoint", {}, ("pairs", 16384, 32768), on_images=None),
        Contender(
            "endpoint, DPM-Solver++ pairs",
            "endpoint",
            {"solver": "dpm++", "n": 41},
            ("pairs", 16384, 32768),
            {"n": 18, "pairs": 2048},
        ),
        Contender("DSNO", "dsno", {}, ("times", 4, 8), PAIRS),
        Contender("2-rectified flow", "reflow", {}, ("pairs", 16384, 32768), PAIRS),
        Contender("PID with N = 10", "pid", {"n": 10}),
        Contender("PID with N = 10, corrector", "corrector", {"n": 10}, ("slow", 0.005, 0.01)),
    )
}

SOLVERS = {"Euler": "euler", "Heun": "heun", "DPM-Solver++(2M)": "dpm++"}
"""The teacher's own few-step samplers, by their names in the tables."""
