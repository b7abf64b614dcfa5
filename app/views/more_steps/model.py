"""More than one call: the student jumps to t*, and the teacher's solver continues from there."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np

from app.shared.assets import ASSETS, PRESETS, network, scene_arrays, student_path
from pidlearn.viewer import Plane, Scene, View

__all__ = [
    "IMAGES",
    "chart_rows",
    "errors",
    "estimate_rows",
    "estimate_sentence",
    "pictures",
    "pictures_sentence",
    "scene",
    "sentence",
    "student_alone",
]

IMAGES = {"digits": "Digits 8 × 8, a U-Net"}
"""Images whose samples are shown, and their label."""
PLACES = (("in the same mode", "in another mode"), ("of the same class", "of another class"))
"""Where samples are, of points and of images."""
PLANNED = "student, then as measured"
WORST = 40
"""The number of samples with the largest estimates of which the page speaks."""


@cache
def recorded(preset: str) -> dict[str, Any]:
    """Load what `benchmarks.app_assets` records."""
    text = (
        str(_arrays(preset)["figures"]) if preset in IMAGES else (ASSETS / "more_steps" / f"{preset}.json").read_text()
    )
    document: dict[str, Any] = json.loads(text)
    return document


@cache
def _arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(ASSETS / "more_steps" / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def pictures(name: str, zoom: int = 8, gap: int = 4) -> np.ndarray:
    """Return one picture, uint8: a row per number of calls and one of the exact ODE, a column per noise."""
    images = _arrays(name)["pictures"][:, ::2]  # (rows, columns, H, W); all 16 would be too small
    framed = np.pad(images.repeat(zoom, 2).repeat(zoom, 3), ((0, 0), (0, 0), (0, gap), (0, gap)), constant_values=255)
    rows, columns, height, width = framed.shape
    return framed.transpose(0, 2, 1, 3).reshape(rows * height, columns * width)[:-gap, :-gap]


def errors(preset: str) -> list[dict[str, Any]]:
    """Rows of method, calls, error to the exact ODE and (with a handover) t_star."""
    rows: list[dict[str, Any]] = recorded(preset)["errors"]
    return rows


def estimate_rows(preset: str) -> list[dict[str, Any]]:
    """One row per start: its error, the estimate of it, and where the sample is."""
    columns, (same, another) = recorded(preset)["estimates"], PLACES[preset in IMAGES]
    return [
        {"estimate": estimate, "error": error, "sample": another if wrong else same}
        for error, estimate, wrong in zip(columns["error"], columns["estimate"], columns["wrong"], strict=True)
    ]


def estimate_sentence(preset: str) -> str:
    """State what the estimate knows."""
    columns = {name: np.array(values) for name, values in recorded(preset)["estimates"].items()}
    error, estimate = columns["error"], columns["estimate"]
    worst = np.argsort(-estimate)[:WORST]
    share = (error[worst] ** 2).sum() / (error**2).sum()
    starts = "z, labels" if preset in IMAGES else "z"
    return (
        f"`result.error_estimate({starts}, calls=12)` of 400 starts: {100 * (error <= 2 * estimate).mean():.0f} % of "
        f"the errors are within twice the estimate. The {WORST} samples with the largest estimates hold "
        f"{100 * share:.0f} % of the mean squared error. `result.generate({starts}, calls=10, refine=0.1)` ranks by "
        f"one further call, less well, and spends the others on the worst tenth."
    )


def student_alone(preset: str) -> float:
    """Return the error of one call of the student."""
    return next(row["error"] for row in errors(preset) if row["method"] == "student alone")


def chart_rows(preset: str) -> list[dict[str, Any]]:
    """Return all rows, those of the measured plan first, with the student alone as a horizontal line."""
    error = student_alone(preset)
    planned = [row for row in errors(preset) if row["method"] == PLANNED]
    calls = [row["calls"] for row in errors(preset)]
    alone = [{"method": "student alone", "calls": k, "error": error} for k in (1, max(calls))]
    return planned + alone + [row for row in errors(preset) if row["method"] not in (PLANNED, "student alone")]


def first_to_pay(preset: str) -> dict[str, Any]:
    """Return the best of the cheapest handovers that are more accurate than the student alone."""
    better = [row for row in errors(preset) if "t_star" in row and row["error"] < student_alone(preset)]
    return min(better, key=lambda row: (row["calls"], row["error"]))


def sentence(preset: str) -> str:
    """State where a handover first pays off, and where it makes the error larger; of images, what calls are worth."""
    if preset in IMAGES:
        return _sentence_of_images(preset)
    best = first_to_pay(preset)
    worst = max((row for row in errors(preset) if "t_star" in row and row["calls"] > 3), key=lambda row: row["error"])
    return (
        f"RMSE to the exact ODE over 4,096 other starts; the student alone has {student_alone(preset):.4f}. A "
        f"handover first pays off at {best['calls']} calls: {best['error']:.4f} from t* = {best['t_star']:g} with "
        f"{(best['calls'] - 1) // 2} Heun steps. Too few steps make the error larger: {worst['calls']} calls from t* = "
        f"{worst['t_star']:g} give {worst['error']:.3f}. *{PLANNED}*: `result.generate(z, calls=k)`, which measures t* "
        f"and the times of the steps for each number of calls, once per student."
    )


def _sentence_of_images(name: str) -> str:
    rows, alone = errors(name), student_alone(name)
    planned = {row["calls"]: row["error"] for row in rows if row["method"] == PLANNED}
    as_near = [row["calls"] for row in rows if row["method"].startswith("teacher") and row["error"] <= alone]
    *some, last = [k for k in recorded(name)["calls"] if k > 1]
    return (
        f"RMSE to the exact ODE over 1,024 starts: {alone:.3f} with one call, "
        + ", ".join(f"{planned[k]:.3f} with {k}" for k in some)
        + f" and {planned[last]:.3f} with {last}. "
        + (f"The teacher alone is as near as one call of its student from {min(as_near)} calls on. " if as_near else "")
        + f"*{PLANNED}*: `result.generate(z, labels, calls=k)`, which measures t* and the times of the steps "
        f"for each number of calls, once per student."
    )


def pictures_sentence(name: str) -> str:
    """Say what the rows and columns of the picture are."""
    *some, last = recorded(name)["calls"]
    return (
        f"From above: {', '.join(map(str, some))} and {last} calls, and the exact ODE. Each column starts from one "
        f"noise; from left to right the estimate of the error falls."
    )


def scene(preset: str) -> Scene:
    """Return the scene with the handover that first pays off."""
    plane = Plane("", network(student_path(preset)), handover=True)
    arrays, best = scene_arrays(preset), first_to_pay(preset)
    handover = int(np.abs(arrays["times"] - best["t_star"]).argmin())
    view = View(n=9, solver="heun", handover=handover, steps=(best["calls"] - 1) // 2)
    title = f"{PRESETS[preset]}: one call of the student, then some steps of the teacher"
    return Scene(title, panels=[plane], view=view, **arrays)
