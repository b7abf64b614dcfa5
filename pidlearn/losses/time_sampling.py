"""Time sampling: how often a batch visits each grid point.

Uniform is the paper's choice. A student's error arises mostly where the noise is about as large as the data, so the
default for diffusions visits those times more often: log-normal in t around sigma_data, over a floor.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pidlearn.utils.arguments import VALUES, check_arguments, size
from pidlearn.utils.validation import describe_tensor, reraise_from_function

__all__ = ["DENSITIES", "Density", "draw_index"]

FREQUENCIES = (
    lambda v: VALUES[0](v) and v.ndim == 1 and len(v) > 0,
    "a dense floating-point tensor of frequencies (N,), N >= 1",
)
SOURCE = (lambda v: isinstance(v, torch.Generator), "a torch.Generator")

Density = Callable[[Tensor, float], Tensor]
"""(t (N,) float64, sigma_data) -> how often each time is visited (N,), up to a factor."""


def uniform(t: Tensor, sigma_data: float) -> Tensor:
    """All times equally often."""
    return torch.ones_like(t)


def lognormal(t: Tensor, sigma_data: float, width: float = 1.2, floor: float = 0.1) -> Tensor:
    """A Gaussian in ln t around ln sigma_data, with EDM's width, over a floor that leaves no time unvisited."""
    # A frequency per grid point: the times visited follow this times the grid's own density.
    # EDM trains D around ln(sigma) = -1.2, which is sigma = 0.3; the width, 1.2, is the same.
    return floor + torch.exp(-0.5 * ((t / sigma_data).log() / width) ** 2)


DENSITIES: dict[str, Density] = {"uniform": uniform, "lognormal": lognormal}


@check_arguments(density=FREQUENCIES, n=size(), generator=SOURCE)
def draw_index(density: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Draw n indices (n,) int64 with frequencies ``density`` (N,): stratified, one per n-th of the distribution."""
    device = generator.device
    cumulative = density.cumsum(0)  # (N,)
    # (n,): one point in each n-th of [0, 1), so the loss varies less from batch to batch than with free draws.
    u = (torch.arange(n, device=device) + torch.rand(n, generator=generator, device=device)) / n
    # Inverse of the cumulative distribution: index i comes with frequency density[i] / sum.
    at = torch.searchsorted((cumulative / cumulative[-1]).to(device), u.double())
    return at.clamp(max=len(density) - 1)


def checked_density(function: Density, t: Tensor, data_scale: float) -> Tensor:
    """How often each of the times t is visited, (N,)."""
    with reraise_from_function("function time_sampling=", "time_sampling(t, sigma_data)"):
        values = function(t, data_scale)
    usable = isinstance(values, Tensor) and values.shape == t.shape and not values.is_complex()
    if not usable or not ((values >= 0) & values.isfinite()).all() or not values.sum() > 0:
        raise ValueError(
            f"time_sampling returned {describe_tensor(values)}, but must give each of {len(t)} times a finite number "
            f">= 0, and not only zeros"
        )
    return values if values.is_floating_point() else values.to(t.dtype)  # counts are frequencies, too
