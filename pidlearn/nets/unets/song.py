"""DDPM++ and NCSN++, the networks of Song et al. 2021 (arXiv 2011.13456), with EDM's options and state-dict names."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pidlearn.nets.blocks import Conv2d, FourierEmbedding, GroupNorm, Init, Linear, PositionalEmbedding, UNetBlock
from pidlearn.nets.registry import check_option, register_network
from pidlearn.nets.unets.base import UNET_OPTIONS, UNet
from pidlearn.nets.unets.stages import build_decoder, build_encoder, build_levels
from pidlearn.utils.arguments import check_arguments, list_of, number, size

__all__ = ["SongUNet"]

XAVIER = functools.partial(Init, "xavier", "uniform")


@register_network
class SongUNet(UNet):
    """DDPM++ (the defaults) and NCSN++ (fourier, residual, channel_mult_noise 2, filter 1 3 3 1); called as `UNet`.

    Options: ``model_channels`` times ``channel_mult[l]`` channels at resolution R / 2^l, ``num_blocks`` blocks per
    resolution, attention at the resolutions in ``attn_resolutions``; ``channel_mult_noise`` and ``channel_mult_emb``
    set the widths of the noise features and of their embedding; in training, ``dropout`` drops activations and
    ``label_dropout`` drops whole labels. ``embedding_type`` is "positional" or "fourier", ``encoder_type`` "standard",
    "skip" or "residual", ``decoder_type`` "standard" or "skip". With ``end_time`` it takes a second time; with
    ``times`` its batch holds as many times of each sample.
    """

    @check_arguments(**UNET_OPTIONS, channel_mult_noise=size(), resample_filter=list_of(number()))
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
        resample_filter: Sequence[float] = (1, 1),
        end_time: bool = False,
        times: int = 0,
    ) -> None:
        super().__init__(img_resolution, in_channels, label_dim, label_dropout, num_blocks, len(channel_mult))
        check_option("embedding_type", embedding_type, ("positional", "fourier"))
        check_option("encoder_type", encoder_type, ("standard", "skip", "residual"))
        check_option("decoder_type", decoder_type, ("standard", "skip"))
        if len(resample_filter) % 2 or not sum(resample_filter):
            raise ValueError(
                f"got resample_filter = {list(resample_filter)}; expected an even number of taps whose sum is not 0"
            )
        # The order of these lines is that of the random draws: a seed must keep giving the same weights.
        noise, emb = model_channels * channel_mult_noise, model_channels * channel_mult_emb
        self._build_embedding(embedding_type, noise, emb, augment_dim)
        # A single attention head wherever a level attends.
        levels = build_levels(self.resolutions, model_channels, channel_mult, attn_resolutions, lambda channels: 1)
        block = _block_factory(emb, dropout, resample_filter)
        conv = functools.partial(Conv2d, resample_filter=resample_filter, init=XAVIER())
        self.enc, skips = build_encoder(in_channels, model_channels, levels, num_blocks, block, conv, encoder_type)

        def image_layers(depth: int, channels: int) -> dict[str, nn.Module]:
            """Layers that turn a level's activations into an image and add it to that of the level below."""
            layers: dict[str, nn.Module] = {}
            if decoder_type == "skip" and depth < len(levels) - 1:
                layers["aux_up"] = conv(out_channels, out_channels, 0, resample="up")
            # depth 0 is the full resolution, whose layer makes the output of either decoder type.
            if decoder_type == "skip" or depth == 0:
                layers["aux_norm"] = GroupNorm(channels, eps=1e-6)
                # The output is near 0 at first.
                layers["aux_conv"] = Conv2d(channels, out_channels, 3, init=XAVIER(weight=1e-5))
            return layers

        self.dec, _ = build_decoder(skips, levels, num_blocks, block, image_layers=image_layers)
        # Zero at first, so that a copied network starts as the original, whatever the end time.
        self.map_end = Linear(noise, noise, bias=False, init=XAVIER(weight=0.0)) if end_time else None
        self._build_temporal(times)

    def _build_embedding(self, embedding_type: str, noise: int, emb: int, augment_dim: int) -> None:
        """Set the layers from c_noise, class and augment labels to the embedding, (B, noise) to (B, emb)."""
        self.map_noise: nn.Module = (
            PositionalEmbedding(noise, endpoint=True) if embedding_type == "positional" else FourierEmbedding(noise)
        )
        init = XAVIER()
        self.map_label = Linear(self.label_dim, noise, init=init) if self.label_dim else None
        self.map_augment = Linear(augment_dim, noise, bias=False, init=init) if augment_dim else None
        self.map_layer0 = Linear(noise, emb, init=init)
        self.map_layer1 = Linear(emb, emb, init=init)

    def _embed(self, c: Tensor, labels: Tensor | None, augment_labels: Tensor | None, c_end: Tensor | None) -> Tensor:
        # The published weights expect the sines first.
        cosine, sine = self.map_noise(c).chunk(2, dim=1)  # (B or 1, noise / 2) each
        emb = torch.cat([sine, cosine], dim=1)
        if self.map_label is not None and labels is not None:
            # One-hot labels have mean square 1 / label_dim: bring it to 1.
            emb = emb + self.map_label(labels * math.sqrt(self.label_dim))  # (B or 1, noise)
        emb = self._conditioned(emb, augment_labels, c_end)
        emb = F.silu(self.map_layer0(emb))  # (B or 1, emb)
        return F.silu(self.map_layer1(emb))


def _block_factory(emb: int, dropout: float, resample_filter: Sequence[float]) -> Callable[..., UNetBlock]:
    """The constructor of a block of DDPM++, given its channels, resampling and heads."""
    return functools.partial(
        UNetBlock,
        emb_channels=emb,
        dropout=dropout,
        skip_scale=math.sqrt(0.5),  # a sum of two terms of unit variance gets unit variance again
        eps=1e-6,
        adaptive=False,
        resample_proj=True,
        resample_filter=resample_filter,
        init=XAVIER(),
        init_zero=XAVIER(weight=1e-5),  # residual branches start near 0
        init_attn=XAVIER(weight=math.sqrt(0.2)),
    )
