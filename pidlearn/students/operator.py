"""The student of DSNO: a network that returns the path from z at M times, in one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from pidlearn.students.base import check_class_labels, check_time
from pidlearn.students.trajectory import Trajectory
from pidlearn.utils.arguments import TIMES, check_arguments, number
from pidlearn.utils.broadcast import as_float64_time
from pidlearn.utils.validation import as_real, reraise_with_context, summary
from pidlearn.utils.wrappers import unwrapped

__all__ = ["NeuralOperator"]


class NeuralOperator(Trajectory):
    """The map from z to x(z, t_1), ..., x(z, t_M), computed in parallel (Zheng et al. 2022, arXiv 2211.13449).

    Each state is that of a `Trajectory` with the hard boundary, but the network sees all M times of a sample together.

    Args:
        network: F(x, time, class_labels=None) -> x's shape, with x (M B, *event) and time (M B,): all samples at t_1
            first. The library's networks are built for that with ``times=M``.
        t_max: the prior end.
        times: t_1 > ... > t_M, below t_max; the last is the sample end.
        sigma_data: standard deviation of the data, EDM's 0.5 for images in [-1, 1].
        c_in: scale of z at the network's input; by default 1 / sqrt(sigma_data^2 + t_max^2).
        event_shape: shape of one sample, which `sample` needs.

    Raises:
        ValueError: times that do not fall, or a network for another number of them.
    """

    @check_arguments(t_max=number(positive=True), times=TIMES)
    def __init__(
        self,
        network: Callable[..., Tensor],
        t_max: float = 80.0,
        *,
        times: Sequence[float],
        sigma_data: float = 0.5,
        c_in: float | None = None,
        event_shape: Sequence[int] | None = None,
    ) -> None:
        falling = [float(t) for t in times]
        M = len(falling)
        if M < 2 or not all(t > u for t, u in pairwise([t_max, *falling, 0.0])):
            raise ValueError(
                f"got times = {summary(falling)} from t_max = {t_max:g}, but an operator has two or more times that "
                f"fall from below t_max to t_min > 0: sort them, or leave some out"
            )
        # A network without that number may join the times in a way of its own.
        of_network = getattr(unwrapped(network), "times", M)
        if isinstance(of_network, int) and of_network != M:
            raise ValueError(
                f"got a network of times = {of_network}, but the operator has {M} times: build it with times={M}"
            )
        super().__init__(network, t_max, t_min=falling[-1], sigma_data=sigma_data, c_in=c_in, event_shape=event_shape)
        self.times, self.rows_per_sample = falling, M

    has_path = False

    def forward(self, z: Tensor, t: Any, class_labels: Tensor | None = None) -> Tensor:
        """x(z, t), (B, *event), where t, a scalar or (B,), holds some of ``times``, or t_max.

        Raises:
            ValueError: another time, or no labels for a class-conditional student.
        """
        t = as_float64_time(t, z)
        known = torch.tensor([self.t_max, *self.times], dtype=torch.float64, device=t.device)
        error, index = (t.double()[:, None] / known - 1).abs().min(1)  # (B,) each
        wrong = ~(error < max(1e-6, torch.finfo(t.dtype).eps))  # a time may have been rounded
        if wrong.any():
            raise ValueError(
                f"got t = {t[wrong][0].item():g}, but this operator is defined at t_max and its {len(self.times)} "
                f"times, {', '.join(f'{time:.4g}' for time in self.times):.200}: use student.path(z), or one of "
                f"student.times"
            )
        states = torch.cat([z[None], self.path(z, class_labels)])  # (M + 1, B, *event)
        return states[index, torch.arange(len(z), device=index.device)]

    def path(self, z: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """The states at all ``times``, (M, B, *event), from z (B, *event), in one call of the network."""
        return self._states(z, self.learned(z, class_labels), self.times)

    def learned(self, z: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """F at all ``times``, (M, B, *event)."""
        check_class_labels(self, class_labels)
        times = [as_float64_time(t, z) for t in self.times]  # (B,) each
        with reraise_with_context("student", self.network, z, times[0], class_labels):
            terms = torch.stack(self.learned_term(z, *times, class_labels=class_labels))  # b F
        return terms / self._factors(z, self.times)[1]

    def target(self, z: Tensor, path: Tensor) -> Tensor:
        """The F at all ``times`` with which the operator returns a given path, (M, B, *event) each."""
        a, b = self._factors(z, self.times)
        return (path - a * z) / b

    def _states(self, z: Tensor, F: Tensor, times: Any) -> Tensor:
        """a(t) z + b(t) F at N times, (N, B, *event)."""
        a, b = self._factors(z, times)
        return a * z + b * F

    def _factors(self, z: Tensor, times: Any) -> tuple[Tensor, Tensor]:
        """a(t) and b(t) at N times, (N, 1, ..., 1) each, in z's dtype."""
        t = torch.as_tensor(times, dtype=torch.float64, device=z.device)
        a, _, b = self.boundary(t, self.t_max, self.sigma_data)  # in float64: 1 - t/T cancels near T
        a, b = (factor.to(z).reshape(-1, *[1] * z.ndim) for factor in (a, b))
        return a, b

    def _path(self, z: Tensor, grid: Tensor, class_labels: Tensor | None) -> Tensor:
        """The path at any times: F is interpolated linearly in ln t, and constant above the first of ``times``."""
        check_time(grid, self.t_max, self.t_min)
        t = as_real("a time", grid, torch.float64).to(z.device)  # (N,)
        log_t, log_times = t.log(), torch.tensor(self.times, dtype=torch.float64, device=z.device).log()  # (N,), (M,)
        after = torch.searchsorted(-log_times, -log_t).clamp(1, len(log_times) - 1)  # (N,), both ascend
        before = after - 1
        # From 0 to 1 between the two of ``times`` that enclose t; 0 above the first.
        share = ((log_times[before] - log_t) / (log_times[before] - log_times[after])).clamp(0, 1)
        F = self.learned(z, class_labels)  # (M, B, *event)
        between = torch.lerp(F[before], F[after], share.to(z).reshape(-1, *[1] * z.ndim))  # (N, B, *event)
        return self._states(z, between, t)
