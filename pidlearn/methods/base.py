"""What a distillation method is, and what it may use while it trains.

A method says how a batch is drawn and what is minimised on it; the loop (`pidlearn.training.loop`) does everything
else. A new method is a dataclass in a file of its own, whose fields are its settings, and a line in the table
`pidlearn.methods.METHODS`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from pidlearn.data.sampler import Sampler
from pidlearn.equations.problem import Problem, Spacing
from pidlearn.losses.distances import Distance
from pidlearn.losses.time_sampling import Density, checked_density
from pidlearn.losses.weighting import Weight
from pidlearn.students.base import Student
from pidlearn.students.build import as_trajectory, build_student
from pidlearn.utils.settings import Rule

__all__ = ["Batch", "Context", "Method", "Sampler", "Stage", "TrainingContext"]

Batch = tuple[Any, ...]
"""Tensors with one row per sample of a batch; None for what a problem does not have, such as labels."""

DEFAULTS: dict[str, Any] = {
    "steps": 6000,
    "batch_size": 256,
    "lr": 1e-3,  # with 4e-3 BOOT and FreeFlow diverge on MLPs of images
    "warmup": 0.02,
    "optimizer": "adam",
    "n": 250,
    "windows": 1,
    "time_sampling": "uniform",
    "distance": "pseudo_huber",
    "weight": "uniform",
}
"""Settings of a method that has no recipe of its own."""

LOW_DIMENSIONAL_DEFAULTS: dict[str, Any] = {"optimizer": "muon", "lr": 3e-3}
"""In place of those, for low-dimensional problems, unless another optimiser is chosen: `benchmarks.methods --search`
has both optimisers with each method."""

LOW_DIMENSIONAL_ADAM_LR = 4e-3
"""The rate of another optimiser there."""

NEEDS = ("noise", "data", "paths")
"""What a method may need besides the teacher; see `Method.needs`."""

USABLE = ("distance", "weight", "time_sampling")
"""Fields of `Config` that a method may use or not; see `Method.uses`."""


@dataclass(frozen=True)
class Stage:
    """A stretch of a run that trains one part of the student, with an optimiser, schedule and averages of its own.

    Attributes:
        part: the module that is trained.
        steps: how many steps the stage takes.
        lr_scale: factor on the learning rate.
        auxiliary: a second module in training that is no part of the result, such as a score of the student's samples.
        auxiliary_lr: factor from the learning rate of the part to that of the auxiliary module.
    """

    part: nn.Module
    steps: int
    lr_scale: float = 1.0
    auxiliary: nn.Module | None = None
    auxiliary_lr: float = 1.0


@dataclass
class TrainingContext:
    """What any training has; the loop keeps ``stage`` and ``step`` current.

    Attributes:
        student: what is trained, as a whole.
        is_new: whether it was built for this run; a user's own keeps the weights that it came with.
        seed: seed of the run.
        stage: what is in training now; before the first `Method.begin` the student as a whole.
        stage_index: its number, from 0.
        averaged: returns the averaged copy of the student, or the student itself if none is kept.
        step: number of the current step, from 0; in `Method.after_update`, too.
        steps: steps in total.
    """

    student: Any  # a torch.nn.Module of the kind that the method trains
    is_new: bool = False
    seed: int = 0
    stage: Stage = field(init=False)
    stage_index: int = field(init=False, default=0)
    averaged: Callable[[], nn.Module] = field(init=False)
    step: int = field(init=False, default=0)
    steps: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.stage = Stage(self.student, self.steps)
        self.averaged = lambda: self.student


@dataclass
class Context(TrainingContext):
    """What a distillation method may use.

    Attributes:
        problem: what is solved.
        n: number of grid points.
        spacing: of the time grid.
        distance: between the two sides of a residual: (a, b), both (B, *event), to (B,).
        weight: weight of the loss at t (B,) float64, to (B,).
        time_sampling: how often each grid time is visited.
        data: draws real data (n, *event) and their class labels, for methods that need them.
    """

    problem: Problem = field(kw_only=True)
    n: int = field(kw_only=True)
    spacing: Spacing = field(kw_only=True)
    distance: Distance = field(kw_only=True)
    weight: Weight = field(kw_only=True)
    time_sampling: Density = field(kw_only=True)
    data: Sampler | None = field(kw_only=True, default=None)

    def time_grid(self, n: int | None = None) -> Tensor:
        """The grid over the span of the part in training, (n,) float64 on the problem's device; by default n points."""
        part: Any = self.stage.part
        t_start, t_end = getattr(part, "t_max", self.problem.t_start), getattr(part, "t_min", self.problem.t_end)
        grid = replace(self.problem, t_start=t_start, t_end=t_end).time_grid(n or self.n, self.spacing)
        return grid.to(self.problem.device)  # where batches are: a grid of the CPU has no entries at a GPU's indices

    def density(self, t: Tensor) -> Tensor:
        """How often each of the times t (N,) is visited, (N,), by ``time_sampling``.

        Raises:
            ValueError: what is no density.
        """
        return checked_density(self.time_sampling, t, self.problem.data_scale)

    def noised(self, s: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor | None]:
        """Data x0 and noise e, (n, *event) each, and class labels (n,) or None: x0 + s e is a point at time s (n,)."""
        assert self.data is not None  # of a method that needs data
        x0, labels = self.data(len(s), generator)
        noise = torch.randn(x0.shape, generator=generator, dtype=x0.dtype, device=generator.device)
        return x0, noise.to(x0), labels


