"""The recorded data and students that ship with the app, read without torch so that pages open at once."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from pidlearn.viewer import Network

__all__ = ["ASSETS", "PRESETS", "network", "scene_arrays", "student_file", "student_path"]

ASSETS = Path(__file__).parents[1] / "assets"
PRESETS = {
    "ring": "Ring of 8",
    "checkerboard": "Checkerboard",
    "moons": "Moons",
    "spiral": "Spiral",
    "grid": "Grid of 25",
    "anisotropic": "Anisotropic",
}
"""Name of each toy data set, and its label."""
CURVES = ("moons", "spiral")
"""Presets whose Gaussians overlap to form a curve: their components are not separate modes."""


@cache
def network(path: Path) -> Network:
    """Load a student's file in the form that the viewer evaluates."""
    with safe_open(path, "numpy") as file:
        student: dict[str, Any] = json.loads(file.metadata()["student"])
        prefix = "student/network."
        names = [key for key in file.keys() if key.startswith(prefix)]  # noqa: SIM118 - a safetensors file cannot be iterated
        weights = {key.removeprefix(prefix): file.get_tensor(key) for key in names}
    return Network(weights, student["t_max"], student["sigma_data"], student["boundary"], student["c_in"])


@cache
def scene_arrays(preset: str) -> dict[str, Any]:
    """Return a preset's starts, SciPy's trajectories from them, and its mixture, as keyword arguments of `Scene`."""
    with np.load(ASSETS / "watch" / f"{preset}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    sigma_data, times = float(arrays["sigma_data"]), arrays["times"]
    # Trajectories are stored as int16 in the coordinates of the picture, x / sqrt(sigma_data^2 + t^2).
    scale = np.hypot(sigma_data, times)[:, None, None]
    basis = arrays["basis"]
    return {
        "times": times,
        "starts": arrays["z"],
        "exact": arrays["exact"] * float(arrays["exact_scale"]) * scale,
        "mixture": {
            "means": arrays["means"],
            "weights": arrays["weights"],
            "covs": basis * arrays["eigenvalues"][:, None, :] @ basis.transpose(0, 2, 1),
        },
        "sigma_data": sigma_data,
        "modes": preset not in CURVES,
    }


def student_path(preset: str) -> Path:
    """Return the path of a preset's student."""
    return ASSETS / "watch" / f"{preset}.safetensors"


def student_file(preset: str) -> dict[str, bytes]:
    """Return a preset's student as a download: file name to content."""
    path = student_path(preset)
    return {path.name: path.read_bytes()}
