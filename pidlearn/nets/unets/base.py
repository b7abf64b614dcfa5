"""The forward pass that EDM's two U-Nets share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pidlearn.nets.blocks import Linear, UNetBlock
from pidlearn.nets.inputs import check_condition, check_end_time, check_event, check_weight, one_hot_labels
from pidlearn.nets.summary import summarize
from pidlearn.nets.temporal import TemporalConvolution
from pidlearn.utils.arguments import SWITCH, list_of, number, size
from pidlearn.utils.settings import Rule

__all__ = ["UNET_OPTIONS", "UNet"]

MAX_BLOCKS = 512
"""Limit of blocks in the encoder, of which published networks have up to 32: more take minutes to build."""

UNET_OPTIONS: dict[str, Rule] = {
    **dict.fromkeys(("img_resolution", "in_channels", "out_channels", "model_channels"), size()),
    **dict.fromkeys(("label_dim", "augment_dim", "num_blocks", "times"), size(0)),
    "channel_mult": list_of(size()),
    "channel_mult_emb": size(),
    "attn_resolutions": list_of(size(0)),
    **dict.fromkeys(("dropout", "label_dropout"), number(0, 1)),
    "end_time": SWITCH,
}
"""The rules for the options that the U-Nets share."""


class UNet(nn.Module, ABC):
    """Base class: an encoder, and a decoder that concatenates the encoder's activations, from the last to the first.

    F(x, c_noise, class_labels=None, augment_labels=None, end_time=None): x (B, in_channels, R, R), R =
    ``img_resolution``; c_noise (B,) or one element; class_labels int64 (B,) or floating (B, label_dim), None for
    unconditional; augment_labels (B, augment_dim); end_time, a second time like c_noise, for networks built with
    ``end_time=True``, which are those of a `FlowMap`. Returns (B, out_channels, R, R) in the dtype of x; the noise
    and label embedding is computed in the dtype of c_noise. Of networks built with ``times=M`` the batch holds M times
    of each sample, see `pidlearn.nets.temporal`.
    """

    recompute = False
    """Activation checkpointing: recompute activations within a block in the backward pass instead of keeping them."""

    map_layer0: Linear
    map_label: Linear | None
    map_augment: Linear | None
    map_noise: nn.Module
    map_end: Linear | None
    enc: nn.ModuleDict
    dec: nn.ModuleDict
    temporal: nn.ModuleDict
    times: int

    def __init__(
        self, img_resolution: int, in_channels: int, label_dim: int, label_dropout: float, num_blocks: int, levels: int
    ) -> None:
        super().__init__()
        if levels * num_blocks > MAX_BLOCKS:
            raise ValueError(
                f"got num_blocks = {num_blocks} at {levels} resolutions, but a U-Net has at most {MAX_BLOCKS} blocks: "
                f"use fewer"
            )
        if levels < 1:
            raise ValueError("got channel_mult = [], but channel_mult must have an entry for each resolution")
        if img_resolution % 2 ** (levels - 1):
            raise ValueError(
                f"img_resolution {img_resolution} cannot be halved {levels - 1} times: use a multiple of "
                f"{2 ** (levels - 1)}, or fewer entries in channel_mult"
            )
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
        end_time: Tensor | None = None,
    ) -> Tensor:
        """Return F(x, c_noise): (B, in_channels, R, R) to (B, out_channels, R, R).

        Raises:
            ValueError: for images of another shape, or a number of noise levels or labels other than 1 or B.
        """
        check_event(x, self.event_shape)
        check_weight(self.map_layer0.weight, x, casts=True)
        check_condition("c_noise", c_noise, x)
        if augment_labels is not None:
            check_condition("augment_labels", augment_labels, x)
        check_end_time(end_time, self.end_time)
        c = c_noise.reshape(-1)  # (B,) or (1,)
        c_end = None
        if end_time is not None:
            check_condition("end_time", end_time, x)
            c_end = end_time.reshape(-1)
        labels = None
        if self.map_label is not None:
            # (B or 1, label_dim); zeros without labels.
            labels = one_hot_labels(class_labels, self.label_dim, dtype=c.dtype, device=c.device)
            if self.training and self.label_dropout:
                # (B, 1): a dropped label is a row of zeros, so that the network is trained without labels, too.
                labels = labels * (torch.rand(len(x), 1, device=c.device) >= self.label_dropout)
        for name, rows in (
            ("noise levels", c),
            ("end times", c_end),
            ("class labels", labels),
            ("augment labels", augment_labels),
        ):
            if rows is not None and rows.shape[:1].numel() not in (1, len(x)):
                raise ValueError(f"got {len(rows)} {name} for {len(x)} images; expected one for all, or one per image")
        emb = self._embed(c, labels, augment_labels, c_end)  # (B or 1, emb)
        skips = self._encode(x, emb)
        return self._decode(skips, emb)

    @property
    def end_time(self) -> bool:
        """Whether the network takes a second time."""
        return self.map_end is not None

    def _build_temporal(self, times: int) -> None:
        """Set the temporal layers, by the names of the blocks that they follow; none for 0 or 1 times.

        They are zero at first, so that a copied network starts as the original, at each time.
        """
        self.times, self.temporal = times, nn.ModuleDict()
        for side in ("enc", "dec") if times > 1 else ():
            for name, block in getattr(self, side).items():
                if isinstance(block, UNetBlock):
                    self.temporal[f"{side}_{name}"] = TemporalConvolution(len(block.norm1.weight), times)

    @abstractmethod
    def _embed(self, c: Tensor, labels: Tensor | None, augment_labels: Tensor | None, c_end: Tensor | None) -> Tensor:
        """Map times (B or 1,) and labels (B or 1, label_dim) to one embedding (B or 1, emb)."""

    def _conditioned(self, emb: Tensor, augment_labels: Tensor | None, c_end: Tensor | None) -> Tensor:
        """Add the embeddings of the end time and of the augmentation parameters, if the network was built for them."""
        if self.map_end is not None and c_end is not None:
            emb = emb + self.map_end(self.map_noise(c_end))  # (B or 1, as emb)
        if self.map_augment is None or augment_labels is None:
            return emb
        if augment_labels.shape[1:] != self.map_augment.weight.shape[1:]:
            raise ValueError(
                f"got augment_labels of shape {tuple(augment_labels.shape)}; expected "
                f"(B, {self.map_augment.weight.shape[1]})"
            )
        augmented: Tensor = self.map_augment(augment_labels.to(emb))  # (B or 1, as emb)
        return emb + augmented

    def _encode(self, x: Tensor, emb: Tensor) -> list[Tensor]:
        """Return the activations for the decoder, the deepest last."""
        enc, aux, skips = self.enc, x, []
        # At level l, x is (B, C_l, R / 2^l, R / 2^l).
        for level, res in enumerate(self.resolutions):
            key = f"{res}x{res}"
            x = enc[f"{key}_conv"](x) if level == 0 else self._block("enc", f"{key}_down", x, emb)
            if f"{key}_aux_skip" in enc:
                aux = enc[f"{key}_aux_down"](aux)  # (B, in_channels, H, W)
                x = x + enc[f"{key}_aux_skip"](aux)
            elif f"{key}_aux_residual" in enc:
                # The sum of two terms of unit variance, scaled back to unit variance.
                x = aux = (x + enc[f"{key}_aux_residual"](aux)) * math.sqrt(0.5)
            skips.append(x)
            for i in range(self.num_blocks):
                x = self._block("enc", f"{key}_block{i}", x, emb)
                skips.append(x)
        return skips

    def _decode(self, skips: list[Tensor], emb: Tensor) -> Tensor:
        """Consume the encoder's activations, from the deepest up, and return the image."""
        dec = self.dec
        x = out = skips[-1]  # (B, C, H, W) at the lowest resolution
        for res in reversed(self.resolutions):
            key = f"{res}x{res}"
            for name in ("in0", "in1", "up"):
                if f"{key}_{name}" in dec:
                    x = self._block("dec", f"{key}_{name}", x, emb)
            for i in range(self.num_blocks + 1):
                # (B, C, H, W) and the encoder's (B, C2, H, W) -> (B, C + C2, H, W): detail that downsampling loses.
                x = self._block("dec", f"{key}_block{i}", torch.cat([x, skips.pop()], dim=1), emb)
            if f"{key}_aux_conv" in dec:
                y = dec[f"{key}_aux_conv"](F.silu(dec[f"{key}_aux_norm"](x)))  # (B, out_channels, H, W)
                # The image of the level below, upsampled, plus this level's: the result is a sum over resolutions.
                out = y + dec[f"{key}_aux_up"](out) if f"{key}_aux_up" in dec else y
        return self._output(x, out)

    def _block(self, side: str, name: str, x: Tensor, emb: Tensor) -> Tensor:
        """Apply a block, and the temporal layer after it if there is one."""
        x = self._apply_layer(getattr(self, side)[name], x, emb)
        return self._apply_layer(self.temporal[f"{side}_{name}"], x) if self.times > 1 else x

    def _apply_layer(self, layer: nn.Module, *inputs: Tensor) -> Tensor:
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(layer, *inputs, use_reentrant=False)
        out: Tensor = layer(*inputs)
        return out

    def scale_output(self, factor: float) -> None:
        """Multiply the output by a factor, through the weights and biases of the last layers."""
        with torch.no_grad():
            # The output is a sum of linear layers, so it scales with their weights and biases.
            for layer in self._last_layers():
                layer.weight.mul_(factor)
                layer.bias.mul_(factor)

    def keep_outputs(self, channels: int) -> None:
        """Keep only the first output channels, such as the prediction without its variance."""
        for layer in self._last_layers():
            # (out, in, k, k) -> (channels, in, k, k), and the bias (out,) -> (channels,).
            layer.weight, layer.bias = (nn.Parameter(p.detach()[:channels].clone()) for p in (layer.weight, layer.bias))
        self.options: dict[str, Any]
        self.options = {**self.options, "out_channels": channels}

    def _last_layers(self) -> list[Any]:
        """The convolutions whose outputs add up to the image."""
        return [layer for name, layer in self.dec.items() if name.endswith("_aux_conv")]

    def _output(self, x: Tensor, image: Tensor) -> Tensor:
        """Return the image, given the last activation and the sum of the decoder's image layers."""
        return image

    def __repr__(self) -> str:
        return summarize(self)
