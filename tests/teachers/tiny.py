"""The smallest third-party networks, and networks with the exact answer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

import pidlearn as pid
from pidlearn.utils.optional_imports import package


def unet(**options: Any) -> Any:
    """A diffusers U-Net with attention, in eval mode."""
    diffusers = package("diffusers", "this test")
    torch.manual_seed(0)
    small: dict[str, Any] = {
        "sample_size": 4,
        "in_channels": 1,
        "out_channels": 1,
        "block_out_channels": (8, 8),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "attention_head_dim": 4,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    }
    return diffusers.UNet2DModel(**{**small, **options}).eval()


class ExactUNet(nn.Module):
    """What an infinitely well trained U-Net would predict for images (1, 1, 2) of a mixture, at any real timestep."""

    def __init__(self, mixture: pid.GaussianMixture, scheduler: Any, **config: Any) -> None:
        super().__init__()
        self.mixture = mixture
        self.prediction = scheduler.config.prediction_type
        ab = scheduler.alphas_cumprod.double()
        self.log_sigma = ((1 - ab) / ab).log() / 2
        self.config = SimpleNamespace(**{"in_channels": 1, "out_channels": 1, "sample_size": (1, 2), **config})

    def forward(self, sample: Tensor, timestep: Any, return_dict: bool = True) -> Any:
        k = torch.as_tensor(timestep, dtype=torch.float64).expand(len(sample))
        low = k.floor().long().clamp(max=len(self.log_sigma) - 2)
        sigma = torch.lerp(self.log_sigma[low], self.log_sigma[low + 1], k - low).exp()[:, None]
        x_vp = sample.double().flatten(1)
        r = (1 + sigma**2).sqrt()
        x0 = self.mixture.denoise(x_vp * r, sigma[:, 0])
        noise = (x_vp * r - x0) / sigma
        predicted = {"epsilon": noise, "sample": x0, "v_prediction": noise / r - sigma / r * x0}[self.prediction]
        return (predicted.reshape(sample.shape).to(sample.dtype),)


class Velocity(nn.Module):
    """A small convolutional v(x, t, class_labels=None)."""

    def __init__(self, channels: int = 1, label_dim: int = 0) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels + 1, 8, 3, padding=1)
        self.last = nn.Conv2d(8, channels, 3, padding=1)
        self.labels = nn.Embedding(label_dim, 8) if label_dim else None

    def forward(self, x: Tensor, t: Tensor, class_labels: Tensor | None = None) -> Tensor:
        h = self.first(torch.cat([x, t.reshape(-1, 1, 1, 1).expand_as(x[:, :1])], 1))
        if self.labels is not None and class_labels is not None:
            h = h + self.labels(class_labels)[..., None, None]
        return self.last(nn.functional.silu(h))


def exact_velocity(mixture: pid.GaussianMixture, data_at: int) -> Any:
    """The mean velocity of straight paths between a mixture (B, d) and N(0, I), in closed form."""

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        noise = (t if data_at == 0 else 1 - t)[:, None]
        x0 = mixture.denoise(x / (1 - noise), (noise / (1 - noise))[:, 0])
        towards_noise = (x - x0) / noise
        return towards_noise if data_at == 0 else -towards_noise

    return velocity
