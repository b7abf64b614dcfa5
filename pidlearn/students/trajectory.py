"""The student: a network that *is* the solution x(z, t) of the ODE that starts at z.

    x(z, t) = a(t) z + b(t) F(c_in z, time(t))          z = x(T), T = t_max

The boundary condition x(z, T) = z is a choice of (a, b). With the hard one of PID's Eq. 7, a = t/T and b = 1 - t/T:
the path is the straight line from z to the origin plus a bend that the network draws. The network reads z and t
only; it never sees the noisy image, which does not exist before it is asked for.

z is some 80 times larger than the data, and the residual is a small difference of values along the path. So a
trajectory offers its two parts apart: `line`, known exactly, and `bend`, which carries all that is learned.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from pidlearn.utils.batching import in_chunks
from pidlearn.utils.broadcast import exact_time, expand, with_slopes
from pidlearn.utils.validation import check_labels, choose

__all__ = ["BOUNDARIES", "TIMES", "Boundary", "Student", "Trajectory", "Windows"]

Boundary = Callable[[Tensor, float, float], tuple[Tensor, Tensor, Tensor]]
"""(t, t_max, sigma_data) -> (a, da/dt, b), each of t's shape and dtype."""


Time = Callable[[Tensor, float, float], Tensor]
"""(t, t_max, t_min) -> what the network is told of t, of t's shape and dtype."""


def hard(t: Tensor, t_max: float, sigma_data: float) -> tuple[Tensor, Tensor, Tensor]:
    """a = t/T, b = 1 - t/T: x(z, T) = z by construction (PID Eq. 7)."""
    a = t / torch.as_tensor(t_max, dtype=t.dtype)
    return a, torch.full_like(t, 1 / t_max), 1 - a


def increment(t: Tensor, t_max: float, sigma_data: float) -> tuple[Tensor, Tensor, Tensor]:
    """a = 1, b = t - T: x(z, T) = z by construction, for any ODE; F is then the mean velocity since T."""
    return torch.ones_like(t), torch.zeros_like(t), t - torch.as_tensor(t_max, dtype=t.dtype)


def soft(t: Tensor, t_max: float, sigma_data: float) -> tuple[Tensor, Tensor, Tensor]:
    """a = 0, b = sqrt(t^2 + sigma_data^2): the network draws all of x, and x(z, T) = z only as far as
    `boundary_loss` has taught it. b is the scale of x at t, so that F has unit scale throughout.
    """
    return torch.zeros_like(t), torch.zeros_like(t), (t * t + sigma_data**2).sqrt()


BOUNDARIES: dict[str, Boundary] = {"hard": hard, "increment": increment, "soft": soft}


def log_time(t: Tensor, t_max: float, t_min: float) -> Tensor:
    """ln(t) / 4, EDM's c_noise (Karras et al. 2022, table 1)."""
    return t.log() / 4


def linear_time(t: Tensor, t_max: float, t_min: float) -> Tensor:
    """From -1 at t_max to 1 at t_min."""
    return 2 * (t - t_max) / (t_min - t_max) - 1


TIMES: dict[str, Time] = {"log": log_time, "linear": linear_time}


