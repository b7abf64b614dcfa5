"""A residual MLP with Fourier features, for low-dimensional students and teachers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from pidlearn.nets.inputs import check_condition, check_end_time, check_event, check_weight, one_hot_labels
from pidlearn.nets.registry import register_network
from pidlearn.nets.summary import summarize
from pidlearn.nets.temporal import temporal_layer
from pidlearn.utils.arguments import SWITCH, check_arguments, size
from pidlearn.utils.validation import check_memory, check_shape, describe_tensor

__all__ = ["MLP", "ResidualStack"]


class ResidualStack(nn.Module):
    """Residual layers h + silu(W norm(h) + b) after a first layer, and a linear read-out, zero at first.

    With ``times`` a temporal layer follows each of them; see `pidlearn.nets.temporal`.
    """

    def __init__(self, width: int, depth: int, outputs: int, norm: bool = False, times: int = 0) -> None:
        super().__init__()
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(depth - 1))
        self.norms = nn.ModuleList(nn.LayerNorm(width) if norm else nn.Identity() for _ in range(depth))
        self.temporal = nn.ModuleList(temporal_layer(width, times) for _ in range(depth - 1))
        self.out = nn.Linear(width, outputs)
        # F = 0 at first: a trajectory starts as its skip term a(t) z.
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, h: Tensor) -> Tensor:
        """Map (B, width), before the first activation, to (B, outputs)."""
        h = silu(h)
        # The last norm belongs to the read-out.
        for layer, norm, join in zip(self.hidden, self.norms, self.temporal, strict=False):
            h = join(h + silu(layer(norm(h))))  # (B, width)
        return self.out(self.norms[-1](h))


@register_network
class MLP(nn.Module):
    """F(x, time, class_labels=None, end_time=None): x (B, *event) of unit scale, times (B,) of order one, to x's shape.

    A residual MLP over [x, cos(Wx), sin(Wx)], [time, cos(k time), sin(k time)] and the one-hot class. W is random and
    fixed: its high frequencies let the network follow the flow of a multi-modal density, which varies quickly between
    modes. The output is zero at first.

    Args:
        event_shape: shape of one sample, or its length.
        width: width of each hidden layer.
        depth: number of hidden layers.
        fourier: number of random frequencies W, drawn so that W x has variance 2 for x ~ N(0, 1); 0 for none.
        harmonics: k = 1 .. harmonics.
        norm: normalise each layer's input (`torch.nn.LayerNorm`): worth its time in many dimensions, not in two.
        label_dim: number of classes; 0 for none.
        end_time: whether it takes a second time (B,), the end of a step: the network of a `FlowMap`.
        times: M if a batch holds M times of each sample, joined by temporal layers; see `pidlearn.nets.temporal`.
        directions: r if x is read, and F written at first, along r directions alone, for samples that vary in few of
            their many dimensions; 0 for all dimensions alike. See `orient`.
    """

    @check_arguments(
        **dict.fromkeys(("width", "depth"), size()),
        **dict.fromkeys(("fourier", "harmonics", "label_dim", "times", "directions"), size(0)),
        **dict.fromkeys(("norm", "end_time"), SWITCH),
    )
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
        end_time: bool = False,
        times: int = 0,
        directions: int = 0,
    ) -> None:
        super().__init__()
        self.event_shape = check_shape(event_shape)
        self.label_dim, self.end_time, self.times, self.directions = label_dim, end_time, times, directions
        d = math.prod(self.event_shape)
        if directions > d:
            raise ValueError(f"got {directions} directions for samples of {d} dimensions: choose at most as many")
        r = directions or d
        inputs = r + 2 * fourier + (2 if end_time else 1) * (1 + 2 * harmonics) + label_dim
        check_memory("the MLP", r * fourier + width * (inputs + depth * width + r) + 2 * d * directions)
        self.frequencies: Tensor
        self.harmonics: Tensor
        self.basis: Tensor
        self.register_buffer("frequencies", torch.randn(r, fourier) * math.sqrt(2 / r))  # (r, fourier)
        self.register_buffer("harmonics", torch.arange(1.0, harmonics + 1))
        # x, the times, cosines, sines and the class, in the order in which `forward` joins them.
        self.first = nn.Linear(inputs, width)
        self.body = ResidualStack(width, depth, r, norm, times)
        if directions:
            self.register_buffer("basis", torch.empty(d, r))
            self.write = nn.Linear(r, d)
            self.orient(torch.linalg.qr(torch.randn(d, r, dtype=torch.float32)).Q)  # any orthonormal directions

    def orient(self, basis: Tensor) -> None:
        """Set the ``directions`` in which x is read and F written at first: the columns of basis (d, r).

        Their lengths say how much each is seen: the principal directions of the samples, as long as the standard
        deviations along them, make what the samples depend on stand out from the rest of the noise that x is.
        """
        expected = (math.prod(self.event_shape), self.directions)
        if not isinstance(basis, Tensor) or basis.shape != expected or not self.directions:
            raise ValueError(f"got {describe_tensor(basis)} for basis, but basis must be (d, directions) = {expected}")
        if not basis.is_floating_point() or not basis.isfinite().all() or not basis.any():
            raise ValueError(
                f"got {describe_tensor(basis)} for basis, zero, or with NaN or infinity, but basis must be finite real "
                f"numbers, one direction per column"
            )
        with torch.no_grad():
            self.basis.copy_(basis)
            self.write.weight.copy_(basis)
            self.write.bias.zero_()

    def forward(
        self, x: Tensor, time: Tensor, class_labels: Tensor | None = None, end_time: Tensor | None = None
    ) -> Tensor:
        """Return F(x, time, class_labels, end_time), of the shape of x.

        Raises:
            ValueError: for an x of another event shape, or times or labels that do not fit the network or the batch.
        """
        check_event(x, self.event_shape)
        check_weight(self.frequencies, x)
        check_end_time(end_time, self.end_time)
        given = (time,) if end_time is None else (time, end_time)
        times = [self._column(t, x) for t in given]  # (B, 1) each
        flat = x.flatten(1)  # (B, d)
        if self.directions:
            flat = flat @ self.basis  # (B, r)
        # (B, fourier + harmonics), with the harmonics of both times if there are two.
        phase = torch.cat([flat @ self.frequencies, *(t * self.harmonics for t in times)], 1)
        features = [flat, *times, phase.cos(), phase.sin()]
        one_each = isinstance(class_labels, Tensor) and class_labels.shape[:1] == x.shape[:1]
        if class_labels is not None and not (self.label_dim and one_each):
            received = (
                len(class_labels)
                if isinstance(class_labels, Tensor) and class_labels.ndim
                else describe_tensor(class_labels)
            )
            raise ValueError(
                f"got {received} class_labels for {len(x)} samples and label_dim = {self.label_dim}: "
                + ("pass one per sample" if self.label_dim else "build the MLP with label_dim, the number of classes")
            )
        if self.label_dim:
            labels = one_hot_labels(class_labels, self.label_dim, dtype=x.dtype, device=x.device)
            features.append(labels.expand(len(x), -1))  # (B or 1, label_dim) -> (B, label_dim)
        # (B, r + 1 + 2 fourier + 2 harmonics + label_dim) -> (B, width) -> (B, r), where r = d without directions.
        out = self.body(self.first(torch.cat(features, 1)))
        return (self.write(out) if self.directions else out).reshape(x.shape)  # (B, d) -> (B, *event)

    def _column(self, time: Tensor, x: Tensor) -> Tensor:
        """One time for all samples, or one per sample, as a column (B, 1)."""
        check_condition("time", time, x)
        check_weight(self.frequencies, time, casts=torch.promote_types(time.dtype, x.dtype) == x.dtype)
        if time.numel() not in (1, len(x)):
            raise ValueError(f"got {time.numel()} times for {len(x)} samples; expected one for all, or one per sample")
        return time.reshape(-1, 1).expand(len(x), 1)

    def __repr__(self) -> str:
        return summarize(self)
