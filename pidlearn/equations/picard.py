"""Euler's path by sweeps over all times at once, instead of step after step (Picard's iteration).

A sweep evaluates the field at every point of a path, in one batch, and sums Euler's steps with these values:

    x_{i+1} = x_i + h_i f(x'_i, t_i)                       x' is the path before
    x_{i+1} = r_i x_i + (1 - r_i) D(x'_i, t_i)             of a denoiser, r_i = t_{i+1} / t_i

Both have Euler's path as their only fixed point, since sweep k makes at least the first k states right. The second is
the first with the linear part of f = (x - D) / t taken from the new path: D changes far less than f. It takes as many
calls per sweep as Euler in all, but a GPU does them in the time of one, if they fit (Shih et al. 2023, arXiv
2305.16317). From a student's path, which is nearly right, fewer sweeps suffice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from pidlearn.equations.ode import ODE, DenoiserODE
from pidlearn.equations.solvers import FIELD, checked_times
from pidlearn.utils.arguments import BATCH, LABELS, TIMES, check_argument, check_arguments
from pidlearn.utils.batching import chunk_size

__all__ = ["picard"]


@check_arguments(path=BATCH, grid=TIMES, class_labels=LABELS)
def picard(
    ode: ODE, path: Tensor, grid: Tensor | Sequence[float], class_labels: Tensor | None = None
) -> Iterator[Tensor]:
    """Yield the path after each sweep, (N, B, *event), without end.

    Args:
        ode: a `DenoiserODE`, or any ODE.
        path: (N, B, *event), where the first sweep evaluates the field: of a student, ``student.trajectory(z, grid)``.
            Its first state is kept.
        grid: (N,) times.
        class_labels: (B,) int64 or None.

    Raises:
        ValueError: a path of another length than the grid, or with NaN, and a grid or labels that `solve` refuses, too.
    """
    check_argument("ode", ode, FIELD)
    if len(path) != len(grid):
        raise ValueError(
            f"got a path of {len(path)} states for {len(grid)} times: pass one state per time, such as "
            f"student.trajectory(z, grid)"
        )
    times = checked_times(path[0], grid, class_labels).to(path.device)
    if isinstance(ode, DenoiserODE) and not (times[:-1] > 0).all():
        raise ValueError("got a grid with times that are not positive, but a denoiser's path falls from t_max > 0")
    if not path.isfinite().all():
        raise ValueError("path holds NaN or infinity: pass finite states, such as student.trajectory(z, grid)")
    return _sweeps(ode, path, times, class_labels)


@torch.no_grad()
def _sweeps(ode: ODE, path: Tensor, times: Tensor, class_labels: Tensor | None) -> Iterator[Tensor]:
    is_denoiser = isinstance(ode, DenoiserODE)
    field: Any = ode.rhs if is_denoiser else ode.velocity
    n, size = len(times) - 1, len(path[0])
    t = times[:-1].repeat_interleave(size)  # (n B,)
    labels = None if class_labels is None else class_labels.repeat(n)
    chunks = torch.arange(n * size, device=path.device).split(chunk_size(path[0]))
    while True:
        points = path[:-1].flatten(0, 1)  # (n B, *event)
        values = [field(points[rows], t[rows], None if labels is None else labels[rows]) for rows in chunks]
        states = [path[0]]
        for value, (s, s_next) in zip(torch.cat(values).split(size), pairwise(times.tolist()), strict=True):
            x = states[-1]
            states.append(s_next / s * x + (1 - s_next / s) * value if is_denoiser else x + (s_next - s) * value)
        path = torch.stack(states)
        yield path
