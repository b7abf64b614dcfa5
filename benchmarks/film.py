"""The film of README: `python -m benchmarks.film`. The same noise, carried to data by three ways, with their calls."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.figure import Figure

from app.shared.trajectories import trajectories
from app.views.watch import model
from benchmarks.table import RESULTS

__all__ = ["draw"]

COLOURS = {"teacher": "#6b6f73", "student": "#d55e00"}
STRIDE, PAUSE = 2, 14
"""Frames of the scene per frame of the film, and frames for which the film rests on the samples."""
SPAN = 2.6
"""Half of a panel's side, in units of x / sqrt(sigma^2 + t^2)."""


def draw(preset: str, path: Path) -> None:
    """Write the film of a preset's shipped student as a GIF."""
    scene = model.scene(preset)
    fine, students = trajectories(scene, replace(scene.view, n=250))
    coarse, _ = trajectories(scene, replace(scene.view, n=6))
    ways = {
        "ODE solver, 249 calls": (fine, "teacher"),
        "ODE solver, 5 calls": (coarse, "teacher"),
        "student, 1 call": (students[0], "student"),
    }
    figure = Figure(figsize=(7.2, 2.75), dpi=100, layout="constrained")
    dots = []
    for ax, (title, (_, who)) in zip(figure.subplots(1, len(ways)), ways.items(), strict=True):
        ax.set_title(title, fontsize=11, color=COLOURS[who])
        ax.set(xlim=(-SPAN, SPAN), ylim=(-SPAN, SPAN), xticks=[], yticks=[], aspect="equal")
        ax.spines[:].set_color("#ccc")
        dots.append(ax.plot([], [], ".", markersize=4, color=COLOURS[who])[0])
    label = figure.supxlabel("t = 80", fontsize=9, color="#555")
    frames = [*range(0, len(scene.times), STRIDE)]

    def move(frame: int) -> None:
        scale = float(scene.scale(scene.times[frame]))
        for line, (points, _) in zip(dots, ways.values(), strict=True):
            line.set_data(*(points[frame] / scale).T)
        label.set_text(f"the same noise, at t = {scene.times[frame]:.2g}")

    film = FuncAnimation(figure, move, frames=[*frames, *[frames[-1]] * PAUSE], init_func=lambda: None)
    film.save(path, PillowWriter(fps=11))


if __name__ == "__main__":
    draw("checkerboard", RESULTS / "film.gif")
