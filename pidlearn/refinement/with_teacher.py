"""A path student with its teacher at hand: it can use more calls, and estimates the error of each of its samples."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from pidlearn.equations.diffusion import Diffusion
from pidlearn.equations.problem import Problem
from pidlearn.refinement.calibration import Calibrator
from pidlearn.refinement.certificate import Certificate, estimate
from pidlearn.refinement.handover import Plan, carry, jump
from pidlearn.students.base import Student, as_student, check_class_labels

__all__ = ["WithTeacher", "with_teacher"]

K = TypeVar("K", Plan, Certificate)

LOOK = 1
"""Extra calls per sample of the estimate that finds the worst samples, of which a share is refined."""


class WithTeacher(Student):
    """A student x(z, t) of a diffusion that spends further calls on its teacher.

    What is measured for that is kept in ``calibration`` of the student, and measured when it is first needed.

    Args:
        student: the student.
        problem: what it solves.
    """

    has_path = True

    def __init__(self, student: Student, problem: Diffusion) -> None:
        super().__init__()
        self.student, self.problem = student, problem
        self.t_max, self.t_min = student.t_max, student.t_min
        self.event_shape, self.label_dim = student.event_shape, student.label_dim
        self._calibrator, self._era = Calibrator(student, problem), student.calibration.era

    def forward(self, z: Tensor, t: Any, class_labels: Tensor | None = None) -> Tensor:
        """x(z, t) of the student."""
        out: Tensor = self.student(z, t, class_labels)
        return out

    def _path(self, z: Tensor, grid: Tensor, class_labels: Tensor | None) -> Tensor:
        return self.student._path(z, grid, class_labels)

    def _generate(
        self, z: Tensor, class_labels: Tensor | None, calls: int, generator: torch.Generator | None
    ) -> Tensor:
        check_class_labels(self.student, class_labels)  # a plan may leave everything to the teacher
        if calls == 1:
            return jump(self.student, z, self.t_min, class_labels)
        return carry(self.plan(calls), self.student, self.problem, z, class_labels)

    def refined(self, z: Tensor, class_labels: Tensor | None, calls: int, share: float) -> Tensor:
        """Samples (B, *event) of which the ``share`` with the largest estimated errors gets ``calls`` calls."""
        if calls == 1:
            raise ValueError(
                "got calls = 1, but refine spends more on some samples: pass calls= of at least 2, such as 10"
            )
        x = jump(self.student, z, self.t_min, class_labels)
        plan = self.plan(calls, share) if share else None
        # Rounded down, so that a small batch never costs more than its share.
        if plan is None or not plan.times or not (worst := int(plan.share * len(z) + 1e-9)):
            return x
        errors = estimate(self.certificate(LOOK), self.student, self.problem, z, x, class_labels)
        rows = errors.topk(worst).indices
        labels = None if class_labels is None else class_labels.expand(len(z))[rows]  # from (B,) or (1,)
        x[rows] = carry(plan, self.student, self.problem, z[rows], labels)
        return x

    def error_estimate(self, z: Tensor, class_labels: Tensor | None, calls: int) -> Tensor:
        """The estimated error of each sample of z, (B,) float64, by ``calls`` calls besides the student's one."""
        x = jump(self.student, z, self.t_min, class_labels)
        return estimate(self.certificate(calls), self.student, self.problem, z, x, class_labels)

    def plan(self, calls: int, share: float = 1.0) -> Plan:
        """How calls are spent on all samples, or on a share of them, those whose errors look largest."""

        def measured(calibrator: Calibrator) -> Plan:
            return calibrator.plan(calls, None if share == 1 else self._ranked(calibrator), share)

        return self._plan(calls, share) or self._measured(_name(calls, share), measured)

    def has_plan(self, calls: int, share: float = 1.0) -> bool:
        """Whether `plan` has been measured already."""
        return self._plan(calls, share) is not None

    def certificate(self, calls: int) -> Certificate:
        """What estimates errors by some calls."""
        key = f"error by {calls} calls"
        kept = self._kept(key, Certificate, lambda kept: kept.serves(self.problem, calls))
        return kept or self._measured(key, lambda calibrator: calibrator.certificate(calls))

    def _plan(self, calls: int, share: float) -> Plan | None:
        return self._kept(_name(calls, share), Plan, lambda kept: kept.serves(self.problem, calls, share))

    def _ranked(self, calibrator: Calibrator) -> Tensor:
        """Rows of the calibration's samples, (n,), those first whose errors look largest."""
        z, labels = calibrator.noise
        errors = estimate(self.certificate(LOOK), self.student, self.problem, z, calibrator.own, labels)
        return errors.argsort(descending=True)

    def _measured(self, key: str, measure: Callable[[Calibrator], K]) -> K:
        """What is measured, which the student's calibration keeps under a name."""
        calibration = self.student.calibration
        if calibration.era != self._era:  # the paths that were solved are of other weights
            self._calibrator, self._era = Calibrator(self.student, self.problem), calibration.era
        measured = measure(self._calibrator)
        calibration[key] = asdict(measured)
        return measured

    def _kept(self, key: str, kind: type[K], serves: Callable[[K], bool]) -> K | None:
        """What the student's calibration has under a name; in a file of an earlier version it may be something else."""
        with suppress(KeyError, TypeError, ValueError, OverflowError):
            kept = kind(**self.student.calibration[key])
            return kept if serves(kept) else None
        return None


def _name(calls: int, share: float) -> str:
    """The name of a plan in a student's calibration."""
    return f"{calls} calls" if share == 1 else f"{calls} calls of the worst {share}"


def with_teacher(module: nn.Module, problem: Problem) -> Student:
    """The student, with its teacher at hand if it is a path of a diffusion."""
    student = as_student(module, problem)
    return WithTeacher(student, problem) if student.has_path and isinstance(problem, Diffusion) else student
