"""Denoisers of images: the published EDM models, and Score-SDE's and iDDPM's networks as EDM runs them.

Each is D(x, sigma, class_labels=None) = c_skip x + c_out F(c_in x; c_noise) over a U-Net, with its own coefficients
(Karras et al. 2022, arXiv 2206.00364, table 1). Constructor options, attributes and state-dict names are EDM's.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pidlearn.nets.adapted import AdaptedStudent
from pidlearn.nets.noise_parametrization import IDDPM, VE, VP, Coefficients
from pidlearn.nets.preconditioning import Preconditioned
from pidlearn.nets.registry import NETWORKS, check_option, register_denoiser
from pidlearn.utils.arguments import NOISE_LEVEL, check_arguments, number, size

__all__ = ["MODEL_TYPES", "EDMPrecond", "VEPrecond", "VPPrecond", "iDDPMPrecond"]

MODEL_TYPES = ("SongUNet", "DhariwalUNet")
"""The registered networks that an image denoiser, and so a file of one, may name."""


class ImageDenoiser(Preconditioned):
    """Base class of the four image denoisers.

    x is (B, img_channels, R, R) with R = ``img_resolution``. Class labels are int64 (B,) or floating (B, label_dim),
    None for unconditional; with ``label_dim`` 0 they are ignored. ``sigma_min`` and ``sigma_max`` bound the noise
    levels that the network was trained for: samplers respect them, the call checks only that they are levels at all.
    With ``use_fp16`` the network runs in float16 for float32 images on a GPU, unless ``force_fp32`` is passed to the
    call. All other options are passed on to the network.
    """

    OUTPUTS = 1
    """Number of images that the network returns per input image; the first is the prediction."""

    @check_arguments(img_channels=size())
    def __init__(
        self,
        img_resolution: int,
        img_channels: int,
        label_dim: int,
        use_fp16: bool,
        span: tuple[float, float],
        sigma_data: float,
        model_type: str,
        network_options: dict[str, Any],
    ) -> None:
        check_option("model_type", model_type, MODEL_TYPES)
        network = NETWORKS[model_type](
            img_resolution=img_resolution,
            in_channels=img_channels,
            out_channels=self.OUTPUTS * img_channels,
            label_dim=label_dim,
            **network_options,
        )
        super().__init__(network, sigma_data)
        self.img_resolution = img_resolution
        self.img_channels = img_channels
        self.use_fp16 = use_fp16
        self.sigma_min, self.sigma_max = span

    def forward(
        self,
        x: Tensor,
        sigma: Tensor | float,
        class_labels: Tensor | None = None,
        force_fp32: bool = False,
        augment_labels: Tensor | None = None,
    ) -> Tensor:
        """Return D(x, sigma), (B, img_channels, R, R), computed in float64 if x is float64, otherwise in float32."""

        def network(x_in: Tensor, c_noise: Tensor) -> Tensor:
            half = self.use_fp16 and not force_fp32 and x_in.is_cuda and x_in.dtype == torch.float32
            x_in = x_in.half() if half else x_in
            out: Tensor = self.model(x_in, c_noise, class_labels, augment_labels)
            return out[:, : self.img_channels]  # (B, OUTPUTS * C, R, R) -> (B, C, R, R)

        return self._denoise(x, sigma, network)

    def round_sigma(self, sigma: Tensor | float) -> Tensor:
        """Return the nearest noise level that the network was trained on: sigma itself, as a tensor."""
        return torch.as_tensor(sigma)


@register_denoiser
class EDMPrecond(ImageDenoiser):
    """EDM's own denoiser, the class of all its published models; see `ImageDenoiser` and `Preconditioned`."""

    @check_arguments(sigma_min=number(0), sigma_max=NOISE_LEVEL)
    def __init__(
        self,
        img_resolution: int,
        img_channels: int,
        label_dim: int = 0,
        use_fp16: bool = False,
        sigma_min: float = 0.0,
        sigma_max: float = math.inf,
        sigma_data: float = 0.5,
        model_type: str = "DhariwalUNet",
        **network_options: Any,
    ) -> None:
        span = (sigma_min, sigma_max)
        super().__init__(
            img_resolution, img_channels, label_dim, use_fp16, span, sigma_data, model_type, network_options
        )


