"""The corrector: the distribution of a student's samples is pushed towards the teacher's, without data.

Solvers and identities compare points of one path. This compares densities: where samples x of the student, noised to
y = x + t e, are more frequent than the teacher's, they move away (Luo et al. 2023, "Diff-Instruct", arXiv 2305.18455;
Yin et al. 2024, "DMD", arXiv 2311.18828; the correction of FreeFlow, arXiv 2511.19428):

    dx = t^2 (score_teacher - score_student)(y, t) = D_teacher(y, t) - D_student(y, t)

D_student, the denoiser of the student's own samples, is unknown: an auxiliary network, the "fake score" of DMD,
learns it by denoising them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pidlearn.equations.diffusion import Diffusion
from pidlearn.equations.problem import Problem
from pidlearn.losses.distances import Distance, checked_distance
from pidlearn.methods.base import Batch, Context, Method, Stage
from pidlearn.nets.mlp import MLP
from pidlearn.nets.noise_parametrization import EDM
from pidlearn.students.base import Student, as_student
from pidlearn.students.build import build_flow_map
from pidlearn.students.flow_map import FlowMap
from pidlearn.students.progressive import ProgressiveStudent
from pidlearn.students.validate import check_end
from pidlearn.utils.arguments import number
from pidlearn.utils.broadcast import expand_like
from pidlearn.utils.random import seeded
from pidlearn.utils.settings import Rule

__all__ = ["Corrector", "corrector_loss"]

LEVELS = 1.0
"""Standard deviation of ln(t), around the logarithm of the data's own."""


def corrector_loss(x: Tensor, difference: Tensor, distance: Distance) -> Tensor:
    """d(x, x - e), (B,), for the difference e = D_student - D_teacher at x with noise; only the first x has a gradient.

    So the gradient points along e, whatever its size, and a step of the weights takes x along -e = dx.
    """
    return checked_distance(distance, x, (x - difference).detach())


def denoising_loss(difference: Tensor, D: Tensor, x: Tensor, c_out: Tensor) -> Tensor:
    """|D + e - x|^2 / c_out^2, (B,): D_student = D + e learns to denoise samples x, with EDM's weight."""
    return ((D + difference - x.detach()) / expand_like(c_out, x)).square().flatten(1).mean(1)


