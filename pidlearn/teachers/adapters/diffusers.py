"""Networks of the diffusers library as denoisers.

DDPM's noise preserves the variance: x_vp = sqrt(ab) x0 + sqrt(1 - ab) n, with ab = alphas_cumprod[k] at timestep k.
Divided by sqrt(ab) it is x = x0 + sigma n with sigma = sqrt((1 - ab) / ab), and sqrt(ab) = 1 / sqrt(1 + sigma^2). With
r = sqrt(1 + sigma^2), the network takes x / r and the timestep k(sigma), and

    prediction_type    F         D(x, sigma)
    epsilon            n         x - sigma F
    v_prediction       v         x / r^2 - (sigma / r) F         v = sqrt(ab) n - sqrt(1 - ab) x0 (Salimans & Ho 2022)
    sample             x0        F

k(sigma) interpolates the scheduler's table linearly in ln(sigma): the sinusoidal timestep embedding of these networks
accepts any real number. diffusers' flow-matching networks are handled as in `from_flow`, with t multiplied by the
number of training timesteps, and Score-SDE's VE networks, which predict the score, as "ve" in `from_network`. EDM's
schedulers precondition as "edm" in `from_network` does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pidlearn.nets.noise_parametrization import EDM, Coefficients, LogSigmaTable, NoiseParametrization
from pidlearn.teachers.adapters.base import AdaptedDenoiser, ThirdPartyNetwork
from pidlearn.teachers.adapters.flow import FlowMatching
from pidlearn.teachers.adapters.score import NoiseFromScore, VarianceExploding
from pidlearn.utils.wrappers import unwrapped

__all__ = ["VariancePreserving", "check_parts", "check_scheduler", "finite_span", "from_diffusers"]


def from_diffusers(unet: Any, scheduler: Any = None, *, sigma_data: float | None = None) -> AdaptedDenoiser:
    """Return a diffusers network as a denoiser D(x, sigma, class_labels=None), for `distill`.

    ``sigma_min``, ``sigma_max``, ``event_shape`` and ``label_dim`` are read from the network and its scheduler: sigma
    runs from 0.01 to 157 for DDPM's linear schedule. If one of the classes stands for "no class", set ``label_dim`` to
    the number of the others. A scheduler's further processing of samples (``clip_sample``, ``thresholding``) is not
    part of the ODE and is left out, so clamp a student's samples as you would those of any denoiser.

    Args:
        unet: a `UNet2DModel`, or a module that is called like one and has its ``config``; or a whole pipeline with
            only a ``unet`` and a ``scheduler``, such as a `DDPMPipeline`. The network is used as it is, in its own
            dtype, and not copied. If it has twice as many output as input channels (a learned variance), the first
            half is the prediction.
        scheduler: any with ``alphas_cumprod`` (DDPM, DDIM, PNDM, DPMSolverMultistep, ...) and the prediction type
            epsilon, v_prediction, sample or flow_prediction; a `FlowMatchEulerDiscreteScheduler`; a
            `ScoreSdeVeScheduler`; or EDM's (EDMEuler, EDMDPMSolverMultistep) with the prediction type epsilon.
        sigma_data: standard deviation of the data; by default that of EDM's scheduler, else 0.5.

    Raises:
        TypeError: for an object that is not a module, or a missing scheduler.
        ValueError: for a network, scheduler, prediction type or conditioning that cannot be turned into a denoiser.
    """
    if scheduler is None:
        check_parts(name for name, part in getattr(unet, "components", {}).items() if part is not None)
        unet, scheduler = getattr(unet, "unet", unet), getattr(unet, "scheduler", None)
    check_scheduler(type(scheduler).__name__)  # before its config: diffusers may no longer have it
    plain = unwrapped(unet)  # a wrapper has none of its attributes
    config: Any = getattr(plain, "config", None)
    if not isinstance(unet, nn.Module) or config is None:
        raise TypeError(f"got a {type(unet).__name__}; expected a UNet2DModel, or a pipeline with one as its unet")
    if not hasattr(scheduler, "config"):
        raise TypeError(
            f"got a scheduler of type {type(scheduler).__name__}; expected the network's scheduler: pass it as the "
            f"second argument, or pass a whole pipeline"
        )
    label_dim = _label_dim(config)
    _check_network(plain, config)
    size = getattr(config, "sample_size", None)
    height, width = size if isinstance(size, tuple | list) else (size, size)
    noise_parametrization = _noise_parametrization(scheduler)
    sigma_min, sigma_max = _span(unet, noise_parametrization, scheduler.config)
    if sigma_data is None:
        sigma_data = getattr(scheduler.config, "sigma_data", 0.5)
    network: ThirdPartyNetwork = DiffusersNetwork(unet)
    if isinstance(noise_parametrization, VarianceExploding):
        network = NoiseFromScore(network)
    return AdaptedDenoiser(
        network,
        noise_parametrization,
        event_shape=None if size is None else (config.in_channels, height, width),
        label_dim=label_dim,
        sigma_data=sigma_data,
        sigma_min=sigma_min,
        sigma_max=sigma_max,
    )


def check_parts(names: Iterable[str]) -> None:
    """Raise ValueError unless a pipeline consists of a network and its scheduler only."""
    parts = set(names)
    others = sorted(parts - {"unet", "scheduler"})
    if "transformer" in parts:
        raise ValueError(
            f"this pipeline has {', '.join(others):.200}, and a transformer is not called like a UNet2DModel: for a "
            f"DiT, use pidlearn.teachers.from_network(pipeline.transformer, pipeline.scheduler.alphas_cumprod, "
            f"event_shape=(4, 32, 32), label_dim=1000)"
        )
    if others:
        raise ValueError(
            f"this pipeline has {', '.join(others):.200} in addition to its unet and scheduler, so the network alone "
            f"does not turn noise into images: to distil the network itself, for example in a latent space, pass the "
            f"unet and the scheduler"
        )


def _check_network(unet: nn.Module, config: Any) -> None:
    """Raise ValueError unless a network is called like a `UNet2DModel` and returns one or two images per input."""
    name, channels = type(unet).__name__, config.in_channels
    if type(unet).__module__.startswith("diffusers.") and name != "UNet2DModel":
        raise ValueError(
            f"a {name} is not called like a UNet2DModel: for a DiT, or if it predicts the noise, use "
            f"pidlearn.teachers.from_network(network, scheduler.alphas_cumprod, event_shape=(4, 32, 32), "
            f"label_dim=1000), around a module F(x, timestep, class_labels) if it is called in another way"
        )
    outputs = getattr(config, "out_channels", channels)
    if outputs not in (channels, 2 * channels):
        raise ValueError(
            f"this network has {outputs} output channels for {channels} input channels; expected {channels}, or "
            f"{2 * channels} with a learned variance"
        )


class DiffusersNetwork(ThirdPartyNetwork):
    """A `UNet2DModel` as F(x, timestep, class_labels=None), without the variance if it predicts one."""

    def call(self, x: Tensor, c_noise: Tensor, labels: tuple[Tensor, ...]) -> Tensor:
        """Return the prediction, (B, in_channels, H, W)."""
        options = {"class_labels": labels[0]} if labels else {}
        # The timestep stays in float32 or float64: bfloat16 would round 999 to 1000.
        out: Any = self.module(x, c_noise, return_dict=False, **options)
        out = out.to_tuple() if hasattr(out, "to_tuple") else out  # a ModelOutput, where return_dict is ignored
        if isinstance(out, tuple | list):
            out = out[0]
        else:
            out = out.get("sample", out) if isinstance(out, Mapping) else getattr(out, "sample", out)
        # (B, C or 2 C, H, W) -> (B, C, H, W).
        return out[:, : x.shape[1]] if isinstance(out, Tensor) and out.ndim > 1 else out


class VariancePreserving:
    """Noise parametrization of a diffusers network, the table in this module's docstring, for one scheduler.

    Args:
        alphas_cumprod: (K,), decreasing; zeros, where no signal is left and sigma is infinite, are skipped.
        prediction: epsilon | v_prediction | sample.

    Raises:
        ValueError: for another prediction type, or a table that does not decrease.
    """

    def __init__(self, alphas_cumprod: Tensor, prediction: str | None) -> None:
        if prediction not in ("epsilon", "v_prediction", "sample"):
            raise ValueError(f"got prediction_type = {prediction!r}; expected epsilon, v_prediction or sample")
        ab = alphas_cumprod.detach().cpu().double()
        ab = ab[ab > 0]  # ab = 0 is pure noise, where sigma is infinite
        self.prediction = prediction
        log_sigma = ((1 - ab) / ab).log() / 2  # (K,), ln sqrt((1 - ab) / ab)
        if len(ab) < 2 or not (log_sigma.isfinite().all() and (log_sigma.diff() > 0).all()):
            raise ValueError(
                "got alphas_cumprod that do not decrease strictly within 0 and 1 from timestep to timestep: pass the "
                "scheduler that the network was trained with"
            )
        self.table = LogSigmaTable(log_sigma)

    @property
    def span(self) -> tuple[float, float]:
        """The smallest and the largest sigma."""
        return self.table.span

    def __call__(self, sigma: Tensor) -> Coefficients:
        """Return the coefficients at noise levels (B,)."""
        one, r = torch.ones_like(sigma), (1 + sigma**2).sqrt()  # 1 / r = sqrt(ab), sigma / r = sqrt(1 - ab)
        k = self.table.position(sigma)  # the timestep, a real number
        if self.prediction == "epsilon":
            return Coefficients(c_skip=one, c_out=-sigma, c_in=1 / r, c_noise=k)  # x0 = x - sigma n
        if self.prediction == "v_prediction":
            # x0 = sqrt(ab) x_vp - sqrt(1 - ab) v.
            return Coefficients(c_skip=1 / r**2, c_out=-sigma / r, c_in=1 / r, c_noise=k)
        return Coefficients(c_skip=0 * one, c_out=one, c_in=1 / r, c_noise=k)  # F is x0

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.prediction}, {len(self.table.log_sigma)} timesteps)"


def _noise_parametrization(scheduler: Any) -> NoiseParametrization:
    """The noise parametrization of that scheduler's networks."""
    name, prediction = type(scheduler).__name__, getattr(scheduler.config, "prediction_type", None)
    if "FlowMatch" in name or prediction == "flow_prediction":
        # t = sigma / (1 + sigma) runs from 0 to 1 as sigma runs from 0 to infinity.
        return FlowMatching(0, scheduler.config.num_train_timesteps)
    if (prediction, getattr(scheduler.config, "timestep_type", None)) == ("v_prediction", "continuous"):
        raise ValueError(
            f"got a {name} of timestep_type = 'continuous', whose network takes ln(sigma) / 4, not the timestep: use "
            f"pidlearn.teachers.from_network(unet, lambda s: (1 / (1 + s**2), -s / (1 + s**2)**0.5, (1 + s**2)**-0.5, "
            f"s.log() / 4))"
        )
    if hasattr(scheduler, "alphas_cumprod"):
        return VariancePreserving(scheduler.alphas_cumprod, prediction)
    if name == "ScoreSdeVeScheduler":
        return VarianceExploding()
    if name.startswith("EDM"):
        if prediction != "epsilon":
            raise ValueError(
                f"got an {name} of prediction_type = {prediction!r}; expected epsilon, which is EDM's F: wrap a "
                f"network of -F (v_prediction) in a module that returns F, for "
                f'pidlearn.teachers.from_network(module, "edm", sigma_data=...)'
            )
        return EDM(scheduler.config.sigma_data)
    raise ValueError(
        f"a {name} has no alphas_cumprod, the table for networks trained on discrete timesteps: pass the scheduler "
        f"that the network was trained with, or use pidlearn.teachers.from_network(unet, parametrization)"
    )


