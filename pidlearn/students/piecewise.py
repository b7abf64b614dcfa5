"""A long span as a chain of trajectories."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from pidlearn.students.base import Student, check_class_labels, check_time
from pidlearn.students.trajectory import Trajectory
from pidlearn.utils.arguments import check_arguments
from pidlearn.utils.broadcast import as_float64_time
from pidlearn.utils.validation import describe_tensor

__all__ = ["PiecewiseTrajectory"]

WINDOWS = (
    lambda v: isinstance(v, Sequence | nn.ModuleList) and all(isinstance(window, Trajectory) for window in v),
    "a list of Trajectory objects",
)


class PiecewiseTrajectory(Student):
    """A chain of trajectories, called windows: each starts at the state where the one before it ends.

    Windows with a hard or increment boundary start exactly at their z, so the chain is continuous. It costs one call of
    a small network for each window up to t.

    Args:
        windows: in order; the t_min of each is the t_max of the next.

    Raises:
        ValueError: windows that do not join.
    """

    @check_arguments(windows=WINDOWS)
    def __init__(self, windows: Sequence[Trajectory]) -> None:
        super().__init__()
        if not windows:
            raise ValueError("got no windows, but a piecewise trajectory needs at least one")
        for one, two in pairwise(windows):
            if one.t_min != two.t_max:
                raise ValueError(
                    f"got a window that ends at {one.t_min:g} and a next one that starts at {two.t_max:g}, but "
                    f"windows must join"
                )
            if (one.t_max < one.t_min) != (two.t_max < two.t_min):
                raise ValueError(
                    f"got windows that change direction at {one.t_min:g}, but windows must run in one direction of time"
                )
        self.chain = nn.ModuleList(windows)
        self.t_max, self.t_min = windows[0].t_max, windows[-1].t_min
        self.event_shape, self.label_dim = windows[0].event_shape, windows[0].label_dim

    @property
    def windows(self) -> list[Trajectory]:
        """The trajectories, in order."""
        return [window for window in self.chain if isinstance(window, Trajectory)]

    def forward(self, z: Tensor, t: Any, class_labels: Tensor | None = None) -> Tensor:
        """x(z, t): z (B, *event) at t_max, t a scalar or (B,), to (B, *event).

        Raises:
            ValueError: a time outside the span.
        """
        check_time(t, self.t_max, self.t_min)
        t = as_float64_time(t, z)
        check_class_labels(self, class_labels)
        if class_labels is not None and len(class_labels) != len(z):
            raise ValueError(
                f"got class_labels {describe_tensor(class_labels)} for {len(z)} samples; expected one class per sample"
            )
        out, state = torch.empty_like(z), z
        left = torch.ones_like(t, dtype=torch.bool)  # (B,): samples whose time lies in a later window
        for window in self.windows:
            # A time belongs to the window that ends at it or after it; times past the end belong to the last window.
            inside = left & ((t - window.t_min) * (window.t_max - window.t_min) >= 0)  # for either direction of time
            if window is self.windows[-1]:
                inside = left
            if inside.any():
                labels = None if class_labels is None else class_labels[inside]
                # state[inside] is (b, *event): only the samples whose time lies in this window.
                out = out.index_put((inside,), window(state[inside], t[inside], labels))
            left = left & ~inside
            if not left.any():
                break
            state = window(state, window.t_min, class_labels)  # (B, *event): z of the next window
        return out

    def _path(self, z: Tensor, grid: Tensor, class_labels: Tensor | None) -> Tensor:
        """Each window takes all of its times at once, and its end, from which the next one starts."""
        grid = torch.as_tensor(grid, dtype=torch.float64, device=z.device)
        check_time(grid, self.t_max, self.t_min)
        path, state = torch.empty(len(grid), *z.shape, dtype=z.dtype, device=z.device), z
        left = torch.ones_like(grid, dtype=torch.bool)  # (N,), as in `forward`
        for window in self.windows:
            inside = left & ((grid - window.t_min) * (window.t_max - window.t_min) >= 0)
            if window is self.windows[-1]:
                inside = left
            *rows, state = window.trajectory(
                state, torch.cat([grid[inside], grid.new_tensor([window.t_min])]), class_labels
            )
            if rows:
                path[inside] = torch.stack(rows)
            left = left & ~inside
            if not left.any():
                break
        return path

    def __repr__(self) -> str:
        """One line: the windows, their size, and the span."""
        size = sum(p.numel() for p in self.parameters())
        network = type(self.windows[0].network).__name__
        count = len(self.windows)
        return (
            f"PiecewiseTrajectory({count} windows of {network}, {size:,} weights, from t = {self.t_max:g} to "
            f"{self.t_min:g})"
        )
