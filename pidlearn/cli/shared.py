"""What several commands need: the device, a student from its file, the problem it solves, and images of both."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pidlearn.equations.from_teacher import problem_from_teacher
from pidlearn.equations.grids import karras_grid
from pidlearn.equations.problem import Problem
from pidlearn.evaluation.images import comparison
from pidlearn.refinement import WithTeacher, with_teacher
from pidlearn.students import files
from pidlearn.students.base import Student
from pidlearn.students.official_pid import load_official_student
from pidlearn.utils.arguments import check_argument, number
from pidlearn.utils.torch_archive import LEGACY

__all__ = [
    "GRID_POINTS",
    "calibration_kept",
    "check_refine",
    "default_calls",
    "read_student",
    "refined",
    "resolve_device",
    "share",
    "side_by_side",
]

GRID_POINTS = 250
"""Points of the grid on which a student's teacher is solved: 249 Euler steps, as in the paper."""


class EulerSolution(Student):
    """A teacher's Euler solution, the target of its students, with the interface of a student and one step per call."""

    def __init__(self, teacher: nn.Module) -> None:
        super().__init__()
        self.teacher, self.problem = teacher, problem_from_teacher(teacher)
        self.t_max, self.t_min = self.problem.t_start, self.problem.t_end
        self.event_shape, self.label_dim = self.problem.event_shape, self.problem.label_dim

    def _generate(
        self, z: Tensor, class_labels: Tensor | None, calls: int, generator: torch.Generator | None
    ) -> Tensor:
        return self.problem.reference_samples(z, karras_grid(calls + 1, self.t_min, self.t_max), class_labels)


def share(text: str) -> float:
    """Argument type: a number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"got {text!r:.80}, but a share is a number from 0 to 1, as in 0.1")
    return value


def resolve_device(name: str | None) -> torch.device:
    """Return the device with that name; without a name, a GPU if there is one.

    Raises:
        ValueError: a device that this machine, or this build of PyTorch, does not have.
    """
    if name and name.partition(":")[0] == "meta":
        raise ValueError(
            f"got device {name!r}, whose tensors hold no numbers: expected cpu, cuda or another real device"
        )
    try:
        return torch.empty(0, device=name or ("cuda" if torch.cuda.is_available() else "cpu")).device
    except (RuntimeError, AssertionError) as error:  # AssertionError: PyTorch was built without CUDA
        reason = str(error).partition("\n")[0][:150]
        raise ValueError(f"there is no device {name!r} here ({reason}): choose cpu or another") from error


def default_calls(student: str | Path | None) -> int:
    """Default number of network calls per sample: 1 for a student, the paper's 249 steps for a teacher by itself."""
    return 1 if student else GRID_POINTS - 1


def read_student(path: str | Path | None, teacher: nn.Module | None = None) -> tuple[Student, Problem | None]:
    """Load a student from a file of `Result.save` or of the official PID repository; with its teacher, their problem.

    Without a path, the teacher itself, whose samples are its Euler solution, and no problem.

    ``teacher`` is needed for a copy of a network that this library cannot build: one of diffusers, or your own. The
    problem is that of the teacher over the student's own time span.

    Raises:
        ValueError: another file, a student that cannot be rebuilt from it, or another teacher than the student's.
    """
    if path is None:
        if teacher is None:
            raise ValueError("there is nothing to sample from: give a student's file, a teacher, or both")
        return EulerSolution(teacher), None
    head = b""
    if Path(path).is_file():
        with Path(path).open("rb") as file:
            head = file.read(len(LEGACY))
    student: nn.Module
    identity: dict[str, Tensor] = {}
    if head.startswith(b"\x80"):
        raise ValueError(
            f"{path} is a pickle, as EDM's teachers are, and no student: leave the student out and pass --teacher, for "
            f"the teacher's own samples"
        )
    if head.startswith((b"PK", LEGACY)):  # an archive, as torch.save writes them, or wrote them before 1.6
        student = load_official_student(path)
    else:
        student, *_, identity = files.read(path, teacher=teacher)
    if not isinstance(student, Student):
        raise ValueError(
            f"{path} holds a {type(student).__name__}, which cannot be sampled from: expected a trajectory student"
        )
    if teacher is None:
        return student, None
    problem = problem_from_teacher(teacher, student.t_max, student.t_min)
    ours, theirs = (f"images {x.event_shape} of {x.label_dim} classes" for x in (student, problem))
    if ours != theirs:
        raise ValueError(
            f"the student generates {ours}, the teacher {theirs}: pass the teacher that the student was distilled from"
        )
    problem.check_identity(identity, path)
    return student, problem


