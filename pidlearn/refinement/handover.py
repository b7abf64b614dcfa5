"""More calls than one: the student jumps to a time t* on its path, and the teacher's solver takes the rest.

From t* on, a few short steps of the solver remove what the student gets wrong there, which is most of its error. The
earlier t* lies in the path, the more of the error is removed, and the longer the steps are for the same number of
calls: the best t* depends on the student, and is measured (`pidlearn.refinement.calibration`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pidlearn.equations.diffusion import Diffusion
from pidlearn.equations.grids import karras_grid
from pidlearn.equations.solvers import SOLVERS, solve_end
from pidlearn.students.base import Student
from pidlearn.utils.batching import call_student, in_chunks

__all__ = ["Plan", "carry", "first_plans", "jump", "variants"]

TIMES = (0.1, 0.15, 0.2, 0.3, 0.45, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 7.0, 12.0)
"""Times at which the teacher may take over, in units of the data's standard deviation, around which paths bend."""
SOLVED_BY = (("dpm++", 7.0), ("dpm++", 3.0), ("dpm", 3.0), ("heun", 7.0))
"""Solvers, and the exponents rho of their grids; the first is tried at all times, the others at the best of them."""


@dataclass(frozen=True)
class Plan:
    """How the calls for a sample are spent: one of the student up to t*, the others of the teacher.

    Attributes:
        calls: number of network calls per sample, at most.
        t_star: where the teacher takes over: ``t_end`` if it never does, ``t_start`` if it does everything.
        solver: dpm++ | dpm | heun.
        rho: exponent of Karras' grid from t* to ``t_end``.
        share: the share of the samples that gets them: those whose errors look largest.
    """

    calls: int
    t_star: float
    solver: str = "dpm++"
    rho: float = 7.0
    share: float = 1.0

    def steps(self, problem: Diffusion) -> int:
        """Steps of the solver."""
        if self.t_star == problem.t_end:
            return 0
        of_student = self.t_star != problem.t_start
        return (self.calls - of_student) // SOLVERS[self.solver]().nfe


def jump(student: Student, z: Tensor, t: float, class_labels: Tensor | None) -> Tensor:
    """The student's state at one time, (B, *event), in one call for each chunk of samples."""
    return in_chunks(lambda z, labels: call_student(student, z, t, labels), z, class_labels, student.rows_per_sample)


@torch.no_grad()
def carry(plan: Plan, student: Student, problem: Diffusion, z: Tensor, class_labels: Tensor | None) -> Tensor:
    """Carry z (B, *event) to samples (B, *event), as planned."""
    steps = plan.steps(problem)
    x = z if plan.t_star == problem.t_start else jump(student, z, plan.t_star, class_labels)
    if not steps:
        return x
    grid = karras_grid(steps + 1, problem.t_end, plan.t_star, plan.rho)
    return solve_end(problem.ode, x, grid, plan.solver, class_labels)


def first_plans(problem: Diffusion, calls: int) -> Iterator[Plan]:
    """Plans for a number of calls that differ in t*."""
    solver, rho = SOLVED_BY[0]
    times = [t * problem.data_scale for t in TIMES]
    for t in (*(t for t in times if problem.t_end < t < problem.t_start), problem.t_start):
        plan = Plan(calls, t, solver, rho)
        if plan.steps(problem):
            yield plan


def variants(problem: Diffusion, plan: Plan) -> Iterator[Plan]:
    """The same t* with other solvers and grids."""
    for solver, rho in SOLVED_BY[1:]:
        other = replace(plan, solver=solver, rho=rho)
        if other.steps(problem):
            yield other
