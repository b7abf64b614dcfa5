"""More than one call: the student jumps to t*, the teacher's solver walks the rest."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch

import pidlearn as pid
from app.models import shipped
from pidlearn.metrics import rmse
from pidlearn.viewer import Plane, Scene, View

__all__ = ["HANDOVERS", "errors", "scene"]

HANDOVERS = (2.0, 1.0, 0.5, 0.2)
STEPS = (1, 2, 4, 8, 12, 16)


@cache
@torch.no_grad()
def errors(preset: str) -> list[dict[str, Any]]:
    """Rows of method, calls and rmse to the exact ODE over the scene's starts."""
    ship = shipped.arrays(preset)
    ode, student = pid.DenoiserODE(pid.toy(preset)), pid.load(shipped.student_file(preset)).student
    z, exact = torch.from_numpy(ship["starts"]), torch.from_numpy(ship["exact"][-1])
    rows: list[dict[str, Any]] = []

    def add(method: str, calls: int, x: torch.Tensor) -> None:
        rows.append({"method": method, "calls": calls, "error": rmse(x.double(), exact)})

    add("student alone", 1, student(z, 0.002))
    for t_star in HANDOVERS:
        jump = student(z, t_star)
        for k in STEPS:
            grid = pid.karras_grid(k + 1, 0.002, t_star)
            add(f"student to t = {t_star:g}, then Heun", 1 + 2 * k, pid.solve(ode, jump, grid, "heun")[-1])
    for n in (3, 5, 9, 13, 18, 25, 35):
        add("teacher, Heun", 2 * (n - 1), pid.solve(ode, z, pid.karras_grid(n), "heun")[-1])
        add("teacher, Euler", 2 * (n - 1), pid.solve(ode, z, pid.karras_grid(2 * n - 1))[-1])
    return rows


def scene(preset: str) -> Scene:
    """The shipped student with the teacher ready to take over."""
    plane = Plane("", shipped.network(shipped.student_file(preset)), handover=True)
    ship = shipped.arrays(preset)
    handover = int(np.abs(ship["times"] - 1.0).argmin())
    view = View(n=9, solver="heun", handover=handover, steps=4)
    title = f"{shipped.PRESETS[preset]}: one call of the student, then some steps of the teacher"
    return Scene(title, panels=[plane], view=view, **ship)