@dataclass
class Corrector(Method[Context]):
    """Another method, followed by a correction of the samples' distribution with an auxiliary network.

    It makes the distribution right and gives up the teacher's path of each z: use it where a student is biased, by a
    coarse grid or a small network. One at the floor of its energy distance is not improved, and loses its paths.

    Args:
        first: the method that comes before: its name, or a `Method`. Its settings are accepted together with these.
        share: share of the steps that it gets; 0 for a student that has been trained, by whatever method, or for one
            that learns the distribution alone. The settings of ``first`` then only say which student is built.
        slow: factor on the learning rate while the student is corrected. Adam divides by the gradient's size, so that
            no weight of a loss would slow it down; the auxiliary network keeps the full rate.
    """

    first: str | Method[Any] = "pid"
    share: float = 0.6
    slow: float = 0.005

    methods: ClassVar[Mapping[str, type[Method[Any]]]] = {}
    """What ``first`` may name: `pidlearn.methods.METHODS`, which also holds this class."""

    before: Method[Any] = field(init=False, repr=False, compare=False)
    """The method that comes before."""

    def __post_init__(self) -> None:
        if isinstance(self.first, Method):
            self.before = self.first
        elif isinstance(self.first, str) and self.first in self.methods:
            self.before = self.methods[self.first]()

    def rules(self) -> dict[str, Rule]:
        names = [name for name, kind in self.methods.items() if kind is not Corrector]
        return {
            "first": (
                lambda v: v in names if isinstance(v, str) else isinstance(v, Method) and not isinstance(v, Corrector),
                f"one of {names} or a pidlearn.methods.Method",
            ),
            "share": (lambda v: number(0, 1)[0](v) and v < 1, "a number from 0, for a trained student, to below 1"),
            "slow": number(positive=True),
        }

    @property
    def needs(self) -> str:  # type: ignore[override]  # a class attribute elsewhere; here it depends on a setting
        """What the first method needs, if it gets any steps: the corrector itself needs only noise."""
        return self.before.needs if self.share else "noise"

    @property
    def uses(self) -> Sequence[str]:  # type: ignore[override]  # a class attribute elsewhere, as `needs`
        """What the first method uses, if it gets any steps, and the distance."""
        return sorted({*(self.before.uses if self.share else ()), "distance"})

    def components(self) -> Sequence[Method[Any]]:
        return [self, *self.before.components()]

    def with_settings(self, settings: Mapping[str, Any]) -> Corrector:
        names = {spec.name for spec in fields(self)}
        own = replace(self, **{name: value for name, value in settings.items() if name in names})
        of_first = {name: value for name, value in settings.items() if name not in names}
        before = own.before.with_settings(of_first)
        return own if before == own.before else replace(own, first=before)  # a name stays a name, as in files

    def configured(self, values: Mapping[str, Any]) -> Corrector:
        own: Any = super().configured(values)
        own.before = self.before.configured(values)
        return own

    def forward_mode(self, context: Context) -> bool:
        return bool(self.share) and self.before.forward_mode(context)

    def defaults(self, problem: Problem, given: Mapping[str, Any]) -> Mapping[str, Any]:
        return self.before.defaults(problem, given) if self.share else {}

    def student(self, problem: Problem, init: str, windows: int) -> Student:
        return self.before.student(problem, init, windows)

    def wrap(self, network: nn.Module, problem: Problem) -> Student:
        return self.before.wrap(network, problem)

    def check(self, context: Context) -> None:
        if not isinstance(context.problem, Diffusion):
            raise ValueError(
                "got an ODE from given initial values, but the corrector compares scores, which a diffusion has: use "
                "the method that comes first alone"
            )
        if self.share:
            self._check_before(context)
        else:
            check_end(context.student, context.problem)
            if isinstance(context.student, ProgressiveStudent) and 1 not in context.student.numbers:
                raise ValueError(
                    f"got a ProgressiveStudent of {', '.join(map(str, context.student.numbers))} steps, but samples of "
                    f"one step are corrected: pass a student that takes one, too"
                )

    def _check_before(self, context: Context) -> None:
        """The first method's own check."""
        try:
            self.before.check(context)
        except ValueError as error:
            if context.is_new:
                raise
            raise ValueError(
                f"{error}. Or set first to the method that trained this student, or share=0 to correct it as it is"
            ) from error

    def stages(self, context: Context, steps: int) -> Sequence[Stage]:
        alone = round(self.share * steps)
        if alone == steps or (alone == 0) != (self.share == 0):
            raise ValueError(
                f"{steps} steps leave a stage without any at share = {self.share:g}: use more, or another share"
            )
        self.auxiliary = _auxiliary(context)
        # Of a progressive student, the network that takes one step: the averages of the others are finished.
        one_step = context.student.stages[-1] if isinstance(context.student, ProgressiveStudent) else context.student
        corrected = Stage(one_step, steps - alone, self.slow, self.auxiliary, 1 / self.slow)
        return [*(self.before.stages(context, alone) if alone else ()), corrected]

    def begin(self, context: Context, first: bool) -> None:
        self.state_of: Any = self.auxiliary if _corrects(context) else self.before
        if not _corrects(context):
            self.before.begin(context, first)
        elif first:  # steps of this stage that were taken back, after they were timed, have trained it
            self.auxiliary.load_state_dict(_auxiliary(context).state_dict())

    def draw(self, context: Context, n: int, generator: torch.Generator) -> Batch:
        if not _corrects(context):
            return self.before.draw(context, n, generator)
        problem = context.problem
        z, labels = problem.sample_prior(n, generator), problem.sample_labels(n, generator)
        normal = torch.randn(n, generator=generator, dtype=torch.float64, device=generator.device)
        t = (problem.data_scale * (LEVELS * normal).exp()).clamp(problem.t_end, problem.t_start)
        noise = torch.randn(z.shape, generator=generator, dtype=z.dtype, device=generator.device)
        return z, labels, t.to(z.device), noise.to(z)

    def loss(self, context: Context, batch: Batch) -> Tensor:
        if not _corrects(context):
            return self.before.loss(context, batch)
        z, labels, t, noise = batch
        x = as_student(context.student, context.problem).end(z, labels)
        y = (x + expand_like(t, x) * noise).detach()
        with torch.no_grad():
            D = context.problem.ode.rhs(y, t, labels)
        e = self._difference(y, t, D, labels)
        # One sum for both networks: each term has the gradient of one of them.
        c_out = EDM(context.problem.sigma_data)(t).c_out
        return corrector_loss(x, e, context.distance) + denoising_loss(e, D, x, c_out)

    def _difference(self, y: Tensor, t: Tensor, D: Tensor, labels: Tensor | None) -> Tensor:
        """D_student - D_teacher at y, (B, *event); zero at first."""
        G = self.auxiliary.denoised(y, t, t, labels)
        if isinstance(self.auxiliary.network, MLP):  # F = 0 at first: c_out F is learned as the difference itself
            return G - expand_like(self.auxiliary.noise_parametrization(t).c_skip, y) * y
        return G - D  # of a copy of the teacher

    def after_update(self, context: Context) -> None:
        if not _corrects(context):
            self.before.after_update(context)

    def skip_preparation(self, n: int) -> int:
        return self.before.skip_preparation(n) if self.state_of is self.before else 0

    def state_dict(self) -> dict[str, Any]:
        """Of the stage that has begun last: before it, the auxiliary network is as `stages` made it."""
        state: dict[str, Any] = self.state_of.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.state_of.load_state_dict(state)


def _auxiliary(context: Context) -> FlowMap:
    """The auxiliary network before its first step; it takes one time."""
    with seeded(context.seed):
        # A copy of the teacher's network if that is convolutional, else an MLP.
        network = build_flow_map(context.problem, end_time=False).to(context.problem.sample_prior(1))
    return network.eval()  # like the student: dropout would be noise in the difference of the two denoisers


def _corrects(context: Context) -> bool:
    """Whether the run is in the corrector's own stage."""
    return context.stage.auxiliary is not None
