"""More than one call: the student jumps to t*, the teacher's solver walks the rest."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np

from app.models import shipped
from pidlearn.viewer import Plane, Scene, View

__all__ = ["HANDOVERS", "STEPS", "alone", "errors", "scene", "sentence"]

HANDOVERS = (2.0, 1.0, 0.5, 0.2)
STEPS = (1, 2, 4, 8, 12, 16)


@cache
def errors(preset: str) -> list[dict[str, Any]]:
    """Rows of method, calls, rmse to the exact ODE and, of a handover, t_star; see `app.compute`."""
    return json.loads((shipped.ASSETS / "more_steps" / f"{preset}.json").read_text())


def alone(preset: str) -> float:
    """The error of one call of the student and nothing after it."""
    return next(row["error"] for row in errors(preset) if row["method"] == "student alone")


def first_to_pay(preset: str) -> dict[str, Any]:
    """Of the handovers that end nearer than the student alone the one of fewest calls, and of those the best."""
    better = [row for row in errors(preset) if "t_star" in row and row["error"] < alone(preset)]
    return min(better, key=lambda row: (row["calls"], row["error"]))


def sentence(preset: str) -> str:
    """What the rows say of handing over."""
    pays = first_to_pay(preset)
    worst = max((row for row in errors(preset) if "t_star" in row and row["calls"] > 3), key=lambda row: row["error"])
    return (
        f"RMSE to SciPy over the 400 starts shown; the student alone has {alone(preset):.4f}. Handing over first pays "
        f"at {pays['calls']} calls: {pays['error']:.4f} from t* = {pays['t_star']:g} with {(pays['calls'] - 1) // 2} "
        f"Heun steps. Too few steps undo what the student knows: {worst['calls']} calls from t* = "
        f"{worst['t_star']:g} end at {worst['error']:.3f}."
    )


def scene(preset: str) -> Scene:
    """The shipped student with the teacher ready to take over, where that first pays."""
    plane = Plane("", shipped.network(shipped.student_file(preset)), handover=True)
    ship = shipped.arrays(preset)
    pays = first_to_pay(preset)
    handover = int(np.abs(ship["times"] - pays["t_star"]).argmin())
    view = View(n=9, solver="heun", handover=handover, steps=(pays["calls"] - 1) // 2)
    title = f"{shipped.PRESETS[preset]}: one call of the student, then some steps of the teacher"
    return Scene(title, panels=[plane], view=view, **ship)
