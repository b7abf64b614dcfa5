"""Checks of a student before it is trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pidlearn.equations.diffusion import Diffusion
from pidlearn.equations.problem import Problem
from pidlearn.students.base import Student, as_student
from pidlearn.students.boundaries import TIMES
from pidlearn.students.build import as_trajectory
from pidlearn.students.flow_map import ConsistencyFunction, FlowMap
from pidlearn.students.operator import NeuralOperator
from pidlearn.students.piecewise import PiecewiseTrajectory
from pidlearn.students.progressive import ProgressiveStudent
from pidlearn.students.trajectory import Trajectory
from pidlearn.utils.batching import call_student
from pidlearn.utils.broadcast import as_float64_time
from pidlearn.utils.validation import check_not_complex, describe_tensor, reraise_with_context, summary
from pidlearn.utils.wrappers import unwrapped

__all__ = ["check_end", "check_flow_map", "check_path_student", "prepare_student", "set_samples"]


def prepare_student(
    student: Any, problem: Problem, wrap: Callable[[nn.Module, Problem], nn.Module] = as_trajectory
) -> nn.Module:
    """The student to train, in eval mode on the teacher's device; of a bare network ``wrap`` makes one.

    Raises:
        TypeError: something that is not a module.
        ValueError: a module without trainable weights, on the meta device, or without the teacher's classes.
    """
    if not isinstance(student, nn.Module):
        raise TypeError(f"got a {type(student).__name__}, but a student is a torch.nn.Module")
    if isinstance(student, nn.DataParallel | nn.parallel.DistributedDataParallel) and hasattr(student.module, "t_max"):
        # A method calls more of a student than forward, which is all that these have. Several processes share a batch
        # by themselves, see `pidlearn.training.distributed`.
        student = student.module
    if not hasattr(student, "t_max"):
        student = wrap(student, problem)
    if not any(p.requires_grad for p in student.parameters()):
        raise ValueError(
            "the student has no weights to train: none of its parameters requires a gradient; call requires_grad_() "
            "on it"
        )
    for part in getattr(student, "stages", [student]):
        _check_network(part, unwrapped(getattr(part, "network", None)), problem)
    if any(p.is_meta for p in student.parameters()):
        raise ValueError("the student is on the meta device, without numbers: give it weights first")
    if isinstance(problem, Diffusion):
        set_samples(student, problem.event_shape, problem.label_dim)
    # Eval mode: dropout would make x(z, t) random, and its time derivative noise.
    return student.to(problem.device).eval()


def _check_network(student: nn.Module, network: Any, problem: Problem) -> None:
    """Check that a network takes the inputs that a student gives it."""
    if problem.label_dim and getattr(network, "label_dim", None) == 0:
        raise ValueError(
            f"the teacher is class-conditional ({problem.label_dim} classes) but the student's network is "
            f"unconditional: build it with label_dim={problem.label_dim}"
        )
    times = getattr(network, "times", 0)
    if isinstance(times, int) and times > 1 and not isinstance(unwrapped(student), NeuralOperator):
        raise ValueError(
            f"got a {type(student).__name__} of a network of times = {times}, but only method='dsno' trains such a "
            f"network: build it without times"
        )
    if getattr(network, "end_time", False) is True and not isinstance(unwrapped(student), FlowMap):
        raise ValueError(
            f"got a {type(student).__name__} of a network that takes two times, but only method='flow_map' trains such "
            f"a network: build it without end_time"
        )


def set_samples(student: nn.Module, event_shape: tuple[int, ...], label_dim: int) -> None:
    """Set what a student must know to draw its own noise and labels, and its network need not say."""
    for part in student.modules():  # of a wrapper the student inside, of a progressive student its stages, too
        if isinstance(part, Trajectory | FlowMap | ProgressiveStudent):
            part.event_shape = event_shape
            part.label_dim = part.label_dim or label_dim


def check_flow_map(
    student: Any, problem: Problem, kind: type[Student] = FlowMap, *, end_time: bool | None = None
) -> None:
    """Check that a student is of that class, over the problem's span, and of a network that takes two times, or one.

    Raises:
        ValueError: another student or span.
    """
    # A consistency function adds noise between its calls, which only its own methods teach it to remove.
    fits = isinstance(student, kind) and (kind is not FlowMap or not isinstance(student, ConsistencyFunction))
    if not fits or (end_time is not None and student.takes_end_time != end_time):
        takes = {
            None: "",
            True: " of a network that takes end_time (build it with end_time=True)",
            False: " of a network that takes one time (build it without end_time)",
        }
        raise ValueError(
            f"got a {summary(student)} as student, but this method trains a {kind.__name__}{takes[end_time]}: pass "
            f"one, or none"
        )
    check_end(student, problem)


def check_end(student: Any, problem: Problem) -> None:
    """Check that a student takes noise over the problem's span to finite samples.

    Raises:
        ValueError: another span or shape, NaN or infinity.
    """
    _check_span(student, problem)
    z, labels = _noise(problem)
    for part in getattr(student, "stages", [student]):
        with torch.no_grad():
            _check_values(as_student(part, problem).end(z, labels), z, problem.t_end)


def check_path_student(student: nn.Module, problem: Problem, soft_boundary: bool, end_only: bool = False) -> None:
    """Check that a student is a path x(z, t) over the problem's span that starts at z.

    Args:
        student: as it will be trained.
        problem: what it shall solve.
        soft_boundary: it need not start at z.
        end_only: only its end is trained: it may be a straight line, and need not start at z.

    Raises:
        ValueError: another shape or span, NaN, a boundary condition that is not met, or a straight line.
    """
    _check_span(student, problem)
    if isinstance(student, NeuralOperator):
        raise ValueError(
            f"got a NeuralOperator as student, which has {len(student.times)} times only, but this method trains one "
            f"of all times: pass a Trajectory, or set method='dsno'"
        )
    if isinstance(student, FlowMap | ProgressiveStudent):
        raise ValueError(
            f"got a {type(student).__name__} as student, but this method trains a path x(z, t): pass a Trajectory, or "
            f"a method that trains such a student, as 'flow_map', 'cd' or 'pd' do"
        )
    if not end_only and isinstance(student, Trajectory) and student.time is TIMES["end"]:
        raise ValueError(
            "got a student whose network does not see t (time='end', as method='endpoint' builds it), so that its "
            "paths are straight lines, but this method trains any path: pass a Trajectory with time='log', or none"
        )
    z, labels = _noise(problem)
    t = as_float64_time(problem.t_start, z)
    with torch.no_grad(), reraise_with_context("student", student, z, t, labels):
        start = call_student(student, z, t, labels)
        end = call_student(student, z, as_float64_time(problem.t_end, z), labels)
    _check_values(start, z, problem.t_start)
    if not end.isfinite().all():  # no scheme needs to evaluate it there, but its samples are its values there
        raise ValueError(
            f"the student returns NaN or infinity at t = {problem.t_end:g}, where its paths end, before any training: "
            f"end the paths where its network is finite (t_min, t_end), or give it another time embedding"
        )
    # Per coordinate, since each may have units of its own; the rounding of float32 is that of the largest.
    error, size = (start - z).abs().amax(0), z.abs().amax(0)
    if not (soft_boundary or end_only) and (error > 1e-4 * size + 1e-6 * size.max()).any():
        raise ValueError(
            f"the student does not start at z: x(z, {problem.t_start:g}) is off by {error.max():.3g}. Use a Trajectory "
            f"with a hard boundary, or set boundary_weight"
        )
    if isinstance(problem, Diffusion) and isinstance(student, PiecewiseTrajectory):
        raise ValueError("got a student of several windows, but a diffusion is solved in one window: use a Trajectory")


def _noise(problem: Problem) -> tuple[Tensor, Tensor | None]:
    """Eight starts and their labels, to try a student on."""
    generator = torch.Generator().manual_seed(0)
    return problem.sample_prior(8, generator), problem.sample_labels(8, generator)


def _check_values(x: Any, z: Tensor, t: float) -> None:
    """Check what a student returns for z at a time."""
    if not isinstance(x, Tensor) or x.shape != z.shape:
        raise ValueError(f"the student returned {describe_tensor(x)}, but must return the shape of z, {tuple(z.shape)}")
    check_not_complex("the student", x)
    if not x.isfinite().all():
        raise ValueError(f"the student returns NaN or infinity at t = {t:g} before any training: check its weights")


def _check_span(student: nn.Module, problem: Problem) -> None:
    t_max: Any = student.t_max
    if t_max != problem.t_start:
        raise ValueError(
            f"the student starts at t_max = {t_max:g} but the paths at {problem.t_start:g}: make them equal"
        )
    t_min: Any = getattr(student, "t_min", problem.t_end)
    if t_min != problem.t_end:
        raise ValueError(f"the student ends at t_min = {t_min:g} but the paths at {problem.t_end:g}: make them equal")
