"""Scenes for the viewer, built from teachers and students."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pidlearn.equations.diffusion import Diffusion
from pidlearn.equations.from_teacher import problem_from_teacher
from pidlearn.equations.problem import Problem
from pidlearn.equations.solvers import solve
from pidlearn.equations.systems import System
from pidlearn.nets import MLP
from pidlearn.students.base import as_student
from pidlearn.students.boundaries import BOUNDARIES, TIMES
from pidlearn.students.trajectory import Trajectory
from pidlearn.teachers.exact import EmpiricalDenoiser, GaussianMixture
from pidlearn.utils.arguments import BATCH, SEED, check_argument, check_arguments, optional, size
from pidlearn.utils.broadcast import expand_like
from pidlearn.utils.validation import check_labels
from pidlearn.viewer import Images, Network, Plane, Scene, View, phase_plane

__all__ = ["as_drawn", "network", "scene_of", "watch"]

VIEW = (lambda v: v is None or isinstance(v, View), "a pidlearn.viewer.View, or None")
STUDENT = (
    lambda v: callable(v) and not isinstance(v, type),
    "a student, such as a pidlearn.Trajectory, or a dictionary of them by name",
)
TITLE = (lambda v: v is None or isinstance(v, str), "text, or None")

FRAMES, WINDING = 61, 121
"""Frames of a diffusion, and of an ODE, whose paths have more turns."""
BLURRED = 0.05
"""Overlap beyond which the components of a mixture do not count as modes."""
SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


@check_arguments(seed=SEED, view=VIEW, title=TITLE)
def watch(
    teacher: Any,
    student: nn.Module | Mapping[str, nn.Module] | None = None,
    *,
    starts: int | Tensor | None = None,
    class_labels: Tensor | None = None,
    seed: int = 7,
    axes: tuple[int, int] = (0, 1),
    view: View | None = None,
    title: str | None = None,
) -> Scene:
    """Build an interactive scene of teacher and student from the same starts.

    In a notebook the returned scene displays itself; ``save("page.html")`` writes a self-contained page.

    Args:
        teacher: as passed to `distill`: of two dimensions, or of images, or a `System`.
        student: one student, or several by name, each in its own panel; None for the teacher alone.
        starts: number of starts, or the starts (B, *event) themselves; by default 400 points, 40 paths of an ODE or 12
            images.
        class_labels: (B,) int64, the classes of the starts, for a class-conditional teacher; by default drawn.
        seed: seed of the drawn starts and classes.
        axes: the two coordinates of an ODE to draw.
        view: the initial view.
        title: by default the class of the teacher.

    Raises:
        ValueError: a diffusion that is neither 2-D nor of one-channel images, axes that the ODE does not have, or
            labels that do not fit the starts.
    """
    problem = problem_from_teacher(teacher)
    return scene_of(
        problem, student, starts=starts, class_labels=class_labels, seed=seed, axes=axes, view=view, title=title
    )


@check_arguments(seed=SEED, view=VIEW, title=TITLE)
def scene_of(
    problem: Problem,
    student: nn.Module | Mapping[str, nn.Module] | None = None,
    *,
    starts: int | Tensor | None = None,
    class_labels: Tensor | None = None,
    seed: int = 7,
    axes: tuple[int, int] = (0, 1),
    view: View | None = None,
    title: str | None = None,
) -> Scene:
    """Build the scene of `watch` for a problem; arguments as there."""
    students: dict[str, Any] = dict(student) if isinstance(student, Mapping) else {"": student}
    for one in students.values():
        check_argument("student", one, optional(STUDENT))
    diffusion, plane = isinstance(problem, Diffusion), problem.event_shape == (2,)
    image = len(problem.event_shape) == 3 and problem.event_shape[0] == 1
    if diffusion and not plane and not image:
        raise ValueError(
            f"got samples of shape {problem.event_shape}, but only 2-D points and one-channel images can be drawn "
            f"as a scene: draw a figure with result.plot()"
        )
    if starts is None:
        starts = 12 if image else 400 if diffusion else 40
    check_argument("starts", starts, BATCH if isinstance(starts, Tensor) else size())
    generator = torch.Generator().manual_seed(seed)
    z = starts if isinstance(starts, Tensor) else problem.sample_prior(starts, generator)
    check_labels(class_labels, len(z), problem.label_dim)
    labels = problem.sample_labels(len(z), generator) if class_labels is None else class_labels.to(problem.device)
    title = title or f"{type(problem.teacher).__name__} and its student"
    if not diffusion:
        return _system(problem, students, z, title, axes, view)
    return (_images if image else _points)(problem, students, z, labels, title, view)


def network(student: nn.Module) -> Network | None:
    """Return the student in the form that the viewer evaluates itself; None unless it is a plain MLP in the plane."""
    if type(student) is not Trajectory or type(student.network) is not MLP or student.network.event_shape != (2,):
        return None
    options: dict[str, Any] = getattr(student.network, "options")  # noqa: B009 - not of Callable
    boundary = next((name for name, part in BOUNDARIES.items() if part is student.boundary), None)
    if boundary is None or student.time is not TIMES["log"] or options.get("norm") or options.get("label_dim"):
        return None
    weights = {name: value.float().numpy(force=True) for name, value in student.network.state_dict().items()}
    return Network(weights, student.t_max, student.sigma_data, boundary, student.c_in)


def _points(
    problem: Problem, students: dict[str, Any], z: Tensor, labels: Tensor | None, title: str, view: View | None
) -> Scene:
    grid = problem.plot_grid(FRAMES)
    mixture, names = None, {"teacher": "teacher, Euler-250"}
    teacher = problem.teacher
    if isinstance(teacher, EmpiricalDenoiser) and teacher.bandwidth and len(teacher.data) <= 200:
        teacher = GaussianMixture(teacher.data, teacher.bandwidth**2)
    if isinstance(teacher, GaussianMixture):
        mixture = {name: getattr(teacher, name).numpy() for name in ("means", "weights", "covs")}
        exact, names = solve(problem.ode, z.double(), grid, "scipy", rtol=1e-8, atol=1e-8), {}
    else:
        # A fine grid that contains the frames: the drawn path is the one that students are compared with.
        exact = problem.reference(z, problem.plot_grid(4 * (FRAMES - 1) + 1), labels)[::4]
        names = {"teacher": f"teacher, Euler-{4 * (FRAMES - 1) + 1}"}
    return Scene(
        title,
        grid.numpy(),
        [Plane(name, as_drawn(problem, student, z, grid, labels)) for name, student in students.items()],
        starts=z.numpy(force=True),
        mixture=mixture,
        exact=exact.numpy(force=True),
        sigma_data=problem.data_scale,
        names=names,
        view=view or View(),
        modes=isinstance(problem.teacher, GaussianMixture) and problem.teacher.overlap < BLURRED,
    )


@torch.no_grad()
def as_drawn(
    problem: Problem,
    student: nn.Module | None,
    z: Tensor,
    grid: Tensor,
    class_labels: Tensor | None = None,
    axes: tuple[int, int] = (0, 1),
) -> Network | np.ndarray | None:
    """Return the student as the viewer evaluates it, if it can; else its paths (F, B, 2)."""
    if student is None:
        return None
    evaluable = network(student) if isinstance(problem, Diffusion) else None
    if evaluable is not None:
        return evaluable
    return _flat(as_student(student, problem).trajectory(z, grid, class_labels), grid, axes)


def _flat(path: Tensor, grid: Tensor, axes: tuple[int, int]) -> np.ndarray:
    """Two coordinates of paths (F, B, d), or the only one as a function of time."""
    if path.shape[2] == 1:
        path = torch.cat([expand_like(grid, path).expand_as(path).to(path), path], 2)
    return path[..., list(axes)].double().numpy(force=True)


def _system(
    problem: Problem, students: dict[str, Any], z: Tensor, title: str, axes: tuple[int, int], view: View | None
) -> Scene:
    grid = problem.plot_grid(WINDING)
    plain = tuple(f"x{i}".translate(SUBSCRIPTS) for i in range(1, z.shape[1] + 1))
    names = problem.teacher.names if isinstance(problem.teacher, System) else plain
    if len(names) == 1:
        names = ("t", *names)
    if not isinstance(axes, tuple | list) or len(axes) != 2 or not all(axis in range(len(names)) for axis in axes):
        raise ValueError(f"got axes = {axes!r}, but axes must be two coordinates in 0..{len(names) - 1}")
    panels = [Plane(name, as_drawn(problem, student, z, grid, axes=axes)) for name, student in students.items()]
    exact = _flat(problem.reference(z, grid), grid, axes)
    return phase_plane(title, grid.numpy(), exact, panels, (names[axes[0]], names[axes[1]]), view)


def _images(
    problem: Problem, students: dict[str, Any], z: Tensor, labels: Tensor | None, title: str, view: View | None
) -> Scene:
    """Paths of images, divided by their scale at each time so that noise and data are both visible."""
    grid = problem.plot_grid(4 * (FRAMES - 1) + 1)
    frames = grid[::4]

    def grey(path: Tensor) -> np.ndarray:
        shown = path / expand_like((1 + frames**2).sqrt(), path)
        return ((shown.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)[:, :, 0].numpy(force=True)

    rows = {f"Euler-{len(grid)}": grey(problem.reference(z, grid, labels)[::4])}
    with torch.no_grad():
        for name, student in students.items():
            if student is not None:
                rows[name or "student"] = grey(as_student(student, problem).trajectory(z, frames, labels))
    return Scene(title, frames.numpy(), [Images("", rows)], view=view or View())
