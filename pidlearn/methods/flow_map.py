"""Flow maps X(x; s -> t) for all s > t, by one of the identities that define them.

    lagrangian   dX/dt = f(X, t)                     along the end of the step: PID from any start
    eulerian     X(x; s -> t) = X(x'; u -> t)        along its start: x' is one step of the teacher from x
    semigroup    X(x; s -> t) = X(X(x; s -> m); m -> t)      two steps are one (shortcut models: Frans et al. 2024,
                                                             arXiv 2410.12557; there the shortest are learned from data)
    meanflow     dX/ds + (dX/dx) f(x, s) = 0         the Eulerian one in the limit of u = s

All are stated for G in X = (t/s) x + (1 - t/s) G (see `FlowMap`): x cancels, and every term has the size of the data.
Two steps in a row, towards G and then towards G', are one step towards a mean of the two:

    (1 - t/s) G'' = (t/m) (1 - m/s) G + (1 - t/m) G'                                                        `joined`
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pidlearn.equations.grids import karras_grid
from pidlearn.equations.ode import ODE
from pidlearn.equations.problem import Problem
from pidlearn.losses.distances import Distance, checked_distance
from pidlearn.losses.time_sampling import draw_index
from pidlearn.losses.weighting import checked_weight
from pidlearn.methods.base import Batch, Context, Method
from pidlearn.students.base import Student
from pidlearn.students.build import as_flow_map, build_flow_map
from pidlearn.students.flow_map import FlowMap, goal, joined, step
from pidlearn.students.validate import check_flow_map
from pidlearn.utils.arguments import number, one_of
from pidlearn.utils.broadcast import expand_like
from pidlearn.utils.settings import Rule

__all__ = ["FlowMapping", "eulerian_loss", "lagrangian_loss", "meanflow_loss", "semigroup_loss"]


def lagrangian_loss(
    student: FlowMap, ode: ODE, x: Tensor, times: Sequence[Tensor], distance: Distance, labels: Tensor | None = None
) -> Tensor:
    """The residual of PID's Eq. 9 at t, of the path that starts at (x, s), by the difference to u; (B,).

    X - t dX/dt = D(X, t)        with dX/dt = (X_t - X_u) / (t - u)

    Here and below: x (B, *event); ``times`` (B,) each; the distance of two sides (B, *event); labels (B,) or None.
    """
    s, t, u = times  # s >= t > u
    both = None if labels is None else labels.repeat(2)
    twice = x.repeat(2, *[1] * (x.ndim - 1))
    G_t, G_u = student.denoised(twice, s.repeat(2), torch.cat([t, u]), both).chunk(2)
    # (t/s) x cancels: X - t dX/dt = (t X_u - u X_t) / (t - u) = a G_u - (a - 1) G_t.
    a = expand_like(t * (1 - u / s) / (t - u), x)
    with torch.no_grad():
        D = ode.rhs(step(x, s, t, G_t), t, labels)
    return checked_distance(distance, a * G_u - (a - 1) * G_t, D)


def eulerian_loss(
    student: FlowMap, ode: ODE, x: Tensor, times: Sequence[Tensor], distance: Distance, labels: Tensor | None = None
) -> Tensor:
    """G(x, s, t) against the teacher's Euler step to u and the student's own to t, held constant; (B,)."""
    s, u, t = times  # s > u >= t
    with torch.no_grad():
        D = ode.rhs(x, s, labels)
        target = joined(D, student.denoised(step(x, s, u, D), u, t, labels), s, u, t)
    return checked_distance(distance, student.denoised(x, s, t, labels), target)


def semigroup_loss(
    student: FlowMap, ode: ODE, x: Tensor, times: Sequence[Tensor], distance: Distance, labels: Tensor | None = None
) -> Tensor:
    """G(x, s, t) against the student's own two steps over m, held constant; (B,).

    Where ``is_short`` (B,), against the teacher's Heun steps over the times ``within`` (B, N), from s to t.
    """
    s, m, t, is_short, within = times  # s > m > t
    target, own = torch.empty_like(x), torch.stack([s, m, t], 1)
    for rows, by_teacher, steps in ((is_short, True, within), (~is_short, False, own)):
        some = None if labels is None else labels[rows]

        def denoise(x: Tensor, s: Tensor, t: Tensor, labels: Any = some, by_teacher: bool = by_teacher) -> Tensor:
            return heun(ode, x, s, t, labels) if by_teacher else student.denoised(x, s, t, labels)

        if rows.any():
            with torch.no_grad():
                target[rows] = goal(denoise, x[rows], steps[rows].unbind(1))
    return checked_distance(distance, student.denoised(x, s, t, labels), target)


def heun(ode: ODE, x: Tensor, s: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
    """The point towards which the teacher's step of Heun from x (B, *event) at s to t moves, (B, *event).

    Half of Euler's velocity (x - D) / s and half of that where it ends: D + s / (2 t) (D' - D), without a difference of
    two states, whose size is that of the noise.
    """
    D = ode.rhs(x, s, labels)
    return D + expand_like(s / (2 * t), x) * (ode.rhs(step(x, s, t, D), t, labels) - D)


def meanflow_loss(
    student: FlowMap, ode: ODE, x: Tensor, times: Sequence[Tensor], distance: Distance, labels: Tensor | None = None
) -> Tensor:
    """MeanFlow (Geng et al. 2025, arXiv 2505.13447) with the teacher's velocity, in the ODE's own time; (B,).

    The mean velocity (X - x) / (t - s) from s to t is u = (x - G) / s, that of the teacher v = (x - D) / s, and

        u = v - (s - t) du/ds         or, stated for G,         G = G - dX/dln s

    In the paper's time s / (1 + s), the last term is (1 + s) / (1 + t) times as large.
    """
    s, _, t = times  # s > t
    with torch.no_grad():
        D = ode.rhs(x, s, labels)
    G, dG = student.denoised_jvp(x, s, t, x - D, labels)
    share = expand_like(t / s, x)
    along = share * (G - D) + (1 - share) * dG  # dX/dln s along the teacher's path
    return checked_distance(distance, G, (G - along).detach())


def lagrangian_times(flow: FlowMapping, n: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Steps between two draws, or from T to one; they end where an interval of the grid begins."""
    one = draw_index(flow.density, n, generator)  # (n,): an interval of the grid, from one to one + 1
    shuffled = torch.randperm(n, generator=generator, device=one.device)
    other = draw_index(flow.density, n, generator)[shuffled]
    at_end = flow.draw_at_end(n, generator)
    start = torch.where(at_end, 0, torch.minimum(one, other))
    end = torch.where(at_end, one, torch.maximum(one, other))
    return flow.grid[start], flow.grid[end], flow.grid[end + 1]


