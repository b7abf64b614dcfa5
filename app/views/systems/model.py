"""Students of ordinary differential equations compared with SciPy, and how fast the ODE itself separates solutions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from app.shared.assets import ASSETS
from pidlearn.viewer import Plane, Scene, View, phase_plane

__all__ = [
    "SYSTEMS",
    "RecordedSystem",
    "growth_rows",
    "planes",
    "recorded",
    "scene",
    "selected_start",
    "sentence",
    "series_rows",
]

SYSTEMS = {
    "pendulum": "Pendulum",
    "lotka_volterra": "Lotka-Volterra",
    "van_der_pol": "Van der Pol",
    "lorenz": "Lorenz, one Lyapunov time",
    "lorenz_long": "Lorenz, three",
    "logistic": "Logistic",
    "stiff": "Stiff",
}
"""Name and label; "lorenz_long" is "lorenz" over three Lyapunov times."""
DIVERGING = 20
"""Growth of the distance between two exact solutions from which the page speaks of divergence."""


@dataclass(frozen=True)
class RecordedSystem:
    """A system's recorded trajectories from B starts.

    Attributes:
        t: (F,) times.
        names: of the d coordinates.
        exact: (F, B, d) SciPy's solution.
        student: (F, B, d) the student's.
        error: (F,) the student's relative error, root mean square over starts and coordinates.
        twin: (F,) the same between exact solutions whose starts differ by a thousandth of the spread.
        metrics: of `Result.evaluate`.
    """

    t: np.ndarray
    names: tuple[str, ...]
    exact: np.ndarray
    student: np.ndarray
    error: np.ndarray
    twin: np.ndarray
    metrics: dict[str, Any]


@cache
def recorded(name: str) -> RecordedSystem:
    """Load a recorded system."""
    with np.load(ASSETS / "systems" / f"{name}.npz") as file:
        return RecordedSystem(
            file["t"],
            tuple(str(n) for n in file["names"]),
            file["exact"].astype(float),
            file["student"].astype(float),
            file["rmse"],
            file["twin"],
            json.loads(str(file["figures"])),
        )


def planes(name: str) -> dict[str, tuple[int, int]]:
    """Return the pairs of coordinates that span a plane, by label; a single coordinate is drawn over time."""
    names = _axes(name)
    return {f"{a} and {b}": (i, j) for i, a in enumerate(names) for j, b in enumerate(names) if i < j}


def _axes(name: str) -> tuple[str, ...]:
    names = recorded(name).names
    return ("t", *names) if len(names) == 1 else names


def _project(name: str, path: np.ndarray, axes: tuple[int, int]) -> np.ndarray:
    """Project trajectories (F, B, d) on a plane: (F, B, 2)."""
    t = np.broadcast_to(recorded(name).t[:, None, None], (*path.shape[:2], 1))
    return (np.concatenate([t, path], 2) if path.shape[2] == 1 else path)[..., list(axes)]


def scene(name: str, axes: tuple[int, int] = (0, 1)) -> Scene:
    """Return the phase plane of two coordinates."""
    system = recorded(name)
    exact, student = (_project(name, path, axes) for path in (system.exact, system.student))
    a, b = (_axes(name)[axis] for axis in axes)
    title = f"{SYSTEMS[name]}: SciPy in grey, student in orange, from the same starts"
    return phase_plane(title, system.t, exact, [Plane("", student)], (a, b))


def selected_start(name: str, axes: tuple[int, int], view: View) -> int:
    """Return the index of the start that is selected in the plane of these axes."""
    if view.probe is None:
        return 0
    return int(np.hypot(*(_project(name, recorded(name).exact, axes)[0] - view.probe).T).argmin())


def series_rows(name: str, coordinate: str, start: int = 0) -> list[dict[str, Any]]:
    """Return chart rows of one coordinate over time from one start, for student and SciPy."""
    system = recorded(name)
    k = system.names.index(coordinate)
    return [
        {"t": float(t), coordinate: float(path[i, start, k]), "solution": label}
        for label, path in (("student", system.student), ("SciPy", system.exact))
        for i, t in enumerate(system.t)
    ]


def growth_rows(name: str) -> list[dict[str, Any]]:
    """Return chart rows of the student's relative error, and of the distance between two nearby exact solutions."""
    system = recorded(name)
    lines = {"error of the student": system.error, "two exact solutions, at first ≤ 0.001 apart": system.twin}
    return [
        {"t": float(t), "line": line, "relative distance": float(max(value, 1e-7))}
        for line, values in lines.items()
        for t, value in zip(system.t[1:], values[1:], strict=True)  # at its start the student is exact
    ]


def sentence(name: str) -> str:
    """State how far exact solutions diverge, and what follows for a student."""
    system = recorded(name)
    growth = system.twin.max() / system.twin[0]
    average = f"on average (root mean square over {system.exact.shape[1]} starts)"
    if growth < DIVERGING:
        return (
            f"Two exact solutions with slightly different starts are {average} never more than {growth:.1f} times as "
            f"far apart as at the start, so a small residual gives a small error. *{SYSTEMS['lorenz_long']}* is an ODE "
            f"where it does not."
        )
    return (
        f"In this ODE even *exact* solutions diverge: {average} they get up to {growth:.0f} times as far apart as at "
        f"the start. Any small error of a student grows just as fast, here to {system.error.max():.1f} of the spread, "
        f"and a residual that is merely small cannot prevent it."
    )
