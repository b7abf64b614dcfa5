"""What is measured once per student: where the teacher takes over, and how errors are estimated.

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
from pidlearn.refinement.handover import Plan, carry, first_plans, jump, variants
from pidlearn.students.base import Student
from pidlearn.utils.random import mixed

__all__ = ["Calibrator"]

SEED = 2**61
"""Mixed into a stream of noise that neither training nor `evaluate` has."""
SAMPLES, IMAGES = 2048, 256
"""How many paths are solved, of low-dimensional problems and of others."""
BEST = 3
"""Times of handover at which other solvers are tried."""
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
        plans: dict[Plan, float] = {}
        for pieces in (1, *SPLITS) if ranked is not None else (1,):
            rows = None if ranked is None else ranked[: max(2, math.ceil(share / pieces * len(ranked)))]
            gains = self._gains(calls * pieces, rows)
            plans |= {replace(plan, share=share / pieces): gain * share / pieces for plan, gain in gains.items()}
        best = max(plans, key=lambda plan: plans[plan])
        return best if plans[best] > 0 else Plan(calls, self.problem.t_end)

    def _gains(self, calls: int, rows: Tensor | None) -> dict[Plan, float]:
        """By how much plans lower the mean squared error of all samples, or of some of them (m,) int64."""
        z, labels = self.noise
        rows = torch.arange(len(z), device=z.device) if rows is None else rows
        z, labels, exact = z[rows], None if labels is None else labels[rows], self.exact[rows]
        own = size(self.own[rows] - exact).square()

        def gain(plan: Plan) -> float:
            """By how much the mean square falls, less the standard error of that."""
            fall = own - size(carry(plan, self.student, self.problem, z, labels) - exact).square()
            return (fall.mean() - fall.std() / len(fall) ** 0.5).item()

        gains = {plan: gain(plan) for plan in first_plans(self.problem, calls)}
        for plan in sorted(gains, key=lambda plan: -gains[plan])[:BEST]:
            gains |= {other: gain(other) for other in variants(self.problem, plan)}
        return gains

    def certificate(self, calls: int) -> Certificate:
        """The estimate of errors with some extra calls."""
        z, labels = self.noise
        times = tuple(plan.t_star for plan in first_plans(self.problem, 2) if plan.t_star != self.problem.t_start)
        return certify(self.student, self.problem, z, self.own, self.exact, calls, times, labels)
