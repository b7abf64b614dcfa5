"""ADM, the network of Dhariwal & Nichol 2021 (arXiv 2105.05233), with EDM's options and state-dict names."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from pidlearn.nets.blocks import Conv2d, GroupNorm, Init, Linear, PositionalEmbedding, UNetBlock
from pidlearn.nets.registry import register_network
from pidlearn.nets.unets.base import UNET_OPTIONS, UNet
from pidlearn.nets.unets.stages import build_decoder, build_encoder, build_levels
from pidlearn.utils.arguments import check_arguments

__all__ = ["DhariwalUNet"]


@register_network
class DhariwalUNet(UNet):
    """ADM: attention with heads of 64 channels, and an embedding that scales and shifts activations; called as `UNet`.

    Options as for `SongUNet`. Blocks with fewer than 64 channels have no attention, even at the resolutions in
    ``attn_resolutions``.
    """

    @check_arguments(**UNET_OPTIONS)
    def __init__(
        self,
        img_resolution: int,
        in_channels: int,
        out_channels: int,
        label_dim: int = 0,
        augment_dim: int = 0,
        model_channels: int = 192,
        channel_mult: Sequence[int] = (1, 2, 3, 4),
        channel_mult_emb: int = 4,
        num_blocks: int = 3,
        attn_resolutions: Sequence[int] = (32, 16, 8),
        dropout: float = 0.10,
        label_dropout: float = 0.0,
        end_time: bool = False,
        times: int = 0,
    ) -> None:
        super().__init__(img_resolution, in_channels, label_dim, label_dropout, num_blocks, len(channel_mult))
        third = math.sqrt(1 / 3)  # kaiming uniform times this is PyTorch's default, ±1 / sqrt(fan_in)
        init = Init("kaiming", "uniform", weight=third, bias=third)
        init_zero = Init("kaiming", "uniform", weight=0.0)  # such layers start at 0, and with them the output
        init_label = Init("kaiming", "normal", weight=math.sqrt(label_dim))  # unit variance for a one-hot label

        # The order of these lines is that of the random draws: a seed must keep giving the same weights.
        emb = model_channels * channel_mult_emb
        self.map_noise = PositionalEmbedding(model_channels)
        self.map_augment = Linear(augment_dim, model_channels, bias=False, init=init_zero) if augment_dim else None
        self.map_layer0 = Linear(model_channels, emb, init=init)
        self.map_layer1 = Linear(emb, emb, init=init)
        self.map_label = Linear(label_dim, emb, bias=False, init=init_label) if label_dim else None

        block = functools.partial(
            UNetBlock,
            emb_channels=emb,
            dropout=dropout,
            skip_scale=1.0,
            eps=1e-5,
            adaptive=True,
            resample_proj=False,
            init=init,
            init_zero=init_zero,
            init_attn=init,
        )
        conv = functools.partial(Conv2d, init=init)
        # One attention head per 64 channels.
        levels = build_levels(
            self.resolutions, model_channels, channel_mult, attn_resolutions, lambda channels: channels // 64
        )
        self.enc, skips = build_encoder(in_channels, levels[0].channels, levels, num_blocks, block, conv)
        self.dec, channels = build_decoder(skips, levels, num_blocks, block, attend_everywhere=True)
        self.out_norm = GroupNorm(channels, eps=1e-5)
        self.out_conv = Conv2d(channels, out_channels, 3, init=init_zero)
        # Zero at first, so that a copied network starts as the original, whatever the end time.
        self.map_end = Linear(model_channels, model_channels, bias=False, init=init_zero) if end_time else None
        self._build_temporal(times)

    def _embed(self, c: Tensor, labels: Tensor | None, augment_labels: Tensor | None, c_end: Tensor | None) -> Tensor:
        emb = self._conditioned(self.map_noise(c), augment_labels, c_end)  # (B or 1, model_channels)
        emb = self.map_layer1(F.silu(self.map_layer0(emb)))  # (B or 1, emb)
        # Here the class enters after both layers; in SongUNet, before them.
        if self.map_label is not None and labels is not None:
            emb = emb + self.map_label(labels)
        return F.silu(emb)

    def _last_layers(self) -> list[Any]:
        return [self.out_conv]

    def _output(self, x: Tensor, image: Tensor) -> Tensor:
        out: Tensor = self.out_conv(F.silu(self.out_norm(x)))  # (B, C, R, R) -> (B, out_channels, R, R)
        return out
