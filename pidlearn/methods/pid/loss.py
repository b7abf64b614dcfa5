"""The PID loss: a trajectory's own derivative against the teacher's field along that trajectory.

    L(theta) = E  w(t_i)  d( lhs[x, dx/dt](t_i),  rhs(x, t_i) )            x = x_theta(z, t_i)

over noise z and grid points t_i (Tee et al. 2024, Eq. 8 and 9, Algorithm 1). No data appears. If the loss is zero at
every index of the forward scheme, the student's grid values are Euler's solution, whatever the distance (Theorem 1).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pidlearn.equations.ode import ODE
from pidlearn.losses.distances import DISTANCES, Distance, l2
from pidlearn.methods.pid import checks
from pidlearn.methods.pid.derivatives import SCHEMES, Path, Scheme
from pidlearn.students.trajectory import Trajectory
from pidlearn.utils.batching import ask
from pidlearn.utils.broadcast import expand, with_slopes
from pidlearn.utils.validation import choose, explained

__all__ = ["Weight", "boundary_loss", "pid_loss", "weights"]

Weight = Callable[[Tensor], Tensor]
"""t (B,) float64 to a weight (B,)."""


def weights(sigma_data: float) -> dict[str, Weight]:
    """The weightings by the names of the official code, for data of that standard deviation."""
    return {
        "uniform": torch.ones_like,
        "snr": lambda t: t**-2,
        "karras": lambda t: t**-2 + sigma_data**-2,
        "truncated_snr": lambda t: (t**-2).clamp(min=1),
    }


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
    last: str = "drop",
    class_labels: Tensor | None = None,
) -> Tensor:
    """Residual of ``ode`` along ``trajectory`` at the grid points ``index``, one number a sample.

    Args:
        trajectory: a `Trajectory`, or any callable ``x(z, t, class_labels=None)`` with an attribute ``t_max``. t comes
            as (B,) float64, whatever z's dtype; the difference schemes call it at grid times only. A soft boundary is
            not taught here: add `boundary_loss`.
        ode: `DenoiserODE`, `VelocityODE`, or anything of their shape.
        z: (B, *event), the paths' values at ``t_max``, already scaled.
        grid: (N,) times running from the prior end ``t_max`` to the sample end.
        index: (B,) int64, the grid point at which each sample is asked.
        derivative: forward | central | exact | can | trapezoid, or a scheme as in `pidlearn.methods.pid.derivatives`.
        distance: l2 | l1 | pseudo_huber | lpips (of images; also -alex, -squeeze, -vgg-average), or any (a, b) -> (B,).
        weight: uniform | snr | karras | truncated_snr, or any t -> (B,).
        stop_gradient: hold the teacher's side constant (the official choice, and no pass through the teacher).
        last: the last grid point has no next one. "drop" leaves it out: 0 <= index <= N - 2. "backward" differences
            backwards there as the official code does, which contradicts the forward difference on that interval.
        class_labels: (B,) int64, for teacher and student alike.

    Returns:
        (B,) weighted distances, of z's dtype but float32 at least.

    Raises:
        ValueError: shapes, dtypes, devices, grids, weights and names that do not fit; NaN in z, and, as a
            `NotFiniteError`, from teacher or student.
    """
    grid = checks.usable(trajectory, ode, z, grid, index, last, class_labels)
    scheme: Scheme = choose("derivative", derivative, SCHEMES)
    d: Distance = choose("distance", distance, DISTANCES)
    w: Weight = choose("weight", weight, weights(getattr(trajectory, "sigma_data", 0.5)))

    line, bend = _parts(trajectory, z, grid, class_labels)
    sides = []
    for t, y, dydt in scheme(bend, grid, index):
        # x = a z + y. lhs is linear, so it is taken of the two parts apart: of a(t) z by its coefficient, in
        # float64, and of y as it is. In the denoiser form a - t da/dt = 0, and z drops out before it can round.
        a, slope = line(t)
        lhs = expand(ode.lhs(a, slope, t), y) * z + ode.lhs(y, dydt, t)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not stop_gradient):
            x = expand(a, y) * z + y
            rhs = ode.rhs(x.to(z.dtype), t, class_labels).to(y.dtype)
        sides.append((lhs, rhs))
    lhs, rhs = (torch.stack(side).mean(0) for side in zip(*sides, strict=True))
    checks.finite(lhs, rhs, grid[index])
    loss = checks.one_each(d(lhs, rhs), index)
    return checks.weight(w(grid[index]), grid[index]).to(loss) * loss


def boundary_loss(trajectory: Trajectory, z: Tensor, class_labels: Tensor | None = None) -> Tensor:
    """Mean square of x(z, T) - z over that of z, (B,): what a soft boundary must be taught besides the residual."""
    return l2(trajectory(z, trajectory.t_max, class_labels), z) / z.square().mean()


def _parts(
    trajectory: Callable[..., Tensor], z: Tensor, grid: Tensor, class_labels: Tensor | None
) -> tuple[Callable[[Tensor], tuple[Tensor, Tensor]], Path]:
    """The trajectory as a(t) z + y(t): its own parts if it has them, else all of it in y."""

    def nowhere(t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(t), torch.zeros_like(t)

    return getattr(trajectory, "line", nowhere), _Bend(trajectory, z, grid, class_labels)


class _Bend:
    """y(t) of a trajectory from starts z, checked."""

    def __init__(self, trajectory: Callable[..., Tensor], z: Tensor, grid: Tensor, class_labels: Tensor | None) -> None:
        self.trajectory, self.z, self.grid, self.class_labels = trajectory, z, grid, class_labels
        self.work = torch.promote_types(z.dtype, torch.float32)

    def __call__(self, *times: Tensor) -> tuple[Tensor, ...]:
        trajectory, z, labels = self.trajectory, self.z, self.class_labels
        with explained("student", trajectory, z, times[0]):
            if hasattr(trajectory, "bend"):
                values = trajectory.bend(z, *times, class_labels=labels)
            else:
                values = tuple(ask(trajectory, z, t, labels) for t in times)
        return self._checked(values)

    def with_slopes(self, *times: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """The values, and their derivatives as the trajectory itself takes them, if it does."""
        trajectory, z = self.trajectory, self.z
        if not hasattr(trajectory, "bend_and_slope"):
            return with_slopes(self, *times)
        with explained("student", trajectory, z, times[0]):
            values, slopes = trajectory.bend_and_slope(z, *times, class_labels=self.class_labels)
        return self._checked(values), tuple(slope.to(self.work) for slope in slopes)

    def _checked(self, values: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        checks.student_output(values, self.z, self.grid, getattr(self.trajectory, "body", None))
        return tuple(y.to(self.work) for y in values)
