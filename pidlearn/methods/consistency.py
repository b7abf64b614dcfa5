"""Consistency: f(x, s) = X(x; s -> t_min) is the same at every point of a path, so it need only agree with a neighbour.

    f(x, s) = f(x', u)        x at time s, x' at the next grid time u on the same path

`CD` takes x' from one solver step of the teacher. `CT` needs no teacher: it keeps the data point and the noise of x, an
unbiased step. `SCM` is the limit of neighbours that coincide: along the path, the derivative of f is 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pidlearn.equations.ode import ODE
from pidlearn.equations.problem import Problem
from pidlearn.equations.solvers import SOLVERS
from pidlearn.losses.distances import Distance, checked_distance
from pidlearn.losses.time_sampling import draw_index
from pidlearn.losses.weighting import checked_weight
from pidlearn.methods.base import Batch, Context, Method
from pidlearn.students.base import Student
from pidlearn.students.build import as_flow_map, build_flow_map
from pidlearn.students.flow_map import ConsistencyFunction, FlowMap
from pidlearn.students.validate import check_flow_map
from pidlearn.utils.arguments import number, one_of
from pidlearn.utils.broadcast import expand_like
from pidlearn.utils.settings import SIZE, Rule

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
    """d(f(x, s), f(x', u)) with the second held constant, (B,); x and x' are (B, *event) at times s and u (B,)."""
    t_min = torch.full_like(s, student.t_min)
    with torch.no_grad():
        target = student.carried(x_next, u, t_min, class_labels)
    return checked_distance(distance, student.carried(x, s, t_min, class_labels), target)


@dataclass
class Consistency(Method[Context]):
    """What the three methods share. Their targets come from the student itself, without an average."""

    needs: ClassVar[str] = "data"
    uses: ClassVar[Sequence[str]] = ("distance", "weight", "time_sampling")

    def defaults(self, problem: Problem, given: Mapping[str, Any]) -> Mapping[str, Any]:
        # Where s is small, the error of f is s times that of the network: with one weight it is learned least well.
        lr = 3e-3 if problem.is_low_dimensional else 1e-3
        return {"n": 40, "lr": lr, "time_sampling": "lognormal", "weight": "sqrt_karras"}

    def student(self, problem: Problem, init: str, windows: int) -> Student:
        return build_flow_map(problem, init, ConsistencyFunction, end_time=False)

    def wrap(self, network: nn.Module, problem: Problem) -> Student:
        return as_flow_map(network, problem, ConsistencyFunction)

    def check(self, context: Context) -> None:
        check_flow_map(context.student, context.problem, ConsistencyFunction, end_time=False)

    def begin(self, context: Context, first: bool) -> None:
        self.grid = context.time_grid()
        checked_weight(context.weight, self.grid[:-1])  # all of it: a batch may miss the time where it is infinite
        self.density = context.density(self.grid[:-1])

    def draw(self, context: Context, n: int, generator: torch.Generator) -> Batch:
        index = draw_index(self.density, n, generator)
        s, u = self.grid[index], self.grid[index + 1]
        x0, noise, labels = context.noised(s, generator)
        return x0, noise, s, u, labels


@dataclass
class CD(Consistency):
    """Consistency distillation (Song et al. 2023, arXiv 2303.01469, algorithm 2): x' is the teacher's step from x.

    Args:
        solver: heun, as in the paper, or euler, which has half the teacher's calls but learns its own ends, not the
            ODE's.
    """

    solver: str = "heun"

    def rules(self) -> dict[str, Rule]:
        return {"solver": one_of("heun", "euler")}

    def loss(self, context: Context, batch: Batch) -> Tensor:
        x0, noise, s, u, labels = batch
        ode, student = context.problem.ode, context.student
        x = x0 + expand_like(s, x0) * noise
        with torch.no_grad():
            x_next = SOLVERS[self.solver]().step(lambda x, t: ode.velocity(x, t, labels), x, s, u)
        return checked_weight(context.weight, s) * consistency_loss(student, x, s, x_next, u, context.distance, labels)


@dataclass
class CT(Consistency):
    """Consistency training (Song & Dhariwal 2024, arXiv 2310.14189): x' has the data point and the noise of x, at u.

    Its target is right on average only: the variance biases f, the more the farther apart the neighbours are; so the
    grid becomes finer, in stretches of equal length. The weight is that of `Config`, not the paper's 1 / (s - u).

    Args:
        n_first: intervals of the first grid. Their number is doubled up to the n - 1 of the last, which is the only one
            if it has no more than that.
    """

    n_first: int = 10

    def rules(self) -> dict[str, Rule]:
        return {"n_first": SIZE}

    def defaults(self, problem: Problem, given: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**super().defaults(problem, given), "n": 161}

    def draw(self, context: Context, n: int, generator: torch.Generator) -> Batch:
        most = context.n - 1
        grids = 1 + max(0, math.ceil(math.log2(most / self.n_first)))
        intervals = min(most, self.n_first * 2 ** (context.step * grids // context.stage.steps))
        if len(self.grid) != intervals + 1:
            self.grid = context.time_grid(intervals + 1)
            self.density = context.density(self.grid[:-1])
        return super().draw(context, n, generator)

    def loss(self, context: Context, batch: Batch) -> Tensor:
        x0, noise, s, u, labels = batch
        x, x_next = (x0 + expand_like(t, x0) * noise for t in (s, u))
        return checked_weight(context.weight, s) * consistency_loss(
            context.student, x, s, x_next, u, context.distance, labels
        )


def tangent(
    student: FlowMap, ode: ODE, x: Tensor, s: Tensor, class_labels: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """f(x, s), and its derivative df/dln s along the teacher's path through x, (B, *event) each.

    With f = (e/s) x + (1 - e/s) G, e = t_min, and s dx/ds = x - D:

        df/dln s = (e/s) (G - D) + (1 - e/s) dG/dln s
    """
    t_min = torch.full_like(s, student.t_min)
    with torch.no_grad():
        D = ode.rhs(x, s, class_labels)
    G, dG = student.denoised_jvp(x, s, t_min, x - D, class_labels)
    e = expand_like(t_min / s, x)
    return e * x + (1 - e) * G, (e * (G - D) + (1 - e) * dG).detach()


@dataclass
class SCM(Consistency):
    """Continuous-time consistency distillation (Lu & Song 2025, arXiv 2410.11081).

    The gradient of |f - (f - df/dln s)|^2 with the second f held constant: a step against the derivative of f along the
    path, whose size is limited, g / (|g| + c), since its variance is large. Both are in units of s / (s^2 +
    sigma_data^2)^(1/2), EDM's c_out up to a factor, and |g| is the root mean square over the coordinates, so that c
    means the same for a point and for an image. The paper's warm-up of the tangent and its learned weight are left out.

    Args:
        c: the size of a derivative below which it is not normalised; the paper's 0.1.
    """

    c: float = 0.1

    uses: ClassVar[Sequence[str]] = ("weight", "time_sampling")

    def defaults(self, problem: Problem, given: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**super().defaults(problem, given), "weight": "uniform", "n": 1000}  # times only, without neighbours

    def rules(self) -> dict[str, Rule]:
        return {"c": number(positive=True)}

    def forward_mode(self, context: Context) -> bool:
        return True

    def loss(self, context: Context, batch: Batch) -> Tensor:
        x0, noise, s, _, labels = batch
        x = x0 + expand_like(s, x0) * noise
        unit = expand_like(s / (s**2 + context.student.sigma_data**2).sqrt(), x)
        f, g = (value / unit for value in tangent(context.student, context.problem.ode, x, s, labels))
        size = g.flatten(1).square().mean(1).sqrt()  # (B,)
        g = g / expand_like(size + self.c, g)
        return checked_weight(context.weight, s) * (f - f.detach() + g).square().flatten(1).mean(1)
