"""What training makes small, along a student's paths: where in time it is, and what it has to do with the end."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from app.models import shipped
from pidlearn.viewer import Heat, Plane, Scene, View

__all__ = ["Residuals", "recorded", "scene"]


@dataclass(frozen=True)
class Residuals:
    """Of a shipped student over its teacher, along B paths; see `app.compute`.

    Attributes:
        t: (N - 1,) grid times.
        eq8: (N - 1,) rms over the paths of dx/dt - f.
        eq9: (N - 1,) that of x - t dx/dt - D.
        frames: (F, B) the residual of Eq. 9 at the scene's times.
        path: (B,) its mean along each path.
        end_error: (B,) distance of x(z, t_min) from Euler-N's end.
        median: (F,) spectral norm of df/dx, at the scene's times, over exact paths.
        largest: (F,) the largest of them.
    """

    t: np.ndarray
    eq8: np.ndarray
    eq9: np.ndarray
    frames: np.ndarray
    path: np.ndarray
    end_error: np.ndarray
    median: np.ndarray
    largest: np.ndarray

    @property
    def rank(self) -> float:
        """Spearman's correlation of a path's mean residual with its error at the end."""
        return float(np.corrcoef(self.path.argsort().argsort(), self.end_error.argsort().argsort())[0, 1])


@cache
def recorded(preset: str) -> Residuals:
    """What ships of a preset."""
    with np.load(shipped.ASSETS / "residual" / f"{preset}.npz") as file:
        return Residuals(**{key: file[key].astype(float) for key in file.files})


def scene(preset: str) -> Scene:
    """The paths beside a map of Eq. 9's residual, a row a sample, sorted by the error at the end."""
    ship, found = shipped.arrays(preset), recorded(preset)
    order = found.end_error.argsort()
    values = np.log10(np.maximum(found.frames[:, order].T, 1e-6))
    limits = (float(np.quantile(values, 0.02)), float(np.quantile(values, 0.995)))
    count = len(order)
    some = {**ship, "starts": ship["starts"][:count], "exact": ship["exact"][:, :count]}
    planes = [Plane("Student", shipped.network(shipped.student_file(preset)))]
    title = f"{shipped.PRESETS[preset]}: residual of the student along {count} paths"
    heat = Heat("Residual of Eq. 9, dark to bright: point at a row", values, order, limits)
    view = View(frame=60, play=False, trails=False, flow=False)
    return Scene(title, panels=[*planes, heat], view=view, **some)
