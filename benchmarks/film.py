"""The film of README and the site's card: `python -m benchmarks.film`.

The same noise, carried to data by three ways, with their calls.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from app.shared.trajectories import trajectories
from app.views.watch import model
from benchmarks.table import RESULTS

__all__ = ["card", "draw"]

COLOURS = {"teacher": "#6b6f73", "student": "#d55e00"}
STRIDE, PAUSE = 2, 14
"""Frames of the scene per frame of the film, and frames for which the film rests on the samples."""
SPAN = 2.6
"""Half of a panel's side, in units of x / sqrt(sigma^2 + t^2)."""
CARD = Path("tutorials/card.png")
"""The site's picture in previews of links, 1200 x 630 pixels."""


def draw(preset: str, path: Path) -> None:
    """Write the film of a preset's shipped student as a GIF."""
    figure = Figure(figsize=(7.2, 2.75), dpi=100, layout="constrained")
    times, move = _panels(preset, figure, 4)
    label = figure.supxlabel("t = 80", fontsize=9, color="#555")

    def draw_frame(frame: int) -> None:
        move(frame)
        label.set_text(f"the same noise, at t = {times[frame]:.2g}")

    frames = [*range(0, len(times), STRIDE)]
    film = FuncAnimation(figure, draw_frame, frames=[*frames, *[frames[-1]] * PAUSE], init_func=lambda: None)
    film.save(path, PillowWriter(fps=11))


def card(preset: str, path: Path) -> None:
    """Write the film's end under the project's name."""
    figure = Figure(figsize=(8, 4.2), dpi=150, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.14))
    times, move = _panels(preset, figure, 4.5)
    figure.suptitle("pidlearn: one call replaces the solver", fontsize=20, weight="bold")
    figure.supxlabel("physics-informed distillation, explained and ready to use", fontsize=12, color="#555")
    move(len(times) - 1)
    figure.savefig(path)


def _panels(preset: str, figure: Figure, size: float) -> tuple[np.ndarray, Callable[[int], None]]:
    """Draw a panel with dots of this size for each way; returns all times, and what moves the dots to one of them."""
    scene = model.scene(preset)
    fine, students = trajectories(scene, replace(scene.view, n=250))
    coarse, _ = trajectories(scene, replace(scene.view, n=6))
    ways = {
        "ODE solver, 249 calls": (fine, "teacher"),
        "ODE solver, 5 calls": (coarse, "teacher"),
        "student, 1 call": (students[0], "student"),
    }
    dots = []
    for ax, (title, (_, who)) in zip(figure.subplots(1, len(ways)), ways.items(), strict=True):
        ax.set_title(title, fontsize=11, color=COLOURS[who])
        ax.set(xlim=(-SPAN, SPAN), ylim=(-SPAN, SPAN), xticks=[], yticks=[], aspect="equal")
        ax.spines[:].set_color("#ccc")
        dots.append(ax.plot([], [], ".", markersize=size, color=COLOURS[who])[0])

    def move(frame: int) -> None:
        scale = float(scene.scale(scene.times[frame]))
        for line, (points, _) in zip(dots, ways.values(), strict=True):
            line.set_data(*(points[frame] / scale).T)

    return scene.times, move


if __name__ == "__main__":
    draw("checkerboard", RESULTS / "film.gif")
    card("checkerboard", CARD)
