"""Students of ordinary ODEs beside SciPy, and beside what the ODE itself does to a small difference."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from app.models import shipped
from pidlearn.viewer import Plane, Scene, View, phase_plane

__all__ = ["SYSTEMS", "Recorded", "growth", "planes", "recorded", "scene", "sentence", "series", "start"]

SYSTEMS = {
    "pendulum": "Pendulum",
    "lotka_volterra": "Lotka-Volterra",
    "van_der_pol": "Van der Pol",
    "lorenz": "Lorenz, one Lyapunov time",
    "lorenz_long": "Lorenz, three",
    "logistic": "Logistic",
    "stiff": "Stiff",
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


def planes(name: str) -> dict[str, tuple[int, int]]:
    """The pairs of coordinates that make a plane, by name; of a single one, that over time."""
    names = coordinates(name)
    return {f"{a} and {b}": (i, j) for i, a in enumerate(names) for j, b in enumerate(names) if i < j}


def coordinates(name: str) -> tuple[str, ...]:
    """Of the planes: time, where there is but one other."""
    names = recorded(name).names
    return ("t", *names) if len(names) == 1 else names


def flat(name: str, path: np.ndarray, axes: tuple[int, int]) -> np.ndarray:
    """Paths (F, B, d) in a plane: (F, B, 2)."""
    t = np.broadcast_to(recorded(name).t[:, None, None], (*path.shape[:2], 1))
    return (np.concatenate([t, path], 2) if path.shape[2] == 1 else path)[..., list(axes)]


def scene(name: str, axes: tuple[int, int] = (0, 1)) -> Scene:
    """The phase plane of two coordinates."""
    r = recorded(name)
    exact, student = (flat(name, path, axes) for path in (r.exact, r.student))
    a, b = (coordinates(name)[axis] for axis in axes)
    title = f"{SYSTEMS[name]}: SciPy in grey, student in orange, from the same starts"
    return phase_plane(title, r.t, exact, [Plane("", student)], (a, b))


def start(name: str, axes: tuple[int, int], view: View) -> int:
    """Which start the view has picked in the plane of these axes."""
    if view.probe is None:
        return 0
    return int(np.hypot(*(flat(name, recorded(name).exact, axes)[0] - view.probe).T).argmin())


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
    lines = {"the student's error": r.error, "exact paths, at first ≤ 0.001 apart": r.twin}
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
            f"Paths that start apart are on average (rms over {r.exact.shape[1]} starts) never more than {grown:.1f} "
            f"times as far apart, so a small residual makes a small error: see *{SYSTEMS['lorenz_long']}* for an ODE "
            f"that is not so kind."
        )
    return (
        f"This ODE carries even *exact* paths apart, on average (rms over {r.exact.shape[1]} starts) to {grown:.0f} "
        f"times their distance at the start. Any small error of a student grows as fast, here to "
        f"{r.error.max():.1f} of the spread, and no residual that is merely small can keep it."
    )
