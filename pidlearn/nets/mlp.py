"""Small networks for low-dimensional students and teachers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from pidlearn.nets.blocks import check_event, one_hot_labels
from pidlearn.nets.registry import register_network
from pidlearn.utils.validation import check_shape

__all__ = ["MLP", "ChebyshevMLP"]


class _Residual(nn.Module):
    """A residual stack over the first layer's output: h + silu(W norm(h) + b), and a linear read-out of zeros."""

    def __init__(self, width: int, depth: int, outputs: int, norm: bool = False) -> None:
        super().__init__()
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(depth - 1))
        self.norms = nn.ModuleList(nn.LayerNorm(width) if norm else nn.Identity() for _ in range(depth))
        self.out = nn.Linear(width, outputs)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, h: Tensor) -> Tensor:
        """(B, width) before the first activation, to (B, outputs)."""
        h = silu(h)
        for layer, norm in zip(self.hidden, self.norms, strict=False):
            h = h + silu(layer(norm(h)))
        return self.out(self.norms[-1](h))


@register_network
class MLP(nn.Module):
    """F(x, time, class_labels=None): x (B, *event) of unit scale and time (B,) of order one, to (B, *event).

    A residual MLP over [x, cos(Wx), sin(Wx)], [time, cos(k time), sin(k time)] and the class. W is random and fixed:
    it lets the network turn quickly where the flow of a multi-modal density does. The output starts at zero.

    Args:
        event_shape: shape of one sample, or its length.
        width: of each hidden layer.
        depth: number of hidden layers.
        fourier: number of random frequencies W, drawn so that W x has variance 2 for x ~ N(0, 1); 0 for none.
        harmonics: k = 1 .. harmonics.
        norm: normalise each layer's input (`torch.nn.LayerNorm`): worth its time in many dimensions, not in two.
        label_dim: number of classes; 0 for none.
    """

    def __init__(
        self,
        event_shape: int | Sequence[int],
        width: int = 64,
        depth: int = 5,
        *,
        fourier: int = 64,
        harmonics: int = 6,
        norm: bool = False,
        label_dim: int = 0,
    ) -> None:
        super().__init__()
        self.event_shape = check_shape(event_shape)
        self.label_dim = label_dim
        d = math.prod(self.event_shape)
        self.frequencies: Tensor
        self.harmonics: Tensor
        self.register_buffer("frequencies", torch.randn(d, fourier) * math.sqrt(2 / d))
        self.register_buffer("harmonics", torch.arange(1.0, harmonics + 1))
        self.first = nn.Linear(d + 2 * fourier + 1 + 2 * harmonics + label_dim, width)
        self.body = _Residual(width, depth, d, norm)

    def forward(self, x: Tensor, time: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """F(x, time, class_labels), of x's shape.

        Raises:
            ValueError: for an x of another event shape, or labels that the network cannot take.
        """
        check_event(x, self.event_shape)
        flat, time = x.flatten(1), time.reshape(-1, 1).expand(len(x), 1)
        phase = torch.cat([flat @ self.frequencies, time * self.harmonics], 1)
        features = [flat, time, phase.cos(), phase.sin()]
        if class_labels is not None and not (self.label_dim and len(class_labels) == len(x)):
            raise ValueError(
                f"got {len(class_labels)} class_labels for {len(x)} samples and label_dim = {self.label_dim}"
                + ("" if self.label_dim else ": build the MLP with label_dim, the number of classes")
            )
        if self.label_dim:
            labels = one_hot_labels(class_labels, self.label_dim, dtype=x.dtype, device=x.device)
            features.append(labels.expand(len(x), -1))
        return self.body(self.first(torch.cat(features, 1))).reshape(x.shape)


@register_network
class ChebyshevMLP(nn.Module):
    """F(x, time) = sum_k c_k(x) T_k(time) for time in [-1, 1]: a polynomial in time whose coefficients are learned.

    Made for short windows of smooth ODEs, in any units: ``standardise`` fits the input's mean and scale.

    Args:
        event_shape: shape of one sample, or its length.
        width: of each hidden layer.
        depth: number of hidden layers.
        terms: number of coefficients, one more than the degree.
    """

    def __init__(self, event_shape: int | Sequence[int], width: int = 64, depth: int = 4, terms: int = 5) -> None:
        super().__init__()
        self.event_shape = check_shape(event_shape)
        d = math.prod(self.event_shape)
        self.mean: Tensor
        self.scale: Tensor
        self.out_scale: Tensor
        self.register_buffer("mean", torch.zeros(d))
        self.register_buffer("scale", torch.ones(d))
        self.register_buffer("out_scale", torch.ones(d))
        self.terms = terms
        self.first = nn.Linear(d, width)
        self.body = _Residual(width, depth, terms * d)
        self.linear = nn.Linear(d, terms * d, bias=False)
        nn.init.zeros_(self.linear.weight)

    def standardise(self, mean: Tensor, scale: Tensor, out_scale: Tensor) -> None:
        """Set the mean and scale of the input and the scale of the output, (d,) each."""
        self.mean.copy_(mean)
        self.scale.copy_(scale)
        self.out_scale.copy_(out_scale)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """F(x, time), of x's shape."""
        return self.encode(x)(time)

    def encode(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """F(x, .) for x (B, *event), as a function of time: (k B,) to (k B, *event), k times for each x in turn."""
        check_event(x, self.event_shape)
        flat = (x.flatten(1) - self.mean) / self.scale
        coefficients = (self.body(self.first(flat)) + self.linear(flat)).reshape(len(x), self.terms, -1)
        coefficients = coefficients * self.out_scale

        def at(time: Tensor) -> Tensor:
            basis = [torch.ones_like(time), time]
            while len(basis) < self.terms:
                basis.append(2 * time * basis[-1] - basis[-2])
            by_time = torch.stack(basis[: self.terms], 1).reshape(-1, len(x), self.terms)
            return torch.einsum("kbn,bnd->kbd", by_time, coefficients).reshape(-1, *x.shape[1:])

        return at