class NoisePredictor(ImageDenoiser):
    """Base class of the denoisers with a noise parametrization other than EDM's."""

    def as_student(self, t_max: float) -> AdaptedStudent:
        """Return the network as a student's F. It shares the weights: copy it before training."""
        # A student's time is continuous: it uses the parametrization, not `coefficients`, which may round to a level.
        return AdaptedStudent(self.model, self.noise_parametrization, t_max, self.sigma_data, self.label_dim)


@register_denoiser
class VPPrecond(NoisePredictor):
    """A variance-preserving teacher of Score-SDE, which predicts the noise; see `noise_parametrization.VP`."""

    # sigma^2 + 1 = exp(beta_d / 2 + beta_min) at t = 1, within the range of a float.
    @check_arguments(beta_d=number(0, 1000, positive=True), beta_min=number(0, 100), M=size(), epsilon_t=number(0, 1))
    def __init__(
        self,
        img_resolution: int,
        img_channels: int,
        label_dim: int = 0,
        use_fp16: bool = False,
        beta_d: float = 19.9,
        beta_min: float = 0.1,
        M: int = 1000,
        epsilon_t: float = 1e-5,
        model_type: str = "SongUNet",
        **network_options: Any,
    ) -> None:
        vp = VP(beta_d, beta_min, M, epsilon_t)
        super().__init__(img_resolution, img_channels, label_dim, use_fp16, vp.span, 0.5, model_type, network_options)
        self.noise_parametrization = vp
        self.beta_d, self.beta_min, self.M, self.epsilon_t = beta_d, beta_min, M, epsilon_t


@register_denoiser
class VEPrecond(NoisePredictor):
    """A variance-exploding teacher of Score-SDE, which predicts the noise; see `noise_parametrization.VE`."""

    @check_arguments(sigma_min=number(0), sigma_max=NOISE_LEVEL)
    def __init__(
        self,
        img_resolution: int,
        img_channels: int,
        label_dim: int = 0,
        use_fp16: bool = False,
        sigma_min: float = 0.02,
        sigma_max: float = 100.0,
        model_type: str = "SongUNet",
        **network_options: Any,
    ) -> None:
        span = (sigma_min, sigma_max)
        super().__init__(img_resolution, img_channels, label_dim, use_fp16, span, 0.5, model_type, network_options)
        self.noise_parametrization = VE()


@register_denoiser
class iDDPMPrecond(NoisePredictor):  # noqa: N801 - EDM's name, which its files hold
    """A teacher of iDDPM (Nichol & Dhariwal 2021, arXiv 2102.09672), which predicts the noise at M discrete levels.

    The buffer ``u`` (M + 1,) float32 holds the levels, decreasing from sigma_max to 0; the network takes the index of
    the level nearest to sigma. The second half of its output channels, a learned variance, is not used.
    """

    OUTPUTS = 2
    u: Tensor

    @check_arguments(C_1=number(0, 1, positive=True), C_2=number(0, 1))
    def __init__(
        self,
        img_resolution: int,
        img_channels: int,
        label_dim: int = 0,
        use_fp16: bool = False,
        C_1: float = 0.001,
        C_2: float = 0.008,
        M: int = 1000,
        model_type: str = "DhariwalUNet",
        **network_options: Any,
    ) -> None:
        iddpm = IDDPM(C_1, C_2, M)
        span = iddpm.table.span
        super().__init__(img_resolution, img_channels, label_dim, use_fp16, span, 0.5, model_type, network_options)
        self.noise_parametrization = iddpm
        self.register_buffer("u", torch.tensor(iddpm.sigmas[::-1], dtype=torch.float32))  # (M + 1,)
        self.C_1, self.C_2, self.M = C_1, C_2, M

    def round_sigma(self, sigma: Tensor | float) -> Tensor:
        """Return the nearest noise level that the network was trained on, in sigma's dtype and shape."""
        sigma = torch.as_tensor(sigma)
        return self.u.to(sigma)[self._nearest(sigma)]

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """Return c_skip, c_out, c_in and c_noise at noise levels sigma; c_noise is the index of the nearest level."""
        # u decreases while indices increase with sigma: u[M - 1] is level 0.
        return super().coefficients(sigma)._replace(c_noise=self.M - 1 - self._nearest(sigma).to(sigma))

    def _nearest(self, sigma: Tensor) -> Tensor:
        """Index into u of the level nearest to sigma, of any shape."""
        # (n, 1) - (M + 1,) -> (n, M + 1) distances.
        return (sigma.reshape(-1, 1) - self.u.to(sigma)).abs().argmin(1).reshape(sigma.shape)
