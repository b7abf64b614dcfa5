"""What is to be solved: an equation, the distribution of its starting values, and the span of time.

There are two kinds, `Diffusion` and `InitialValueProblem`. Each has its own time grids, reference solver and units of
the residual, so that the loss and the loop do not depend on the kind.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pidlearn.equations.ode import ODE
from pidlearn.utils.arguments import GENERATOR, check_arguments, size
from pidlearn.utils.overrides import overridden, tf32
from pidlearn.utils.validation import summary

__all__ = ["CPU", "Prior", "Problem", "Spacing"]

CPU = torch.device("cpu")

Prior = Callable[..., Tensor]
"""``prior(n, generator=None) -> (n, *event)``: values at the start of the paths."""

Spacing = Callable[..., Tensor]
"""``spacing(n=..., t_min=..., t_max=...)`` to a falling grid (n,) float64."""


NEW_NAMES = {
    "at": "to",
    "draw": "sample_prior",
    "draw_labels": "sample_labels",
    "location": "mean",
    "random": "rng_device",
    "reference_ends": "reference_samples",
    "spread": "std",
}
"""Attributes of the first release that have new names."""


@dataclass(frozen=True, repr=False)
class Problem(ABC):
    """An ODE together with the distribution of its initial values.

    Attributes:
        ode: the equation.
        prior: draws initial values.
        t_start: the prior end of the span.
        t_end: the sample end.
        event_shape: shape of one sample.
        teacher: the object that the user passed.
        device: device of the teacher.
        rng_device: device on which random numbers are drawn: the teacher's, or the CPU for a user's prior.
        label_dim: number of classes of the teacher, 0 for none.
    """

    ode: ODE
    prior: Prior
    t_start: float
    t_end: float
    event_shape: tuple[int, ...]
    teacher: Any
    device: torch.device
    rng_device: torch.device = CPU
    label_dim: int = 0

    @check_arguments(n=size(0), generator=GENERATOR)
    def sample_prior(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n initial values (n, *event), on the teacher's device."""
        return self.prior(n, generator=generator).to(self.device)

    @check_arguments(n=size(0), generator=GENERATOR)
    def sample_labels(self, n: int, generator: torch.Generator | None = None) -> Tensor | None:
        """Draw n uniform class labels (n,) int64; None for an unconditional teacher."""
        if not self.label_dim:
            return None
        device = generator.device if generator is not None else CPU
        return torch.randint(self.label_dim, (n,), generator=generator, device=device).to(self.device)

    def __getattr__(self, name: str) -> Any:
        # Only reached for attributes that do not exist.
        if name in NEW_NAMES:
            warnings.warn(f"problem.{name} is now called {NEW_NAMES[name]}", DeprecationWarning, stacklevel=2)
            return getattr(self, NEW_NAMES[name])
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __repr__(self) -> str:
        """One line: the kind, the teacher and the span."""
        teacher, span = summary(self.teacher), f"t from {self.t_start:g} to {self.t_end:g}"
        return f"{type(self).__name__}({teacher}, samples of shape {self.event_shape}, {span})"

    def to(self, device: torch.device) -> Problem:
        """The same problem on another device, for a teacher that is a formula and has no weights."""
        return replace(self, device=device)

    @property
    @abstractmethod
    def data_scale(self) -> float:
        """The noise level around which times are sampled most often: the standard deviation of a diffusion's data."""

    @abstractmethod
    def check_teacher(self, steps: int) -> None:
        """Warn of a teacher that cannot be what the problem takes it for, on a grid of ``steps`` steps."""

    @abstractmethod
    def time_grid(self, n: int, spacing: Spacing) -> Tensor:
        """The grid of n points from ``t_start`` to ``t_end`` that students train on, (n,) float64."""

    @abstractmethod
    def plot_grid(self, n: int) -> Tensor:
        """n times from ``t_start`` to ``t_end`` that show a path well, (n,) float64."""

    @abstractmethod
    def residual_unit(self, grid: Tensor) -> Tensor | float:
        """The unit in which residuals on ``grid`` are measured: a number, or one per coordinate (*event)."""

    @property
    @abstractmethod
    def rhs_scale(self) -> Tensor | float:
        """The usual size of the equation's right-hand side: a number, or one per coordinate (*event)."""

    @abstractmethod
    def reference(self, z: Tensor, grid: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """Solve from z along ``grid``: the path that students are compared with, (len(grid), B, *event)."""

    @abstractmethod
    def reference_samples(self, z: Tensor, grid: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """The last row of `reference`, (B, *event), without keeping the path in memory."""

    @abstractmethod
    def probes(self, z: Tensor) -> list[tuple[Tensor, float]]:
        """Three points (x, t), x (B, *event), at which files before 0.2 fingerprint the teacher."""

    @abstractmethod
    def path_probes(self) -> tuple[Tensor, Tensor]:
        """Points (N, *event) on four coarse paths, both ends included, and their times (N,): four for each time."""

    @property
    def exact_dtype(self) -> torch.dtype:
        """The most precise dtype that the teacher is evaluated in: the prior's."""
        return self._starts().dtype

    @cached_property
    def _probes(self) -> tuple[Tensor, Tensor]:
        return self.path_probes()

    @cached_property
    def fingerprint(self) -> Tensor:
        """The teacher's output (N, *event) along its own paths: it differs between two teachers of the same kind."""
        return self._outputs(*self._probes)

    def identity(self) -> dict[str, Tensor]:
        """What a file holds of the teacher: points (N, *event) and times (N,), the fingerprint there, and its scale.

        Points are stored since another machine could not solve the same paths: chaos and jumps amplify rounding.
        """
        points, times = self._probes
        return {"points": points.cpu(), "times": times, "fingerprint": self.fingerprint, "scale": self._scale()}

    def has_identity(self, other: Mapping[str, Tensor]) -> bool:
        """Whether the `identity` of a teacher is this one's, as computed on any machine."""
        there = other["fingerprint"].double()
        # The teacher is evaluated at the other's points, since the prior may be another.
        points, times = self._points_of(other)
        if there.shape != (len(times), *self.event_shape) or points.shape != there.shape:
            return False
        here = self._outputs(points, times).double()
        # In the teacher's own units, and the smaller ones: a field that explodes would accept any other.
        scale = torch.minimum(self._scale(), other.get("scale", self._scale()))
        # Half precision: other kernels round each layer differently, by a few parts in its epsilon.
        rounding = 8 * max(_epsilon(self.teacher), torch.finfo(torch.float32).eps)
        tolerance = max(1e-3, rounding) * there.abs() + max(1e-4, rounding) * scale + self._rounding(points, rounding)
        if here.shape != there.shape or tolerance.shape != there.shape:
            return False
        return bool((((here - there).abs() <= tolerance) | (here.isnan() & there.isnan())).all())

    def check_identity(self, other: Mapping[str, Tensor], path: str | Path) -> None:
        """Check that the student in a file was trained with this teacher, whose `identity` the file holds.

        Raises:
            ValueError: another teacher.
        """
        # Files of the first release and of other projects hold none.
        if "fingerprint" in other and not self.has_identity(other):
            raise ValueError(
                f"{path} holds the student of another teacher than {summary(self.teacher)}, whose outputs differ: pass "
                f"the teacher that it was trained with, or none to draw samples with result.student.sample(n)"
            )

    def _rounding(self, points: Tensor, rounding: float) -> Tensor | float:
        """How much other kernels may change the right-hand sides at the points, in addition to parts of themselves."""
        return 0.0

    def _starts(self) -> Tensor:
        return self.sample_prior(4, torch.Generator().manual_seed(0))

    def _labels(self) -> Tensor | None:
        generator = torch.Generator().manual_seed(0)
        self.sample_prior(4, generator)  # labels follow the initial values in the generator's stream
        return self.sample_labels(4, generator)

    def _points_of(self, identity: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The points and times of a fingerprint; files before 0.2 hold four initial values (4, *event) instead."""
        if "points" in identity:
            return identity["points"].to(self.device, self.exact_dtype), identity["times"].double()
        points, times = zip(*self.probes(identity["starts"].to(self._starts())), strict=True)
        return torch.cat(points), torch.tensor(times, dtype=torch.float64).repeat_interleave(4)

    def _outputs(self, points: Tensor, times: Tensor) -> Tensor:
        """The right-hand sides (N, *event) at points (N, *event) and times (N,), on the CPU, in batches of four."""
        labels, times = self._labels(), times.to(points.device)
        with torch.no_grad(), overridden(tf32(False)):  # the same numbers on every device
            batches = zip(points.split(4), times.split(4), strict=True)
            return torch.cat([self.ode.rhs(x, t, labels).cpu() for x, t in batches])

    def _scale(self) -> Tensor:
        return torch.as_tensor(self.rhs_scale, dtype=torch.float64, device=CPU)


def _epsilon(teacher: Any) -> float:
    """The relative rounding of a teacher's least precise weights; 0 without weights."""
    weights = teacher.parameters() if isinstance(teacher, nn.Module) else ()
    return max((torch.finfo(p.dtype).eps for p in weights if p.is_floating_point()), default=0.0)
