"""What is measured once per student: the times of the teacher's steps, and how errors are estimated.

Both are measured on noise that nothing else has, whose exact samples are solved for; what comes out is kept with the
student (`Student.calibration`), and written to its file.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from pidlearn.equations.diffusion import Diffusion
from pidlearn.refinement.certificate import Certificate, certify, size
from pidlearn.refinement.handover import Plan, carry, handover, handover_times, jump
from pidlearn.refinement.times import fit
from pidlearn.students.base import Student
from pidlearn.utils.random import mixed

__all__ = ["Calibrator"]

SEED = 2**61
"""Mixed into a stream of noise that neither training nor `evaluate` has."""
SAMPLES, IMAGES = 8192, 256
"""How many paths are solved, of low-dimensional problems and of others."""
PART = 4
"""Every fourth path serves to fit the times of steps, and the others to compare plans."""
STEPS, STEPS_OF_IMAGES = 40_960, 1280
"""The most steps of the solver in each try of a fit: with many calls, fewer samples have to do."""
STARTS, TRIES, LAST_TRIES = (0.3, 1.0, 2.8), 5, 14
"""Times of handover, like `TIMES`, from which low-dimensional problems are fitted, since the error has several minima;
how many plans are tried from each, and how many more from the best. Images start from the best of Karras' grids."""
SPLITS = (2, 3, 4)
"""A few samples with this many times the calls may be worth more than this many times as many samples."""


class Calibrator:
    """Measures a student on solved paths, which are solved when they are first needed."""

    def __init__(self, student: Student, problem: Diffusion) -> None:
        self.student, self.problem = student, problem

    @cached_property
    def noise(self) -> tuple[Tensor, Tensor | None]:
        """Starts (n, *event), and their labels (n,) or None."""
        generator = torch.Generator().manual_seed(mixed(SEED))
        n = SAMPLES if self.problem.is_low_dimensional else IMAGES
        z, labels = self.problem.sample_prior(n, generator), self.problem.sample_labels(n, generator)
        weight = next(self.student.parameters(), z)
        return z.to(torch.promote_types(z.dtype, weight.dtype)), labels

    @cached_property
    def exact(self) -> Tensor:
        """Where their paths end, (n, *event)."""
        z, labels = self.noise
        return self.problem.exact_samples(z, labels)

    @cached_property
    def own(self) -> Tensor:
        """The student's samples, (n, *event)."""
        z, labels = self.noise
        return jump(self.student, z, self.problem.t_end, labels)

    def plan(self, calls: int, ranked: Tensor | None = None, share: float = 1.0) -> Plan:
        """The plan with the least error.

        One that is not clearly better than the student alone is not taken.

        Args:
            calls: calls per sample.
            ranked: the samples (n,) int64 in the order in which they get more than one call, if not all do.
            share: the share of them that gets ``calls`` each; or, with as many calls in total, a part of it more.
        """
        plans: list[tuple[float, Plan]] = []
        for pieces in (1, *SPLITS) if ranked is not None else (1,):
            rows = None if ranked is None else ranked[: max(2 * PART, math.ceil(share / pieces * len(ranked)))]
            part = share / pieces
            plans += [(gain * part, replace(plan, share=part)) for gain, plan in self._gains(calls * pieces, rows)]
        gain, best = _best(plans)
        return best if gain > 0 else Plan([])

    def _gains(self, calls: int, rows: Tensor | None) -> list[tuple[float, Plan]]:
        """By how much plans lower the mean squared error of all samples, or of some of them (m,) int64."""
        problem, (z, _) = self.problem, self.noise
        rows = torch.arange(len(z), device=z.device) if rows is None else rows
        fitted = torch.arange(len(rows), device=z.device) % PART == 0
        compared = rows[~fitted]
        own = size(self.own[compared] - self.exact[compared]).square()

        def gain(plan: Plan) -> float:
            """By how much the mean square falls, less the standard error of that."""
            fall = own - size(self._misses(plan, compared)).square()
            return (fall.mean() - fall.std() / len(fall) ** 0.5).item()

        plans = [handover(problem, calls, t) for t in handover_times(problem)]
        gains = [(gain(plan), plan) for plan in plans]
        if plans:
            several = handover_times(problem, STARTS) if problem.is_low_dimensional else []
            plan = self._fitted(rows[fitted], [handover(problem, calls, t) for t in several] or [_best(gains)[1]])
            gains.append((gain(plan), plan))
        alone = handover(problem, calls, problem.t_start)
        return [*gains, (gain(alone), alone)]

    def _fitted(self, rows: Tensor, starts: list[Plan]) -> Plan:
        """The plan whose times are fitted to some samples, rows (m,) int64."""
        problem = self.problem
        most = STEPS if problem.is_low_dimensional else STEPS_OF_IMAGES
        rows = rows[:: math.ceil(len(rows) * len(starts[0].times) / most)]

        def fit_from(plan: Plan, tries: int) -> tuple[float, Plan]:
            return fit(plan, problem, lambda plan: self._misses(plan, rows), tries)

        _, best = min((fit_from(plan, TRIES) for plan in starts), key=lambda fit: fit[0])
        return fit_from(best, LAST_TRIES)[1] if len(starts) > 1 else best

    def _misses(self, plan: Plan, rows: Tensor) -> Tensor:
        """The errors of some samples, rows (m,) int64, with a plan, (m, *event)."""
        z, labels = self.noise
        x = carry(plan, self.student, self.problem, z[rows], None if labels is None else labels[rows])
        return x - self.exact[rows]

    def certificate(self, calls: int) -> Certificate:
        """The estimate of errors with some extra calls."""
        z, labels = self.noise
        times = tuple(handover_times(self.problem)) or (math.sqrt(self.problem.t_start * self.problem.t_end),)
        return certify(self.student, self.problem, z, self.own, self.exact, calls, times, labels)


def _best(plans: list[tuple[float, Plan]]) -> tuple[float, Plan]:
    """Of gains and plans, the one with the largest gain."""
    return max(plans, key=lambda plan: plan[0])
