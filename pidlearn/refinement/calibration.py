"""What is measured once per student: the times of the teacher's steps, and how errors are estimated.

Both are measured on noise that nothing else has, whose exact samples are solved for; what comes out is kept with the
student (`Student.calibration`), and written to its file.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cached_property
from heapq import nlargest
from operator import itemgetter

import torch
from torch import Tensor

from pidlearn.equations.diffusion import Diffusion
from pidlearn.refinement.certificate import Certificate, certify, size
from pidlearn.refinement.handover import Plan, carry, handover, handover_times, jump
from pidlearn.refinement.times import fit
from pidlearn.students.base import Student
from pidlearn.utils.random import mixed
from pidlearn.utils.validation import NotFiniteError

__all__ = ["Calibrator"]

SEED = 2**61
"""Mixed into a stream of noise that neither training nor `evaluate` has."""
SAMPLES, IMAGES = 32_768, 256
"""How many paths are solved, of low-dimensional problems and of others."""
FITTED, CHOSEN, TURN, FINALISTS = 1, 3, 16, 3
"""Of every 16 paths, one serves to fit the times of steps and three to find the three best plans; the others decide
between these and the student alone: most of an error is that of a few samples, so that the best of many plans may be so
by chance. Paths of images take long to solve: of every 4, one serves to fit and three to decide between all plans."""
CERTIFIED = 8192
"""Paths that serve for the estimate of errors, at most."""
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
        return torch.cat([self.first_exact, self._exact(slice(CERTIFIED, None))])

    @cached_property
    def first_exact(self) -> Tensor:
        """The first `CERTIFIED` of those."""
        return self._exact(slice(CERTIFIED))

    def _exact(self, rows: slice) -> Tensor:
        z, labels = self.noise
        if not len(z := z[rows]):
            return z
        return self.problem.exact_samples(z, None if labels is None else labels[rows])

    @cached_property
    def own(self) -> Tensor:
        """The student's samples, (n, *event)."""
        z, labels = self.noise
        samples = jump(self.student, z, self.problem.t_end, labels)
        if not samples.isfinite().all():
            raise NotFiniteError(
                "the student's samples hold NaN or infinity, so that its errors cannot be measured: use weights from "
                "before its training diverged"
            )
        return samples

    @property
    def _turn(self) -> int:
        """After how many paths their purposes repeat."""
        return TURN if self.problem.is_low_dimensional else FITTED + CHOSEN

    def plan(self, calls: int, ranked: Tensor | None = None, share: float = 1.0) -> Plan:
        """The plan with the least error.

        One that is not clearly better than the student alone is not taken.

        Args:
            calls: calls per sample.
            ranked: the samples (n,) int64 in the order in which they get more than one call, if not all do.
            share: the share of them that gets ``calls`` each; or, with as many calls in total, a part of it more.
        """
        most, best = 0.0, Plan([])
        for pieces in (1, *SPLITS) if ranked is not None else (1,):
            rows = ranked if ranked is not None else torch.arange(len(self.own), device=self.own.device)
            part = share / pieces
            plan, gain = self._chosen(calls * pieces, rows[: max(2 * self._turn, math.ceil(part * len(rows)))])
            if gain * part > most:
                most, best = gain * part, replace(plan, share=part)
        return best

    def _chosen(self, calls: int, rows: Tensor) -> tuple[Plan, float]:
        """The best plan for some samples, rows (m,) int64, and by how much it lowers their mean squared error."""
        problem = self.problem
        turn = torch.arange(len(rows), device=rows.device) % self._turn
        fitted, decided = rows[turn < FITTED], rows[turn >= FITTED + CHOSEN]
        chosen = rows[(turn >= FITTED) & (turn < FITTED + CHOSEN)]
        tried: list[tuple[float, float, Plan]] = []

        def gains(plan: Plan, rows: Tensor) -> tuple[float, float, Plan]:
            """By how much the mean square falls, the same less its standard error, and the plan."""
            own = size(self.own[rows] - self.exact[rows]).square()
            fall = own - size(self._misses(plan, rows)).square()
            mean = fall.mean().item()
            return mean, mean - fall.std().item() / len(fall) ** 0.5, plan

        for t in handover_times(problem):
            tried.append(gains(handover(problem, calls, t), chosen))
        if tried:
            several = handover_times(problem, STARTS) if problem.is_low_dimensional else []
            starts = [handover(problem, calls, t) for t in several] or [max(tried, key=itemgetter(1))[2]]
            tried.append(gains(self._fitted(fitted, starts), chosen))
        tried.append(gains(handover(problem, calls, problem.t_start), chosen))
        if len(decided):
            finalists = nlargest(FINALISTS, tried, key=itemgetter(0))
            tried = [gains(plan, decided) for *_, plan in finalists]
        _, gain, plan = max(tried, key=itemgetter(1))
        return plan, gain

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
        n = CERTIFIED
        labels = None if labels is None else labels[:n]
        times = tuple(handover_times(self.problem)) or (math.sqrt(self.problem.t_start * self.problem.t_end),)
        return certify(self.student, self.problem, z[:n], self.own[:n], self.first_exact, calls, times, labels)