def eulerian_times(flow: FlowMapping, n: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """The teacher's step is an interval of the grid; the whole step ends at any later time, or at t_min."""
    last = len(flow.grid) - 1
    start = draw_index(flow.density, n, generator)
    share = torch.rand(n, generator=generator, dtype=torch.float64, device=start.device)
    later = start + 1 + (share * (last - start)).long()
    end = torch.where(flow.draw_at_end(n, generator), last, later)
    return flow.grid[start], flow.grid[start + 1], flow.grid[end]


def doubling(intervals: int) -> list[int]:
    """The lengths of steps that double: 1, 2, 4, ... intervals."""
    return [2**k for k in range(intervals.bit_length())]


def semigroup_times(flow: FlowMapping, n: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Steps of 1, 2, 4, ... intervals, each length in proportion to its number of steps: half are the shortest.

    The teacher knows those, and its own times lie within them. If half of the steps were long, a copied U-Net, which
    cannot tell ends apart at first, would learn mostly from its own errors, and diverge.
    """
    last, device = len(flow.grid) - 1, flow.grid.device
    levels = [torch.arange(0, last, length, device=device) for length in doubling(last)]  # starts of each length
    densities = torch.cat([flow.density[starts] / flow.density[starts].mean() for starts in levels])
    which = draw_index(densities, n, generator)
    # Shuffled, since they are in order: of several processes one would have all of the teacher's calls.
    which = which[torch.randperm(n, generator=generator, device=which.device)].to(device)
    start = torch.cat(levels)[which]  # (n,)
    length = torch.cat([torch.full_like(starts, last // len(starts)) for starts in levels])[which]
    pieces = (len(flow.fine) - 1) // last
    within = flow.fine[pieces * start[:, None] + torch.arange(pieces + 1, device=device)]  # (n, pieces + 1)
    s, m, t = flow.grid[start], flow.grid[start + length // 2], flow.grid[start + length]
    return s, m, t, length == 1, within


@dataclass(frozen=True)
class Identity:
    """What a step must satisfy, and which steps are drawn for it.

    Attributes:
        loss: of a batch of steps, (B,).
        times: draws what the loss takes for n steps, (n,) each, their starts first.
        defaults: values for unset fields of `Config`.
        forward_mode: whether the loss differentiates by forward-mode automatic differentiation.
        doubles: whether steps have 2^k intervals, so that the grid needs 2^k + 1 points.
    """

    loss: Callable[..., Tensor]
    times: Callable[[FlowMapping, int, torch.Generator], tuple[Tensor, ...]]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    forward_mode: bool = False
    doubles: bool = False


IDENTITIES = {
    "lagrangian": Identity(lagrangian_loss, lagrangian_times),
    "eulerian": Identity(eulerian_loss, eulerian_times, {"n": 80}),
    "semigroup": Identity(semigroup_loss, semigroup_times, {"n": 9}, doubles=True),
    "meanflow": Identity(meanflow_loss, eulerian_times, forward_mode=True),
}


@dataclass
class FlowMapping(Method[Context]):
    """A flow map, by one of the identities above (Boffi et al. 2024 and 2025, arXiv 2406.07507 and 2505.18825).

    Args:
        identity: lagrangian | eulerian | semigroup | meanflow. Semigroup learns the steps of 1, 2, 4, ... n - 1 calls,
            and other numbers of calls only as far as its network interpolates: expect several times their error.
        points: where the steps start: "own", at X(z; T -> s), which needs no data, or "data", with noise.
        at_end: share of the batch whose steps start at T (lagrangian) or end at t_min (eulerian, meanflow): one call is
            those. With 0.1, one call of a lagrangian map is worse, and four calls have at most 0.7 of its error on ring
            and checkerboard (2,000 steps, `tests/test_learning.py`). The steps of semigroup have their lengths instead.
    """

    identity: str = "lagrangian"
    points: str = "own"
    at_end: float = 0.25

    uses: ClassVar[Sequence[str]] = ("distance", "weight", "time_sampling")

    @property
    def needs(self) -> str:  # type: ignore[override]  # a class attribute elsewhere; here it depends on a setting
        """Noise, or data to start from."""
        return "noise" if self.points == "own" else "data"

    def rules(self) -> dict[str, Rule]:
        return {
            "identity": one_of(*IDENTITIES),
            "points": one_of("own", "data"),
            "at_end": number(0, 1),
        }

    def forward_mode(self, context: Context) -> bool:
        return IDENTITIES[self.identity].forward_mode

    def defaults(self, problem: Problem, given: Mapping[str, Any]) -> Mapping[str, Any]:
        # Where the start s is small, the error of G is s times that of the network: with one weight for all, steps from
        # there are learned least well, and more calls gain nothing.
        return {"weight": "sqrt_karras", "time_sampling": "lognormal", **IDENTITIES[self.identity].defaults}

    def student(self, problem: Problem, init: str, windows: int) -> Student:
        return build_flow_map(problem, init, end_time=True)

    def wrap(self, network: nn.Module, problem: Problem) -> Student:
        return as_flow_map(network, problem)

    def check(self, context: Context) -> None:
        check_flow_map(context.student, context.problem, end_time=True)
        if IDENTITIES[self.identity].doubles:
            self._check_doubling(context)

    def _check_doubling(self, context: Context) -> None:
        n = context.n
        if (n - 1) & (n - 2):
            raise ValueError(
                f"got n = {n}, but steps that double need a grid of 2^k + 1 points: use {2 ** (n - 1).bit_length() + 1}"
            )
        if self.at_end != FlowMapping.at_end:
            raise ValueError(f"got at_end = {self.at_end:g}, but the steps of {self.identity} double: leave it out")
        student: FlowMap = context.student
        grid = context.time_grid()
        for length in doubling(n - 1):  # a length that is never drawn would not be learned
            context.density(grid[:-1:length])
        if not torch.allclose(grid.cpu(), karras_grid(n, student.t_min, student.t_max)):
            raise ValueError(
                f"got another spacing than karras with rho = 7, on whose points `generate` takes its steps, which "
                f"{self.identity} learns alone: leave spacing and rho out"
            )

    def begin(self, context: Context, first: bool) -> None:
        pieces = max(1, 32 // (context.n - 1))
        self.fine = context.time_grid(pieces * (context.n - 1) + 1)
        # A slice of the finer grid, since one of its own would be rounded otherwise: the teacher's steps within an
        # interval then start and end exactly where it does.
        self.grid = self.fine[::pieces] if IDENTITIES[self.identity].doubles else context.time_grid()
        self.density = context.density(self.grid[:-1])
        checked_weight(context.weight, self.grid[:-1])

    def draw_at_end(self, n: int, generator: torch.Generator) -> Tensor:
        """Which of n steps are at the end that `at_end` means, (n,)."""
        return torch.rand(n, generator=generator, device=generator.device) < self.at_end

    def draw(self, context: Context, n: int, generator: torch.Generator) -> Batch:
        s, *others = IDENTITIES[self.identity].times(self, n, generator)
        if self.points == "data":
            x0, noise, labels = context.noised(s, generator)
            return x0 + expand_like(s, x0) * noise, labels, s, *others
        z = context.problem.sample_prior(n, generator)
        return z, context.problem.sample_labels(n, generator), s, *others

    def loss(self, context: Context, batch: Batch) -> Tensor:
        x, labels, *times = batch
        student, s = context.student, times[0]
        if self.points == "own":
            T = torch.full_like(s, student.t_max)
            with torch.no_grad():
                x = student.carried(x, T, s, labels)  # x itself where s = T
        losses = IDENTITIES[self.identity].loss(student, context.problem.ode, x, times, context.distance, labels)
        return checked_weight(context.weight, s) * losses