class Student(nn.Module):
    """What every student can do once it is a function x(z, t) from ``t_max`` to ``t_min``."""

    t_max: float
    t_min: float
    event_shape: tuple[int, ...] | None
    label_dim: int

    @torch.no_grad()
    def trajectory(self, z: Tensor, grid: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """The path at every grid time: (len(grid), B, *event)."""
        return torch.stack([self(z, t, class_labels) for t in grid])

    @torch.no_grad()
    def sample(
        self,
        n: int,
        class_labels: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """n samples (n, *event_shape) in one call of the network each: x(z, t_min) with z ~ N(0, t_max^2).

        A network with classes (``label_dim``) gets uniform ones where none are given.

        Raises:
            ValueError: for labels that are not n, or an event_shape that was never given.
        """
        if self.event_shape is None:
            raise ValueError(
                "this student does not know its event_shape, so it cannot draw noise: pass event_shape to Trajectory. "
                "If its ODE is no diffusion, result.sample(n) draws the starts from the prior"
            )
        check_labels(class_labels, n, self.label_dim)
        like = next(self.parameters())
        where = "cpu" if generator is None else generator.device
        z = self.t_max * torch.randn(n, *self.event_shape, generator=generator, dtype=like.dtype, device=where)
        if class_labels is None and self.label_dim:
            class_labels = torch.randint(self.label_dim, (n,), generator=generator, device=where)
        labels = None if class_labels is None else class_labels.to(like.device)
        return in_chunks(lambda z, labels: self(z, self.t_min, labels), z.to(like.device), labels)


class Trajectory(Student):
    """A network as the solution of an ODE, callable as ``x(z, t)``.

    Args:
        network: F(x, time, class_labels=None) -> x's shape, with x (B, *event) of unit scale and time (B,).
            Without labels it is called as F(x, time).
        t_max: the prior end, where x(z, t_max) = z.
        t_min: the sample end; `sample` returns x(z, t_min).
        sigma_data: standard deviation of the data, EDM's 0.5 for images in [-1, 1].
        boundary: "hard", "increment", "soft", or a function as `Boundary` says.
        time: what the network is told of t: "log" (ln(t)/4), "linear" (-1 to 1), or a function as `Time` says.
        c_in: scale of z on its way into the network; by default 1 / sqrt(sigma_data^2 + t_max^2), for every t.
        event_shape: shape of one sample, which `sample` needs.

    Raises:
        ValueError: unknown boundary, or spans that make no sense.
        TypeError: a network that cannot be called.
    """

    body: torch.dtype | None = None
    """What the network computes in, if not in z's dtype. What is made of its output stays in that."""

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
        if not callable(network):
            raise TypeError(f"a network is a function F(x, time, class_labels=None), got {type(network).__name__}")
        if t_max == t_min or not (math.isfinite(t_max) and math.isfinite(t_min)):
            raise ValueError(f"expected two different, finite times, got t_max = {t_max}, t_min = {t_min}")
        if boundary == "hard" and t_max == 0:
            raise ValueError("the hard boundary divides by t_max, which is 0: take boundary='increment'")
        if not sigma_data > 0:
            raise ValueError(f"sigma_data must be positive, got {sigma_data}")
        self.network = network
        self.t_max, self.t_min, self.sigma_data = float(t_max), float(t_min), float(sigma_data)
        self.boundary: Boundary = choose("boundary", boundary, BOUNDARIES)
        self.time: Time = choose("time", time, TIMES)
        self.c_in = 1 / math.hypot(sigma_data, t_max) if c_in is None else float(c_in)
        self.event_shape = None if event_shape is None else tuple(event_shape)
        self.label_dim = getattr(network, "label_dim", 0)

    def forward(self, z: Tensor, t: Any, class_labels: Tensor | None = None) -> Tensor:
        """x(z, t): z (B, *event) ~ N(0, t_max^2), t a scalar or (B,), to (B, *event); z itself at t_max."""
        t = exact_time(t, z)
        a, _ = self.line(t)
        (bend,) = self.bend(z, t, class_labels=class_labels)
        return expand(a, z) * z + bend

    def line(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """a(t) and da/dt: the part of the path that no weight touches is a(t) z."""
        a, slope, _ = self.boundary(t, self.t_max, self.sigma_data)
        return a, slope

    def bend(self, z: Tensor, *times: Tensor, class_labels: Tensor | None = None) -> tuple[Tensor, ...]:
        """b(t) F(c_in z, time(t)) for each of the times (B,), in one call of the network."""
        k = len(times)
        t = torch.cat(times)
        labels = () if class_labels is None else (torch.cat([class_labels] * k),)
        scaled = (self.c_in * z).repeat(k, *[1] * (z.ndim - 1))
        time = self.time(t, self.t_max, self.t_min).to(z.dtype)
        out = self.network(scaled.to(self.body or z.dtype), time, *labels).to(z.dtype)
        if out.shape != scaled.shape:
            raise ValueError(
                f"the student's network must keep the shape of its input, {tuple(scaled.shape)}, "
                f"but returned {tuple(out.shape)}"
            )
        *_, b = self.boundary(t, self.t_max, self.sigma_data)
        return (expand(b, out) * out).chunk(k)

    def bend_and_slope(
        self, z: Tensor, *times: Tensor, class_labels: Tensor | None = None
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """`bend` and its derivative in time, in one pass of forward-mode automatic differentiation."""
        return with_slopes(lambda *t: self.bend(z, *t, class_labels=class_labels), *times)

    def started(self, z: Tensor) -> Trajectory:
        """This trajectory from starts z (B, *event) that are read once, for a network that has ``read``.

        The result takes whole copies of z, (k B, *event), at (k B,) times: what it costs is one call of the network,
        however large k is.
        """
        at = self.network.encode(self.c_in * z)  # type: ignore[attr-defined]  # asked of such networks only
        return Trajectory(
            lambda x, time: at(time),
            self.t_max,
            t_min=self.t_min,
            sigma_data=self.sigma_data,
            boundary=self.boundary,
            time=self.time,
        )


class Windows(Student):
    """A long span as a chain of trajectories: each starts at the state where the one before it ends.

    Every window meets its own boundary condition exactly, so the chain is continuous. It costs one call of a small
    network for each window up to t.

    Args:
        windows: in order; the t_min of each is the t_max of the next.

    Raises:
        ValueError: if they do not join.
    """

    def __init__(self, windows: Sequence[Trajectory]) -> None:
        super().__init__()
        if not windows:
            raise ValueError("expected at least one window")
        for one, two in pairwise(windows):
            if one.t_min != two.t_max:
                raise ValueError(f"windows must join: one ends at {one.t_min:g}, the next starts at {two.t_max:g}")
            if (one.t_max < one.t_min) != (two.t_max < two.t_min):
                raise ValueError(f"windows must run in one direction of time: they turn round at {one.t_min:g}")
        self.chain = nn.ModuleList(windows)
        self.t_max, self.t_min = windows[0].t_max, windows[-1].t_min
        self.event_shape, self.label_dim = windows[0].event_shape, windows[0].label_dim

    @property
    def windows(self) -> list[Trajectory]:
        """The trajectories, in order."""
        return [window for window in self.chain if isinstance(window, Trajectory)]

    def forward(self, z: Tensor, t: Any, class_labels: Tensor | None = None) -> Tensor:
        """x(z, t): z (B, *event) at t_max, t a scalar or (B,), to (B, *event)."""
        t = exact_time(t, z)
        out, state = torch.empty_like(z), z
        left = torch.ones_like(t, dtype=torch.bool)
        for window in self.windows:
            # Within this window, or at its very start; what lies beyond the last window belongs to it.
            inside = left & ((t - window.t_min) * (window.t_max - window.t_min) >= 0)
            if window is self.windows[-1]:
                inside = left
            if inside.any():
                labels = None if class_labels is None else class_labels[inside]
                out = out.index_put((inside,), window(state[inside], t[inside], labels))
            left = left & ~inside
            if not left.any():
                break
            state = window(state, window.t_min, class_labels)
        return out
