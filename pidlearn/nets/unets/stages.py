"""Construction of a U-Net's encoder and decoder, as `ModuleDict`s whose keys are EDM's state-dict names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import nn

from pidlearn.nets.blocks import Conv2d, UNetBlock

__all__ = ["Level", "build_decoder", "build_encoder", "build_levels"]


class Level(NamedTuple):
    """Settings that the blocks of one resolution share."""

    resolution: int
    channels: int
    attention: bool
    heads: Callable[[int], int]

    @property
    def num_heads(self) -> int:
        """Attention heads of the blocks that attend; 0 without attention at this resolution."""
        return self.heads(self.channels) if self.attention else 0


def build_levels(
    resolutions: Sequence[int],
    model_channels: int,
    channel_mult: Sequence[int],
    attn_resolutions: Sequence[int],
    heads: Callable[[int], int],
) -> list[Level]:
    """Return the levels from the full resolution down; ``heads`` maps channels to attention heads."""
    return [
        Level(resolution, model_channels * mult, resolution in attn_resolutions, heads)
        for resolution, mult in zip(resolutions, channel_mult, strict=True)
    ]


def build_encoder(
    in_channels: int,
    first_channels: int,
    levels: Sequence[Level],
    num_blocks: int,
    block: Callable[..., UNetBlock],
    conv: Callable[..., Conv2d],
    encoder_type: str = "standard",
) -> tuple[nn.ModuleDict, list[int]]:
    """Return an encoder, and the channels of each activation that it passes to the decoder."""
    enc, skips = nn.ModuleDict(), []
    channels, aux_channels = first_channels, in_channels
    for depth, level in enumerate(levels):
        key = f"{level.resolution}x{level.resolution}"
        if depth == 0:
            enc[f"{key}_conv"] = conv(in_channels, channels, 3)  # (B, in_channels, R, R) -> (B, channels, R, R)
        else:
            enc[f"{key}_down"] = block(channels, channels, resample="down")  # H and W halve
            # A second path brings a downsampled copy of the input, or of the level above, to this level.
            if encoder_type == "skip":
                # A kernel of 0 only filters the image; the 1 x 1 convolution makes activations of it, to be added.
                enc[f"{key}_aux_down"] = conv(in_channels, in_channels, 0, resample="down")
                enc[f"{key}_aux_skip"] = conv(in_channels, channels, 1)
            elif encoder_type == "residual":
                # The image, or the sum at the level above: (B, aux_channels, 2 H, 2 W) -> (B, channels, H, W).
                enc[f"{key}_aux_residual"] = conv(aux_channels, channels, 3, resample="fused_down")
                aux_channels = channels
        skips.append(channels)  # num_blocks + 1 activations per level go to the decoder
        for i in range(num_blocks):
            enc[f"{key}_block{i}"] = block(channels, level.channels, num_heads=level.num_heads)
            channels = level.channels
            skips.append(channels)
    return enc, skips


def build_decoder(
    skips: Sequence[int],
    levels: Sequence[Level],
    num_blocks: int,
    block: Callable[..., UNetBlock],
    *,
    attend_everywhere: bool = False,
    image_layers: Callable[[int, int], dict[str, nn.Module]] = lambda depth, channels: {},
) -> tuple[nn.ModuleDict, int]:
    """Return a decoder, and the channels of its last activation.

    Args:
        skips: channels of the encoder's activations, which the decoder concatenates from the last to the first.
        levels: as for the encoder.
        num_blocks: blocks per level in the encoder; the decoder has one more, for the level's first activation.
        block: makes a block.
        attend_everywhere: attention in all blocks of a level that has it, not only in the last one.
        image_layers: (depth, channels) to further layers of a level by name.
    """
    dec, channels, remaining = nn.ModuleDict(), skips[-1], list(skips)  # starts from the deepest activation
    for depth, level in reversed(list(enumerate(levels))):
        key = f"{level.resolution}x{level.resolution}"
        if depth == len(levels) - 1:
            # The bottom of the U: its first block attends, whatever attn_resolutions says.
            dec[f"{key}_in0"] = block(channels, channels, num_heads=level.heads(channels))
            dec[f"{key}_in1"] = block(channels, channels)
        else:
            dec[f"{key}_up"] = block(channels, channels, resample="up")  # H and W double
        for i in range(num_blocks + 1):
            attends = attend_everywhere or i == num_blocks
            heads = level.num_heads if attends else 0
            # The input is x and the activation last kept by the encoder, concatenated along the channels.
            dec[f"{key}_block{i}"] = block(channels + remaining.pop(), level.channels, num_heads=heads)
            channels = level.channels
        dec.update({f"{key}_{name}": layer for name, layer in image_layers(depth, channels).items()})
    return dec, channels
