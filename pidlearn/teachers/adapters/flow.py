"""Flow-matching networks as denoisers.

A flow runs along straight mixtures of data and noise, and its network gives their mean velocity dx_t/dt. At time t,
divided by the share of the data, the mixture is x = x0 + sigma n, and

    data at    x_t                      sigma            t                      x_t            so that D(x, sigma) is
    t = 0      (1 - t) x0 + t n         t / (1 - t)      sigma / (1 + sigma)    x / (1 + sigma)    x_t - t v
    t = 1      t x0 + (1 - t) n         (1 - t) / t      1 / (1 + sigma)        x / (1 + sigma)    x_t + (1 - t) v

with 1 - t = sigma / (1 + sigma) in the second. The probability flow of D has exactly the flow's paths, seen as
x = (1 + sigma) x_t: (x - D) / sigma = x_t + v / (1 + sigma), or minus it, is the derivative of (1 + sigma) x_t. So a
flow is distilled by the denoiser form of the residual (PID Eq. 9), from the same noise to the same samples, and by the
recipes of diffusions. From sigma = 80 it starts at t = 80/81 (or 1/81).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from pidlearn.nets.noise_parametrization import Coefficients
from pidlearn.teachers.adapters.base import AdaptedDenoiser, ForeignNetwork

__all__ = ["FlowCoordinates", "from_flow"]


def from_flow(
    velocity: Callable[..., Tensor],
    *,
    event_shape: int | Sequence[int] | None = None,
    data_at: int = 0,
    label_dim: int | None = None,
    sigma_data: float = 0.5,
) -> AdaptedDenoiser:
    """A flow-matching (rectified-flow) velocity as a denoiser D(x, sigma, class_labels=None), for `distill`.

    Of images it distils better than the same velocity as a `VelocityODE`, and its student starts as a copy of the
    network; noise is N(0, I) and straight mixtures of it with data are what the network must have been trained on.

    Args:
        velocity: v(x_t, t) or v(x_t, t, class_labels), with x_t (B, *event) and t (B,) in [0, 1] and of the dtype of
            the weights, to dx_t/dt (B, *event). A network that counts t in thousandths needs a module around it.
        event_shape: shape of one sample; by default what the network says of itself, if it does.
        data_at: the time of the data: 0 for x_t = (1 - t) x0 + t n, 1 for x_t = t x0 + (1 - t) n.
        label_dim: number of classes, 0 for none; by default what the network says of itself, if it does.
        sigma_data: standard deviation of the data.

    Raises:
        TypeError: a velocity that cannot be called.
        ValueError: another data_at, a shape or a number of classes that is none.
    """
    if not callable(velocity):
        raise TypeError(f"velocity is a network or function v(x, t), got {type(velocity).__name__}")
    if data_at not in (0, 1):
        raise ValueError(f"data_at is the time of the data, 0 or 1, got {data_at!r}; noise is at the other end")
    return AdaptedDenoiser(
        ForeignNetwork(velocity),
        FlowCoordinates(data_at),
        event_shape=getattr(velocity, "event_shape", None) if event_shape is None else event_shape,
        label_dim=getattr(velocity, "label_dim", 0) if label_dim is None else label_dim,
        sigma_data=sigma_data,
    )


@dataclass(frozen=True)
class FlowCoordinates:
    """The table above, with t counted in ``1 / unit``."""

    data_at: int
    unit: float = 1.0

    def __call__(self, sigma: Tensor) -> Coefficients:
        """Of noise levels (B,)."""
        data = 1 / (1 + sigma)
        noise = sigma * data
        if self.data_at == 1:
            return Coefficients(data, data, noise, self.unit * data)
        return Coefficients(data, data, -noise, self.unit * noise)
