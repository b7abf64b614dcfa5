"""Flow maps: the state at time s carried to time t on the same path, for any s and t.

    X(x; s -> t) = (t/s) x + (1 - t/s) G(x, s, t)                                G = c_skip x + c_out F(c_in x, s, t)

X(x; s -> s) = x by construction, for any G. One Euler step of the probability flow has this form with G = D(x, s), the
teacher's denoised sample. So a flow map is Euler's method with a denoiser that looks ahead: G is the one for which the
step from s to t is exact. With the teacher's own network for F, X(x; s -> 0) = D(x, s): that is how a copy starts.

A network that takes s alone gives the slices of the flow map that need no more:

    t = t_min            the consistency function f(x, s) = X(x; s -> t_min)                  `ConsistencyFunction`
    t the grid's next    a progressive student, whose steps are those of one grid
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from pidlearn.equations.grids import karras_grid
from pidlearn.nets.noise_parametrization import EDM, NoiseParametrization
from pidlearn.nets.preconditioning import precondition
from pidlearn.students.base import Student, check_class_labels, check_time
from pidlearn.utils.arguments import FUNCTION, check_arguments, number
from pidlearn.utils.batching import in_chunks
from pidlearn.utils.broadcast import as_float64_time, expand_like
from pidlearn.utils.validation import check_shape, reraise_with_context
from pidlearn.utils.wrappers import unwrapped

__all__ = ["ConsistencyFunction", "Denoiser", "FlowMap", "goal", "joined", "step"]

Denoiser = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(x, s, t) to the point towards which a step from s to t moves x."""


