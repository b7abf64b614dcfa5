"""Kin of PID: the same residual along the student's own path, with other parts of it held constant.

With x(z, t) = (t/T) z + y(z, t), and u < t the next grid time, the forward residual of PID's Eq. 9 is

    (y_u - (u/t) y_t) / (1 - u/t) - D(x_t, t)

PID differentiates y_u and y_t. `BOOT` holds y_t constant, as the start of one step of the teacher to y_u. `FreeFlow`
takes the derivative in time exactly, and holds it constant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pidlearn.equations.diffusion import Diffusion
from pidlearn.equations.ode import ODE
from pidlearn.equations.problem import Problem
from pidlearn.losses.distances import Distance, checked_distance
from pidlearn.losses.time_sampling import draw_index
from pidlearn.losses.weighting import checked_weight
from pidlearn.methods.base import Batch, Context, Method
from pidlearn.students.base import Student
from pidlearn.students.boundaries import BOUNDARIES
from pidlearn.students.build import as_trajectory, build_student
from pidlearn.students.trajectory import Trajectory
from pidlearn.students.validate import check_path_student
from pidlearn.utils.broadcast import expand_like
from pidlearn.utils.settings import Rule, is_number
from pidlearn.utils.validation import summary

__all__ = ["BOOT", "FreeFlow", "boot_loss", "freeflow_loss"]


def boot_loss(
    trajectory: Trajectory,
    ode: ODE,
    z: Tensor,
    t: Tensor,
    u: Tensor,
    distance: Distance,
    class_labels: Tensor | None = None,
) -> Tensor:
    """d(y_u, (u/t) y_t + (1 - u/t) D(x_t, t)) with y_t held constant, both over 1 - u/t; (B,) at times t > u (B,).

    Divided so, the difference of the two sides is PID's residual.
    """
    ratio = expand_like(u / t, z)
    length = expand_like(1 - u / t, z)  # from float64: it cancels where u is close to t
    with torch.no_grad():
        (y,) = trajectory.learned_term(z, t, class_labels=class_labels)
        a, _ = trajectory.skip_term(t)
        D = ode.rhs(expand_like(a, z) * z + y, t, class_labels)
    (y_u,) = trajectory.learned_term(z, u, class_labels=class_labels)
    return checked_distance(distance, y_u / length, ratio / length * y + D)


def freeflow_loss(
    trajectory: Trajectory, ode: ODE, z: Tensor, t: Tensor, distance: Distance, class_labels: Tensor | None = None
) -> Tensor:
    """d(F, D(x, t) + t b dF/dt) with all but F held constant, (B,): x = (t/T) z + b F with b = 1 - t/T.

    Its value is that of PID's residual F - t b dF/dt - D with the exact derivative.
    """
    (y,), (dy,) = trajectory.learned_term_jvp(z, t, class_labels=class_labels)  # y = b F
    a, _ = trajectory.skip_term(t)
    with torch.no_grad():
        D = ode.rhs(expand_like(a, z) * z + y, t, class_labels)
    b = expand_like(1 - t / trajectory.t_max, z)
    F = y / b
    residual = y - expand_like(t, z) * dy - D  # F - t b dF/dt - D, since y - t dy/dt = F (b + t/T) - t b dF/dt
    return checked_distance(distance, F, (F - residual).detach())


@dataclass
class OwnPath(Method[Context]):
    """What both methods share: starts from the prior, at times of the grid."""

    uses: ClassVar[Sequence[str]] = ("distance", "weight", "time_sampling")

    def defaults(self, problem: Problem, given: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"n": 250, "time_sampling": "lognormal"}

    def check(self, context: Context) -> None:
        if not isinstance(context.problem, Diffusion):
            raise ValueError(
                f"got an ODE from given initial values, but {type(self).__name__} needs the denoiser of a diffusion: "
                f"use the method pid"
            )
        if not isinstance(context.student, Trajectory):
            raise ValueError(
                f"got a {summary(context.student)} as student, but {type(self).__name__} trains a Trajectory of a "
                f"diffusion: pass one, or none"
            )
        check_path_student(context.student, context.problem, soft_boundary=self.is_soft)
        if context.student.boundary is not BOUNDARIES["signal" if self.is_soft else "hard"]:
            name = getattr(context.student.boundary, "__name__", "of your own")
            raise ValueError(
                f"got a Trajectory with the boundary {name}, but the equation of {type(self).__name__} holds for "
                f"{'signal' if self.is_soft else 'hard'} only: build it with that boundary, or pass none"
            )

    @property
    def is_soft(self) -> bool:
        """Whether the student need not start at z."""
        return False

    def begin(self, context: Context, first: bool) -> None:
        self.grid = context.time_grid()
        self.density = context.density(self.grid[:-1])

    def draw(self, context: Context, n: int, generator: torch.Generator) -> Batch:
        index = draw_index(self.density, n, generator)
        problem = context.problem
        z, labels = problem.sample_prior(n, generator), problem.sample_labels(n, generator)
        return z, self.grid[index], self.grid[index + 1], labels


@dataclass
class BOOT(OwnPath):
    """BOOT (Gu et al. 2023, arXiv 2306.05544): bootstrapping along the student's own path, without data.

    Args:
        boundary_weight: 0 for a hard boundary; otherwise the student is y alone, as in the paper, and this is the
            weight of its start, d(y(z, T), D(z, T)).
    """

    boundary_weight: float = 0.0

    solves_grid: ClassVar[bool] = True

    def rules(self) -> dict[str, Rule]:
        return {"boundary_weight": (lambda v: is_number(v) and v >= 0, "a number of at least 0")}

    @property
    def is_soft(self) -> bool:
        return self.boundary_weight > 0

    def begin(self, context: Context, first: bool) -> None:
        super().begin(context, first)
        checked_weight(context.weight, self.grid[:-1])

    def student(self, problem: Problem, init: str, windows: int) -> Student:
        return self._bounded(build_student(problem, init, windows))

    def wrap(self, network: nn.Module, problem: Problem) -> Student:
        return self._bounded(as_trajectory(network, problem))

    def _bounded(self, student: Student) -> Student:
        if self.is_soft and isinstance(student, Trajectory):
            student.boundary = BOUNDARIES["signal"]
        return student

    def loss(self, context: Context, batch: Batch) -> Tensor:
        z, t, u, labels = batch
        student, ode, distance = context.student, context.problem.ode, context.distance
        losses = checked_weight(context.weight, t) * boot_loss(student, ode, z, t, u, distance, labels)
        if self.is_soft:
            T = torch.full_like(t, student.t_max)
            (y,) = student.learned_term(z, T, class_labels=labels)
            with torch.no_grad():
                D = ode.rhs(z, T, labels)
            losses = losses + self.boundary_weight * distance(y, D)
        return losses


@dataclass
class FreeFlow(OwnPath):
    """The prediction part of FreeFlow (2025, arXiv 2511.19428): PID's residual, differentiated through F alone."""

    def forward_mode(self, context: Context) -> bool:
        return True

    def begin(self, context: Context, first: bool) -> None:
        super().begin(context, first)
        times = self.grid[1:]  # those below T, where b = 0
        self.density = context.density(times)
        checked_weight(context.weight, times)

    def draw(self, context: Context, n: int, generator: torch.Generator) -> Batch:
        z, _, u, labels = super().draw(context, n, generator)
        return z, u, labels

    def loss(self, context: Context, batch: Batch) -> Tensor:
        z, t, labels = batch
        losses = freeflow_loss(context.student, context.problem.ode, z, t, context.distance, labels)
        return checked_weight(context.weight, t) * losses
