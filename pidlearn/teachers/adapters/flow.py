"""Flow-matching networks as denoisers.

A flow follows straight interpolations x_t of data and noise, and its network predicts their mean velocity v = dx_t/dt.
Divided by the weight of the data at time t, the interpolation is x = x0 + sigma n:

    data at    x_t                      sigma            t                      x_t                D(x, sigma)
    t = 0      (1 - t) x0 + t n         t / (1 - t)      sigma / (1 + sigma)    x / (1 + sigma)    x_t - t v
    t = 1      t x0 + (1 - t) n         (1 - t) / t      1 / (1 + sigma)        x / (1 + sigma)    x_t + (1 - t) v

with 1 - t = sigma / (1 + sigma) in the second row. The probability flow of D has exactly the flow's paths, seen as
x = (1 + sigma) x_t: (x - D) / sigma = x_t + v / (1 + sigma) for data at t = 0, and x_t - v / (1 + sigma) for data at
t = 1, is the derivative of (1 + sigma) x_t with respect to sigma. A flow is therefore distilled with the denoiser form
of the residual (PID, Eq. 9) and with the recipes for diffusions, from the same noise to the same samples. sigma = 80 is
t = 80/81 (or 1/81).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from pidlearn.nets.noise_parametrization import Coefficients
from pidlearn.teachers.adapters.base import AdaptedDenoiser, ThirdPartyNetwork, attributes_of

__all__ = ["FlowMatching", "from_flow"]


def from_flow(
    velocity: Callable[..., Tensor],
    *,
    event_shape: int | Sequence[int] | None = None,
    data_at: int = 0,
    label_dim: int | None = None,
    sigma_data: float = 0.5,
) -> AdaptedDenoiser:
    """Return a flow-matching (rectified-flow) velocity as a denoiser D(x, sigma, class_labels=None), for `distill`.

    On images this distils better than the same velocity as a `VelocityODE`, and the student starts as a copy of the
    network. The network must have been trained on straight interpolations between data and noise from N(0, I).

    Args:
        velocity: v(x_t, t) or v(x_t, t, class_labels), with x_t (B, *event) and t (B,) in [0, 1], both in the dtype of
            the weights (t in float32 if these have half precision and the network takes it), to dx_t/dt (B, *event).
            Wrap a network that takes a multiple of t, as RectifiedFlow's takes 999 t, in a module that rescales it.
        event_shape: shape of one sample; by default the network's attribute of that name, if it has one.
        data_at: the time of the data: 0 for x_t = (1 - t) x0 + t n, as in Stable Diffusion 3 and Flux; 1 for
            x_t = t x0 + (1 - t) n, as in torchcfm, flow_matching, SiT and rectified flow, which run from noise at 0 to
            data at 1. The velocity is dx_t/dt in either case. The wrong one gives samples of the inverse map;
            distillation warns of it if ``sigma_data`` is the data's own and they are not like the noise themselves.
        label_dim: number of classes, 0 for none; by default the network's attribute of that name, or 0.
        sigma_data: standard deviation of the data.

    Raises:
        TypeError: for a velocity that is not callable.
        ValueError: for another data_at, or an invalid shape or number of classes.
    """
    if not callable(velocity) or isinstance(velocity, type):
        raise TypeError(f"got a velocity of type {type(velocity).__name__}; expected a network or function v(x, t)")
    if not isinstance(data_at, int) or data_at not in (0, 1):
        raise ValueError(f"got data_at = {data_at!r}; expected the time of the data, 0 or 1, with noise at the other")
    return AdaptedDenoiser(
        ThirdPartyNetwork(velocity),
        FlowMatching(data_at),
        **attributes_of(velocity, event_shape, label_dim),
        sigma_data=sigma_data,
    )


@dataclass(frozen=True)
class FlowMatching:
    """Noise parametrization of a flow-matching network, the table above, with t multiplied by ``unit``."""

    data_at: int
    unit: float = 1.0

    def __call__(self, sigma: Tensor) -> Coefficients:
        """Return the coefficients at noise levels (B,)."""
        # x_t = x / (1 + sigma), which is also c_in x: the skip of D is x_t itself.
        data = 1 / (1 + sigma)  # weights of the data and the noise in x_t
        noise = sigma * data
        if self.data_at == 1:
            # D = x_t + (1 - t) v, with t = 1 / (1 + sigma) = `data`.
            return Coefficients(c_skip=data, c_out=noise, c_in=data, c_noise=self.unit * data)
        # t = sigma / (1 + sigma) = `noise`, D = x_t - t v.
        return Coefficients(c_skip=data, c_out=-noise, c_in=data, c_noise=self.unit * noise)
