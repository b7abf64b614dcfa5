"""More calls than one: the student jumps to a time t* on its path, and the teacher's solver takes the rest.

From t* on, a few short steps of DPM-Solver++(2M) remove what the student gets wrong there, which is most of its error.
The earlier t* lies in the path, the more of the error is removed, and the longer the steps are for the same number of
calls: the best t* depends on the student, and is measured (`pidlearn.refinement.calibration`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from pidlearn.equations.diffusion import Diffusion
from pidlearn.equations.grids import karras_grid
from pidlearn.equations.solvers import solve_end
from pidlearn.students.base import Student
from pidlearn.utils.batching import call_student, in_chunks
from pidlearn.utils.validation import NotFiniteError

__all__ = ["Plan", "carry", "handover", "handover_times", "jump"]

TIMES = (0.1, 0.15, 0.2, 0.3, 0.45, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 7.0, 12.0, 20.0, 32.0)
"""Times at which the teacher may take over, in units of the data's standard deviation, around which paths bend."""


@dataclass(frozen=True)
class Plan:
    """How the calls for a sample are spent: one of the student up to t*, the others of the teacher.

    Attributes:
        times: of the teacher's steps, from t* down to ``t_end``, one call each; t* is ``t_start`` if the teacher does
            everything, and there are no times if the student does.
        share: the share of the samples that gets them: those whose errors look largest.
    """

    times: Sequence[float]
    share: float = 1.0

    def serves(self, problem: Diffusion, calls: int, share: float) -> bool:
        """Whether it leads to samples of the problem, and costs no more than a share of them with some calls each."""
        if not isinstance(self.times, list):
            return False
        if not self.times:
            return True
        t_star, steps = self.times[0], len(self.times) - 1
        decreases = all(t > t_next for t, t_next in pairwise(self.times))
        within = t_star <= problem.t_start and self.times[-1] == problem.t_end
        cost = (steps + (t_star != problem.t_start)) * self.share
        shared = self.share == 1 if share == 1 else 0 < self.share <= share
        return decreases and within and shared and cost <= (1 + 1e-9) * calls * share  # but for rounding


def jump(student: Student, z: Tensor, t: float, class_labels: Tensor | None) -> Tensor:
    """The student's state at one time, (B, *event), in one call for each chunk of samples."""
    return in_chunks(lambda z, labels: call_student(student, z, t, labels), z, class_labels, student.rows_per_sample)


@torch.no_grad()
def carry(plan: Plan, student: Student, problem: Diffusion, z: Tensor, class_labels: Tensor | None) -> Tensor:
    """Carry z (B, *event) to samples (B, *event), as planned."""
    if not plan.times:
        return jump(student, z, problem.t_end, class_labels)
    t_star, x = plan.times[0], z
    if t_star != problem.t_start:
        x = jump(student, z, t_star, class_labels)
        if not x.isfinite().all():
            raise NotFiniteError(
                f"the student returned NaN or infinity at t = {t_star:.4g}: use weights from before its training "
                f"diverged"
            )
    return solve_end(problem.ode, x, plan.times, "dpm++", class_labels)


def handover(problem: Diffusion, calls: int, t_star: float) -> Plan:
    """The plan for at least 2 calls whose steps from t* on are those of Karras' grid."""
    steps = calls - (t_star != problem.t_start)
    return Plan(karras_grid(steps + 1, problem.t_end, t_star).tolist())


def handover_times(problem: Diffusion, times: Sequence[float] = TIMES) -> list[float]:
    """The times, in units of the data's standard deviation, that lie within the span of the problem."""
    scaled = [problem.data_scale * time for time in times]
    return [
        t for t in scaled if 1.001 * problem.t_end < t < problem.t_start
    ]  # exclude those that equal t_end up to rounding
