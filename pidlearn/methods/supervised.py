"""Regression on paths that the teacher's solver has taken: no identity, no derivative, but many paths to solve.

`Endpoint` learns the end of each path from its start, and `DSNO` its states at M times in parallel. `Reflow` learns a
new, straighter ODE that joins start and end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pidlearn.equations.diffusion import Diffusion
from pidlearn.equations.problem import Problem
from pidlearn.equations.solvers import SOLVERS, solve_end
from pidlearn.losses.distances import Distance, checked_distance
from pidlearn.methods.base import Batch, Context, Method
from pidlearn.students.base import Student
from pidlearn.students.boundaries import TIMES
from pidlearn.students.build import (
    as_flow_map,
    as_operator,
    as_trajectory,
    build_flow_map,
    build_operator,
    build_student,
)
from pidlearn.students.operator import NeuralOperator
from pidlearn.students.trajectory import Trajectory
from pidlearn.students.validate import check_flow_map, check_path_student
from pidlearn.utils.arguments import count, number, one_of, optional
from pidlearn.utils.broadcast import expand_like
from pidlearn.utils.random import mixed
from pidlearn.utils.settings import SIZE, Rule

__all__ = ["DSNO", "Endpoint", "Reflow", "operator_loss"]

PAIRS = 2**62
"""Mixed with the run's seed for the starts of the pairs, a stream that nothing else has: `evaluate` with the run's seed
would otherwise measure the student on the pairs that it was trained on."""

BLOCK = 256
"""Pairs that a step solves at least: fewer take as long where networks are small, in each of a few hundred calls."""


@dataclass
class Endpoint(Method[Context]):
    """Endpoint regression, knowledge distillation (Luhman & Luhman 2021, arXiv 2101.02388): d(x(z, t_min), x0).

    x0 is where the solver ends from z, along the grid of n points. Only the end of the student is trained, so what is
    built is a straight line to it: the network takes ``time="end"``.

    The first steps solve some pairs each and draw among those that are solved, so that a run can be stopped, saved and
    resumed in between.

    Args:
        pairs: pairs (z, x0) in total.
        solver: euler | heun | dpm | dpm++; None for euler on low-dimensional problems, and for dpm++ on others. There n
            is 18 with dpm++ unless it is set: with 250 the paths would take far longer than the training.
    """

    pairs: int = 32768
    solver: str | None = None

    needs: ClassVar[str] = "paths"
    uses: ClassVar[Sequence[str]] = ("distance",)

    def rules(self) -> dict[str, Rule]:
        return {"pairs": SIZE, "solver": optional(one_of(*SOLVERS))}

    def defaults(self, problem: Problem, given: Mapping[str, Any]) -> Mapping[str, Any]:
        if problem.is_low_dimensional:
            return {"lr": 6e-3}  # with targets that stay, a larger one than others
        return {"n": 18} if self.solver_for(problem) == "dpm++" else {}

    def solver_for(self, problem: Problem) -> str:
        """The name of the solver of a problem's paths."""
        return self.solver or ("euler" if problem.is_low_dimensional else "dpm++")

    def student(self, problem: Problem, init: str, windows: int) -> Student:
        return _straight(build_student(problem, init, windows))

    def wrap(self, network: nn.Module, problem: Problem) -> Student:
        return _straight(as_trajectory(network, problem))

    def check(self, context: Context) -> None:
        if not isinstance(context.problem, Diffusion):
            raise ValueError(
                "got an ODE from given initial values, whose student is its whole path, but endpoint regression trains "
                "the end of a path alone: use the method pid"
            )
        check_path_student(context.student, context.problem, soft_boundary=False, end_only=True)

    def begin(self, context: Context, first: bool) -> None:
        generator = torch.Generator().manual_seed(mixed(context.seed, PAIRS))
        problem = context.problem
        self.z = problem.sample_prior(self.pairs, generator)
        self.labels = problem.sample_labels(self.pairs, generator)
        self.solved, self.count, self.wanted = torch.empty(0), 0, self.pairs

    def solve(self, context: Context, z: Tensor, labels: Tensor | None) -> Tensor:
        """What the student learns about the path from each z (B, *event), (B, ...)."""
        return solve_end(context.problem.ode, z, context.time_grid(), self.solver_for(context.problem), labels)

    def draw(self, context: Context, n: int, generator: torch.Generator) -> Batch:
        if self.count < self.wanted:
            rows = slice(self.count, self.count + max(n, BLOCK))
            self._keep(self.solve(context, self.z[rows], None if self.labels is None else self.labels[rows]))
        which = torch.randint(self.count, (n,), generator=generator, device=generator.device).to(self.z.device)
        return self.z[which], self.solved[which], None if self.labels is None else self.labels[which]

    def _keep(self, solved: Tensor) -> None:
        """Append what the next of the pairs have been solved to, (B, ...)."""
        if not self.count:  # room for all, (pairs, ...), so that nothing is copied when more are solved
            self.solved = solved.new_empty(self.pairs, *solved.shape[1:])
        self.solved[self.count : self.count + len(solved)] = solved
        self.count += len(solved)

    def skip_preparation(self, n: int) -> int:
        left, self.wanted = self.wanted - self.count, 1
        return math.ceil(left / max(n, BLOCK))

    def state_dict(self) -> dict[str, Any]:
        return {"solved": self.solved[: self.count]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        # Files of runs that solved all pairs before their first step hold none.
        if len(solved := state.get("solved", ())):
            self._keep(solved.to(self.z.device))

    def loss(self, context: Context, batch: Batch) -> Tensor:
        z, x0, labels = batch
        return checked_distance(context.distance, context.student(z, context.problem.t_end, labels), x0)


def _straight(student: Student) -> Student:
    """A diffusion's path student whose path is the straight line to its end, with the same end."""
    if isinstance(student, Trajectory) and student.time is TIMES["log"]:
        student.time = TIMES["end"]
    return student


def operator_loss(
    student: NeuralOperator, z: Tensor, path: Tensor, distance: Distance, class_labels: Tensor | None = None
) -> Tensor:
    """d(F, (x - a z) / b) at all M times, (M B,): how far the operator's path is from a solved one.

    F is what the network returns, in x = a z + b F, and has the size of the data at every time: with x itself the loss
    would be that of the first times, whose states are the largest.

    Args:
        student: the operator.
        z: (B, *event), the starts.
        path: (M, B, *event), the states from z at the student's times.
        distance: between two F, (M B, *event) each.
        class_labels: (B,) int64 or None.
    """
    F = student.learned(z, class_labels)
    return checked_distance(distance, F.flatten(0, 1), student.target(z, path).flatten(0, 1))


@dataclass
class DSNO(Endpoint):
    """A neural operator on the teacher's paths (Zheng et al. 2022, arXiv 2211.13449): z to x(z, t_1) ... x(z, t_M).

    Its network computes all M states in parallel, and temporal layers join them. Only the last is the sample: the
    others are further targets, from the same solved paths.

    Args:
        times: M, unless a student with times of its own is passed. They lie on Karras' grid, and from one to the next
            the solver takes (n - 1) / M steps, rounded up.
    """

    times: int = 4

    def rules(self) -> dict[str, Rule]:
        return {**super().rules(), "times": count(2)}

    def defaults(self, problem: Problem, given: Mapping[str, Any]) -> Mapping[str, Any]:
        # A sample is M rows of the network's batch.
        return {**super().defaults(problem, given), "batch_size": 64}

    def student(self, problem: Problem, init: str, windows: int) -> Student:
        return build_operator(problem, init, self.times)

    def wrap(self, network: nn.Module, problem: Problem) -> Student:
        return as_operator(network, problem, self.times)

    def check(self, context: Context) -> None:
        check_flow_map(context.student, context.problem, NeuralOperator)
        if self.times not in (DSNO.times, len(context.student.times)):
            raise ValueError(
                f"got times = {self.times}, but the student has {len(context.student.times)}: leave times out, or pass "
                f"another student"
            )

    def solve(self, context: Context, z: Tensor, labels: Tensor | None) -> Tensor:
        """The states at the student's times, (B, M, *event)."""
        problem, times = context.problem, context.student.times
        steps, x, states = math.ceil((context.n - 1) / len(times)), z, []
        # From time to time, so that of the whole paths no more than these states is in memory.
        for s, t in pairwise([context.student.t_max, *times]):
            grid = replace(problem, t_start=s, t_end=t).time_grid(steps + 1, context.spacing)
            x = solve_end(problem.ode, x, grid, self.solver_for(problem), labels)
            states.append(x)
        return torch.stack(states, 1)

    def loss(self, context: Context, batch: Batch) -> Tensor:
        z, path, labels = batch
        return operator_loss(context.student, z, path.transpose(0, 1), context.distance, labels)


@dataclass
class Reflow(Endpoint):
    """2-rectified flow (Liu et al. 2023, arXiv 2209.03003): the flow that joins z and x0 by straight lines, on average.

    On the line between them, x = (s/T) z + (1 - s/T) x0, the student G(x, s) predicts x0. Where lines cross it predicts
    the middle of theirs (the mean if the distance is l2), so the new paths are not straight, but straighter than the
    teacher's. Their velocity is (x - G) / s, and one Euler step along it is a step of a `FlowMap` whose network takes s
    alone.

    Args:
        at_start: share of the batch at s = T, all that one call depends on.
    """

    at_start: float = 0.25

    def rules(self) -> dict[str, Rule]:
        return {**super().rules(), "at_start": number(0, 1)}

    def student(self, problem: Problem, init: str, windows: int) -> Student:
        return build_flow_map(problem, init, end_time=False)

    def wrap(self, network: nn.Module, problem: Problem) -> Student:
        return as_flow_map(network, problem)

    def check(self, context: Context) -> None:
        check_flow_map(context.student, context.problem, end_time=False)

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
