"""EDM's U-Nets, written so that the published weights load by name.

`SongUNet` is the network of Song et al. 2021 (arXiv 2011.13456), `DhariwalUNet` that of Dhariwal & Nichol 2021 (arXiv
2105.05233), both as configured by EDM (Karras et al. 2022, arXiv 2206.00364, appendix F.2). Constructor options and
state-dict names are EDM's.
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pidlearn.nets.blocks import (
    Conv2d,
    FourierEmbedding,
    GroupNorm,
    Init,
    Linear,
    PositionalEmbedding,
    UNetBlock,
    check_event,
    one_hot_labels,
)
from pidlearn.nets.registry import check_option, register_network

__all__ = ["DhariwalUNet", "SongUNet"]


class UNet(nn.Module, ABC):
    """What both have in common: an encoder whose activations a decoder takes up again, the last first.

    F(x, c_noise, class_labels=None, augment_labels=None): x (B, in_channels, R, R), R = ``img_resolution``; c_noise
    (B,) or one element; class_labels int64 (B,) or floating (B, label_dim), None for unconditional; augment_labels
    (B, augment_dim). Returns (B, out_channels, R, R) in the dtype of x; the noise and label mapping works in that of
    c_noise.
    """

    recompute = False
    """Whether activations within a block are computed again for the backward pass rather than kept."""

    map_label: Linear | None
    map_augment: Linear | None
    enc: nn.ModuleDict
    dec: nn.ModuleDict

    def __init__(
        self, img_resolution: int, in_channels: int, label_dim: int, label_dropout: float, num_blocks: int, levels: int
    ) -> None:
        super().__init__()
        if levels < 1:
            raise ValueError("channel_mult must have an entry for each resolution, and has none")
        if label_dim < 0:
            raise ValueError(f"label_dim is the number of classes, 0 for none; got {label_dim}")
        if img_resolution % 2 ** (levels - 1):
            raise ValueError(f"img_resolution {img_resolution} cannot be halved {levels - 1} times")
        self.event_shape = (in_channels, img_resolution, img_resolution)
        self.label_dim = label_dim
        self.label_dropout = label_dropout
        self.num_blocks = num_blocks
        self.resolutions = [img_resolution >> level for level in range(levels)]

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        class_labels: Tensor | None = None,
        augment_labels: Tensor | None = None,
    ) -> Tensor:
        """F(x, c_noise): (B, in_channels, R, R) to (B, out_channels, R, R).

        Raises:
            ValueError: for images of another size, or noise levels or labels that are not one for each.
        """
        check_event(x, self.event_shape)
        c = c_noise.reshape(-1)
        labels = None
        if self.map_label is not None:
            labels = one_hot_labels(class_labels, self.label_dim, dtype=c.dtype, device=c.device)
            if self.training and self.label_dropout:
                labels = labels * (torch.rand(len(x), 1, device=c.device) >= self.label_dropout)
        for what, rows in (("noise levels", c), ("class labels", labels), ("augment labels", augment_labels)):
            if rows is not None and len(rows) not in (1, len(x)):
                raise ValueError(f"{len(rows)} {what} do not fit {len(x)} images")
        emb = self._embed(c, labels, augment_labels)
        skips = self._encode(x, emb)
        return self._decode(skips, emb)

    @abstractmethod
    def _embed(self, c: Tensor, labels: Tensor | None, augment_labels: Tensor | None) -> Tensor:
        """Turn noise levels (B or 1,) and labels (B or 1, label_dim) into one embedding (B or 1, emb)."""

    def _augmented(self, emb: Tensor, augment_labels: Tensor | None) -> Tensor:
        """The embedding with what the image was augmented by, where the network knows of that."""
        if self.map_augment is None or augment_labels is None:
            return emb
        augmented: Tensor = self.map_augment(augment_labels.to(emb))
        return emb + augmented

    def _encode(self, x: Tensor, emb: Tensor) -> list[Tensor]:
        """Return the activations that the decoder takes up again, the deepest last."""
        enc, aux, skips = self.enc, x, []
        for level, res in enumerate(self.resolutions):
            key = f"{res}x{res}"
            x = enc[f"{key}_conv"](x) if level == 0 else self._block(enc[f"{key}_down"], x, emb)
            if f"{key}_aux_skip" in enc:
                aux = enc[f"{key}_aux_down"](aux)
                x = x + enc[f"{key}_aux_skip"](aux)
            elif f"{key}_aux_residual" in enc:
                x = aux = (x + enc[f"{key}_aux_residual"](aux)) * math.sqrt(0.5)
            skips.append(x)
            for i in range(self.num_blocks):
                x = self._block(enc[f"{key}_block{i}"], x, emb)
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
                    x = self._block(dec[f"{key}_{name}"], x, emb)
            for i in range(self.num_blocks + 1):
                x = self._block(dec[f"{key}_block{i}"], torch.cat([x, skips.pop()], dim=1), emb)
            if f"{key}_aux_conv" in dec:
                y = dec[f"{key}_aux_conv"](F.silu(dec[f"{key}_aux_norm"](x)))
                out = y + dec[f"{key}_aux_up"](out) if f"{key}_aux_up" in dec else y
        return self._output(x, out)

    def _block(self, block: nn.Module, x: Tensor, emb: Tensor) -> Tensor:
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(block, x, emb, use_reentrant=False)
        out: Tensor = block(x, emb)
        return out

    def scale_output(self, factor: float) -> None:
        """Multiply the weights and biases of the last layers, and with them the image that comes out."""
        with torch.no_grad():
            for layer in self._last_layers():
                layer.weight.mul_(factor)
                layer.bias.mul_(factor)

    def keep_outputs(self, channels: int) -> None:
        """Drop all output channels but the first ones."""
        for layer in self._last_layers():
            layer.weight, layer.bias = (nn.Parameter(p.detach()[:channels].clone()) for p in (layer.weight, layer.bias))
        self.options: dict[str, Any]
        self.options = {**self.options, "out_channels": channels}

    def _last_layers(self) -> list[Any]:
        """The convolutions whose outputs are added up to the image."""
        return [layer for name, layer in self.dec.items() if name.endswith("_aux_conv")]

    def _output(self, x: Tensor, image: Tensor) -> Tensor:
        """The image, from the last activation and what the decoder's own image layers made."""
        return image


