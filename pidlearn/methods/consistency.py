"""Consistency: f(x, s) = X(x; s -> t_min) is the same at every point of a path, so it need only agree with a neighbour.

    f(x, s) = f(x', u)        x at time s, x' at the next grid time u on the same path

`CD` takes x' from one solver step of the teacher. `CT` needs no teacher: it keeps the data point and the noise of x, an
unbiased step of the same path. `SCM` is the limit of neighbours that coincide: the derivative of f along the path is 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from pidlearn.equations.problem import Problem
from pidlearn.equations.solvers import SOLVERS
from pidlearn.losses.distances import Distance
from pidlearn.losses.time_sampling import draw_index
from pidlearn.methods.base import Batch, Context, Method
from pidlearn.students.base import Student
from pidlearn.students.build import build_flow_map
from pidlearn.students.flow_map import ConsistencyFunction, FlowMap
from pidlearn.utils.arguments import one_of
from pidlearn.utils.broadcast import expand_like
from pidlearn.utils.settings import Rule

__all__ = ["CD", "CT", "SCM", "consistency_loss", "tangent"]


def consistency_loss(
    student: FlowMap,
    x: Tensor,
    s: Tensor,
    x_next: Tensor,
    u: Tensor,
    distance: Distance,
    class_labels: Tensor | None = None,
) -> Tensor:
    """d(f(x, s), f(x', u)) without a gradient through the second, (B,); x and x' (B, *event) at times s and u (B,)."""
    t_min = torch.full_like(s, student.t_min)
    with torch.no_grad():
        target = student.carried(x_next, u, t_min, class_labels)
    return distance(student.carried(x, s, t_min, class_labels), target)


@dataclass
class CD(Method[Context]):
    """Consistency distillation (Song et al. 2023, arXiv 2303.01469, algorithm 2): x' is the teacher's solver step from x.

    Args:
        solver: euler | heun.
    """

    solver: str = "euler"

    needs: ClassVar[str] = "data"
    uses: ClassVar[Sequence[str]] = ("distance", "weight", "time_sampling")

    def rules(self) -> dict[str, Rule]:
        return {"solver": one_of("euler", "heun")}

    def defaults(self, problem: Problem, given: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"n": 40, "lr": 3e-3, "time_sampling": "lognormal"}

    def student(self, problem: Problem, init: str, windows: int) -> Student:
        return build_flow_map(problem, init, ConsistencyFunction, end_time=False)

    def begin(self, context: Context, first: bool) -> None:
        self.grid = context.time_grid()
        self.density = context.time_sampling(self.grid[:-1], context.problem.data_scale)

    def draw(self, context: Context, n: int, generator: torch.Generator) -> Batch:
        index = draw_index(self.density, n, generator)
        s, u = self.grid[index], self.grid[index + 1]
        x0, noise, labels = context.noised(s, generator)
        return x0, noise, s, u, labels

    def loss(self, context: Context, batch: Batch) -> Tensor:
        x0, noise, s, u, labels = batch
        x = x0 + expand_like(s, x0) * noise
        with torch.no_grad():
            x_next = self.neighbour(context, x0, noise, x, s, u, labels)
        losses = consistency_loss(context.student, x, s, x_next, u, context.distance, labels)
        return context.weight(s).to(losses) * losses

    def neighbour(
        self, context: Context, x0: Tensor, noise: Tensor, x: Tensor, s: Tensor, u: Tensor, labels: Tensor | None
    ) -> Tensor:
        """The point at time u on the path of x, (B, *event)."""
        return SOLVERS[self.solver]().step(lambda x, t: context.problem.ode.velocity(x, t, labels), x, s, u)


@dataclass
class CT(CD):
    """Consistency training (Song & Dhariwal 2024, arXiv 2310.14189): x' has the data and noise of x, at u.

    The grid becomes finer in stretches of equal length: neighbours that are far apart have little variance, those that
    are close little bias.

    Args:
        n_first: intervals of the first grid.
        n_last: intervals of the last, n_first times a power of 2.
    """

    n_first: int = 10
    n_last: int = 160

    def draw(self, context: Context, n: int, generator: torch.Generator) -> Batch:
        doublings = int(math.log2(self.n_last / self.n_first))
        intervals = self.n_first * 2 ** (context.step * (doublings + 1) // context.steps)
        problem = context.problem
        self.grid = context.spacing(n=intervals + 1, t_min=problem.t_end, t_max=problem.t_start)
        self.density = context.time_sampling(self.grid[:-1], problem.data_scale)
        return super().draw(context, n, generator)

    def neighbour(
        self, context: Context, x0: Tensor, noise: Tensor, x: Tensor, s: Tensor, u: Tensor, labels: Tensor | None
    ) -> Tensor:
        return x0 + expand_like(u, x0) * noise