def check_scheduler(name: str) -> None:
    """Raise ValueError for the class of a scheduler whose networks need other lines."""
    if name == "CMStochasticIterativeScheduler":
        raise ValueError(
            "a CMStochasticIterativeScheduler belongs to a consistency model, which maps noise to samples in one call "
            "and is no denoiser: distill the diffusion model that it was made from"
        )
    if name == "KarrasVeScheduler":
        raise ValueError(
            "a KarrasVeScheduler's network is called with (x + 1) / 2 and sigma / 2 and predicts D = x + sigma F: wrap "
            "that call in a module, for pidlearn.teachers.from_network(module, lambda s: (s**0, s, s**0, s))"
        )


def _span(unet: Any, noise_parametrization: NoiseParametrization, config: Any) -> tuple[float, float]:
    """The smallest and largest noise level of a network: of its table, any for a flow, or of its scheduler."""
    if isinstance(noise_parametrization, VariancePreserving):
        return finite_span(unet, noise_parametrization)
    return (0.0, math.inf) if isinstance(noise_parametrization, FlowMatching) else (config.sigma_min, config.sigma_max)


def finite_span(network: Any, table: VariancePreserving) -> tuple[float, float]:
    """The smallest and largest noise level of a table at which a network is finite."""
    low, high = table.span
    if getattr(getattr(unwrapped(network), "config", None), "time_embedding_type", None) == "fourier":
        # diffusers' networks of this kind take ln(timestep), so that timestep 0 is NaN, in their training, too.
        low = table.table.log_sigma[1].exp().item()
    return low, high


def _label_dim(config: Any) -> int:
    """The number of classes, for a network whose conditioning a student can have too."""
    if getattr(config, "cross_attention_dim", None) is not None:
        raise ValueError(
            "this network attends to a text: wrap it, together with the text, in a module F(x, timestep), for "
            "pidlearn.teachers.from_network(module, scheduler.alphas_cumprod)"
        )
    if getattr(config, "time_embedding_type", None) == "learned":
        raise ValueError(
            "this network has one learned embedding per timestep and cannot be evaluated between them, as distillation "
            "needs: use a network with a sinusoidal or Fourier time embedding"
        )
    kind, classes = getattr(config, "class_embed_type", None), getattr(config, "num_class_embeds", None)
    if kind == "identity" or (kind is not None and classes is None):
        raise ValueError(
            f"class_embed_type = {kind!r} with num_class_embeds = {classes} does not determine the classes: wrap the "
            f"network in a module F(x, timestep, class_labels), for "
            f"pidlearn.teachers.from_network(module, scheduler.alphas_cumprod, label_dim=...)"
        )
    return classes or 0
