"""Regression on paths that the teacher's solver has taken: no identity, no derivative, but all paths in advance.

`Endpoint` learns the end of each path from its start. `Reflow` learns a new, straighter ODE that joins the same two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from pidlearn.equations.problem import Problem
from pidlearn.equations.solvers import SOLVERS, solve_end
from pidlearn.losses.distances import checked_distance
from pidlearn.methods.base import Batch, Context, Method
from pidlearn.students.base import Student
from pidlearn.students.build import as_flow_map, build_flow_map
from pidlearn.students.validate import check_flow_map
from pidlearn.utils.arguments import one_of
from pidlearn.utils.broadcast import expand_like
from pidlearn.utils.settings import SIZE, Rule

__all__ = ["Endpoint", "Reflow"]


@dataclass
class Endpoint(Method[Context]):
    """Endpoint regression, knowledge distillation (Luhman & Luhman 2021, arXiv 2101.02388): d(x(z, t_min), x0).

    x0 is where the solver ends from z, along the grid of n points.

    Args:
        pairs: pairs (z, x0), solved before the first step, and again when a run is resumed.
        solver: euler | heun | dpm | dpm++.
    """

    pairs: int = 32768
    solver: str = "euler"

    needs: ClassVar[str] = "paths"
    uses: ClassVar[Sequence[str]] = ("distance",)

    def rules(self) -> dict[str, Rule]:
        return {"pairs": SIZE, "solver": one_of(*SOLVERS)}

    def begin(self, context: Context, first: bool) -> None:
        generator = torch.Generator().manual_seed(context.seed)
        problem, grid = context.problem, context.time_grid()
        self.z = problem.sample_prior(self.pairs, generator)
        self.labels = problem.sample_labels(self.pairs, generator)
        self.x0 = solve_end(problem.ode, self.z, grid, self.solver, self.labels)

    def draw(self, context: Context, n: int, generator: torch.Generator) -> Batch:
        which = torch.randint(self.pairs, (n,), generator=generator, device=generator.device).to(self.z.device)
        return self.z[which], self.x0[which], None if self.labels is None else self.labels[which]

    def loss(self, context: Context, batch: Batch) -> Tensor:
        z, x0, labels = batch
        return checked_distance(context.distance, context.student(z, context.problem.t_end, labels), x0)


@dataclass
class Reflow(Endpoint):
    """2-rectified flow (Liu et al. 2023, arXiv 2209.03003): the flow that joins z and x0 by straight lines, on average.

    On the line between them, x = (s/T) z + (1 - s/T) x0, the student G(x, s) predicts x0. Where lines cross it predicts
    the mean of theirs, so the new paths are not straight, but straighter than the teacher's. Their velocity is
    (x - G) / s, and one Euler step along it is a step of a `FlowMap` whose network takes s alone.

    Args:
        at_start: share of the batch at s = T, all that one call depends on.
    """

    at_start: float = 0.25

    def student(self, problem: Problem, init: str, windows: int) -> Student:
        return build_flow_map(problem, init, end_time=False)

    def wrap(self, network: nn.Module, problem: Problem) -> Student:
        return as_flow_map(network, problem)

    def check(self, context: Context) -> None:
        check_flow_map(context.student, context.problem)

    def draw(self, context: Context, n: int, generator: torch.Generator) -> Batch:
        tau = torch.rand(n, generator=generator, dtype=torch.float64, device=generator.device)
        at_start = torch.rand(n, generator=generator, device=generator.device) < self.at_start
        return *super().draw(context, n, generator), torch.where(at_start, 1.0, tau).to(self.z.device)

    def loss(self, context: Context, batch: Batch) -> Tensor:
        z, x0, labels, tau = batch
        # tau = 0 .. 1 is the time of the line between z / T and x0, which have comparable scales.
        T = context.problem.t_start
        s = (tau / (1 - tau + tau / T)).clamp(min=context.problem.t_end)
        line = expand_like(s / T, z)
        x = line * z + (1 - line) * x0
        G = context.student.denoised(x, s, s, labels)
        # The velocity of the line in tau is z / T - x0, and the student's (y - G) / tau with y on the line.
        weight = expand_like(1 / tau.clamp(min=context.problem.t_end), z)
        return checked_distance(context.distance, weight * G, weight * x0)
