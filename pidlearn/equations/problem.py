"""What is to be solved: an equation, the distribution of its starting values, and the span of time.

There are two kinds, `Diffusion` and `InitialValueProblem`. Each has its own time grids, reference solver and units of
the residual, so that the loss and the loop do not depend on the kind.
"""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pidlearn.equations.data_scale import LOW_DIMENSIONAL
from pidlearn.equations.ode import ODE
from pidlearn.utils.arguments import GENERATOR, check_arguments, size
from pidlearn.utils.broadcast import expand_like
from pidlearn.utils.dtypes import LeastPrecise
from pidlearn.utils.overrides import overridden, tf32
from pidlearn.utils.validation import summary

__all__ = ["CPU", "Prior", "Problem", "Spacing"]

CPU = torch.device("cpu")

BETWEEN, CLASSES = 256, 64
"""The largest numbers of points between coarse paths, and of classes, at which a teacher is identified."""
GOLDEN_RATIO = (1 + 5**0.5) / 2

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
    def coarse_paths(self) -> tuple[Tensor, Tensor]:
        """Times (k,) float64 over the span, both ends included, and a few paths there, (k, P, *event)."""

    @property
    def is_low_dimensional(self) -> bool:
        """Whether it gets the students and recipes of toys."""
        return math.prod(self.event_shape) <= LOW_DIMENSIONAL

    @property
    def exact_dtype(self) -> torch.dtype:
        """The most precise dtype that the teacher is evaluated in: the prior's."""
        return self._starts().dtype

    @cached_property
    def _probes(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Points (N, *event), times (N,) and labels (N,): the coarse paths, and points in between.

        A field that is periodic in time may be the same at all times of a regular grid.
        """
        grid, paths = self.coarse_paths()
        n = min(BETWEEN, self._affordable)
        # Multiples of the golden ratio modulo 1: no two are close and no gap is wide, whatever n is.
        at = (torch.arange(1, n + 1, dtype=torch.float64) * GOLDEN_RATIO) % 1 * (len(grid) - 1)  # (n,) in grid steps
        i, path = at.long(), torch.arange(n) % paths.shape[1]
        share = at - i
        between = torch.lerp(paths[i, path], paths[i + 1, path], expand_like(share.to(paths), paths[i, path]))
        points = torch.cat([paths.flatten(0, 1), between])
        times = torch.cat([grid.repeat_interleave(paths.shape[1]), torch.lerp(grid[i], grid[i + 1], share)])
        labels = self._probe_labels()
        if labels is not None:
            labels = torch.cat([labels.repeat(len(grid)), labels[path]])
        return points, times, labels

    @property
    def _affordable(self) -> int:
        """Points that are evaluated at once, and that a file holds in each of its sets: few if they are images."""
        return 2**16 // math.prod(self.event_shape)

    @cached_property
    def _evaluated(self) -> tuple[Tensor, float]:
        return self._outputs(*self._probes)

    @property
    def fingerprint(self) -> Tensor:
        """The teacher's output (N, *event) along its own paths: it differs between two teachers of the same kind."""
        return self._evaluated[0]

    def identity(self) -> dict[str, Tensor]:
        """What a file holds of the teacher: points, times and labels (N,), the fingerprint there, its scale and dtype.

        Points are stored since another machine could not solve the same paths: chaos and jumps amplify rounding.
        """
        points, times, labels = self._probes
        outputs, epsilon = self._evaluated
        identity = {"points": points.cpu(), "times": times, "fingerprint": outputs, "scale": self._scale()}
        identity["epsilon"] = torch.tensor(epsilon, dtype=torch.float64)
        return identity if labels is None else {**identity, "labels": labels.cpu()}

    def has_identity(self, other: Mapping[str, Tensor]) -> bool:
        """Whether the `identity` of a teacher is this one's, as computed on any machine."""
        there, scale = other["fingerprint"].double(), other["scale"] if "scale" in other else self._scale()
        if scale.shape != self._scale_shape:  # an ODE has one per coordinate, and times that are no noise levels
            return False
        # The teacher is evaluated at the other's points, since the prior may be another.
        points, times, labels = self._points_of(other)
        if there.shape != (len(times), *self.event_shape) or points.shape != there.shape:
            return False
        if (labels is None) != (self.label_dim == 0) or (labels is not None and labels.max() >= self.label_dim):
            return False
        outputs, epsilon = self._outputs(points, times, labels)
        here = outputs.double()
        # Other kernels round each layer differently: a half-precision network of four convolutions by up to 2 epsilons
        # of its scale, a deeper one by more. The less precise of both teachers counts, whichever is in the file.
        rounding = 8 * max(epsilon, float(other.get("epsilon", 0.0)), torch.finfo(torch.float32).eps)
        relative = max(1e-3, rounding) * there.abs() + expand_like(self._rounding(times, rounding), there)

        def agree(scale: Tensor) -> bool:
            tolerance = relative + max(1e-4, rounding) * scale
            return bool((((here - there).abs() <= tolerance) | (here.isnan() & there.isnan())).all())

        if here.shape != there.shape or relative.shape != there.shape:
            return False
        # In the teacher's own units, and the smaller ones: a field that explodes would accept any other. An ODE must be
        # solved for its own scale, so that is left out where the outputs are the same, or differ by too much anyway.
        return agree(torch.zeros(())) or (agree(scale) and agree(torch.minimum(self._scale(), scale)))

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

    def _rounding(self, times: Tensor, rounding: float) -> Tensor:
        """How much other kernels change the right-hand sides at the times (N,), in addition to parts of themselves."""
        return torch.zeros_like(times)

    def _starts(self, n: int = 4) -> Tensor:
        return self.sample_prior(n, torch.Generator().manual_seed(0))

    def _probe_labels(self) -> Tensor | None:
        """The labels of the coarse paths, (P,): every class, or of more than can be computed some, evenly spread."""
        if not self.label_dim:
            return None
        n = max(4, min(self.label_dim, CLASSES, self._affordable))
        return torch.arange(n, device=self.device) * self.label_dim // n

    def _points_of(self, identity: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor | None]:
        """The points, times and labels of a fingerprint.

        Files before 0.2 hold four initial values (4, *event) instead of points, and no labels: four random ones.
        """
        if "points" in identity:
            points, times = identity["points"].to(self.device, self.exact_dtype), identity["times"].double()
        else:
            x, t = zip(*self.probes(identity["starts"].to(self._starts())), strict=True)
            points, times = torch.cat(x), torch.tensor(t, dtype=torch.float64).repeat_interleave(4)
        labels = identity.get("labels")
        if labels is None and "epsilon" not in identity:
            generator = torch.Generator().manual_seed(0)
            self.sample_prior(4, generator)  # labels followed the initial values in the generator's stream
            labels = self.sample_labels(4, generator)
            labels = None if labels is None else labels.repeat(len(times) // 4)
        return points, times, None if labels is None else labels.to(self.device)

    def _outputs(self, points: Tensor, times: Tensor, labels: Tensor | None) -> tuple[Tensor, float]:
        """The right-hand sides (N, *event) at points (N, *event), times (N,) and labels (N,), on the CPU.

        And the epsilon of the least precise dtype on the way, which weights do not tell of a function around a network.
        """
        size, times = max(4, self._affordable), times.to(points.device)
        classes = [None] * len(points) if labels is None else labels.split(size)
        batches = zip(points.split(size), times.split(size), classes, strict=False)
        with torch.no_grad(), overridden(tf32(False)), LeastPrecise() as dtypes:  # the same numbers on every device
            outputs = torch.cat([self.ode.rhs(x, t, c).cpu() for x, t, c in batches])
        return outputs, dtypes.epsilon

    @property
    def _scale_shape(self) -> tuple[int, ...]:
        """Shape of `rhs_scale`, without computing it."""
        return ()

    def _scale(self) -> Tensor:
        return torch.as_tensor(self.rhs_scale, dtype=torch.float64, device=CPU)
