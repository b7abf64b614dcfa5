"""The PID loss: a trajectory's own derivative compared with the teacher's field along that trajectory.

    L(theta) = E  w(t_i)  d( lhs[x, dx/dt](t_i),  rhs(x, t_i) )            x = x_theta(z, t_i)

over noise z and grid points t_i (Tee et al. 2024, Eq. 8 and 9, Algorithm 1). No data appears. If the loss of the
forward scheme is zero at i = 0 .. N - 2, the student's grid values are Euler's solution, for any positive weight and
any distance that is zero only where its arguments are equal (Theorem 1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pidlearn.equations.ode import ODE
from pidlearn.losses.distances import DISTANCES, Distance, checked_distance, l2
from pidlearn.losses.weighting import Weight, checked_weight, weights_for
from pidlearn.methods.pid import checks
from pidlearn.methods.pid.derivatives import SCHEMES, Scheme
from pidlearn.students.trajectory import Trajectory
from pidlearn.utils.arguments import BATCH, SWITCH, check_argument, check_arguments
from pidlearn.utils.batching import call_student
from pidlearn.utils.broadcast import expand_like, jvp_in_time
from pidlearn.utils.deprecation import rename_arguments
from pidlearn.utils.validation import reraise_with_context, resolve

__all__ = ["boundary_loss", "pid_loss"]

PATHS = (lambda v: callable(v) and hasattr(v, "t_max"), "a Trajectory, or a callable x(z, t) with t_max")


def pid_loss(
    trajectory: Callable[..., Tensor],
    ode: ODE,
    z: Tensor,
    grid: Tensor,
    index: Tensor,
    *,
    derivative: str | Scheme = "forward",
    distance: str | Distance = "l2",
    weight: str | Weight = "uniform",
    stop_gradient: bool = True,
    last_interval: str = "drop",
    class_labels: Tensor | None = None,
    **old_names: Any,
) -> Tensor:
    """Residual of ``ode`` along ``trajectory`` at the grid points ``index``, one value per sample.

    Args:
        trajectory: a `Trajectory`, or any callable ``x(z, t, class_labels=None)`` with an attribute ``t_max``. t is
            (B,) float64, whatever z's dtype; the difference schemes call it at grid times only. A soft boundary is not
            part of this loss: add `boundary_loss`.
        ode: `DenoiserODE`, `VelocityODE`, or an object with their methods.
        z: (B, *event), the paths' values at ``t_max``, already scaled.
        grid: (N,) times from the prior end ``t_max`` to the sample end.
        index: (B,) int64, the grid point of each sample.
        derivative: forward | central | exact | can | trapezoid, or a scheme as in `pidlearn.derivative`.
        distance: l2 | l1 | pseudo_huber | lpips (for images; also -alex, -squeeze, -vgg-average), or any
            (a, b) -> (B,).
        weight: uniform | snr | karras | sqrt_karras | truncated_snr, or any t -> (B,).
        stop_gradient: treat the teacher's side as a constant (as the official code does; no backward pass through the
            teacher).
        last_interval: the last grid point has no next one. "drop" excludes it: 0 <= index <= N - 2. "backward" takes a
            backward difference there, as the official code does; it contradicts the forward difference on the same
            interval. Its old name is ``last``.
        class_labels: (B,) int64, for teacher and student alike.
        **old_names: see ``last_interval``.

    Returns:
        (B,) weighted distances, in z's dtype but at least float32.

    Raises:
        ValueError: shapes, dtypes, devices, grids, weights and names that do not fit; NaN in z, and, as a
            `NotFiniteError`, from teacher or student.
    """
    check_argument("stop_gradient", stop_gradient, SWITCH)
    last_interval = _last_interval(last_interval, old_names)
    grid = checks.validate_inputs(trajectory, ode, z, grid, index, last_interval, class_labels)
    scheme: Scheme = resolve("derivative", derivative, SCHEMES)
    d: Distance = resolve("distance", distance, DISTANCES)
    w: Weight = resolve("weight", weight, weights_for(trajectory))

    # x = a(t) z + y(t). The skip term a(t) z is known exactly; y carries everything that is learned.
    skip_term = getattr(trajectory, "skip_term", _no_skip_term)
    y_of = _LearnedTerm(trajectory, z, grid, class_labels)
    sides = []
    # t (B,), y and dydt (B, *event): one point, or two (trapezoid)
    for t, y, dydt in checks.points(scheme, y_of, grid, index):
        # lhs is linear in (x, dx/dt), so apply it to each term: to the coefficient a(t) in float64, then times z; and
        # to y directly. With the hard boundary (a = t/T) and the denoiser form, a - t da/dt = 0: z, whose standard
        # deviation is T = 80, drops out (to 1e-16) and costs the residual no digits.
        a, dadt = skip_term(t)
        lhs = expand_like(ode.lhs(a, dadt, t), y) * z + ode.lhs(y, dydt, t)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not stop_gradient):
            x = expand_like(a, y) * z + y
            rhs = ode.rhs(x.to(z.dtype), t, class_labels).to(y.dtype)
        sides.append((lhs, rhs))
    lhs, rhs = (torch.stack(side).mean(0) for side in zip(*sides, strict=True))
    checks.finite(lhs, rhs, grid[index])
    loss = checked_distance(d, lhs, rhs)
    return checked_weight(w, grid[index]).to(loss) * loss


@check_arguments(trajectory=PATHS, z=BATCH)
def boundary_loss(trajectory: Trajectory, z: Tensor, class_labels: Tensor | None = None) -> Tensor:
    """Squared error of the boundary condition, (B,): what a soft boundary needs in addition to the residual.

    The mean square of x(z, T) - z per sample, over the mean square of z in the batch.
    """
    return l2(trajectory(z, trajectory.t_max, class_labels), z) / z.square().mean()


class _LearnedTerm:
    """y(t) of a trajectory from starts z: its own learned term, or all of x(z, t) where it has none."""

    def __init__(self, trajectory: Callable[..., Tensor], z: Tensor, grid: Tensor, class_labels: Tensor | None) -> None:
        self.trajectory, self.z, self.grid, self.class_labels = trajectory, z, grid, class_labels
        self.dtype = torch.promote_types(z.dtype, torch.float32)  # differences of half-precision values are noise

    def __call__(self, *times: Tensor) -> tuple[Tensor, ...]:
        """The values at each of the times (B,)."""
        trajectory, z, labels = self.trajectory, self.z, self.class_labels
        with reraise_with_context("student", trajectory, z, times[0], self.class_labels):
            if hasattr(trajectory, "learned_term"):
                values = trajectory.learned_term(z, *times, class_labels=labels)
            else:
                values = tuple(call_student(trajectory, z, t, labels) for t in times)
        return self._at_least_float32(values)

    def jvp(self, *times: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """The values and their time derivatives, by the trajectory's own, perhaps compiled, method if any."""
        trajectory, z = self.trajectory, self.z
        if not hasattr(trajectory, "learned_term_jvp"):
            return jvp_in_time(self, *times)
        with reraise_with_context("student", trajectory, z, times[0], self.class_labels):
            values, slopes = trajectory.learned_term_jvp(z, *times, class_labels=self.class_labels)
        return self._at_least_float32(values), tuple(slope.to(self.dtype) for slope in slopes)

    def _at_least_float32(self, values: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The values in float32 or better, after a check of their shapes."""
        checks.student_output(values, self.z, self.grid, getattr(self.trajectory, "compute_dtype", None))
        return tuple(y.to(self.dtype) for y in values)


def _no_skip_term(t: Tensor) -> tuple[Tensor, Tensor]:
    """a(t) = 0: all of the path is in y."""
    return torch.zeros_like(t), torch.zeros_like(t)


def _last_interval(last_interval: str, old_names: dict[str, Any]) -> str:
    if not old_names:
        return last_interval
    names = rename_arguments(old_names, {"last": "last_interval"}, stacklevel=4)
    if names.keys() != {"last_interval"}:
        raise TypeError(f"pid_loss has no argument {', '.join(names.keys() - {'last_interval'})}")
    return str(names["last_interval"])
