"""EDM's image networks, written so that the published weights load by name.

`SongUNet` is the U-Net of Song et al. 2021 (arXiv 2011.13456) as configured by EDM (Karras et al.
2022, arXiv 2206.00364, appendix F.2); `EDMPrecond` turns it into a denoiser. Constructor options
and state-dict names are EDM's.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pidlearn.nets.blocks import (
    Conv2d,
    FourierEmbedding,
    GroupNorm,
    Init,
    Linear,
    PositionalEmbedding,
    UNetBlock,
    one_hot_labels,
)
from pidlearn.nets.options import remembers_options
from pidlearn.nets.precond import Preconditioned

_EPS = 1e-6
_INIT = Init("xavier", "uniform")
_INIT_ZERO = Init("xavier", "uniform", weight=1e-5)
_INIT_ATTN = Init("xavier", "uniform", weight=math.sqrt(0.2))


@remembers_options
class SongUNet(nn.Module):
    """DDPM++ (the defaults) and NCSN++ (fourier, residual, channel_mult_noise 2, filter 1 3 3 1).

    F(x, c_noise, class_labels=None, augment_labels=None): x (B, in_channels, R, R), R =
    `img_resolution`; c_noise (B,) or one element; class_labels int64 (B,) or floating
    (B, label_dim), None for unconditional; augment_labels (B, augment_dim). Returns
    (B, out_channels, R, R) in the dtype of x; the noise and label mapping works in that of c_noise.

    Options: `model_channels` times `channel_mult[l]` channels at resolution R / 2^l, `num_blocks`
    blocks each, attention where the resolution is in `attn_resolutions`; `channel_mult_noise` and
    `channel_mult_emb` set the widths of the noise features and of their embedding; in training,
    `dropout` acts on activations and `label_dropout` on whole labels. `embedding_type` is
    "positional" or "fourier", `encoder_type` "standard", "skip" or "residual", `decoder_type`
    "standard" or "skip".
    """

    def __init__(
        self,
        img_resolution: int,
        in_channels: int,
        out_channels: int,
        label_dim: int = 0,
        augment_dim: int = 0,
        model_channels: int = 128,
        channel_mult: Sequence[int] = (1, 2, 2, 2),
        channel_mult_emb: int = 4,
        num_blocks: int = 4,
        attn_resolutions: Sequence[int] = (16,),
        dropout: float = 0.10,
        label_dropout: float = 0.0,
        embedding_type: str = "positional",
        channel_mult_noise: int = 1,
        encoder_type: str = "standard",
        decoder_type: str = "standard",
        resample_filter: Sequence[int] = (1, 1),
    ) -> None:
        super().__init__()
        _check_option("embedding_type", embedding_type, ("positional", "fourier"))
        _check_option("encoder_type", encoder_type, ("standard", "skip", "residual"))
        _check_option("decoder_type", decoder_type, ("standard", "skip"))
        halvings = len(channel_mult) - 1
        if img_resolution % 2**halvings:
            raise ValueError(f"img_resolution {img_resolution} cannot be halved {halvings} times")
        self.event_shape = (in_channels, img_resolution, img_resolution)
        self.label_dim = label_dim
        self.label_dropout = label_dropout
        self.num_blocks = num_blocks
        self.resolutions = [img_resolution >> level for level in range(len(channel_mult))]

        noise, emb = model_channels * channel_mult_noise, model_channels * channel_mult_emb
        self.map_noise: nn.Module = (
            PositionalEmbedding(noise, endpoint=True) if embedding_type == "positional" else FourierEmbedding(noise)
        )
        self.map_label = Linear(label_dim, noise, init=_INIT) if label_dim else None
        self.map_augment = Linear(augment_dim, noise, bias=False, init=_INIT) if augment_dim else None
        self.map_layer0 = Linear(noise, emb, init=_INIT)
        self.map_layer1 = Linear(emb, emb, init=_INIT)

        conv = functools.partial(Conv2d, resample_filter=resample_filter, init=_INIT)
        block = functools.partial(
            UNetBlock,
            emb_channels=emb,
            dropout=dropout,
            skip_scale=math.sqrt(0.5),
            eps=_EPS,
            adaptive=False,
            resample_proj=True,
            resample_filter=resample_filter,
            init=_INIT,
            init_zero=_INIT_ZERO,
            init_attn=_INIT_ATTN,
        )
        levels = [
            _Level(resolution, model_channels * mult, int(resolution in attn_resolutions))
            for resolution, mult in zip(self.resolutions, channel_mult, strict=True)
        ]
        self.enc, skips = _encoder(in_channels, model_channels, levels, num_blocks, encoder_type, conv, block)
        self.dec = _decoder(out_channels, skips, levels, num_blocks, decoder_type, conv, block)

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        class_labels: Tensor | None = None,
        augment_labels: Tensor | None = None,
    ) -> Tensor:
        """F(x, c_noise): (B, in_channels, R, R) to (B, out_channels, R, R)."""
        emb = self._embed(c_noise.reshape(-1), len(x), class_labels, augment_labels)
        if len(emb) not in (1, len(x)):
            raise ValueError(f"{len(emb)} noise levels or labels do not fit {len(x)} images")
        skips = self._encode(x, emb)
        return self._decode(skips, emb)

    def _embed(self, c: Tensor, batch: int, class_labels: Tensor | None, augment_labels: Tensor | None) -> Tensor:
        """Turn noise levels (B or 1,) and labels into one embedding (B or 1, emb)."""
        # The published weights expect the sines first.
        cosine, sine = self.map_noise(c).chunk(2, dim=1)
        emb = torch.cat([sine, cosine], dim=1)
        if self.map_label is not None:
            labels = one_hot_labels(class_labels, self.label_dim, dtype=c.dtype, device=c.device)
            if self.training and self.label_dropout:
                labels = labels * (torch.rand(batch, 1, device=c.device) >= self.label_dropout)
            emb = emb + self.map_label(labels * math.sqrt(self.label_dim))
        if self.map_augment is not None and augment_labels is not None:
            emb = emb + self.map_augment(augment_labels.to(emb))
        emb = F.silu(self.map_layer0(emb))
        return F.silu(self.map_layer1(emb))

    def _encode(self, x: Tensor, emb: Tensor) -> list[Tensor]:
        """Return the activations that the decoder takes up again, the deepest last."""
        enc, aux, skips = self.enc, x, []
        for level, res in enumerate(self.resolutions):
            key = f"{res}x{res}"
            x = enc[f"{key}_conv"](x) if level == 0 else enc[f"{key}_down"](x, emb)
            if f"{key}_aux_skip" in enc:
                aux = enc[f"{key}_aux_down"](aux)
                x = x + enc[f"{key}_aux_skip"](aux)
            elif f"{key}_aux_residual" in enc:
                x = aux = (x + enc[f"{key}_aux_residual"](aux)) * math.sqrt(0.5)
            skips.append(x)
            for i in range(self.num_blocks):
                x = enc[f"{key}_block{i}"](x, emb)
                skips.append(x)
        return skips

    def _decode(self, skips: list[Tensor], emb: Tensor) -> Tensor:
        """Consume the encoder's activations from the deepest up; return the image."""
        dec = self.dec
        x = out = skips[-1]
        for res in reversed(self.resolutions):
            key = f"{res}x{res}"
            for name in ("in0", "in1", "up"):
                if f"{key}_{name}" in dec:
                    x = dec[f"{key}_{name}"](x, emb)
            for i in range(self.num_blocks + 1):
                x = dec[f"{key}_block{i}"](torch.cat([x, skips.pop()], dim=1), emb)
            if f"{key}_aux_conv" in dec:
                y = dec[f"{key}_aux_conv"](F.silu(dec[f"{key}_aux_norm"](x)))
                out = y + dec[f"{key}_aux_up"](out) if f"{key}_aux_up" in dec else y
        return out


