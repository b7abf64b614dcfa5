"""Images on their way from noise: teacher and student from the same z."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np

from app.shared.assets import ASSETS
from pidlearn.viewer import Images, Scene, View

__all__ = ["DATA", "TEACHERS", "count", "metrics", "scene"]

DATA = {
    "digits": "Digits 8 × 8",
    "clothes": "Fashion-MNIST 16 × 16, a trained U-Net",
    "fashion": "Fashion-MNIST 28 × 28, an exact mixture",
}
TEACHERS = {
    "digits": "a small network trained on scikit-learn's digits",
    "clothes": "a class-conditional U-Net with 1.26 million weights; teacher and student get the same class labels",
    "fashion": "an exact mixture of 30 Gaussians in 64 principal directions",
}
"""The teacher of each student."""


@cache
def recorded(name: str) -> dict[str, np.ndarray]:
    """Load the recorded arrays of a data set."""
    with np.load(ASSETS / "images" / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def metrics(name: str) -> dict[str, Any]:
    """Return the metrics of a student, as recorded."""
    return json.loads(str(recorded(name)["figures"]))


def count(name: str) -> int:
    """Return the number of recorded starts."""
    return recorded(name)["student"].shape[1]


def scene(name: str) -> Scene:
    """Return rows of images; those in one column start from the same noise."""
    arrays = recorded(name)
    coarse = np.broadcast_to(arrays["teacher10"], arrays["teacher"].shape)
    rows = {
        "teacher, 240 calls": arrays["teacher"],
        "student, 1 call": arrays["student"],
        "Euler-10 endpoint": coarse,
    }
    title = f"{DATA[name]}: teacher and student from the same noise"
    return Scene(title, arrays["times"], [Images("", rows)], view=View())
