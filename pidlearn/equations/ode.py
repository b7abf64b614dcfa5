"""The equation dx/dt = f(x, t) that a student must solve, with the two sides of its residual.

A perceptual distance compares two images, so an ODE states its residual as two sides rather than as one difference.
Along a path x(t) with time derivative dx/dt:

    velocity form   (PID Eq. 8)   lhs = dx/dt            rhs = f(x, t)
    denoiser form   (PID Eq. 9)   lhs = x - t dx/dt      rhs = D(x, t)

The probability flow of a denoiser is f = (x - D(x, t)) / t, so Eq. 9 is Eq. 8 times -t: both sides have the size of
the data at every t, while f divides an error of D by t. For data on a thin set, its Lipschitz constant has no bound.

A new equation is a class with the three methods below. ``lhs`` must be jointly linear in (x, dx/dt): `pid_loss` applies
it to the terms of a student separately, so that a large z never costs a small residual its digits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor

from pidlearn.utils.arguments import VALUES, check_arguments
from pidlearn.utils.broadcast import as_batch, expand_like
from pidlearn.utils.validation import as_real, check_output, describe_tensor, reraise_with_context, summary

__all__ = ["ODE", "DenoiserODE", "VelocityODE"]


class ODE(Protocol):
    """The interface of an equation for the loss and the solvers. x is (B, *event); t is a scalar or (B,)."""

    def velocity(self, x: Tensor, t: Any, class_labels: Tensor | None = None) -> Tensor:
        """dx/dt at (x, t), of x's shape."""
        ...

    def lhs(self, x: Tensor, dxdt: Tensor, t: Any) -> Tensor:
        """The path's side of the residual: alpha(t) x + beta(t) dxdt; `pid_loss` also calls it with x and dxdt (B,)."""
        ...

    def rhs(self, x: Tensor, t: Any, class_labels: Tensor | None = None) -> Tensor:
        """The teacher's side of the residual at the same point."""
        ...


class VelocityODE:
    """Any ODE dx/dt = f(x, t), in the velocity form of PID's Eq. 8.

    Args:
        f: called as ``f(x, t)`` with x (B, *event) and t (B,) of x's dtype; returns x's shape. With class labels it is
            called as ``f(x, t, class_labels)``.
    """

    def __init__(self, f: Callable[..., Tensor]) -> None:
        if not callable(f):
            raise TypeError(f"got f of type {type(f).__name__}, but VelocityODE needs a callable f(x, t)")
        self.f = f

    def __repr__(self) -> str:
        """The name of the field."""
        return f"VelocityODE({getattr(self.f, '__name__', summary(self.f))})"

    def velocity(self, x: Tensor, t: Any, class_labels: Tensor | None = None) -> Tensor:
        """f(x, t), of x's shape and dtype.

        Raises:
            ValueError: a field that fails on x, or returns another shape than x's.
        """
        t = as_batch(t, x)  # (B,)
        labels = () if class_labels is None else (class_labels,)
        with reraise_with_context("field f", self.f, x, t, class_labels):
            out = self.f(x, t, *labels)
        return check_output("f(x, t)", out, x)

    def lhs(self, x: Tensor, dxdt: Tensor, t: Any) -> Tensor:
        """dx/dt."""
        return dxdt

    def rhs(self, x: Tensor, t: Any, class_labels: Tensor | None = None) -> Tensor:
        """f(x, t)."""
        return self.velocity(x, t, class_labels)


class DenoiserODE:
    """The probability flow dx/dt = (x - D(x, t)) / t of a denoiser, in the denoiser form of PID's Eq. 9.

    Args:
        denoiser: any callable ``D(x, sigma, class_labels=None) -> x0`` with x and x0 (B, *event) and sigma (B,) of
            x's dtype (variance-exploding noise: x = x0 + sigma * n). Without labels it is called as ``D(x, sigma)``.
    """

    def __init__(self, denoiser: Callable[..., Tensor]) -> None:
        if not callable(denoiser):
            raise TypeError(
                f"got a denoiser of type {type(denoiser).__name__}, but DenoiserODE needs a callable D(x, sigma)"
            )
        self.denoiser = denoiser

    def __repr__(self) -> str:
        """The name of the denoiser."""
        return f"DenoiserODE({getattr(self.denoiser, '__name__', summary(self.denoiser))})"

    def denoise(self, x: Tensor, t: Any, class_labels: Tensor | None = None) -> Tensor:
        """D(x, t), of x's shape and dtype.

        Raises:
            ValueError: a denoiser that fails on x, or returns another shape than x's.
        """
        t = as_batch(t, x)
        labels = {} if class_labels is None else {"class_labels": class_labels}
        with reraise_with_context("teacher", self.denoiser, x, t, class_labels):
            out = self.denoiser(x, t, **labels)
        return check_output("the denoiser D(x, sigma)", out, x)

    def velocity(self, x: Tensor, t: Any, class_labels: Tensor | None = None) -> Tensor:
        """(x - D(x, t)) / t, for t > 0."""
        # = -t score(x, t), since score = (D - x) / t^2 (Karras et al. 2022, Eq. 1 and 3). D's error is divided by t.
        return (x - self.denoise(x, t, class_labels)) / expand_like(t, x)

    @check_arguments(x=VALUES)
    def lhs(self, x: Tensor, dxdt: Tensor, t: Any) -> Tensor:
        """x - t dx/dt: the image at which the path's tangent meets t = 0."""
        dxdt = as_real("dxdt", dxdt)
        if dxdt.ndim and dxdt.shape != x.shape:
            raise ValueError(
                f"got x {describe_tensor(x)} and dxdt {describe_tensor(dxdt)}, but a derivative has the shape of x: "
                f"make them equal"
            )
        return x - expand_like(t, x) * dxdt  # x + (0 - t) dx/dt, an Euler step from t to 0

    def rhs(self, x: Tensor, t: Any, class_labels: Tensor | None = None) -> Tensor:
        """D(x, t): the teacher's denoised image."""
        return self.denoise(x, t, class_labels)
