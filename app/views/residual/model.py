"""The residual along a student's trajectories: where in time it is large, and how it relates to the endpoint error."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from app.shared.assets import ASSETS, PRESETS, network, scene_arrays, student_path
from pidlearn.viewer import Heat, Plane, Scene, View

__all__ = ["Residuals", "lipschitz_rows", "recorded", "residual_rows", "scene"]


@dataclass(frozen=True)
class Residuals:
    """Recorded residuals of a student along B trajectories; see `benchmarks.app_assets.presets`.

    Attributes:
        t: (N - 1,) grid times.
        eq8: (N - 1,) root mean square over the trajectories of dx/dt - f.
        eq9: (N - 1,) root mean square of x - t dx/dt - D.
        frames: (F, B) residual of Eq. 9 at the scene's times.
        path: (B,) its mean along each trajectory.
        end_error: (B,) distance of x(z, t_min) from the endpoint of Euler's method with N points.
        median: (F,) median spectral norm of df/dx over exact trajectories, at the scene's times.
        largest: (F,) the largest spectral norm.
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
    def rank_correlation(self) -> float:
        """Spearman correlation between a trajectory's mean residual and its endpoint error."""
        return float(np.corrcoef(self.path.argsort().argsort(), self.end_error.argsort().argsort())[0, 1])


@cache
def recorded(preset: str) -> Residuals:
    """Load the recorded residuals of a preset."""
    with np.load(ASSETS / "residual" / f"{preset}.npz") as file:
        return Residuals(**{key: file[key].astype(float) for key in file.files})


def scene(preset: str) -> Scene:
    """Return the trajectories next to a heat map of Eq. 9's residual, one row per sample, sorted by endpoint error."""
    arrays, residuals = scene_arrays(preset), recorded(preset)
    order = residuals.end_error.argsort()
    values = np.log10(np.maximum(residuals.frames[:, order].T, 1e-6))  # (B, F)
    limits = (float(np.quantile(values, 0.02)), float(np.quantile(values, 0.995)))
    count = len(order)
    arrays = {**arrays, "starts": arrays["starts"][:count], "exact": arrays["exact"][:, :count]}
    plane = Plane("Student", network(student_path(preset)))
    heat = Heat("Residual of Eq. 9 (bright = large); point at a row", values, order, limits, log10=True)
    title = f"{PRESETS[preset]}: residual of the student along {count} trajectories"
    view = View(frame=60, play=False, trails=False, flow=False)
    return Scene(title, panels=[plane, heat], view=view, **arrays)


def residual_rows(preset: str) -> list[dict[str, Any]]:
    """Return chart rows of both residuals over t, every third grid point."""
    residuals = recorded(preset)
    forms = {"Eq. 9: x − t dx/dt − D": residuals.eq9, "Eq. 8: dx/dt − f": residuals.eq8}
    return [
        {"t": float(t), "residual": float(max(value, 1e-9)), "form": form}
        for form, values in forms.items()
        for t, value in zip(residuals.t[::3], values[::3], strict=True)
    ]


def lipschitz_rows(preset: str) -> list[dict[str, Any]]:
    """Return chart rows of the spectral norm of df/dx over t, and of 1/t."""
    residuals, times = recorded(preset), scene_arrays(preset)["times"]
    curves = {"median": residuals.median, "largest": residuals.largest, "1/t": 1 / times}
    return [
        {"t": float(t), "spectral norm": float(value), "over trajectories": name}
        for name, values in curves.items()
        for t, value in zip(times, values, strict=True)
    ]
