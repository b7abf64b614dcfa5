"""A network that is a Chebyshev polynomial in time, for short windows of smooth ODEs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pidlearn.nets.inputs import check_condition, check_event, check_weight
from pidlearn.nets.mlp import ResidualStack
from pidlearn.nets.registry import register_network
from pidlearn.nets.summary import summarize
from pidlearn.utils.arguments import check_arguments, size
from pidlearn.utils.validation import check_memory, check_shape

__all__ = ["ChebyshevMLP"]


@register_network
class ChebyshevMLP(nn.Module):
    """F(x, time) = sum_k c_k(x) T_k(time) for time in [-1, 1], a polynomial in time with learned coefficients c_k.

    For short windows of smooth ODEs, in any units: ``standardise`` sets the mean and scale of the input.

    Args:
        event_shape: shape of one sample, or its length.
        width: width of each hidden layer.
        depth: number of hidden layers.
        terms: number of coefficients, one more than the degree.
    """

    @check_arguments(width=size(), depth=size(), terms=size())
    def __init__(self, event_shape: int | Sequence[int], width: int = 64, depth: int = 4, terms: int = 5) -> None:
        super().__init__()
        self.event_shape = check_shape(event_shape)
        d = math.prod(self.event_shape)
        check_memory("the ChebyshevMLP", (depth * width + d + terms * d) * width + terms * d * d)
        self.mean: Tensor
        self.scale: Tensor
        self.out_scale: Tensor
        self.register_buffer("mean", torch.zeros(d))
        self.register_buffer("scale", torch.ones(d))
        self.register_buffer("out_scale", torch.ones(d))
        self.terms = terms
        self.first = nn.Linear(d, width)
        self.body = ResidualStack(width, depth, terms * d)
        # The flow of a linear ODE is linear in x: this layer can represent such coefficients without the MLP.
        self.linear = nn.Linear(d, terms * d, bias=False)
        nn.init.zeros_(self.linear.weight)

    def standardise(self, mean: Tensor, scale: Tensor, out_scale: Tensor) -> None:
        """Set the mean and scale of the input and the scale of the output, (d,) each."""
        self.mean.copy_(mean)
        self.scale.copy_(scale)
        self.out_scale.copy_(out_scale)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Return F(x, time), of the shape of x."""
        return self.encode(x)(time)

    def encode(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """Return F(x, .) for x (B, *event) as a function of time, with the coefficients computed once.

        The function takes k times for each x, (k B,) as k copies of the batch, and returns (k B, *event).
        """
        check_event(x, self.event_shape)
        check_weight(self.mean, x, casts=torch.promote_types(x.dtype, self.mean.dtype) == self.mean.dtype)
        if not len(x):
            raise ValueError("got a batch of no samples, but a ChebyshevMLP encodes at least one")
        flat = (x.flatten(1) - self.mean) / self.scale  # (B, d), of unit scale
        # (B, terms * d) -> (B, terms, d): c_n(x), the n-th coefficient of each coordinate.
        coefficients = (self.body(self.first(flat)) + self.linear(flat)).reshape(len(x), self.terms, -1)
        coefficients = coefficients * self.out_scale  # (B, terms, d)

        def at(time: Tensor) -> Tensor:
            check_condition("time", time, x)
            check_weight(coefficients, time)
            if not time.ndim or time.numel() % len(x):
                raise ValueError(
                    f"got times of shape {tuple(time.shape)} for {len(x)} samples; expected one per sample, ({len(x)},)"
                )
            # T_0 = 1 and T_1 = t, (k B,) each. |T_n| <= 1 on [-1, 1], while powers of t are nearly collinear there.
            basis = [torch.ones_like(time), time]
            while len(basis) < self.terms:
                basis.append(2 * time * basis[-1] - basis[-2])  # T_{n+1} = 2 t T_n - T_{n-1}
            by_time = torch.stack(basis[: self.terms], 1).reshape(-1, len(x), self.terms)  # (k, B, terms)
            # sum over n of T_n(t) c_n(x): (k, B, d) -> (k B, *event).
            return torch.einsum("kbn,bnd->kbd", by_time, coefficients).reshape(-1, *x.shape[1:])

        return at

    def __repr__(self) -> str:
        return summarize(self, f"degree {self.terms - 1}")
