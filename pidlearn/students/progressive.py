"""Students that are called as often as one likes, of the numbers that were trained: one network for each."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pidlearn.equations.grids import karras_grid
from pidlearn.students.base import Student
from pidlearn.students.flow_map import FlowMap
from pidlearn.utils.arguments import TIMES, check_arguments, count, list_of, optional

__all__ = ["ProgressiveStudent"]

STAGES = (
    lambda v: isinstance(v, Sequence | nn.ModuleList) and len(v) > 0 and all(type(part) is FlowMap for part in v),
    "a list of FlowMap objects",
)


class ProgressiveStudent(Student):
    """Flow maps that take fewer and fewer steps from noise to sample (Salimans & Ho 2022, arXiv 2202.00512).

    Args:
        stages: in the order of their training.
        numbers: the number of steps that each takes, of which the largest is a multiple.
        times: along which the most steps go, falling, one more than there are steps; Karras' grid by default. Fewer
            steps go along every second one, and so on.

    Raises:
        ValueError: stages of different spans, or numbers or times that do not fit.
    """

    @check_arguments(stages=STAGES, numbers=list_of(count()), times=optional(TIMES))
    def __init__(
        self, stages: Sequence[FlowMap], numbers: Sequence[int], times: Tensor | Sequence[float] | None = None
    ) -> None:
        super().__init__()
        spans = {(part.t_max, part.t_min, part.event_shape) for part in stages}
        if len(stages) != len(numbers) or len(spans) > 1:
            raise ValueError(
                f"got {len(stages)} stages for {len(numbers)} numbers of steps, over the spans {spans}, but each stage "
                f"has its number and all have one span: build them alike"
            )
        self.stages, self.numbers = nn.ModuleList(stages), list(numbers)
        self.t_max, self.t_min, self.event_shape = stages[0].t_max, stages[0].t_min, stages[0].event_shape
        most = max(numbers)
        default = karras_grid(most + 1, self.t_min, self.t_max)
        self.times = default if times is None else torch.as_tensor(times, dtype=torch.float64)
        if len(self.times) != most + 1 or any(most % number for number in numbers):
            raise ValueError(
                f"got {len(self.times)} times for {', '.join(map(str, numbers))} steps, but the largest number is a "
                f"multiple of the others and has one time more than steps: build the student so"
            )
        self.sigma_data, self.label_dim = stages[0].sigma_data, stages[0].label_dim

    def extended(self, numbers: Sequence[int]) -> ProgressiveStudent:
        """A student whose stages all start as copies of this one's first."""
        return ProgressiveStudent([copy.deepcopy(self._stage(self.numbers[0])) for _ in numbers], numbers)

    def _generate(
        self, z: Tensor, class_labels: Tensor | None, calls: int, generator: torch.Generator | None
    ) -> Tensor:
        """Take ``calls`` steps with the stage that was trained for that number."""
        return self._stage(calls).along(z, self.times[:: max(self.numbers) // calls], class_labels)

    def end(self, z: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """X(z; t_max -> t_min) of the stage that takes one step, with its gradient."""
        return self._stage(1).end(z, class_labels)

    def _stage(self, calls: int) -> FlowMap:
        if calls not in self.numbers:
            raise ValueError(f"got calls = {calls}, but this student takes {self._steps} steps: choose one of these")
        stage = self.stages[self.numbers.index(calls)]
        assert isinstance(stage, FlowMap)
        return stage

    def _path(self, z: Tensor, grid: Tensor, class_labels: Tensor | None) -> Tensor:
        """Of the last stage: a straight line from z to its sample."""
        return self._stage(self.numbers[-1]).trajectory(z, grid, class_labels)

    def __repr__(self) -> str:
        """One line: the stages, the network, its size, and the span."""
        size = sum(p.numel() for p in self.parameters())
        network = type(self._stage(self.numbers[-1]).network).__name__
        span = f"from t = {self.t_max:g} to {self.t_min:g}"
        return f"ProgressiveStudent({network} for {self._steps} steps, {size:,} weights, {span})"

    @property
    def _steps(self) -> str:
        return ", ".join(map(str, self.numbers))