class EDMPrecond(Preconditioned):
    """EDM's denoiser D(x, sigma, class_labels=None) of images x (B, img_channels, R, R).

    `model_type` names the network, which gets `network_options` besides the image and label
    sizes. Class labels are int64 (B,) or floating (B, label_dim), None for unconditional; with
    `label_dim` 0 they are ignored. `sigma_min` and `sigma_max` bound the noise levels the network
    is meant for: samplers respect them, the call does not check. With `use_fp16` the network body
    runs in float16 for float32 images on a GPU, unless the call says `force_fp32`.
    """

    def __init__(
        self,
        img_resolution: int,
        img_channels: int,
        label_dim: int = 0,
        use_fp16: bool = False,
        sigma_min: float = 0.0,
        sigma_max: float = math.inf,
        sigma_data: float = 0.5,
        model_type: str = "SongUNet",
        **network_options: Any,
    ) -> None:
        _check_option("model_type", model_type, tuple(_NETWORKS))
        network = _NETWORKS[model_type](
            img_resolution=img_resolution,
            in_channels=img_channels,
            out_channels=img_channels,
            label_dim=label_dim,
            **network_options,
        )
        super().__init__(network, sigma_data)
        self.img_resolution = img_resolution
        self.img_channels = img_channels
        self.use_fp16 = use_fp16
        self.sigma_min = sigma_min
        self.sigma_max = sigma_max

    def forward(
        self,
        x: Tensor,
        sigma: Tensor | float,
        class_labels: Tensor | None = None,
        force_fp32: bool = False,
        augment_labels: Tensor | None = None,
    ) -> Tensor:
        """D(x; sigma): (B, img_channels, R, R), computed in float64 if x is float64, else in float32."""

        def network(x_in: Tensor, c_noise: Tensor) -> Tensor:
            half = self.use_fp16 and not force_fp32 and x_in.is_cuda and x_in.dtype == torch.float32
            x_in = x_in.half() if half else x_in
            out: Tensor = self.model(x_in, c_noise, class_labels, augment_labels)
            return out

        return self._denoise(x, sigma, network)

    def round_sigma(self, sigma: Tensor | float) -> Tensor:
        """Return the nearest noise level the network knows: sigma itself, as a tensor."""
        return torch.as_tensor(sigma)


