"""More than one call: the student jumps to t*, the teacher's solver walks the rest."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np

from app.models import shipped
from pidlearn.viewer import Plane, Scene, View

__all__ = ["HANDOVERS", "STEPS", "errors", "scene"]

HANDOVERS = (2.0, 1.0, 0.5, 0.2)
STEPS = (1, 2, 4, 8, 12, 16)


@cache
def errors(preset: str) -> list[dict[str, Any]]:
    """Rows of method, calls and rmse to the exact ODE over the scene's starts; see `app.compute`."""
    return json.loads((shipped.ASSETS / "more_steps" / f"{preset}.json").read_text())


def scene(preset: str) -> Scene:
    """The shipped student with the teacher ready to take over."""
    plane = Plane("", shipped.network(shipped.student_file(preset)), handover=True)
    ship = shipped.arrays(preset)
    handover = int(np.abs(ship["times"] - 1.0).argmin())
    view = View(n=9, solver="heun", handover=handover, steps=4)
    title = f"{shipped.PRESETS[preset]}: one call of the student, then some steps of the teacher"
    return Scene(title, panels=[plane], view=view, **ship)
