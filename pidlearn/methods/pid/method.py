"""PID as a distillation method: which times a batch visits, and the residual there.

A long span is trained window by window. Each window starts from a pool of states: where the windows before it, by then
frozen, have carried samples of the prior. A diffusion has one window and draws fresh noise for every batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pidlearn.equations.problem import Problem
from pidlearn.losses.distances import Distance
from pidlearn.losses.time_sampling import draw_index
from pidlearn.losses.weighting import checked_weight
from pidlearn.methods.base import Batch, Context, Method, Stage
from pidlearn.methods.pid import checks
from pidlearn.methods.pid.derivatives import SCHEMES, Scheme, needs_forward_mode
from pidlearn.methods.pid.loss import boundary_loss, pid_loss
from pidlearn.methods.pid.recipes import recipe
from pidlearn.students.piecewise import PiecewiseTrajectory
from pidlearn.students.validate import check_path_student
from pidlearn.utils.batching import call_student
from pidlearn.utils.settings import FLAG, UNSET, Rule, Settings, is_number
from pidlearn.utils.validation import resolve

__all__ = ["PID", "PIDConfig"]

POOL = 8192
"""States from which a window after the first starts."""
FIRST_WINDOW, LATER_LR = 12, 0.3
"""The first window starts from random weights and takes FIRST_WINDOW times the steps of a later one; later windows
start from the weights of the window before and train at LATER_LR times the learning rate."""


@dataclass(frozen=True)
class PIDConfig(Settings):
    """The settings of PID; those marked * depend on the problem.

    Attributes:
        derivative: * forward | central | exact | can | trapezoid, or a scheme; see `pid_loss`.
        stop_gradient: * treat the teacher's side as a constant.
        last_interval: "drop" | "backward": what happens at the last grid point, which has no next one; see `pid_loss`.
        boundary_weight: factor of `boundary_loss`, for a student with a soft boundary.
    """

    derivative: str | Scheme = UNSET
    stop_gradient: bool = UNSET
    last_interval: str = "drop"
    boundary_weight: float = 0.0

    def rules(self) -> dict[str, Rule]:
        """The rule for each field, by name."""
        return {
            **super().rules(),
            "derivative": (
                lambda v: callable(v) or (isinstance(v, str) and v in SCHEMES),
                f"one of {sorted(SCHEMES)} or a function",
            ),
            "stop_gradient": FLAG,
            "last_interval": (lambda v: isinstance(v, str) and v in ("drop", "backward"), '"drop" or "backward"'),
            "boundary_weight": (lambda v: is_number(v) and v >= 0, "a number of at least 0"),
        }


@dataclass
class PID(Method[Context]):
    """Physics-informed distillation (Tee et al. 2024, Algorithm 1); settings as in `PIDConfig`.

    It needs no data: z is noise, and the teacher is evaluated on the student's own path.
    """

    derivative: str | Scheme = UNSET
    stop_gradient: bool = UNSET
    last_interval: str = UNSET
    boundary_weight: float = UNSET

    uses: ClassVar[Sequence[str]] = ("distance", "weight", "time_sampling")
    solves_grid: ClassVar[bool] = True

    scheme: Scheme = field(init=False, repr=False, compare=False)
    """The function that ``derivative`` names."""
    grid: Tensor = field(init=False, repr=False, compare=False)
    """(N,) grid of the window in training."""
    density: Tensor = field(init=False, repr=False, compare=False)
    """The time sampling on the grid, how often each point is visited: (N - 1,), or (N,) with
    ``last_interval="backward"``."""
    pool: Tensor | None = field(init=False, default=None, repr=False, compare=False)
    """(POOL, *event) states at the start of window ``pool_window``; None where there is one window."""
    pool_window: int = field(init=False, default=0, repr=False, compare=False)
    """Index of the window that the pool has been carried to."""

    def __post_init__(self) -> None:
        if self.derivative is not UNSET:
            self.scheme = resolve("derivative", self.derivative, SCHEMES)

    def rules(self) -> dict[str, Rule]:
        """The rules of `PIDConfig`."""
        return PIDConfig().rules()

    def forward_mode(self, context: Context) -> bool:
        """Whether the derivative scheme differentiates by forward-mode automatic differentiation."""
        return needs_forward_mode(self.scheme, context.time_grid(), context.problem.event_shape)

    def defaults(self, problem: Problem, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """The recipe for such a problem."""
        return recipe(problem, given)

    def check(self, context: Context) -> None:
        """Check that the student is a path that starts at z, the equation's side linear, and that there is a grid."""
        checks.linear(context.problem.ode, context.time_grid())
        check_path_student(context.student, context.problem, soft_boundary=self.boundary_weight > 0)

    def stages(self, context: Context, steps: int) -> Sequence[Stage]:
        """One stage per window."""
        windows = _windows(context.student)
        # A window that the run built starts from the one before it and needs fewer steps; a user's keeps its weights.
        first, later_lr = (FIRST_WINDOW, LATER_LR) if context.is_new else (1, 1.0)
        later = steps // (first + len(windows) - 1)
        if len(windows) > 1 and later < 1:
            raise ValueError(f"{steps} steps cannot train {len(windows)} windows: use more steps or fewer windows")
        lengths = [steps - later * (len(windows) - 1)] + [later] * (len(windows) - 1)
        rates = [1.0] + [later_lr] * (len(windows) - 1)
        return [Stage(*stage) for stage in zip(windows, lengths, rates, strict=True)]

    def begin(self, context: Context, first: bool) -> None:
        """Prepare grid, density and starts of the window; a new window starts with the weights of the one before."""
        windows = _windows(context.student)
        which = windows.index(context.stage.part)
        if first and which > 0 and context.is_new:
            windows[which].load_state_dict(windows[which - 1].state_dict())
        self.grid = context.time_grid()
        visited = self.grid if self.last_interval == "backward" else self.grid[:-1]
        checked_weight(context.weight, visited)
        self.density = context.density(visited)
        if len(windows) > 1:
            self._carry_pool(context, windows, which)

    @torch.no_grad()
    def _carry_pool(self, context: Context, windows: Sequence[Any], which: int) -> None:
        """Carry the pool through the frozen windows before ``which``: the same states after a resumption."""
        if self.pool is None or self.pool_window > which:  # a new run, or one set back: start again from the prior
            generator = torch.Generator().manual_seed(context.seed)
            self.pool, self.pool_window = context.problem.sample_prior(POOL, generator), 0
        for window in windows[self.pool_window : which]:
            self.pool = call_student(window, self.pool, window.t_min)
        self.pool_window = which

    def draw(self, context: Context, n: int, generator: torch.Generator) -> Batch:
        """Starts z (n, *event), grid indices (n,) and labels (n,).

        There are no indices for a network that encodes its input: each of its starts visits the whole grid.
        """
        problem = context.problem
        if self.pool is None:
            z = problem.sample_prior(n, generator)
        else:
            z = self.pool[torch.randint(len(self.pool), (n,), generator=generator)]
        labels = problem.sample_labels(n, generator)
        index = None if _encodes(context.stage.part) else draw_index(self.density, n, generator).to(z.device)
        return z, index, labels

    def loss(self, context: Context, batch: Batch) -> Tensor:
        """The weighted residual at the drawn grid points, and the soft boundary's own loss."""
        z, index, labels = batch
        assert z is not None
        window: Any = context.stage.part
        trajectory, starts = window, z
        if index is None:
            # The network encodes a start once for all times: each z visits the whole grid, at the price of one call.
            points = len(self.density)  # starts are (points B, *event) then, index and labels (points B,)
            trajectory = window.at_start(z)
            index = torch.arange(points, device=z.device).repeat_interleave(len(z))
            starts = z.repeat(points, *[1] * (z.ndim - 1))
            labels = None if labels is None else labels.repeat(points)
        loss = pid_loss(
            trajectory,
            context.problem.ode,
            starts,
            self.grid,
            index,
            derivative=self.scheme,
            distance=self._scaled(context),
            weight=context.weight,
            stop_gradient=self.stop_gradient,
            last_interval=self.last_interval,
            class_labels=labels,
        )
        if self.boundary_weight:
            at_start = boundary_loss(window, z, batch[2])  # (B,)
            loss = loss + self.boundary_weight * at_start.repeat(len(loss) // len(at_start))
        return loss  # (B,), or (points B,)

    def _scaled(self, context: Context) -> Distance:
        """The distance between dimensionless residuals: those of an ODE are divided by their unit first."""
        unit = context.problem.residual_unit(self.grid)
        if isinstance(unit, float):  # a diffusion's, whose residuals are images
            return context.distance
        return lambda a, b: context.distance(a / unit.to(a), b / unit.to(b))


def _windows(student: nn.Module) -> Sequence[nn.Module]:
    return student.windows if isinstance(student, PiecewiseTrajectory) else [student]


def _encodes(window: nn.Module) -> bool:
    """Whether the window's network encodes a start once for all times."""
    return hasattr(getattr(window, "network", None), "encode")