@contextmanager
def calibration_kept(path: str | Path | None, student: Student, calls: int, refine: float) -> Iterator[None]:
    """Write what is measured of the student meanwhile into its file, so that the next command need not measure it.

    That this comes first is said on stderr. A file that cannot be written, or of another format, stays as it is.
    """
    if isinstance(student, WithTeacher):
        if calls > 1 and refine and not student.has_plan(calls, refine):
            text = f"measuring how the teacher helps with {calls} calls, once per student: on a CPU, minutes for images"
            print(text, file=sys.stderr)
        student = student.student
    before = dict(student.calibration)
    try:
        yield
    finally:  # what took minutes is kept if the rest is interrupted
        if path is not None and student.calibration != before:
            with suppress(OSError, ValueError):
                files.keep_calibration(path, student)


def check_refine(refine: float, student: str | Path | None, teacher: str | None) -> None:
    """Raise a ValueError for a share outside [0, 1], or for one below 1 without both student and teacher."""
    check_argument("refine", refine, number(0, 1))
    if refine < 1 and not (student and teacher):
        raise ValueError(
            f"got refine = {refine:g}, but errors are estimated of a student with its teacher: give both, or leave "
            f"refine out"
        )


def refined(
    student: Student,
    z: Tensor,
    labels: Tensor | None,
    calls: int,
    generator: torch.Generator | None = None,
    refine: float = 1.0,
) -> Tensor:
    """Samples (B, *event) of z, of which the share ``refine`` with the largest estimated errors gets ``calls`` calls.

    Raises:
        ValueError: a share of a student that is no path.
    """
    if refine == 1:
        return student.generate(z, labels, calls, generator)
    if not isinstance(student, WithTeacher):
        raise ValueError(
            f"got refine = {refine:g}, but a {type(student).__name__} has no path x(z, t) to estimate errors by: leave "
            f"refine out"
        )
    return student.refined(z, labels, calls, refine)


@torch.no_grad()
def side_by_side(
    student: nn.Module,
    problem: Problem,
    grid: Tensor | None,
    n: int = 16,
    seed: int = 0,
    labels: Tensor | None = None,
    calls: int = 1,
    refine: float = 1.0,
) -> np.ndarray:
    """Draw teacher and student images from the same noise, one above the other.

    The teacher takes Euler steps along ``grid``, by default the paper's; the student's images take ``calls`` calls, or
    the share ``refine`` of them does.

    Returns:
        A uint8 array (height, width, 3), see `comparison`.
    """
    generator = torch.Generator().manual_seed(seed)
    z = problem.sample_prior(n, generator)
    labels = problem.sample_labels(n, generator) if labels is None else labels.to(problem.device)
    grid = karras_grid(GRID_POINTS, problem.t_end, problem.t_start) if grid is None else grid
    # The student first: a number of calls that it cannot make use of is an error before the teacher's many calls.
    both = with_teacher(student, problem)
    ours = refined(both, z, labels, calls, generator, refine)
    made_by = "student and teacher" if calls > 1 and both.has_path else "student"
    worst = f" for {100 * refine:.3g} %" if refine < 1 else ""
    rows = {
        f"teacher, {len(grid) - 1} calls": problem.reference_samples(z, grid, labels),
        f"{made_by}, {calls} call{'s' * (calls > 1)}{worst}": ours,
    }
    return comparison(rows)
