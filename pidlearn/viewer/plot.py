"""Figures of teacher and student from the same starts. Matplotlib is imported when the first is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from pidlearn.equations.diffusion import Diffusion
from pidlearn.equations.problem import Problem
from pidlearn.students.base import Student
from pidlearn.teachers.exact import GaussianMixture
from pidlearn.utils.broadcast import expand_like
from pidlearn.utils.pictures import grey_or_colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

__all__ = ["density", "images", "overview", "paths"]

TEACHER, STUDENT = "0.45", "#d55e00"  # grey and Okabe & Ito's vermilion, which differ for every kind of colour vision


def density(axes: Axes, mixture: GaussianMixture, reach: float = 2.1) -> None:
    """The clean density of a 2-D mixture as filled contours."""
    line = torch.linspace(-reach, reach, 160)
    x = torch.cartesian_prod(line, line)
    values = mixture.log_prob(x).exp().reshape(160, 160).T
    axes.contourf(line, line, values, levels=12, cmap="Blues", alpha=0.9)
    axes.set(aspect="equal", xlim=(-reach, reach), ylim=(-reach, reach), xticks=[], yticks=[])


def paths(axes: Axes, teacher: Tensor, student: Tensor, grid: Tensor, sigma_data: float) -> None:
    """2-D paths (N, B, 2) of both: open circles where they start, dots where they end.

    The axes are x sigma_data / sqrt(sigma_data^2 + t^2), in which noisy data have the data's scale at every t.
    """
    shrink = sigma_data / (sigma_data**2 + grid**2).sqrt()
    for path, colour, width, name in ((teacher, TEACHER, 3.0, "teacher"), (student, STUDENT, 1.1, "student")):
        scaled = (path * expand_like(shrink, path)).numpy(force=True)
        lines = axes.plot(scaled[:, :, 0], scaled[:, :, 1], color=colour, lw=width, solid_capstyle="round")
        lines[0].set_label(name)
        axes.plot(*scaled[-1].T, "o", color=colour, ms=3 + width)
    axes.plot(*scaled[0].T, "o", color="k", mfc="w", ms=3.5)
    axes.legend(loc="upper right", fontsize=8, framealpha=0.9)


def images(figure: Figure | SubFigure, rows: dict[str, Tensor]) -> None:
    """Named rows of images (B, C, R, R) in [-1, 1], the same column from the same start.

    The channels of other than grey and RGB images are shown side by side.
    """
    grid = figure.subplots(len(rows), len(next(iter(rows.values()))), squeeze=False)
    for line, (name, batch) in zip(grid, rows.items(), strict=True):
        for axes, image in zip(line, grey_or_colour(batch), strict=True):
            pixels = (image.clamp(-1, 1).movedim(0, -1).numpy(force=True) + 1) / 2
            axes.imshow(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels, cmap="gray", vmin=0, vmax=1)
            axes.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)


def overview(student: Student, problem: Problem, grid: Tensor, history: dict[str, Any], n: int = 24) -> Figure:
    """The figure of `Result.plot`: paths, images or time series of both, and the loss.

    Args:
        student: the student.
        problem: what it solves.
        grid: (N,) time grid of a diffusion's reference solution.
        history: arrays over the steps by name, such as "loss".
        n: number of starts.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.2), layout="constrained")
    left, right = cast("tuple[SubFigure, SubFigure]", figure.subfigures(1, 2, width_ratios=[1.5, 1]))
    generator = torch.Generator().manual_seed(1)
    z, labels = problem.sample_prior(n, generator), problem.sample_labels(n, generator)
    diffusion = isinstance(problem, Diffusion)
    grid = grid if diffusion else problem.plot_grid(201)
    theirs, ours = problem.reference(z, grid, labels), student.trajectory(z, grid, labels)  # (N, n, *event)
    if diffusion and len(problem.event_shape) == 3:
        images(left, {"teacher": theirs[-1, :8], "student": ours[-1, :8]})
    elif diffusion and problem.event_shape == (2,):
        axes = left.subplots()
        if isinstance(problem.teacher, GaussianMixture):
            density(axes, problem.teacher)
        paths(axes, theirs, ours, grid, problem.data_scale)
    else:
        _series(left, theirs.flatten(2), ours.flatten(2), grid)
    _loss(right.subplots(), history["loss"])
    return figure


def _loss(axes: Axes, loss: np.ndarray) -> None:
    """The loss of each step, and its running mean over a hundredth of the run."""
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    if not len(loss):
        return
    axes.plot(loss, color="0.8", lw=0.5)
    window = max(1, len(loss) // 100)
    smooth = torch.tensor(loss).unfold(0, window, window).mean(1)
    axes.plot((torch.arange(len(smooth)) + 0.5) * window, smooth, color=STUDENT)


def _series(figure: SubFigure, theirs: Tensor, ours: Tensor, grid: Tensor) -> None:
    d = min(theirs.shape[2], 3)
    for k, axes in enumerate(figure.subplots(d, 1, sharex=True, squeeze=False)[:, 0]):
        axes.plot(grid, theirs[:, :4, k].numpy(force=True), color=TEACHER, lw=2)
        axes.plot(grid, ours[:, :4, k].numpy(force=True), "--", color=STUDENT, lw=1)
        axes.set_ylabel(f"x{k + 1}")
    axes.set_xlabel("t")
