"""Images on their way from noise, teacher's and student's from the same z."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np

from app.models import shipped
from pidlearn.viewer import Images, Scene, View

__all__ = ["DATA", "TEACHERS", "count", "figures", "scene"]

DATA = {
    "digits": "Digits 8 × 8",
    "clothes": "Fashion-MNIST 16 × 16, a trained U-Net",
    "fashion": "Fashion-MNIST 28 × 28, an exact mixture",
}
TEACHERS = {
    "digits": "a small network trained on scikit-learn's digits",
    "clothes": "a class-conditional U-Net of 1.26 million weights; student and teacher are asked for the same class",
    "fashion": "an exact mixture of 30 Gaussians in 64 principal directions",
}
"""What each student learned from."""


@cache
def recorded(name: str) -> dict[str, np.ndarray]:
    """What ships of a data set."""
    with np.load(shipped.ASSETS / "images" / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def figures(name: str) -> dict[str, Any]:
    """What was measured of this student."""
    return json.loads(str(recorded(name)["figures"]))


def count(name: str) -> int:
    """How many starts ship."""
    return recorded(name)["student"].shape[1]


def scene(name: str) -> Scene:
    """Rows of the same column start from the same noise."""
    r = recorded(name)
    few = np.broadcast_to(r["teacher10"], r["teacher"].shape)
    rows = {"teacher, 240 calls": r["teacher"], "student, 1 call": r["student"], "Euler-10's end": few}
    title = f"{DATA[name]}: teacher and student from the same noise"
    return Scene(title, r["times"], [Images("", rows)], view=View())