class FlowMap(Student):
    """A network as the flow map X(x; s -> t) of a diffusion, callable as ``X(x, s, t)``.

    Args:
        network: F(x, c_noise, class_labels=None, end_time=None) -> x's shape, with x (B, *event) of unit scale. The
            second time, c_noise of t, is passed to networks with a true attribute ``end_time``; the steps of others
            are right for one t per s.
        t_max: the prior end.
        t_min: the sample end.
        sigma_data: standard deviation of the data, EDM's 0.5 for images in [-1, 1].
        noise_parametrization: the preconditioning of the network, EDM's by default.
        event_shape: shape of one sample, which `sample` needs.

    Raises:
        ValueError: a span that does not fall from t_max to t_min > 0.
    """

    compute_dtype: torch.dtype | None = None
    """The dtype in which the network computes, if not x's; its output is converted back."""

    @check_arguments(
        network=FUNCTION, t_max=number(positive=True), t_min=number(positive=True), sigma_data=number(positive=True)
    )
    def __init__(
        self,
        network: nn.Module,
        t_max: float = 80.0,
        *,
        t_min: float = 0.002,
        sigma_data: float = 0.5,
        noise_parametrization: NoiseParametrization | None = None,
        event_shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if not t_min < t_max:
            raise ValueError(
                f"got t_max = {t_max:g}, t_min = {t_min:g}, but a flow map runs from noise to data: swap them"
            )
        self.network = network
        self.t_max, self.t_min, self.sigma_data = float(t_max), float(t_min), float(sigma_data)
        self.noise_parametrization = noise_parametrization or EDM(self.sigma_data)
        self.event_shape = None if event_shape is None else check_shape(event_shape)
        plain: Any = unwrapped(network) if isinstance(network, nn.Module) else network
        self.label_dim = getattr(plain, "label_dim", 0)
        self.takes_end_time = bool(getattr(plain, "end_time", False))

    def forward(self, x: Tensor, s: Any, t: Any, class_labels: Tensor | None = None) -> Tensor:  # type: ignore[override]  # a map has two times
        """X(x; s -> t): x (B, *event) at times s, a scalar or (B,), to the states (B, *event) at times t.

        Raises:
            ValueError: a time outside the span, or an end t above the start s.
        """
        check_class_labels(self, class_labels)
        for time in (s, t):
            check_time(time, self.t_max, self.t_min)
        s, t = as_float64_time(s, x), as_float64_time(t, x)
        _check_falling(s, t)
        with reraise_with_context("student", self.network, x, s, class_labels):
            return self.carried(x, s, t, class_labels)

    def carried(self, x: Tensor, s: Tensor, t: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """X(x; s -> t) without a check of the times, (B,) each: what methods differentiate."""
        return step(x, s, t, self.denoised(x, s, t, class_labels))

    def end(self, z: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """X(z; t_max -> t_min), with its gradient."""
        return self(z, self.t_max, self.t_min, class_labels)

    def denoised(self, x: Tensor, s: Tensor, t: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """G(x, s, t), (B, *event): the point towards which a step from s moves x; s and t are (B,)."""
        labels = () if class_labels is None else (class_labels,)
        end = {"end_time": self.noise_parametrization(t).c_noise.to(x.dtype)} if self.takes_end_time else {}
        coefficients = self.noise_parametrization(s)  # in the dtype of s: float64 in training
        return precondition(
            lambda scaled, c_noise: self.network(scaled, c_noise, *labels, **end),
            x,
            type(coefficients)(*(c.to(x.dtype) for c in coefficients)),
            self.compute_dtype,
        )

    def denoised_jvp(
        self, x: Tensor, s: Tensor, t: Tensor, dx: Tensor, class_labels: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """G and its derivative dG/dln s where x moves by dx per unit of ln s, by forward-mode AD; (B, *event) each."""
        # In ln s, where G changes by its own size over a few units at every noise level.
        value, slope, *_ = torch.func.jvp(
            lambda x, log_s: self.denoised(x, log_s.exp(), t, class_labels), (x, s.log()), (dx, torch.ones_like(s))
        )
        return value, slope

    def _generate(
        self, z: Tensor, class_labels: Tensor | None, calls: int, generator: torch.Generator | None
    ) -> Tensor:
        return self.along(z, karras_grid(calls + 1, self.t_min, self.t_max), class_labels)

    def along(self, z: Tensor, grid: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """Take steps from z (B, *event) along a falling grid of times: (B, *event)."""

        def steps(x: Tensor, labels: Tensor | None) -> Tensor:
            for s, t in pairwise(grid):
                x = self(x, s, t, labels)
            return x

        return in_chunks(steps, z, class_labels)

    def _path(self, z: Tensor, grid: Tensor, class_labels: Tensor | None) -> Tensor:
        """X(z; t_max -> t) at each t: a straight line from z to its sample if the network takes no end time."""
        return torch.stack([self(z, self.t_max, t, class_labels) for t in grid])

    def __repr__(self) -> str:
        """One line: the network, its size, and the span."""
        size = sum(p.numel() for p in self.parameters())
        network = type(self.network).__name__
        return f"{type(self).__name__}({network}, {size:,} weights, from t = {self.t_max:g} to {self.t_min:g})"


class ConsistencyFunction(FlowMap):
    """The consistency function f(x, s) = X(x; s -> t_min) of Song et al. 2023 (arXiv 2303.01469).

    Between calls, `generate` adds fresh noise instead of continuing on the path: its errors do not accumulate, but
    samples no longer belong to their z.
    """

    adds_noise = True

    def _generate(
        self, z: Tensor, class_labels: Tensor | None, calls: int, generator: torch.Generator | None
    ) -> Tensor:
        """Denoise, then ``calls - 1`` times add noise and denoise (algorithm 1)."""
        levels = karras_grid(calls + 1, self.t_min, self.t_max)[1:-1].tolist()
        # The noise of all samples at once, or it would depend on the chunks.
        device = z.device if generator is None else generator.device
        noises = [torch.randn(z.shape, generator=generator, dtype=z.dtype, device=device).to(z) for _ in levels]
        x = in_chunks(self.end, z, class_labels)
        for s, noise in zip(levels, noises, strict=True):
            # x has the noise of t_min already: variances add up.
            x = x + (s**2 - self.t_min**2) ** 0.5 * noise
            x = in_chunks(lambda x, labels, s=s: self(x, s, self.t_min, labels), x, class_labels)
        return x


def _check_falling(s: Tensor, t: Tensor) -> None:
    if torch.compiler.is_compiling():  # values are not known while a program is compiled
        return
    rises = t > s * (1 + 1e-6)  # two roundings of one time are the same
    try:
        if not rises.any().item():
            return
    except RuntimeError:  # nor under vmap, or of tensors without numbers
        return
    which = rises.int().argmax()
    raise ValueError(
        f"got times s = {s[which]:g} and t = {t[which]:g}, but a flow map carries from noise to data, s above t: swap "
        f"them"
    )


def step(x: Tensor, s: Tensor, t: Tensor, denoised: Tensor) -> Tensor:
    """(t/s) x + (1 - t/s) G: from s towards G = ``denoised`` until t, (B,) each; exact if the path is straight."""
    # As a convex combination: x + (t - s) (x - G) / s would subtract two numbers of size 80 for a result of size 0.5.
    ratio = expand_like(t / s, x)  # in the dtype of s until here: 1 - t/s cancels if t is close to s
    return ratio * x + expand_like(1 - t / s, x) * denoised


def joined(G: Tensor, G_next: Tensor, s: Tensor, m: Tensor, t: Tensor) -> Tensor:
    """The point towards which one step s -> t ends where two end: s -> m towards G, then m -> t towards G_next."""
    first, second = (t / m) * (1 - m / s), 1 - t / m  # (B,) float64; their sum is 1 - t/s
    share = expand_like(first / (first + second), G)
    return share * G + (1 - share) * G_next


def goal(denoise: Denoiser, x: Tensor, times: Sequence[Tensor]) -> Tensor:
    """The point towards which one step from x at times[0] to times[-1] ends where steps over all ``times`` end.

    Args:
        denoise: whose steps they are: the teacher's, or a student's.
        x: (B, *event).
        times: (B,) each, falling; two or more.
    """
    s = times[0]
    out = denoise(x, s, times[1])
    moved = step(x, s, times[1], out)
    for now, then in pairwise(times[1:]):
        G = denoise(moved, now, then)
        moved = step(moved, now, then, G)
        # A mean of denoised samples: (X - (t/s) x) / (1 - t/s) would lose three digits to an x of size 80.
        out = joined(out, G, s, now, then)
    return out
