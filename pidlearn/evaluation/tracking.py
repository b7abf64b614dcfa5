"""Tracking a student's error to the reference solution while it trains."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pidlearn.equations.problem import Problem
from pidlearn.evaluation.metrics import rmse
from pidlearn.students.base import as_student
from pidlearn.training.history import Step

__all__ = ["ErrorTracker"]

MEASUREMENTS = 40
"""The error is measured every ``steps // MEASUREMENTS`` steps."""


class ErrorTracker:
    """Fills ``step.metrics["error"]``: RMSE between student and reference solution, from the same initial values.

    Args:
        problem: what is solved.
        student: returns the student to measure.
        n: number of samples.
        grid: time grid of the reference solution.
        seed: seed of the initial values.
        errors: list to which (step, error) is appended.
    """

    def __init__(
        self,
        problem: Problem,
        student: Callable[[], nn.Module],
        n: int,
        grid: Tensor,
        seed: int,
        errors: list[tuple[int, float]],
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._z, self._labels = problem.sample_prior(n, generator), problem.sample_labels(n, generator)
        self._target = problem.reference_samples(self._z, grid, self._labels)
        self._problem, self._student, self._errors = problem, student, errors

    def __call__(self, step: Step) -> None:
        """Measure the error if it is due at this step; it always is at the last."""
        if step.number % max(1, step.steps // MEASUREMENTS) and step.number != step.steps:
            return
        student = as_student(self._student(), self._problem)
        error = rmse(student.generate(self._z, self._labels), self._target)
        step.metrics["error"] = error
        self._errors.append((step.number, error))
