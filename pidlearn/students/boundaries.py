"""How a trajectory meets its boundary condition x(z, T) = z, and how its network sees time.

A boundary is a pair of functions (a, b) of time in x(z, t) = a(t) z + b(t) F(c_in z, time(t)).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["BOUNDARIES", "TIMES", "Boundary", "Time"]

Boundary = Callable[[Tensor, float, float], tuple[Tensor, Tensor, Tensor]]
"""(t, t_max, sigma_data) -> (a, da/dt, b), each of t's shape and dtype."""

Time = Callable[[Tensor, float, float], Tensor]
"""(t, t_max, t_min) -> the network's time input, of t's shape and dtype."""


def hard(t: Tensor, t_max: float, sigma_data: float) -> tuple[Tensor, Tensor, Tensor]:
    """a = t/T, b = 1 - t/T: x(z, T) = z by construction (PID Eq. 7)."""
    # Denoiser form: lhs of a z is (a - t da/dt) z = 0, and lhs of b F is F - t b dF/dt, of the data's size at every t.
    a = t / torch.as_tensor(t_max, dtype=t.dtype)
    return a, torch.full_like(t, 1 / t_max), 1 - a


def increment(t: Tensor, t_max: float, sigma_data: float) -> tuple[Tensor, Tensor, Tensor]:
    """a = 1, b = t - T: x(z, T) = z by construction, for any ODE; F is then the mean velocity since T."""
    # dx/dt = F + (t - T) dF/dt, so that F(z, T) is the velocity at the start.
    return torch.ones_like(t), torch.zeros_like(t), t - torch.as_tensor(t_max, dtype=t.dtype)


def soft(t: Tensor, t_max: float, sigma_data: float) -> tuple[Tensor, Tensor, Tensor]:
    """a = 0, b = sqrt(t^2 + sigma_data^2): x(z, T) = z only as far as `boundary_loss` has trained it.

    b is the scale of x at t, so F has unit scale throughout.
    """
    # sqrt(t^2 + sigma_data^2) is the standard deviation of data plus noise at t.
    return torch.zeros_like(t), torch.zeros_like(t), (t * t + sigma_data**2).sqrt()


def signal(t: Tensor, t_max: float, sigma_data: float) -> tuple[Tensor, Tensor, Tensor]:
    """a = t/T, b = 1: BOOT's signal x - (t/T) z is the network's output; x(z, T) = z only if that is 0 at T."""
    a = t / torch.as_tensor(t_max, dtype=t.dtype)
    return a, torch.full_like(t, 1 / t_max), torch.ones_like(t)


BOUNDARIES: dict[str, Boundary] = {"hard": hard, "increment": increment, "soft": soft, "signal": signal}


def log_time(t: Tensor, t_max: float, t_min: float) -> Tensor:
    """ln(t) / 4, EDM's c_noise (Karras et al. 2022, table 1)."""
    return t.log() / 4  # 80 becomes 1.10, and 0.002 becomes -1.55


def linear_time(t: Tensor, t_max: float, t_min: float) -> Tensor:
    """From -1 at t_max to 1 at t_min."""
    return 2 * (t - t_max) / (t_min - t_max) - 1  # [-1, 1] is the interval of Chebyshev polynomials


def end_time(t: Tensor, t_max: float, t_min: float) -> Tensor:
    """ln(t_min) / 4 at every t: with a hard boundary the path is then the straight line from z to its end."""
    return log_time(torch.full_like(t, t_min), t_max, t_min)


TIMES: dict[str, Time] = {"log": log_time, "linear": linear_time, "end": end_time}
