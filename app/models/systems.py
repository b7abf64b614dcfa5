"""Students of ordinary ODEs beside SciPy, and beside what the ODE itself does to a small difference."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from app.models import shipped
from pidlearn.viewer import Plane, Scene, View, phase_plane

__all__ = ["SYSTEMS", "Recorded", "growth", "recorded", "scene", "sentence", "series", "start"]

SYSTEMS = {
    "pendulum": "Pendulum",
    "lotka_volterra": "Lotka-Volterra",
    "van_der_pol": "Van der Pol",
    "lorenz": "Lorenz, one Lyapunov time",
    "lorenz_long": "Lorenz, three",
}


@dataclass(frozen=True)
class Recorded:
    """Of a system: t (F,), names, both paths (F, B, d), the student's error and a twin's distance over time (F,)."""

    t: np.ndarray
    names: tuple[str, ...]
    exact: np.ndarray
    student: np.ndarray
    error: np.ndarray
    twin: np.ndarray
    figures: dict[str, Any]


@cache
def recorded(name: str) -> Recorded:
    """What ships of a system."""
    with np.load(shipped.ASSETS / "systems" / f"{name}.npz") as f:
        return Recorded(
            f["t"],
            tuple(str(n) for n in f["names"]),
            f["exact"].astype(float),
            f["student"].astype(float),
            f["rmse"],
            f["twin"],
            json.loads(str(f["figures"])),
        )


def scene(name: str, axes: tuple[int, int] = (0, 1)) -> Scene:
    """The phase plane of two coordinates."""
    r = recorded(name)
    exact, student = (path[..., list(axes)] for path in (r.exact, r.student))
    title = f"{SYSTEMS[name]}: SciPy in grey, student in orange, from the same starts"
    return phase_plane(title, r.t, exact, [Plane("", student)], (r.names[axes[0]], r.names[axes[1]]))


def start(name: str, axes: tuple[int, int], view: View) -> int:
    """Which start the view has picked in the plane of these axes."""
    if view.probe is None:
        return 0
    return int(np.hypot(*(recorded(name).exact[0][:, list(axes)] - view.probe).T).argmin())


def series(name: str, coordinate: str, start: int = 0) -> list[dict[str, Any]]:
    """One coordinate over time from one start, of both."""
    r = recorded(name)
    k = r.names.index(coordinate)
    return [
        {"t": float(t), coordinate: float(path[i, start, k]), "path": who}
        for who, path in (("student", r.student), ("SciPy", r.exact))
        for i, t in enumerate(r.t)
    ]


def growth(name: str) -> list[dict[str, Any]]:
    """The student's relative error over time, and the distance of SciPy's own paths that start 1e-3 apart."""
    r = recorded(name)
    lines = {"the student's error": r.error, "two exact paths, 0.001 apart at first": r.twin}
    return [
        {"t": float(t), "line": line, "relative distance": float(max(value, 1e-7))}
        for line, values in lines.items()
        for t, value in zip(r.t[1:], values[1:], strict=True)  # the student is exact at its start
    ]


def sentence(name: str) -> str:
    """Whether the ODE itself carries paths apart, and what that makes of a student."""
    r = recorded(name)
    grown = r.twin.max() / r.twin[0]
    if grown < 20:
        return (
            f"What starts apart grows at most {grown:.0f} times here, so a small residual stays a small error: choose "
            f"*{SYSTEMS['lorenz_long']}* for an ODE that is not so kind."
        )
    return (
        f"This ODE carries even *exact* paths apart, up to {grown:.0f} times as far as they started. Any small error "
        f"of a student grows as fast, here to {r.error.max():.1f} of the spread, and no residual that is merely small "
        f"can keep it."
    )
