"""What is learned: networks as solutions of an equation."""

import warnings
from typing import Any

from pidlearn.students.base import Student, as_student
from pidlearn.students.boundaries import BOUNDARIES, TIMES
from pidlearn.students.piecewise import PiecewiseTrajectory
from pidlearn.students.trajectory import Trajectory

__all__ = ["BOUNDARIES", "TIMES", "PiecewiseTrajectory", "Student", "Trajectory", "as_student"]


def __getattr__(name: str) -> Any:
    if name == "Windows":
        warnings.warn("Windows is now called PiecewiseTrajectory", DeprecationWarning, stacklevel=2)
        return PiecewiseTrajectory
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