C = TypeVar("C", bound=TrainingContext)


class Method(ABC, Generic[C]):
    """A way to train a student.

    Subclasses are dataclasses: their fields are their settings. A field that `Config` has too, and that is left unset
    here, takes its value from there. Every run works on a copy of its own, so a method may keep state.
    """

    needs: ClassVar[str] = "noise"
    """What it learns from: "noise", "paths" that the teacher solves from noise, or "data" that `distill` must get."""

    uses: ClassVar[Sequence[str]] = ()
    """Which of ``distance``, ``weight`` and ``time_sampling`` it takes from the context: to set others is an error."""

    solves_grid: ClassVar[bool] = False
    """Whether a zero of its loss is Euler's solution on its own grid, with which its students are then compared."""

    def components(self) -> Sequence[Method[Any]]:
        """The methods whose fields are its settings: itself, and any that it is made of."""
        return [self]

    def with_settings(self, settings: Mapping[str, Any]) -> Method[C]:
        """A copy with some settings replaced, those of its components included."""
        own: Any = self  # every method is a dataclass, which `method_of` checks
        return replace(own, **settings)

    def configured(self, values: Mapping[str, Any]) -> Method[C]:
        """A copy for one run; its fields that are named in ``values``, settings of `Config`, have those values."""
        own: Any = self  # every method is a dataclass, which `method_of` checks
        return replace(own, **{f.name: values[f.name] for f in fields(own) if f.init and f.name in values})

    def forward_mode(self, context: C) -> bool:
        """Whether `loss` differentiates the student by forward-mode automatic differentiation."""
        return False

    def rules(self) -> dict[str, Rule]:
        """The rule for each of the method's own settings, by name."""
        return {}

    def defaults(self, problem: Problem, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Values for the unset fields of `Config`, in place of `DEFAULTS`; ``given`` holds those that are set."""
        return {}

    def student(self, problem: Problem, init: str, windows: int) -> Student:
        """The student that is trained if the user passes none; ``init`` and ``windows`` as in `pidlearn.Config`."""
        return build_student(problem, init, windows)

    def wrap(self, network: nn.Module, problem: Problem) -> Student:
        """The student that is made of a bare network, F(x, time, class_labels=None), if the user passes one."""
        return as_trajectory(network, problem)

    def check(self, context: C) -> None:
        """Raise a ValueError, before anything is trained, if this student or these settings cannot work."""

    def stages(self, context: C, steps: int) -> Sequence[Stage]:
        """The stages of a run, whose steps add up to ``steps``; by default one over the whole student.

        Called once, before averages of the student are made and its description is kept.
        """
        return [Stage(context.student, steps)]

    def begin(self, context: C, first: bool) -> None:
        """Prepare ``context.stage``: called before its first step (``first``), and when a run resumes after a step.

        On resumption the student has its weights already, and `load_state_dict` follows. Build networks here: their
        random weights depend on the seed of the run and the stage alone. A run may be set back to before this stage,
        after its cost was measured: nothing that the stage changes may be left from the last time.
        """

    @abstractmethod
    def draw(self, context: C, n: int, generator: torch.Generator) -> Batch:
        """Draw a batch of n samples. All processes draw the same batch, and each keeps its own rows."""

    @abstractmethod
    def loss(self, context: C, batch: Batch) -> Tensor:
        """The loss of each sample of a batch, or of a part of one, (B,), or (k B,) at k times per sample."""

    def after_update(self, context: C) -> None:
        """Called after each update of the weights, for targets that follow the student."""

    def skip_preparation(self, n: int) -> int:
        """From now on draw as later steps do; return how many draws of n samples there would have been until then.

        For timing the steps of a method whose first draws take longer, as while they solve paths; it is undone by
        `begin` and `load_state_dict`.
        """
        return 0

    def state_dict(self) -> dict[str, Any]:
        """What a bitwise resume needs besides the student's weights; called after a `begin`, never before it."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
