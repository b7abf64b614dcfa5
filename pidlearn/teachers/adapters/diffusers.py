"""Networks of the diffusers library as denoisers.

DDPM's noise keeps the variance: x_vp = sqrt(ab) x0 + sqrt(1 - ab) n, where ab = alphas_cumprod[k] at the timestep k.
Divided by sqrt(ab) it is x = x0 + sigma n with sigma = sqrt((1 - ab) / ab), and sqrt(ab) = 1 / sqrt(1 + sigma^2). With
r = sqrt(1 + sigma^2), the network sees x / r at the timestep k(sigma), and

    it predicts              so that D(x, sigma) is
    epsilon         n        x - sigma F
    v_prediction    v        x / r^2 - (sigma / r) F         v = sqrt(ab) n - sqrt(1 - ab) x0 (Salimans & Ho 2022)
    sample          x0       F

k(sigma) runs through the scheduler's table, linearly in ln sigma between its entries: the sinusoids that these
networks read their timestep by take any real number. Their flow-matching networks are `from_flow`'s, with a timestep
that is counted in thousandths.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from pidlearn.nets.noise_parametrization import Coefficients, Coordinates, Levels
from pidlearn.teachers.adapters.base import AdaptedDenoiser, ForeignNetwork
from pidlearn.teachers.adapters.flow import FlowCoordinates

__all__ = ["check_parts", "from_diffusers"]


def from_diffusers(unet: Any, scheduler: Any = None, *, sigma_data: float = 0.5) -> AdaptedDenoiser:
    """A diffusers network as a denoiser D(x, sigma, class_labels=None), the teacher that `distill` takes.

    ``sigma_min``, ``sigma_max``, ``event_shape`` and ``label_dim`` are read off the two: 0.01 to 157 for DDPM's linear
    schedule. Where one of the classes stands for none of them, set ``label_dim`` to the number of the others. What a
    scheduler does to samples besides (``clip_sample``, ``thresholding``) is no part of the ODE and is left out; so a
    student's samples are to be clamped in the end, as those of any denoiser are.

    Args:
        unet: a `UNet2DModel`, or a module that is called as it is and has its ``config``; or a whole pipeline, such as
            a `DDPMPipeline`, which has a ``unet`` and a ``scheduler`` alone. The network is used as it is, in its own
            dtype, not copied. If it has twice as many output as input channels (a learned variance), the first half is
            the prediction.
        scheduler: any that has ``alphas_cumprod`` (DDPM, DDIM, PNDM, DPMSolverMultistep, ...) and predicts
            epsilon, v_prediction or sample; or a `FlowMatchEulerDiscreteScheduler`.
        sigma_data: standard deviation of the data.

    Raises:
        TypeError: what is no module, or has no scheduler.
        ValueError: a network, a scheduler, a prediction or a conditioning that no denoiser can be made of.
    """
    if scheduler is None:
        check_parts(name for name, part in getattr(unet, "components", {}).items() if part is not None)
        unet, scheduler = getattr(unet, "unet", unet), getattr(unet, "scheduler", None)
    config: Any = getattr(unet, "config", None)
    if not isinstance(unet, nn.Module) or config is None:
        raise TypeError(f"expected a UNet2DModel or a pipeline that has one as its unet, got {type(unet).__name__}")
    if not hasattr(scheduler, "config"):
        raise TypeError(f"expected the network's scheduler beside it, or a pipeline; got {type(scheduler).__name__}")
    label_dim = _label_dim(config)
    _check_network(unet, config)
    size = getattr(config, "sample_size", None)
    height, width = size if isinstance(size, tuple | list) else (size, size)
    coordinates, sigma_min, sigma_max = _coordinates(scheduler)
    return AdaptedDenoiser(
        DiffusersNetwork(unet),
        coordinates,
        event_shape=None if size is None else (config.in_channels, height, width),
        label_dim=label_dim,
        sigma_data=sigma_data,
        sigma_min=sigma_min,
        sigma_max=sigma_max,
    )


def check_parts(names: Iterable[str]) -> None:
    """Raise unless a pipeline is a network and its scheduler alone."""
    others = sorted(set(names) - {"unet", "scheduler"})
    if others:
        raise ValueError(
            f"this pipeline has {', '.join(others):.200} beside its unet and scheduler, so the network alone does not "
            f"turn noise into images: to distil what it does, as in a latent space, pass the unet and the scheduler"
        )


def _check_network(unet: nn.Module, config: Any) -> None:
    """Raise unless a network is called as a `UNet2DModel` is and puts out one image, or two, for each that it gets."""
    name, channels = type(unet).__name__, config.in_channels
    if type(unet).__module__.startswith("diffusers.") and name != "UNet2DModel":
        raise ValueError(f"a {name} is not called as a UNet2DModel is: wrap it in a module D(x, sigma, class_labels)")
    outputs = getattr(config, "out_channels", channels)
    if outputs not in (channels, 2 * channels):
        raise ValueError(
            f"this network makes {outputs} channels of {channels}: a prediction has as many as it is of, or twice as "
            f"many with a variance"
        )


class DiffusersNetwork(ForeignNetwork):
    """A `UNet2DModel` as F(x, timestep, class_labels=None); of a learned variance only the prediction."""

    def call(self, x: Tensor, time: Tensor, labels: tuple[Tensor, ...]) -> Tensor:
        """The prediction, (B, in_channels, H, W); time stays in float32 or float64, for 999 has no place in less."""
        options = {"class_labels": labels[0]} if labels else {}
        out: Tensor = self.module(x, time, return_dict=False, **options)[0]
        return out[:, : x.shape[1]]


class VarianceKept:
    """The table of this module's docstring for one scheduler.

    Args:
        alphas_cumprod: (K,) falling; entries of 0, where no signal is left and sigma is infinite, are passed over.
        prediction: epsilon | v_prediction | sample.

    Raises:
        ValueError: another prediction, or a table that does not fall.
    """

    def __init__(self, alphas_cumprod: Tensor, prediction: str | None) -> None:
        if prediction not in ("epsilon", "v_prediction", "sample"):
            raise ValueError(f"prediction_type must be epsilon, v_prediction or sample, got {prediction!r}")
        ab = alphas_cumprod.detach().cpu().double()
        ab = ab[ab > 0]
        self.prediction = prediction
        log_sigma = ((1 - ab) / ab).log() / 2
        if len(ab) < 2 or not (log_sigma.isfinite().all() and (log_sigma.diff() > 0).all()):
            raise ValueError("alphas_cumprod must fall strictly, within 0 and 1, from timestep to timestep")
        self.levels = Levels(log_sigma)

    def __call__(self, sigma: Tensor) -> Coefficients:
        """Of noise levels (B,)."""
        one, r = torch.ones_like(sigma), (1 + sigma**2).sqrt()
        k = self.levels.position(sigma)
        if self.prediction == "epsilon":
            return Coefficients(1 / r, one, -sigma, k)
        if self.prediction == "v_prediction":
            return Coefficients(1 / r, 1 / r**2, -sigma / r, k)
        return Coefficients(1 / r, 0 * one, one, k)


def _coordinates(scheduler: Any) -> tuple[Coordinates, float, float]:
    """How that scheduler's networks see noise, and the least and the largest sigma that they know."""
    if hasattr(scheduler, "alphas_cumprod"):
        table = VarianceKept(scheduler.alphas_cumprod, getattr(scheduler.config, "prediction_type", None))
        return table, *table.levels.span
    if "FlowMatch" in type(scheduler).__name__:
        return FlowCoordinates(0, scheduler.config.num_train_timesteps), 0.0, math.inf
    raise ValueError(
        f"a {type(scheduler).__name__} has no alphas_cumprod, the table of a network that was trained on timesteps: "
        f"pass the scheduler that the network was trained with"
    )


def _label_dim(config: Any) -> int:
    """Number of classes, once the network's conditioning is one that a student can have too."""
    if getattr(config, "cross_attention_dim", None) is not None:
        raise ValueError("this network attends to a text: wrap it, with that text, in a module D(x, sigma)")
    if getattr(config, "time_embedding_type", None) == "learned":
        raise ValueError("this network learned its timesteps one by one, and knows none between them")
    kind, classes = getattr(config, "class_embed_type", None), getattr(config, "num_class_embeds", None)
    if kind == "identity" or (kind is not None and classes is None):
        raise ValueError(
            f"class_embed_type = {kind!r} with num_class_embeds = {classes} does not say what classes there are: wrap "
            f"the network in a module D(x, sigma, class_labels) that has a label_dim"
        )
    return classes or 0
