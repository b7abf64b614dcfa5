"""Options and texts of the page Train, and the teacher that the visitor describes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from app.shared.assets import ASSETS, PRESETS
from app.training import drawn_points
from app.training.expression import FUNCTIONS, parse_problem
from app.training.job import DERIVATIVES, TrainingJob
from app.training.process import Progress
from pidlearn.viewer import Plane, Scene, View, phase_plane

__all__ = [
    "DUFFING",
    "EQUATIONS_HELP",
    "GRID_SIZES",
    "RECIPE_DERIVATIVES",
    "SEEDS",
    "SOURCES",
    "STEPS",
    "Teacher",
    "as_sentence",
    "describe_metrics",
    "describe_progress",
    "replay",
    "replayed_errors",
    "teacher_from_equations",
    "teacher_from_points",
    "training_job",
]

SOURCES = {"preset": "Preset", "points": "Your points", "system": "ODE of the zoo", "equations": "Your ODE"}
STEPS = {"1000": "1,000 steps", "3000": "3,000", "6000": "6,000", "12000": "12,000"}
RECIPE_DERIVATIVES = {"recipe": "default", **{name: name for name in DERIVATIVES}}
GRID_SIZES = {"recipe": "default", **{str(n): str(n) for n in (10, 18, 35, 80, 250, 1000)}}
SEEDS = {str(seed): str(seed) for seed in range(5)}
METRICS = {
    "rmse": "RMSE to the teacher’s solution",
    "relative_rmse": "relative to the spread",
    "worst_coordinate": "in the worst coordinate",
    "wrong_mode": "share of samples in a different mode",
    "energy": "energy distance to the teacher’s samples",
    "energy_floor": "between two sets of the teacher’s samples",
}
"""Label of each metric of `Result.evaluate`."""
DUFFING = """x' = v
v' = x - x**3 - 0.2 * v
x in [-1.5, 1.5]
v in [-1, 1]
t in [0, 8]
"""
EQUATIONS_HELP = (
    f"One line for each derivative, one for the interval that each variable's starts are drawn from, and one for the "
    f"time span. Up to 4 variables. Allowed: + − * /, ** with a constant exponent, {', '.join(FUNCTIONS)}, pi, e and t."
)


@dataclass(frozen=True)
class Teacher:
    """The teacher that the visitor describes.

    Attributes:
        value: `TrainingJob.teacher`; None if the description is incomplete or wrong.
        title: a short description.
        problem: what is missing or wrong; empty if nothing is.
        note: a remark for the visitor.
    """

    value: Any
    title: str
    problem: str = ""
    note: str = ""


@cache
def recorded() -> dict[str, np.ndarray]:
    """Load the recorded training: steps (F,), exact samples (B, 2), and the student's (F, B, 2) after each."""
    with np.load(ASSETS / "train" / "replay.npz") as file:
        return {"steps": file["steps"], "exact": file["exact"], "samples": file["samples"] * float(file["scale"])}


def replay() -> Scene:
    """Return the recorded training as a scene whose time is the step."""
    record = recorded()
    exact = np.broadcast_to(record["exact"], record["samples"].shape)
    title = f"{next(iter(PRESETS.values()))}: a student's samples while it is trained"
    scene = phase_plane(title, record["steps"], exact, [Plane("", record["samples"])], ("x₁", "x₂"))
    names = {"student": "student, one call", "teacher": "the teacher's sample from the same noise", "time": "step"}
    return replace(scene, names=names, view=View(trails=False))


def replayed_errors() -> list[dict[str, Any]]:
    """Return chart rows of the recorded training: RMSE to the teacher's samples over the steps after the first."""
    record = recorded()
    errors = np.sqrt(((record["samples"] - record["exact"]) ** 2).mean((1, 2)))
    pairs = zip(record["steps"][1:], errors[1:], strict=True)
    return [{"step": int(step), "rmse": float(error), "of": "error"} for step, error in pairs]


def teacher_from_points(drawn: np.ndarray, file_name: str = "", content: bytes | None = None) -> Teacher:
    """Return the mixture of drawn points (M, 2), or of an uploaded CSV file in their place."""
    points, title = drawn, f"{len(drawn)} drawn points"
    try:
        if content is not None:
            points = drawn_points.read_csv(content)
            name = re.sub(r"[^\w. -]", "", file_name)[:40]
            title = f"{len(points):,} points of {name}"
        standardized = drawn_points.standardize(points)
        means, weights, std = drawn_points.fit_mixture(standardized)
    except ValueError as error:
        empty = not len(drawn) and content is None
        return Teacher(None, title, "Draw some points, or upload a file." if empty else as_sentence(error))
    note = ""
    if content is not None:
        unit = float(points.std(0).max() / standardized.std(0).max())
        note = (
            f"{len(points):,} points, shifted to mean 0 and divided by {unit:.3g}, as a mixture of {len(means)} "
            f"Gaussians with standard deviation {std:.2f}. All numbers and files below are in these units."
        )
    return Teacher((means.tolist(), weights.tolist(), std), title, note=note)


def teacher_from_equations(text: str) -> Teacher:
    """Return the initial-value problem that the visitor has typed."""
    try:
        return Teacher(parse_problem(text), "Your ODE")
    except ValueError as error:
        return Teacher(None, "Your ODE", as_sentence(error))


def training_job(kind: str, teacher: Teacher, steps: str, derivative: str, n: str, seed: str) -> TrainingJob | None:
    """Return the job, or None if there is no teacher. Settings left at "recipe" are not part of it."""
    if teacher.problem:
        return None
    settings: dict[str, Any] = {"seed": int(seed)}
    if derivative != "recipe":
        settings["derivative"] = derivative
    if n != "recipe":
        settings["n"] = int(n)
    return TrainingJob(teacher.title, kind, teacher.value, int(steps), settings)


def as_sentence(message: object) -> str:
    """Capitalize a message and end it with a full stop, unless it is a question."""
    text = str(message)
    return f"{text[:1].upper()}{text[1:].rstrip('.')}{'' if text.endswith('?') else '.'}"


def describe_progress(job: TrainingJob, progress: Progress) -> str:
    """Return the text of the progress bar."""
    done = f"step {progress.step:,} of {job.steps:,}"
    if progress.state == "training" and progress.step == job.steps:
        return f"{done}: evaluating on new starts …"
    return {
        "waiting": "waiting for a free slot: other students are being trained",
        "starting": "starting: solving the teacher's ODE …",
        "training": done,
        "paused": f"{done}, paused",
        "ended": f"{job.title}: {done}",
    }[progress.state]


def describe_metrics(metrics: Mapping[str, float], modes: bool) -> str:
    """Return the final metrics as one line of Markdown; ``modes`` says whether the data have separate modes."""
    shown = {name: value for name, value in metrics.items() if name != "wrong_mode" or modes}
    return "On new starts: " + ", ".join(f"{METRICS[name]} **{value:.3g}**" for name, value in shown.items())
