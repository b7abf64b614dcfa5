"""The student of PID: a network that *is* the solution x(z, t) of the ODE that starts at z.

    x(z, t) = a(t) z + b(t) F(c_in z, time(t))          z = x(T), T = t_max

The boundary condition x(z, T) = z is a choice of (a, b). With the hard one of PID's Eq. 7, a = t/T and b = 1 - t/T: the
path is the straight line from z to the origin plus a learned correction. Unlike a denoiser, the network never sees
x(t), only the start z and the time t.

z is far larger than the data (standard deviation 80 compared with about 0.5), and the residual is a small difference of
values along the path. So a trajectory exposes its two terms separately: `skip_term`, known exactly, and `learned_term`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pidlearn.students.base import Student, check_class_labels, check_time
from pidlearn.students.boundaries import BOUNDARIES, TIMES, Boundary, Time
from pidlearn.utils.arguments import check_arguments, number, optional
from pidlearn.utils.broadcast import as_float64_time, expand_like, jvp_in_time
from pidlearn.utils.deprecation import renamed
from pidlearn.utils.validation import check_not_complex, check_shape, describe_tensor, reraise_with_context, resolve
from pidlearn.utils.wrappers import unwrapped

__all__ = ["Trajectory"]


class Trajectory(Student):
    """A network as the solution of an ODE, callable as ``x(z, t)``.

    Args:
        network: F(x, time, class_labels=None) -> x's shape, with x (B, *event) of unit scale and time (B,).
            Without labels it is called as F(x, time).
        t_max: the prior end, where x(z, t_max) = z.
        t_min: the sample end; `sample` returns x(z, t_min).
        sigma_data: standard deviation of the data, EDM's 0.5 for images in [-1, 1].
        boundary: "hard", "increment", "soft", "signal", or a `Boundary` function.
        time: the network's time input: "log" (ln(t)/4), "linear" (-1 to 1), "end" (ln(t_min)/4 at every t, for a
            student that learns only its end), or a `Time` function.
        c_in: scale of z at the network's input; by default 1 / sqrt(sigma_data^2 + t_max^2), for every t.
        event_shape: shape of one sample, which `sample` needs.

    Raises:
        ValueError: an unknown boundary or time, or an impossible span.
        TypeError: a network that cannot be called.
    """

    has_path = True

    compute_dtype: torch.dtype | None = None
    """The dtype in which the network computes, if not z's; its output is converted back."""

    @check_arguments(t_max=number(), t_min=number(), sigma_data=number(positive=True), c_in=optional(number()))
    def __init__(
        self,
        network: Callable[..., Tensor],
        t_max: float = 80.0,
        *,
        t_min: float = 0.002,
        sigma_data: float = 0.5,
        boundary: str | Boundary = "hard",
        time: str | Time = "log",
        c_in: float | None = None,
        event_shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if not callable(network) or isinstance(network, type):
            raise TypeError(
                f"got a {type(network).__name__}, but a network is a function F(x, time, class_labels=None)"
            )
        if t_max == t_min:
            raise ValueError(f"got t_max = {t_max}, t_min = {t_min}, but a span needs two different, finite times")
        if isinstance(boundary, str) and boundary == "hard" and t_max == 0:
            raise ValueError("the hard boundary divides by t_max, which is 0: use boundary='increment'")
        if isinstance(time, str) and time == "log" and min(t_max, t_min) < 0:
            raise ValueError(
                f"got t_max = {t_max}, t_min = {t_min}, but time='log' needs positive times: use time='linear'"
            )
        self.network = network
        self.t_max, self.t_min, self.sigma_data = float(t_max), float(t_min), float(sigma_data)
        self.boundary: Boundary = resolve("boundary", boundary, BOUNDARIES)
        self.time: Time = resolve("time", time, TIMES)
        # c_in x(T) has unit variance. One c_in serves all t, since the input is z = x(T) and not x(t).
        self.c_in = 1 / math.hypot(sigma_data, t_max) if c_in is None else float(c_in)
        self.event_shape = None if event_shape is None else check_shape(event_shape)
        self.label_dim = getattr(unwrapped(network), "label_dim", 0)

    def forward(self, z: Tensor, t: Any, class_labels: Tensor | None = None) -> Tensor:
        """x(z, t): z (B, *event), already scaled, and t a scalar or (B,), to (B, *event); z itself at t_max.

        Raises:
            ValueError: a time outside the span, or no labels for a class-conditional student.
        """
        check_class_labels(self, class_labels)
        check_time(t, self.t_max, self.t_min)
        t = as_float64_time(t, z)
        a, _ = self.skip_term(t)
        with reraise_with_context("student", self.network, z, t, class_labels):
            (learned,) = self.learned_term(z, t, class_labels=class_labels)
        # PID Eq. 7. This sum rounds at the size of a z; the loss takes the two terms separately instead.
        return expand_like(a, z) * z + learned

    def skip_term(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """a(t) and da/dt, (B,) each: the term a(t) z depends on no weight."""
        a, dadt, _ = self.boundary(t, self.t_max, self.sigma_data)
        return a, dadt

    def learned_term(self, z: Tensor, *times: Tensor, class_labels: Tensor | None = None) -> tuple[Tensor, ...]:
        """b(t) F(c_in z, time(t)), (B, *event), for each of the k times (B,), in one call of the network."""
        k = len(times)
        t = torch.cat(times)  # (k B,)
        labels = () if class_labels is None else (torch.cat([class_labels] * k),)
        scaled = (self.c_in * z).repeat(k, *[1] * (z.ndim - 1))  # (k B, *event)
        # (k B,): times are rounded to z's dtype only here.
        time = self.time(t, self.t_max, self.t_min).to(z.dtype)
        out = self.network(scaled.to(self.compute_dtype or z.dtype), time, *labels)
        if not isinstance(out, Tensor) or out.shape != scaled.shape:
            raise ValueError(
                f"the student's network returned {describe_tensor(out)}, but must keep the shape of its input, "
                f"{tuple(scaled.shape)}: return one such tensor"
            )
        check_not_complex("the student's network", out)
        out = out.to(z.dtype)
        *_, b = self.boundary(t, self.t_max, self.sigma_data)  # (k B,), in t's dtype: 1 - t/T cancels near T
        return (expand_like(b, out) * out).chunk(k)  # k tensors (B, *event)

    def learned_term_jvp(
        self, z: Tensor, *times: Tensor, class_labels: Tensor | None = None
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """`learned_term` and its time derivative, in one pass of forward-mode automatic differentiation."""
        return jvp_in_time(lambda *t: self.learned_term(z, *t, class_labels=class_labels), *times)

    def at_start(self, z: Tensor) -> Trajectory:
        """This trajectory from fixed starts z (B, *event), for a network that encodes z once for all times.

        The result takes k copies of z, (k B, *event), at (k B,) times, and costs one call of the network whatever k is.
        """
        at = self.network.encode(self.c_in * z)  # type: ignore[attr-defined]  # only networks with this method come here
        return Trajectory(
            lambda x, time: at(time),
            self.t_max,
            t_min=self.t_min,
            sigma_data=self.sigma_data,
            boundary=self.boundary,
            time=self.time,
        )

    line = renamed("line", "skip_term")
    bend = renamed("bend", "learned_term")
    bend_and_slope = renamed("bend_and_slope", "learned_term_jvp")
    started = renamed("started", "at_start")
    body = renamed("body", "compute_dtype")

    def _path(self, z: Tensor, grid: Tensor, class_labels: Tensor | None) -> Tensor:
        return Student._path(self.at_start(z) if hasattr(self.network, "encode") else self, z, grid, class_labels)

    def __repr__(self) -> str:
        """One line: the network, its size, and the span."""
        size = sum(p.numel() for p in self.parameters())
        network = type(self.network).__name__
        return f"{type(self).__name__}({network}, {size:,} weights, from t = {self.t_max:g} to {self.t_min:g})"
