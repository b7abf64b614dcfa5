"""The scene of the page Watch: teacher and student of a preset from the same noise."""

from __future__ import annotations

from app.shared.assets import PRESETS, network, scene_arrays, student_path
from pidlearn.viewer import Plane, Scene, View

__all__ = ["scene"]

FIRST_VIEW = View(n=250, solver="euler")
"""The grid that the student was trained on: both agree, until the visitor drags N down."""


def scene(preset: str) -> Scene:
    """Return the scene with the recorded 400 starts."""
    plane = Plane("", network(student_path(preset)))
    title = f"{PRESETS[preset]}: teacher in grey, student in orange, from the same noise to the data"
    return Scene(title, panels=[plane], view=FIRST_VIEW, **scene_arrays(preset))
