"""The base class of students."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from pidlearn.equations.problem import Problem
from pidlearn.utils.arguments import BATCH, GENERATOR, LABELS, TIMES, check_argument, check_arguments, count, size
from pidlearn.utils.batching import call_student, in_chunks
from pidlearn.utils.validation import as_real, check_labels, describe_tensor, summary
from pidlearn.utils.wrappers import unwrapped

__all__ = ["Calibration", "Student", "as_student", "calibration_of", "check_class_labels", "check_time"]


class Calibration(dict[str, Any]):
    """Measurements of a student and its teacher by `pidlearn.refinement`, in JSON's types.

    Attributes:
        era: number of times that it was cleared for new weights; paths that were solved in an earlier era are stale.
    """

    era = 0

    def clear(self) -> None:
        """Drop the measurements, and begin a new era."""
        super().clear()
        self.era += 1


class Student(nn.Module):
    """A network that carries noise z at ``t_max`` to samples at ``t_min``.

    Subclasses that are defined at every time are called as x(z, t, class_labels=None).
    """

    t_max: float
    t_min: float
    event_shape: tuple[int, ...] | None
    label_dim: int
    has_path: bool = False
    """Whether it is defined at every time of a diffusion, where its teacher can take over."""
    rows_per_sample: int = 1
    """Rows of the network's batch per sample."""
    adds_noise: bool = False
    """Whether `generate` adds noise between its calls, so that samples of several do not belong to their z."""

    def __init__(self) -> None:
        super().__init__()
        self.calibration = Calibration()
        self.register_load_state_dict_post_hook(_forget)

    def forward(self, z: Tensor, t: Any, class_labels: Tensor | None = None) -> Tensor:
        """x(z, t), (B, *event), for students that are defined at every time.

        Raises:
            ValueError: a student that only generates samples.
        """
        raise ValueError(f"a {type(self).__name__} generates samples but has no path x(z, t): use another student here")

    @torch.no_grad()
    @check_arguments(z=BATCH, class_labels=LABELS, calls=count(), generator=GENERATOR)
    def generate(
        self,
        z: Tensor,
        class_labels: Tensor | None = None,
        calls: int = 1,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Carry z (B, *event) at ``t_max`` to ``t_min``: (B, *event).

        Args:
            z: noise, already scaled.
            class_labels: (B,) int64, which a class-conditional student needs.
            calls: calls of the network to spend on each sample.
            generator: random numbers, for students that add noise between their calls.

        Raises:
            ValueError: a number of calls that this student cannot make use of, or no labels where it needs some.
        """
        return self._generate(z, class_labels, calls, generator)

    def _generate(
        self, z: Tensor, class_labels: Tensor | None, calls: int, generator: torch.Generator | None
    ) -> Tensor:
        if calls != 1:
            raise ValueError(
                f"got calls = {summary(calls)}, but a {type(self).__name__} has no multi-step sampler: leave calls out"
                + (", or pass the teacher, which can take the others" if self.has_path else "")
            )
        return in_chunks(self.end, z, class_labels, self.rows_per_sample)

    def end(self, z: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """The sample (B, *event) of z in one call, with its gradient: what methods train that learn no path."""
        return call_student(self, z, self.t_min, class_labels)

    @torch.no_grad()
    @check_arguments(n=size(), generator=GENERATOR, calls=count())
    def sample(
        self,
        n: int,
        class_labels: Tensor | None = None,
        generator: torch.Generator | None = None,
        calls: int = 1,
    ) -> Tensor:
        """Draw n samples (n, *event_shape): `generate` from z ~ N(0, t_max^2).

        A class-conditional student gets uniform labels if none are given.

        Raises:
            ValueError: labels that are not (n,), or a student without an event_shape.
        """
        if self.event_shape is None:
            raise ValueError(
                "this student has no event_shape, so it cannot draw noise: pass event_shape to Trajectory. If its ODE "
                "is not a diffusion, result.sample(n) draws the initial values from the prior"
            )
        check_labels(class_labels, n, self.label_dim)
        like = next(self.parameters())
        device = "cpu" if generator is None else generator.device
        z = self.t_max * torch.randn(n, *self.event_shape, generator=generator, dtype=like.dtype, device=device)
        if class_labels is None and self.label_dim:
            class_labels = torch.randint(self.label_dim, (n,), generator=generator, device=device)
        labels = None if class_labels is None else class_labels.to(like.device)
        return self.generate(z.to(like.device), labels, calls, generator)

    @torch.no_grad()
    @check_arguments(z=BATCH, grid=TIMES, class_labels=LABELS)
    def trajectory(self, z: Tensor, grid: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """The path at every grid time: (len(grid), B, *event)."""
        path = in_chunks(
            lambda z, labels: self._path(z, grid, labels).transpose(0, 1), z, class_labels, self.rows_per_sample
        )
        return path.transpose(0, 1)  # (B, N, *event) -> (N, B, *event)

    def _path(self, z: Tensor, grid: Tensor, class_labels: Tensor | None) -> Tensor:
        return torch.stack([_state(self, z, t, class_labels) for t in grid])


def _state(student: Student, z: Tensor, t: Any, class_labels: Tensor | None) -> Tensor:
    """x(z, t) of a student, after checking its shape."""
    x = call_student(student, z, t, class_labels)
    if not isinstance(x, Tensor) or x.shape != z.shape:
        raise ValueError(
            f"the student returned {describe_tensor(x)}, but must return the shape of z, {tuple(z.shape)}: pass a "
            f"student x(z, t)"
        )
    return x


_OTHERS: WeakKeyDictionary[nn.Module, Calibration] = WeakKeyDictionary()
"""Measurements of users' own modules, for as long as these exist."""


def calibration_of(module: nn.Module) -> Calibration:
    """The measurements of a `Student`, or of a user's own module x(z, t)."""
    module = unwrapped(module)
    if isinstance(module, Student):
        return module.calibration
    if module not in _OTHERS:
        _OTHERS[module] = Calibration()
        module.register_load_state_dict_post_hook(_forget)
    return _OTHERS[module]


def _forget(module: nn.Module, _: Any) -> None:
    """Clear the measurements when new weights are loaded."""
    calibration_of(module).clear()


def check_class_labels(student: Student, class_labels: Any) -> None:
    """Check the labels of a call, and that a student whose network never took "no class" has some.

    Raises:
        ValueError: labels of another kind, or none for a class-conditional student.
    """
    check_argument("class_labels", class_labels, LABELS)
    # Without a label a network takes an all-zero one-hot vector, which only label dropout has trained.
    if (
        class_labels is None
        and student.label_dim
        and not any(getattr(m, "label_dropout", 0) for m in student.modules())
    ):
        raise ValueError(
            f"got no class_labels, but this student was trained for {student.label_dim} classes and not for none: pass "
            f"class_labels, int64 (B,) in 0..{student.label_dim - 1}, draw samples of all classes with "
            f"result.sample(n), or, if the network was trained for no class, too, set its attribute label_dropout to 1"
        )


def check_time(t: Any, t_max: float, t_min: float) -> None:
    """Check that times, a scalar or (B,), lie in the span of a student.

    Raises:
        ValueError: a time outside, or NaN.
    """
    if torch.compiler.is_compiling():  # values are not known while a program is compiled
        return
    t = as_real("a time", t)
    if not t.numel():
        return
    low, high = sorted((t_min, t_max))
    try:
        first, last = (end.item() for end in t.aminmax())
    except RuntimeError:  # nor under vmap, or of tensors without numbers
        return
    # At most 1 % of each end unless 0 is in the span: 1e-6 t_max can exceed t_min, and t <= 0 has no ln(t).
    near = 1e-6 * max(abs(low), abs(high))
    below, above = (
        max(_rounding(end, t.dtype), near if low <= 0 <= high else min(near, 0.01 * abs(end))) for end in (low, high)
    )
    if not (low - below <= first and last <= high + above):
        raise ValueError(
            f"got times from {first:g} to {last:g}, but this student is defined for t from {t_max:g} to {t_min:g}: "
            f"use times of that span"
        )


def _rounding(time: float, dtype: torch.dtype) -> float:
    """How much a time may change when it is rounded to ``dtype``, or was rounded to float32 before."""
    if not dtype.is_floating_point:
        return 1e-6 * abs(time)
    info = torch.finfo(dtype)
    # Below the smallest normal number, numbers are eps * smallest_normal apart.
    return max(1e-6, info.eps) * abs(time) + info.eps * info.smallest_normal


class _ModuleStudent(Student):
    """Any module x(z, t, class_labels=None) with what a `Student` can do."""

    has_path = True

    def __init__(self, module: nn.Module, problem: Problem) -> None:
        super().__init__()
        self.module = module
        self.calibration = calibration_of(module)
        self.t_max, self.t_min = problem.t_start, problem.t_end
        self.event_shape, self.label_dim = problem.event_shape, problem.label_dim

    def forward(self, z: Tensor, t: Any, class_labels: Tensor | None = None) -> Tensor:
        check_class_labels(self, class_labels)
        return call_student(self.module, z, t, class_labels)


def as_student(module: nn.Module, problem: Problem) -> Student:
    """The module itself if it is a `Student`; else a view of it as one, over the span of the problem."""
    return module if isinstance(module, Student) else _ModuleStudent(module, problem)
