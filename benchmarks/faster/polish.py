"""Second-order steps on one large batch, after a training."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp, vjp

__all__ = ["gauss_newton", "lbfgs"]

SAMPLES = 8192
C = 0.03
"""Of the pseudo-Huber distance."""


def lbfgs(run: Any, seconds: float) -> None:
    """LBFGS for some CPU seconds."""
    method, context = run.trainer.method, run.trainer.context
    batch = method.draw(context, SAMPLES, torch.Generator().manual_seed(7))
    optimizer = torch.optim.LBFGS(run.student.parameters(), max_iter=5, history_size=20, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = method.loss(context, batch).mean()
        loss.backward()
        return loss

    begun = time.process_time()
    while time.process_time() - begun < seconds:
        optimizer.step(closure)


class Residuals(nn.Module):
    """The residuals of a batch, (B, *event), as a function of the weights; no side is held constant."""

    def __init__(self, run: Any, batch: tuple[Tensor, ...]) -> None:
        super().__init__()
        self.student, self.batch = run.student, batch
        self.method, self.context = run.trainer.method, run.trainer.context

    def forward(self) -> Tensor:
        kept = []

        def distance(a: Tensor, b: Tensor) -> Tensor:
            kept.append(a - b)
            return (a - b).flatten(1).square().mean(1)

        usual = self.context.distance, self.method.stop_gradient
        self.context.distance, self.method.stop_gradient = distance, False
        self.method.loss(self.context, self.batch)
        self.context.distance, self.method.stop_gradient = usual
        return kept[0]


def gauss_newton(run: Any, seconds: float, products: int = 8) -> None:
    """Gauss-Newton steps for some CPU seconds: (J^T W J + damping) step = -J^T W r, by conjugate gradients.

    W has the weights under which least squares of the residuals r are the pseudo-Huber distance.
    """
    method, context = run.trainer.method, run.trainer.context
    module = Residuals(run, method.draw(context, SAMPLES, torch.Generator().manual_seed(7)))
    weights = dict(run.student.named_parameters())
    damping, begun = 1e-3, time.process_time()

    def residuals(*values: Tensor) -> Tensor:
        return functional_call(module, {f"student.{name}": x for name, x in zip(weights, values, strict=True)}, ())

    def loss(r: Tensor) -> Tensor:
        return (r.square().mean(1) + C**2).sqrt().mean()

    def step(damping: float) -> tuple[tuple[Tensor, ...], bool]:
        """New weights, and whether their loss is smaller."""
        values = tuple(p.detach() for p in weights.values())
        r, pull = vjp(residuals, *values)
        w = (r.square().mean(1, keepdim=True) + C**2).rsqrt() / len(r)

        def normal(x: Tensor) -> Tensor:
            """(J^T W J + damping) x."""
            _, change = jvp(residuals, values, shaped(x, values))
            return flat(pull(w * change)) + damping * x

        moves = shaped(conjugate_gradients(normal, -flat(pull(w * r)), products), values)
        moved = tuple(x + dx for x, dx in zip(values, moves, strict=True))
        return moved, bool(loss(residuals(*moved)) < loss(r))

    while time.process_time() - begun < seconds:
        moved, is_better = step(damping)
        damping *= 1 / 3 if is_better else 9
        if is_better:
            with torch.no_grad():
                for p, x in zip(weights.values(), moved, strict=True):
                    p.copy_(x)


def conjugate_gradients(product: Callable[[Tensor], Tensor], b: Tensor, products: int) -> Tensor:
    """An approximate solution x of A x = b, from products A x."""
    x, left = torch.zeros_like(b), b.clone()
    direction, square = left.clone(), left.dot(left)
    for _ in range(products):
        image = product(direction)
        length = square / direction.dot(image)
        x, left = x + length * direction, left - length * image
        square, before = left.dot(left), square
        direction = left + square / before * direction
    return x


def flat(tensors: tuple[Tensor, ...]) -> Tensor:
    """All in one row."""
    return torch.cat([x.flatten() for x in tensors])


def shaped(row: Tensor, like: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The inverse of `flat`."""
    return tuple(x.view_as(y) for x, y in zip(row.split([y.numel() for y in like]), like, strict=True))
