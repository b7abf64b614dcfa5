"""What ships with the app, read without torch so that the first page is there at once."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from pidlearn.viewer import Network, Plane, Scene, View

__all__ = ["ASSETS", "PRESETS", "arrays", "network", "watch"]

ASSETS = Path(__file__).parents[1] / "assets"
PRESETS = {
    "ring": "Ring of 8",
    "checkerboard": "Checkerboard",
    "moons": "Moons",
    "spiral": "Spiral",
    "grid": "Grid of 25",
    "anisotropic": "Anisotropic",
}
CURVES = ("moons", "spiral")
"""Presets whose Gaussians overlap to the stroke of a curve: they are no modes that a path could miss."""
FIRST = View(n=10, solver="euler")
"""Ten Euler steps beside one call of the student: the difference that the page is about, at first sight."""


@cache
def network(path: Path) -> Network:
    """A student's file as the viewer evaluates it."""
    with safe_open(path, "numpy") as file:
        said: dict[str, Any] = json.loads(file.metadata()["student"])
        prefix = "student/network."
        names = [key for key in file.keys() if key.startswith(prefix)]  # noqa: SIM118 - not a dict
        weights = {key.removeprefix(prefix): file.get_tensor(key) for key in names}
    return Network(weights, said["t_max"], said["sigma_data"], said["boundary"], said["c_in"])


@cache
def arrays(preset: str) -> dict[str, Any]:
    """Of a preset: starts, SciPy's paths from them, and the mixture, as keywords of a `Scene`."""
    with np.load(ASSETS / "watch" / f"{preset}.npz") as file:
        f = {key: file[key] for key in file.files}
    sigma, times = float(f["sigma_data"]), f["times"]
    scale = np.hypot(sigma, times)[:, None, None]
    covs = f["basis"] * f["eigenvalues"][:, None, :] @ f["basis"].transpose(0, 2, 1)
    return {
        "times": times,
        "starts": f["z"],
        "exact": f["exact"] * float(f["exact_scale"]) * scale,
        "mixture": {"means": f["means"], "weights": f["weights"], "covs": covs},
        "sigma_data": sigma,
        "modes": preset not in CURVES,
    }


def student_file(preset: str) -> Path:
    """The shipped student of a preset."""
    return ASSETS / "watch" / f"{preset}.safetensors"


def watch(preset: str) -> Scene:
    """Teacher and student of a preset from the same 400 noises."""
    plane = Plane("", network(student_file(preset)))
    title = f"{PRESETS[preset]}: teacher in grey, student in orange, from the same noise to the data"
    return Scene(title, panels=[plane], view=FIRST, **arrays(preset))
