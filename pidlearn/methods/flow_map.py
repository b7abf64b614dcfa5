"""Flow maps X(x; s -> t) for all s > t, by one of the identities that define them.

    lagrangian   dX/dt = f(X, t)                     along the end of the step: PID from any start
    eulerian     X(x; s -> t) = X(x'; u -> t)        along its start: x' is one step of the teacher from x
    semigroup    X(x; s -> t) = X(X(x; s -> m); m -> t)      two steps are one ("shortcut")
    meanflow     dX/ds + (dX/dx) f(x, s) = 0         the Eulerian one in the limit of u = s

All are stated for G in X = (t/s) x + (1 - t/s) G (see `FlowMap`): x cancels, and every term has the size of the data.
Two steps in a row, towards G and then towards G', are one step towards a mean of the two:

    (1 - t/s) G'' = (t/m) (1 - m/s) G + (1 - t/m) G'                                                        `joined`
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pidlearn.equations.ode import ODE
from pidlearn.equations.problem import Problem
from pidlearn.losses.distances import Distance, checked_distance
from pidlearn.losses.time_sampling import draw_index
from pidlearn.methods.base import Batch, Context, Method
from pidlearn.students.base import Student
from pidlearn.students.build import as_flow_map, build_flow_map
from pidlearn.students.flow_map import FlowMap, joined, step
from pidlearn.students.validate import check_flow_map
from pidlearn.utils.arguments import number, one_of
from pidlearn.utils.broadcast import expand_like
from pidlearn.utils.settings import Rule

__all__ = ["FlowMapping", "eulerian_loss", "lagrangian_loss", "meanflow_loss", "semigroup_loss"]


def lagrangian_loss(
    student: FlowMap,
    ode: ODE,
    x: Tensor,
    s: Tensor,
    t: Tensor,
    u: Tensor,
    distance: Distance,
    class_labels: Tensor | None = None,
) -> Tensor:
    """The residual of PID's Eq. 9 at t, of the path that starts at (x, s), by the difference to u; s >= t > u, (B,).

    X - t dX/dt = D(X, t)        with dX/dt = (X_t - X_u) / (t - u)
    """
    labels = None if class_labels is None else class_labels.repeat(2)
    twice = x.repeat(2, *[1] * (x.ndim - 1))
    G_t, G_u = student.denoised(twice, s.repeat(2), torch.cat([t, u]), labels).chunk(2)
    # (t/s) x cancels: X - t dX/dt = (t X_u - u X_t) / (t - u) = a G_u - (a - 1) G_t.
    a = expand_like(t * (1 - u / s) / (t - u), x)
    with torch.no_grad():
        D = ode.rhs(step(x, s, t, G_t), t, class_labels)
    return checked_distance(distance, a * G_u - (a - 1) * G_t, D)


def eulerian_loss(
    student: FlowMap,
    ode: ODE,
    x: Tensor,
    s: Tensor,
    u: Tensor,
    t: Tensor,
    distance: Distance,
    class_labels: Tensor | None = None,
) -> Tensor:
    """G(x, s, t) against the teacher's Euler step to u and the student's own to t, held constant; s > u >= t, (B,)."""
    with torch.no_grad():
        D = ode.rhs(x, s, class_labels)
        target = joined(D, student.denoised(step(x, s, u, D), u, t, class_labels), s, u, t)
    return checked_distance(distance, student.denoised(x, s, t, class_labels), target)


def semigroup_loss(
    student: FlowMap,
    ode: ODE,
    x: Tensor,
    s: Tensor,
    m: Tensor,
    t: Tensor,
    is_short: Tensor,
    distance: Distance,
    class_labels: Tensor | None = None,
) -> Tensor:
    """G(x, s, t) against the student's two steps over m, held constant; or the teacher's, where ``is_short`` (B,)."""
    with torch.no_grad():
        short = expand_like(is_short, x).bool()
        G = torch.where(short, ode.rhs(x, s, class_labels), student.denoised(x, s, m, class_labels))
        x_m = step(x, s, m, G)
        G_m = torch.where(short, ode.rhs(x_m, m, class_labels), student.denoised(x_m, m, t, class_labels))
        target = joined(G, G_m, s, m, t)
    return checked_distance(distance, student.denoised(x, s, t, class_labels), target)


def meanflow_loss(
    student: FlowMap, ode: ODE, x: Tensor, s: Tensor, t: Tensor, class_labels: Tensor | None = None, c: float = 1e-2
) -> Tensor:
    """MeanFlow (Geng et al. 2025, arXiv 2505.13447) with the teacher's velocity, (B,).

    With tau = s / (1 + s), r = t / (1 + t), y = x / (1 + s) and the mean velocity u = (y - G) / tau of y from tau to r:

        u = v - (tau - r) du/dtau        v = (y - D) / tau

    For G, that is G = G - (1 + s) / (1 + t) dX/dln s. The squared error e is weighted by 1 / (e + c).
    """
    with torch.no_grad():
        D = ode.rhs(x, s, class_labels)
    G, dG = student.denoised_jvp(x, s, t, x - D, class_labels)
    share = expand_like(t / s, x)
    along = share * (G - D) + (1 - share) * dG  # dX/dln s along the teacher's path
    target = G - expand_like((1 + s) / (1 + t), x) * along
    error = ((G - target.detach()) / expand_like(s / (1 + s), x)).square().flatten(1).mean(1)
    return error / (error.detach() + c)


@dataclass
class FlowMapping(Method[Context]):
    """A flow map, by one of the identities above (Boffi et al. 2024 and 2025, arXiv 2406.07507 and 2505.18825).

    Args:
        identity: lagrangian | eulerian | semigroup | meanflow.
        points: where the steps start: "own", at X(z; T -> s), which needs no data, or "data", with noise.
        at_end: share of the batch whose steps start at T (lagrangian) or end at t_min (eulerian, meanflow): one call is
            those.
    """

    identity: str = "lagrangian"
    points: str = "own"
    at_end: float = 0.25

    uses: ClassVar[Sequence[str]] = ("distance", "time_sampling")

    @property
    def needs(self) -> str:  # type: ignore[override]  # of the class elsewhere; here it follows from a setting
        """Noise, or data to start from."""
        return "noise" if self.points == "own" else "data"

    def rules(self) -> dict[str, Rule]:
        return {
            "identity": one_of("lagrangian", "eulerian", "semigroup", "meanflow"),
            "points": one_of("own", "data"),
            "at_end": number(0, 1),
        }

    def forward_mode(self, context: Context) -> bool:
        return self.identity == "meanflow"

    def defaults(self, problem: Problem, given: Mapping[str, Any]) -> Mapping[str, Any]:
        n = {"lagrangian": 250, "eulerian": 80, "semigroup": 17, "meanflow": 250}[self.identity]
        return {"n": n, "time_sampling": "lognormal"}

    def student(self, problem: Problem, init: str, windows: int) -> Student:
        return build_flow_map(problem, init, end_time=True)

    def wrap(self, network: nn.Module, problem: Problem) -> Student:
        return as_flow_map(network, problem)

    def check(self, context: Context) -> None:
        check_flow_map(context.student, context.problem, end_time=True)

    def begin(self, context: Context, first: bool) -> None:
        self.grid = context.time_grid()
        # With a time between any two, for the semigroup's m: grid[i] is fine[2 i].
        self.fine = context.problem.time_grid(2 * context.n - 1, context.spacing)
        self.density = context.density(self.grid[:-1])

    def draw(self, context: Context, n: int, generator: torch.Generator) -> Batch:
        last, device = len(self.grid) - 1, generator.device
        one = draw_index(self.density, n, generator)  # (n,): an interval of the grid, from one to one + 1
        share = torch.rand(n, generator=generator, dtype=torch.float64, device=device)
        at_end = torch.rand(n, generator=generator, device=device) < self.at_end
        is_short = None
        if self.identity == "lagrangian":  # the interval is where the step ends
            start = torch.where(at_end, 0, (share * (one + 1)).long())
            times = self.grid[start], self.grid[one], self.grid[one + 1]
        else:  # it is where the step starts
            left = last - one
            if self.identity == "semigroup":
                # Log-uniform lengths: each doubling rests on all shorter ones, and on the teacher's at the bottom.
                end = one + (left**share).long()
                middle = self.fine[one + end]
            else:
                end = torch.where(at_end, last, one + 1 + (share * left).long())
                middle = self.grid[one + 1]
            times, is_short = (self.grid[one], middle, self.grid[end]), end == one + 1
        if self.points == "data":
            x0, noise, labels = context.noised(times[0], generator)
            return x0 + expand_like(times[0], x0) * noise, labels, is_short, *times
        z = context.problem.sample_prior(n, generator)
        return z, context.problem.sample_labels(n, generator), is_short, *times

    def loss(self, context: Context, batch: Batch) -> Tensor:
        x, labels, is_short, s, m, t = batch
        student, ode, distance = context.student, context.problem.ode, context.distance
        if self.points == "own":
            T = torch.full_like(s, student.t_max)
            with torch.no_grad():
                x = student.carried(x, T, s, labels)  # x itself where s = T
        if self.identity == "lagrangian":
            return lagrangian_loss(student, ode, x, s, m, t, distance, labels)
        if self.identity == "eulerian":
            return eulerian_loss(student, ode, x, s, m, t, distance, labels)
        if self.identity == "semigroup":
            return semigroup_loss(student, ode, x, s, m, t, is_short, distance, labels)
        return meanflow_loss(student, ode, x, s, t, labels)
