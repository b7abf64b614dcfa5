"""Figures of teacher and student from the same starts. Matplotlib is imported when the first one is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from pidlearn.config import Config
from pidlearn.equations.problem import Problem
from pidlearn.teachers.exact import GaussianMixture
from pidlearn.utils.batching import ask
from pidlearn.utils.broadcast import expand

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

__all__ = ["density", "images", "overview", "paths"]

TEACHER, STUDENT = "0.45", "#d55e00"  # grey and Okabe & Ito's vermilion: apart for every kind of colour vision


def density(axes: Axes, mixture: GaussianMixture, reach: float = 2.1) -> None:
    """The clean density of a 2-D mixture as filled contours."""
    line = torch.linspace(-reach, reach, 160)
    x = torch.cartesian_prod(line, line)
    values = mixture.log_prob(x).exp().reshape(160, 160).T
    axes.contourf(line, line, values, levels=12, cmap="Blues", alpha=0.9)
    axes.set(aspect="equal", xlim=(-reach, reach), ylim=(-reach, reach), xticks=[], yticks=[])


def paths(axes: Axes, teacher: Tensor, student: Tensor, grid: Tensor, sigma_data: float) -> None:
    """2-D paths (N, B, 2) of both: open circles where they start, dots where they end.

    Drawn in x sigma_data / sqrt(sigma_data^2 + t^2), where noise has the data's scale at every t.
    """
    shrink = sigma_data / (sigma_data**2 + grid**2).sqrt()
    for path, colour, width, name in ((teacher, TEACHER, 3.0, "teacher"), (student, STUDENT, 1.1, "student")):
        scaled = (path * expand(shrink, path)).numpy(force=True)
        lines = axes.plot(scaled[:, :, 0], scaled[:, :, 1], color=colour, lw=width, solid_capstyle="round")
        lines[0].set_label(name)
        axes.plot(*scaled[-1].T, "o", color=colour, ms=3 + width)
    axes.plot(*scaled[0].T, "o", color="k", mfc="w", ms=3.5)
    axes.legend(loc="upper right", fontsize=8, framealpha=0.9)


def images(figure: Figure | SubFigure, rows: dict[str, Tensor]) -> None:
    """Named rows of images (B, C, R, R) in [-1, 1], the same column from the same start."""
    grid = figure.subplots(len(rows), len(next(iter(rows.values()))), squeeze=False)
    for line, (name, batch) in zip(grid, rows.items(), strict=True):
        for axes, image in zip(line, batch, strict=True):
            pixels = (image.clamp(-1, 1).movedim(0, -1).numpy(force=True) + 1) / 2
            axes.imshow(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels, cmap="gray", vmin=0, vmax=1)
            axes.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)


def overview(student: Any, problem: Problem, config: Config, history: dict[str, Any], n: int = 24) -> Figure:
    """What `Result.plot` shows: paths or images or time series of both, beside the loss."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.2), layout="constrained")
    left, right = cast("tuple[SubFigure, SubFigure]", figure.subfigures(1, 2, width_ratios=[1.5, 1]))
    generator = torch.Generator().manual_seed(1)
    z, labels = problem.draw(n, generator), problem.draw_labels(n, generator)
    if problem.sigma_data is None:
        grid = torch.linspace(problem.t_start, problem.t_end, 201, dtype=torch.float64)
    else:
        grid = config.grid()
    theirs = problem.reference(z, grid, labels)
    with torch.no_grad():
        ours = torch.stack([ask(student, z, t, labels) for t in grid])
    if problem.sigma_data is not None and len(problem.event_shape) == 3:
        images(left, {"teacher": theirs[-1, :8], "student": ours[-1, :8]})
    elif problem.sigma_data is not None and problem.event_shape == (2,):
        axes = left.subplots()
        if isinstance(problem.teacher, GaussianMixture):
            density(axes, problem.teacher)
        paths(axes, theirs, ours, grid, problem.sigma_data)
    else:
        _series(left, theirs.flatten(2), ours.flatten(2), grid)
    axes = right.subplots()
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    if not len(history["loss"]):
        return figure
    axes.plot(history["loss"], color="0.8", lw=0.5)
    window = max(1, len(history["loss"]) // 100)
    smooth = torch.tensor(history["loss"]).unfold(0, window, window).mean(1)
    axes.plot((torch.arange(len(smooth)) + 0.5) * window, smooth, color=STUDENT)
    return figure


def _series(figure: SubFigure, theirs: Tensor, ours: Tensor, grid: Tensor) -> None:
    d = min(theirs.shape[2], 3)
    for k, axes in enumerate(figure.subplots(d, 1, sharex=True, squeeze=False)[:, 0]):
        axes.plot(grid, theirs[:, :4, k].numpy(force=True), color=TEACHER, lw=2)
        axes.plot(grid, ours[:, :4, k].numpy(force=True), "--", color=STUDENT, lw=1)
        axes.set_ylabel(f"x{k + 1}")
    axes.set_xlabel("t")
