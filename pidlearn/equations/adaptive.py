"""Dormand and Prince's method of order 5(4), in which each start chooses its own steps.

SciPy integrates a batch as one system, so that all starts share their steps. Where the field jumps, and each start
crosses the jump at another time, every crossing makes the steps of all starts short. Here a crossing costs its own
start a few steps, and the others nothing.

A path may also slide along a jump, as dry friction -sign(v) holds v at 0. A step that crosses the jump has an error of
the jump times its length, so that no step of useful length meets a tight tolerance. `Sliding` recognizes this.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from pidlearn.equations.ode import ODE
from pidlearn.utils.broadcast import expand_like
from pidlearn.utils.validation import NotFiniteError

__all__ = ["dopri5"]

# The tableau (Dormand and Prince 1980): stage i is at t + C[i] h, and starts from x + h sum_j A[i][j] k_j. The last
# row of A is the solution of order 5, so that its slope is the first of the next step; ERROR is its difference from the
# solution of order 4.
C = (0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1)
A: tuple[tuple[float, ...], ...] = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
ERROR = (71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)

MAX_STEPS = 21_000
"""Maximal number of steps per start, a twentieth of them for tries whether a stiff field jumps; a field that needs more
is an error, not a long wait."""

ADVICE = (
    'the solution may not exist that far, or the field is stiff there (pass result.evaluate(integrator="Radau", '
    'rtol=1e-4, atol=1e-6), or solve(method="scipy", integrator="Radau", rtol=1e-4, atol=1e-6)), or it jumps there '
    "(keep dopri5, and pass it a larger rtol and atol)"
)


SLIDING_STEPS, SHORT, BLOCK = 2000, 0.25, 100
"""Paths that slide take steps of a SLIDING_STEPS-th of the span, and a jump is measured in steps shorter than SHORT
times that. A path may slide if the pace of its last BLOCK of steps would use up half of the steps left."""


class Sliding:
    """Which starts slide along a jump of the field, and must then go on in steps of a least length.

    Tiny steps are needed near a jump, in a stiff field, and where a smooth one changes quickly. Only the variation of
    the slopes within a step tells: over a longer step it grows where the field is smooth, but stays where it jumps.

    Attributes:
        least: the length of those steps.
    """

    def __init__(self, t: Tensor, end: Tensor) -> None:
        self.end, self.least, self.steps = end, (end - t[0]).abs() / SLIDING_STEPS, 0
        # Of each start, (b,): whether it slides; the variation within its accepted short steps; the forced steps in
        # this block; and the time when the block began.
        self.slides, self.jump = torch.zeros_like(t, dtype=torch.bool), torch.zeros_like(t)
        self.last_jump = torch.zeros_like(t)  # that of the block before, if it was slow
        self.forced, self.begin = torch.zeros_like(t), t
        self.error, self.since = 0.0, end  # the largest error of a forced step, and the time of the earliest, ()

    def lengthened(self, h: Tensor) -> Tensor:
        """Step sizes (b,): `least` where paths slide."""
        return torch.where(self.slides, self.least, h)

    def accepts(self, h: Tensor, slopes: list[Tensor], allowed: Tensor, size: Tensor, t: Tensor) -> Tensor:
        """Whether a step from t is taken (b,): its error is allowed, or it slides across a jump that is known."""
        change = torch.stack(slopes).sub(slopes[0]).abs().amax(0)  # (b, *event)
        # In units of the tolerance, since coordinates have units of their own.
        variation = (change / allowed).flatten(1).amax(1).nan_to_num(torch.inf)  # (b,)
        # A transient of a stiff field looks like a jump while it lasts, but later steps vary less.
        same = (variation > 0.1 * self.jump) & (variation <= 2 * self.jump)
        forced = self.slides & (size > 1) & same
        if forced.any():
            self.error = max(self.error, (self.least * change[forced]).max().item())
            times = torch.cat([self.since[None], t[forced]])
            self.since = times[(self.end - times).abs().argmax()]  # starts slide from different times on
        short = ~self.slides & (h < SHORT * self.least) & (size <= 1)
        self.jump = torch.where(short, torch.maximum(self.jump, variation), self.jump)
        self.slides = self.slides & (forced | (size <= 1))  # else the field is no jump, but changes quickly
        self.forced, self.steps = self.forced + forced, self.steps + 1
        if self.steps % BLOCK == 0:
            # (b,): at this pace, half of the steps left do not lead to the end.
            slow = (t - self.begin).abs() / BLOCK * (MAX_STEPS - self.steps) / 2 < (self.end - t).abs()
            # Two blocks see the same jump, but not the same transient, such as a relaxation oscillation's switch.
            steady = (self.jump > 0.5 * self.last_jump) & (self.jump < 2 * self.last_jump)
            # A path has left the jump if it crosses it in less than a tenth of its steps.
            self.slides = torch.where(self.slides, self.forced > BLOCK / 10, slow & steady)
            self.last_jump = torch.where(slow, self.jump, 0.0)
            self.jump = torch.where(self.slides, self.jump, 0.0)
            self.forced, self.begin = torch.zeros_like(t), t
        return forced | (size <= 1)

    def keep(self, left: Tensor) -> None:
        """Forget the starts that have arrived."""
        self.slides, self.jump, self.last_jump, self.forced, self.begin = (
            state[left] for state in (self.slides, self.jump, self.last_jump, self.forced, self.begin)
        )

    def warn(self) -> None:
        """Warn of steps with a larger error than the tolerance."""
        if self.error:
            warnings.warn(
                f"the vector field jumps at t = {self.since:.4g}, and from there paths slide along the jump: they "
                f"were solved there in steps of {self.least:.2g}, with an error of about {self.error:.2g}; for a "
                f"smaller one replace the jump by a steep slope, such as sign(v) by tanh(v / 0.01), or shorten the "
                f"span",
                stacklevel=5,
            )


@torch.no_grad()
def dopri5(ode: ODE, x: Tensor, grid: Tensor, class_labels: Tensor | None, rtol: Tensor, atol: Tensor) -> Tensor:
    """Solve an ODE from ``grid[0]`` along the grid: (N, B, *event) float64.

    Args:
        ode: the equation; it gets one time per sample, (B,).
        x: (B, *event), the values at ``grid[0]``. The field is evaluated in its dtype; the sums are float64.
        grid: (N,) float64, strictly monotone. Every start steps exactly on these times.
        class_labels: (B,) int64 or None.
        rtol: tolerance of a step relative to the values, a number.
        atol: absolute tolerance, a number or one per coordinate (*event).

    Raises:
        ValueError: a start that needs too many steps, or steps below the spacing of float64.
        NotFiniteError: a field that becomes NaN or infinite.
    """
    grid, direction = grid.to(x.device), torch.sign(grid[1] - grid[0]).item()
    path = torch.empty(len(grid), *x.shape, dtype=torch.float64, device=x.device)
    path[0] = x

    def f(y: Tensor, t: Tensor) -> Tensor:
        labels = None if class_labels is None else class_labels[row]
        return ode.velocity(y.to(x.dtype), t, labels).double()  # (b, *event)

    # Of each start that is under way: its row, value, time, step size and the next time of the grid to reach, (b, ...).
    row, y = torch.arange(len(x), device=x.device), x.double()
    t, goal = grid[0].repeat(len(x)), torch.ones(len(x), dtype=torch.int64, device=x.device)
    h = (grid[1] - grid[0]).abs().repeat(len(x))
    sliding = Sliding(t, grid[-1])
    first = f(y, t)  # k_1, the last slope of the step before if that was accepted
    for _ in range(MAX_STEPS):
        h, to_goal = sliding.lengthened(h), (grid[goal] - t).abs()  # (b,)
        step = direction * torch.minimum(h, to_goal)  # signed; cut short where the grid's next time is nearer than h
        dt = expand_like(step, y)
        slopes = [first]  # seven slopes k_j, (b, *event) each
        for c, weights in zip(C[1:], A[1:], strict=True):
            stage = y + dt * sum(a * k for a, k in zip(weights, slopes, strict=True))
            slopes.append(f(stage, t + c * step))
        # `stage` is now the solution of order 5, since the last row of A holds its weights.
        error = dt * sum(e * k for e, k in zip(ERROR, slopes, strict=True))  # (b, *event), order 5 minus order 4
        # The larger end of the step counts: a path that crosses zero needs no tiny steps there.
        allowed = atol + rtol * torch.maximum(y.abs(), stage.abs())
        # Root mean square over the coordinates; NaN counts as infinite, so that such a step is rejected.
        size = (error / allowed).flatten(1).square().mean(1).sqrt().nan_to_num(torch.inf, torch.inf)  # (b,)
        accepted = sliding.accepts(h, slopes, allowed, size, t)
        there = accepted & (h >= to_goal)
        # size^(-1/5) would bring the next error exactly to the limit; 0.9 is a margin, and 0.2 to 5 limits the change.
        longer = step.abs() * (0.9 * size.clamp(min=1e-8) ** -0.2).clamp(0.2, 5.0)  # the error grows as h^5
        # A step that the grid cut short says nothing against a longer one.
        h = torch.where(there, torch.maximum(h, longer), longer)
        steps_on = accepted.reshape(-1, *[1] * (y.ndim - 1))  # a rejected step leaves y and its slope as they are
        y, first = torch.where(steps_on, stage, y), torch.where(steps_on, slopes[-1], first)
        # Exactly on the grid, since t + step can round.
        t = torch.where(there, grid[goal], torch.where(accepted, t + step, t))
        path[goal[there], row[there]] = y[there]
        goal = goal + there
        left = goal < len(grid)
        if not left.any():
            sliding.warn()
            return path
        sliding.keep(left)
        row, y, t, h, goal, size, first = (state[left] for state in (row, y, t, h, goal, size, first))
        # With such an h, t + h may round to t.
        if (tiny := h <= torch.finfo(torch.float64).eps * t.abs()).any():
            where = f"t = {t[tiny][0].item():.4g}"
            if size[tiny][0].isinf():
                raise NotFiniteError(f"the vector field is NaN or infinite at {where}: check it there")
            raise ValueError(f"no step is short enough at {where}: {ADVICE}")
    raise ValueError(f"{MAX_STEPS} steps did not lead past t = {t.min().item():.4g}: {ADVICE}")
