"""Progressive distillation (Salimans & Ho 2022, arXiv 2202.00512): each stage learns to do in one step
what the one before does in two.

The first stage learns a few steps of the teacher as one, on a grid of N steps; the next takes N / 2 steps, and so on to
one. Each stage has a network of its own, so that the student can be called 1, 2, 4, ... or N times.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pidlearn.equations.problem import Problem
from pidlearn.losses.distances import Distance, checked_distance
from pidlearn.losses.time_sampling import draw_index
from pidlearn.losses.weighting import checked_weight
from pidlearn.methods.base import DEFAULTS, Batch, Context, Method, Stage
from pidlearn.students.base import Student
from pidlearn.students.build import as_flow_map, build_flow_map
from pidlearn.students.flow_map import Denoiser, FlowMap, goal
from pidlearn.students.progressive import ProgressiveStudent
from pidlearn.students.validate import check_flow_map
from pidlearn.utils.arguments import count, number
from pidlearn.utils.broadcast import expand_like
from pidlearn.utils.settings import Rule, is_whole

__all__ = ["PD", "progressive_loss"]


def progressive_loss(
    student: FlowMap,
    before: Denoiser,
    x: Tensor,
    times: Sequence[Tensor],
    distance: Distance,
    class_labels: Tensor | None = None,
) -> Tensor:
    """d(G(x, s, t), G''), where ``before`` takes x in several steps, from s = times[0] to t = times[-1], towards G''.

    Args:
        student: the stage in training.
        before: the stage before, or the teacher.
        x: (B, *event), points at s.
        times: (B,) each, falling.
        distance: between two points, (B, *event) each.
        class_labels: (B,) int64 or None.
    """
    with torch.no_grad():
        target = goal(before, x, times)
    return checked_distance(distance, student.denoised(x, times[0], times[-1], class_labels), target)


@dataclass
class PD(Method[Context]):
    """Progressive distillation, over noised data.

    Args:
        calls: steps of the first stage, a power of 2.
        teacher_steps: Euler steps of the teacher for one of these.
        shortening: factor from the length of a stage to that of the next. Errors are handed on from stage to stage, so
            early ones are worth more steps.

    A run that is stopped early has trained the larger numbers of calls only: use `generate(calls=...)` of one of those.
    The error that `distill(track_error=...)` tracks is that of one call, which only the last stage trains. The times of
    a `ProgressiveStudent` become those of this grid.
    """

    calls: int = 8
    teacher_steps: int = 16
    shortening: float = 0.7

    needs: ClassVar[str] = "data"
    uses: ClassVar[Sequence[str]] = ("distance", "weight", "time_sampling")

    def rules(self) -> dict[str, Rule]:
        return {
            "calls": (lambda n: is_whole(n) and n in [2**k for k in range(20)], "a power of 2"),
            "teacher_steps": count(),
            "shortening": number(0.01, 100),
        }

    def defaults(self, problem: Problem, given: Mapping[str, Any]) -> Mapping[str, Any]:
        rate = {"lr": 6e-3} if problem.is_low_dimensional else {}  # each stage is short
        return {"time_sampling": "lognormal", "weight": "sqrt_karras", **rate}

    @property
    def numbers(self) -> list[int]:
        """Steps of each stage: calls, calls / 2, ..., 1."""
        return [self.calls >> k for k in range(self.calls.bit_length())]

    @property
    def points(self) -> int:
        """Number of the teacher's times, which hold those of every stage; n is not used."""
        return self.calls * self.teacher_steps + 1

    def student(self, problem: Problem, init: str, windows: int) -> Student:
        parts = [build_flow_map(problem, init, end_time=False) for _ in self.numbers]
        return ProgressiveStudent(parts, self.numbers)

    def wrap(self, network: nn.Module, problem: Problem) -> Student:
        return ProgressiveStudent([as_flow_map(network, problem)], [1]).extended(self.numbers)

    def check(self, context: Context) -> None:
        check_flow_map(context.student, context.problem, ProgressiveStudent)
        if list(context.student.numbers) != self.numbers:
            raise ValueError(
                f"got a ProgressiveStudent of {', '.join(map(str, context.student.numbers))} steps, but with calls = "
                f"{self.calls} the stages take {', '.join(map(str, self.numbers))}: set calls to its first number, "
                f"build it with these, or pass none"
            )
        if context.n not in (DEFAULTS["n"], self.points):  # the default stands in every resolved config
            raise ValueError(
                f"got n = {context.n}, but {self.calls} calls of {self.teacher_steps} steps of the teacher have a grid "
                f"of {self.points} points: leave n out, and set calls and teacher_steps"
            )
        times = context.time_grid(self.points)
        for steps in self.numbers:  # now, not when its stage begins
            context.density(self._starts(times, steps))

    def stages(self, context: Context, steps: int) -> Sequence[Stage]:
        # The times along which the student will take its steps: now, before it is described and its averages are made.
        context.student.times = context.time_grid(self.points)[:: self.teacher_steps].cpu()
        parts = list(context.student.stages)
        shares = [self.shortening**k for k in range(len(parts))]
        lengths = [int(steps * share / sum(shares)) for share in shares]
        lengths[-1] += steps - sum(lengths)
        if min(lengths) < 1:
            raise ValueError(f"{steps} steps cannot train {len(parts)} stages: use more steps or fewer calls")
        return [Stage(*stage) for stage in zip(parts, lengths, strict=True)]

    def begin(self, context: Context, first: bool) -> None:
        parts, which = list(context.student.stages), context.stage_index
        if first and which > 0:
            parts[which].load_state_dict(parts[which - 1].state_dict())
        self.before = None if which == 0 else parts[which - 1]
        self.pieces = self.teacher_steps if which == 0 else 2
        times = context.time_grid(self.points)
        # Between two times of the stage's own grid lie those of the steps before.
        self.grid = times[:: 1 if which == 0 else self.teacher_steps * 2 ** (which - 1)]
        starts = self._starts(times, self.numbers[which])
        self.density = context.density(starts)
        checked_weight(context.weight, starts)

    def _starts(self, times: Tensor, steps: int) -> Tensor:
        """Where the steps of the stage with this number of them start, (steps,)."""
        return times[: -1 : self.calls // steps * self.teacher_steps]

    def draw(self, context: Context, n: int, generator: torch.Generator) -> Batch:
        index = self.pieces * draw_index(self.density, n, generator)
        times = torch.stack([self.grid[index + k] for k in range(self.pieces + 1)], 1)  # (n, pieces + 1)
        x0, noise, labels = context.noised(times[:, 0], generator)
        return x0 + expand_like(times[:, 0], x0) * noise, times, labels

    def loss(self, context: Context, batch: Batch) -> Tensor:
        x, times, labels = batch
        part: Any = context.stage.part
        ode, before = context.problem.ode, self.before

        def denoise(x: Tensor, s: Tensor, t: Tensor) -> Tensor:
            return ode.rhs(x, s, labels) if before is None else before.denoised(x, s, t, labels)

        losses = progressive_loss(part, denoise, x, times.unbind(1), context.distance, labels)
        return checked_weight(context.weight, times[:, 0]) * losses