@register_network
class SongUNet(UNet):
    """DDPM++ (the defaults) and NCSN++ (fourier, residual, channel_mult_noise 2, filter 1 3 3 1); called as `UNet`.

    Options: ``model_channels`` times ``channel_mult[l]`` channels at resolution R / 2^l, ``num_blocks`` blocks each,
    attention where the resolution is in ``attn_resolutions``; ``channel_mult_noise`` and ``channel_mult_emb`` set the
    widths of the noise features and of their embedding; in training, ``dropout`` acts on activations and
    ``label_dropout`` on whole labels. ``embedding_type`` is "positional" or "fourier", ``encoder_type`` "standard",
    "skip" or "residual", ``decoder_type`` "standard" or "skip".
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
        super().__init__(img_resolution, in_channels, label_dim, label_dropout, num_blocks, len(channel_mult))
        check_option("embedding_type", embedding_type, ("positional", "fourier"))
        check_option("encoder_type", encoder_type, ("standard", "skip", "residual"))
        check_option("decoder_type", decoder_type, ("standard", "skip"))
        if len(resample_filter) % 2 or not sum(resample_filter):
            raise ValueError(f"resample_filter must be of even length and not sum to 0, got {list(resample_filter)}")
        xavier = functools.partial(Init, "xavier", "uniform")
        init, init_zero = xavier(), xavier(weight=1e-5)

        noise, emb = model_channels * channel_mult_noise, model_channels * channel_mult_emb
        self.map_noise: nn.Module = (
            PositionalEmbedding(noise, endpoint=True) if embedding_type == "positional" else FourierEmbedding(noise)
        )
        self.map_label = Linear(label_dim, noise, init=init) if label_dim else None
        self.map_augment = Linear(augment_dim, noise, bias=False, init=init) if augment_dim else None
        self.map_layer0 = Linear(noise, emb, init=init)
        self.map_layer1 = Linear(emb, emb, init=init)

        block = functools.partial(
            UNetBlock,
            emb_channels=emb,
            dropout=dropout,
            skip_scale=math.sqrt(0.5),
            eps=1e-6,
            adaptive=False,
            resample_proj=True,
            resample_filter=resample_filter,
            init=init,
            init_zero=init_zero,
            init_attn=xavier(weight=math.sqrt(0.2)),
        )
        levels = _levels(self.resolutions, model_channels, channel_mult, attn_resolutions, lambda channels: 1)
        conv = functools.partial(Conv2d, resample_filter=resample_filter, init=init)
        self.enc, skips = _encoder(in_channels, model_channels, levels, num_blocks, block, conv, encoder_type)

        def image_layers(depth: int, channels: int) -> dict[str, nn.Module]:
            """What turns the activations of a level into an image, and adds it to that of the level below."""
            layers: dict[str, nn.Module] = {}
            if decoder_type == "skip" and depth < len(levels) - 1:
                layers["aux_up"] = conv(out_channels, out_channels, 0, resample="up")
            if decoder_type == "skip" or depth == 0:
                layers["aux_norm"] = GroupNorm(channels, eps=1e-6)
                layers["aux_conv"] = Conv2d(channels, out_channels, 3, init=init_zero)
            return layers

        self.dec, _ = _decoder(skips, levels, num_blocks, block, image_layers=image_layers)

    def _embed(self, c: Tensor, labels: Tensor | None, augment_labels: Tensor | None) -> Tensor:
        # The published weights expect the sines first.
        cosine, sine = self.map_noise(c).chunk(2, dim=1)
        emb = torch.cat([sine, cosine], dim=1)
        if self.map_label is not None and labels is not None:
            emb = emb + self.map_label(labels * math.sqrt(self.label_dim))
        emb = self._augmented(emb, augment_labels)
        emb = F.silu(self.map_layer0(emb))
        return F.silu(self.map_layer1(emb))


@register_network
class DhariwalUNet(UNet):
    """ADM: attention in heads of 64 channels, and an embedding that scales and shifts; called as `UNet`.

    Options as those of `SongUNet`. Blocks of fewer than 64 channels have no attention, whatever ``attn_resolutions``
    says.
    """

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
    ) -> None:
        super().__init__(img_resolution, in_channels, label_dim, label_dropout, num_blocks, len(channel_mult))
        third = math.sqrt(1 / 3)
        init = Init("kaiming", "uniform", weight=third, bias=third)
        init_zero = Init("kaiming", "uniform", weight=0.0)
        unit_variance = Init("kaiming", "normal", weight=math.sqrt(label_dim))

        emb = model_channels * channel_mult_emb
        self.map_noise = PositionalEmbedding(model_channels)
        self.map_augment = Linear(augment_dim, model_channels, bias=False, init=init_zero) if augment_dim else None
        self.map_layer0 = Linear(model_channels, emb, init=init)
        self.map_layer1 = Linear(emb, emb, init=init)
        self.map_label = Linear(label_dim, emb, bias=False, init=unit_variance) if label_dim else None

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
        levels = _levels(
            self.resolutions, model_channels, channel_mult, attn_resolutions, lambda channels: channels // 64
        )
        self.enc, skips = _encoder(in_channels, levels[0].channels, levels, num_blocks, block, conv)
        self.dec, channels = _decoder(skips, levels, num_blocks, block, attend_everywhere=True)
        self.out_norm = GroupNorm(channels, eps=1e-5)
        self.out_conv = Conv2d(channels, out_channels, 3, init=init_zero)

    def _embed(self, c: Tensor, labels: Tensor | None, augment_labels: Tensor | None) -> Tensor:
        emb = self._augmented(self.map_noise(c), augment_labels)
        emb = self.map_layer1(F.silu(self.map_layer0(emb)))
        if self.map_label is not None and labels is not None:
            emb = emb + self.map_label(labels)
        return F.silu(emb)

    def _last_layers(self) -> list[Any]:
        return [self.out_conv]

    def _output(self, x: Tensor, image: Tensor) -> Tensor:
        out: Tensor = self.out_conv(F.silu(self.out_norm(x)))
        return out


class _Level(NamedTuple):
    """What the blocks of one resolution have in common."""

    resolution: int
    channels: int
    attention: bool
    heads: Callable[[int], int]

    @property
    def num_heads(self) -> int:
        """Of the blocks that attend."""
        return self.heads(self.channels) if self.attention else 0


def _levels(
    resolutions: Sequence[int],
    model_channels: int,
    channel_mult: Sequence[int],
    attn_resolutions: Sequence[int],
    heads: Callable[[int], int],
) -> list[_Level]:
    return [
        _Level(resolution, model_channels * mult, resolution in attn_resolutions, heads)
        for resolution, mult in zip(resolutions, channel_mult, strict=True)
    ]


def _encoder(
    in_channels: int,
    first_channels: int,
    levels: Sequence[_Level],
    num_blocks: int,
    block: Callable[..., UNetBlock],
    conv: Callable[..., Conv2d],
    encoder_type: str = "standard",
) -> tuple[nn.ModuleDict, list[int]]:
    """Build an encoder, and list the channels of the activations that it hands to the decoder."""
    enc, skips = nn.ModuleDict(), []
    channels, aux_channels = first_channels, in_channels
    for depth, level in enumerate(levels):
        key = f"{level.resolution}x{level.resolution}"
        if depth == 0:
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
            enc[f"{key}_block{i}"] = block(channels, level.channels, num_heads=level.num_heads)
            channels = level.channels
            skips.append(channels)
    return enc, skips


def _decoder(
    skips: Sequence[int],
    levels: Sequence[_Level],
    num_blocks: int,
    block: Callable[..., UNetBlock],
    *,
    attend_everywhere: bool = False,
    image_layers: Callable[[int, int], dict[str, nn.Module]] = lambda depth, channels: {},
) -> tuple[nn.ModuleDict, int]:
    """Build a decoder, which takes up activations with `skips` channels, the last first; and its last channels.

    Of a level's blocks the last one attends, or all do. ``image_layers`` gives further layers of a level, by its
    depth and channels.
    """
    dec, channels, left = nn.ModuleDict(), skips[-1], list(skips)
    for depth, level in reversed(list(enumerate(levels))):
        key = f"{level.resolution}x{level.resolution}"
        if depth == len(levels) - 1:
            dec[f"{key}_in0"] = block(channels, channels, num_heads=level.heads(channels))
            dec[f"{key}_in1"] = block(channels, channels)
        else:
            dec[f"{key}_up"] = block(channels, channels, resample="up")
        for i in range(num_blocks + 1):
            attends = attend_everywhere or i == num_blocks
            heads = level.num_heads if attends else 0
            dec[f"{key}_block{i}"] = block(channels + left.pop(), level.channels, num_heads=heads)
            channels = level.channels
        dec.update({f"{key}_{name}": layer for name, layer in image_layers(depth, channels).items()})
    return dec, channels