_NETWORKS = {"SongUNet": SongUNet}


class _Level(NamedTuple):
    """What the blocks of one resolution have in common."""

    resolution: int
    channels: int
    num_heads: int


def _encoder(
    in_channels: int,
    model_channels: int,
    levels: Sequence[_Level],
    num_blocks: int,
    encoder_type: str,
    conv: Callable[..., Conv2d],
    block: Callable[..., UNetBlock],
) -> tuple[nn.ModuleDict, list[int]]:
    """Build SongUNet's encoder, and list the channels of the activations it hands to the decoder."""
    enc, skips = nn.ModuleDict(), []
    channels, aux_channels = model_channels, in_channels
    for level, (res, out_channels, num_heads) in enumerate(levels):
        key = f"{res}x{res}"
        if level == 0:
            enc[f"{key}_conv"] = conv(in_channels, channels, 3)
        else:
            enc[f"{key}_down"] = block(channels, channels, resample="down")
            if encoder_type == "skip":
                enc[f"{key}_aux_down"] = conv(in_channels, in_channels, 0, resample="down")
                enc[f"{key}_aux_skip"] = conv(in_channels, channels, 1)
            elif encoder_type == "residual":
                enc[f"{key}_aux_residual"] = conv(aux_channels, channels, 3, resample="fused_down")
                aux_channels = channels
        skips.append(channels)
        for i in range(num_blocks):
            enc[f"{key}_block{i}"] = block(channels, out_channels, num_heads=num_heads)
            channels = out_channels
            skips.append(channels)
    return enc, skips


def _decoder(
    img_channels: int,
    skips: list[int],
    levels: Sequence[_Level],
    num_blocks: int,
    decoder_type: str,
    conv: Callable[..., Conv2d],
    block: Callable[..., UNetBlock],
) -> nn.ModuleDict:
    """Build SongUNet's decoder, which takes up activations with `skips` channels, the last first."""
    dec, channels = nn.ModuleDict(), skips[-1]
    for level, (res, out_channels, num_heads) in reversed(list(enumerate(levels))):
        key = f"{res}x{res}"
        deepest = level == len(levels) - 1
        if deepest:
            dec[f"{key}_in0"] = block(channels, channels, num_heads=1)
            dec[f"{key}_in1"] = block(channels, channels)
        else:
            dec[f"{key}_up"] = block(channels, channels, resample="up")
        for i in range(num_blocks + 1):
            attention = num_heads if i == num_blocks else 0
            dec[f"{key}_block{i}"] = block(channels + skips.pop(), out_channels, num_heads=attention)
            channels = out_channels
        if decoder_type == "skip" and not deepest:
            dec[f"{key}_aux_up"] = conv(img_channels, img_channels, 0, resample="up")
        if decoder_type == "skip" or level == 0:
            dec[f"{key}_aux_norm"] = GroupNorm(channels, _EPS)
            dec[f"{key}_aux_conv"] = Conv2d(channels, img_channels, 3, init=_INIT_ZERO)
    return dec


def _check_option(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
