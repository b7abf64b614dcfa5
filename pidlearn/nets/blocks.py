"""Building blocks of the EDM image networks (Karras et al. 2022, arXiv 2206.00364, appendix F.2).

Two conventions hold throughout, so that one set of float32 weights serves every precision:

- weights are cast to the dtype of the activations, never the other way round;
- frequencies and softmax are computed in the dtype of their input (softmax in float32 or higher).

All operations have forward-mode derivatives, so `torch.func.jvp` works. Names of parameters and buffers are those of
EDM's published state dicts.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.forward_ad import unpack_dual

from pidlearn.utils.validation import check_memory

Resample = Literal["up", "down", "fused_down"]


@dataclass(frozen=True)
class Init:
    """Initialisation of a layer: zero mean, variance 1/fan_in (kaiming) or 2/(fan_in + fan_out) (xavier), from a
    uniform or normal distribution, scaled by a factor for the weight and one for the bias.
    """

    variance: Literal["xavier", "kaiming"]
    law: Literal["uniform", "normal"]
    weight: float = 1.0
    bias: float = 0.0

    def parameters(self, *shape: int) -> tuple[nn.Parameter, nn.Parameter]:
        """Draw a weight of `shape` (out, in, ...) and its bias (out,)."""
        check_memory("a layer", math.prod(shape))
        if (
            torch.get_default_device().type == "meta"
        ):  # where there is nothing to draw, and a product takes milliseconds
            return nn.Parameter(torch.empty(shape)), nn.Parameter(torch.empty(shape[:1]))
        area = math.prod(shape[2:])  # k * k, or 1 for a linear layer: fan_in = in * area
        weight = self._draw(shape, shape[1] * area, shape[0] * area)
        bias = self._draw(shape[:1], shape[1] * area, shape[0] * area)
        return nn.Parameter(self.weight * weight), nn.Parameter(self.bias * bias)

    def _draw(self, shape: Sequence[int], fan_in: int, fan_out: int) -> Tensor:
        std = math.sqrt(2 / (fan_in + fan_out) if self.variance == "xavier" else 1 / fan_in)
        if self.law == "normal":
            return std * torch.randn(*shape)
        # A uniform distribution on [-a, a] has the standard deviation a / sqrt(3).
        return math.sqrt(3) * std * (2 * torch.rand(*shape) - 1)


def _traced_with_tangent(x: Tensor) -> bool:
    """Whether `torch.compile` is tracing a forward-mode derivative of x, which some operations do not support."""
    return torch.compiler.is_compiling() and unpack_dual(x).tangent is not None


class Linear(nn.Module):
    """y = x Wᵀ + b, for x (..., in_features)."""

    bias: nn.Parameter | None

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True, init: Init) -> None:
        super().__init__()
        self.weight, drawn_bias = init.parameters(out_features, in_features)
        self.register_parameter("bias", drawn_bias if bias else None)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features)."""
        weight, bias = self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype)
        if _traced_with_tangent(x):
            # In a matrix product the weight gets a tangent of zeros that inductor cannot multiply.
            # The same product as a convolution of length 1: (B, in, 1) with a kernel (out, in, 1) -> (B, out, 1).
            return F.conv1d(x[..., None], weight[..., None], bias)[..., 0]
        return F.linear(x, weight, bias)


class Conv2d(nn.Module):
    """Convolution with an optional resampling by two, for x (B, C, H, W).

    `kernel` is 3, 1 or 0; with 0 there are no weights, only the resampling. "up" and "down" filter first, then
    convolve; "fused_down" convolves at full resolution, then filters. The 1-D `resample_filter` is applied along both
    axes: (1, 1) means nearest-neighbour doubling and 2 x 2 averaging.
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None
    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        resample: Resample | None = None,
        resample_filter: Sequence[float] = (1, 1),
        init: Init,
    ) -> None:
        super().__init__()
        self.resample = resample
        self.padding = kernel // 2
        self.filter_padding = (len(resample_filter) - 1) // 2  # with stride 2, exactly halves or doubles H and W
        weight, bias = init.parameters(out_channels, in_channels, kernel, kernel) if kernel else (None, None)
        self.register_parameter("weight", weight)
        self.register_parameter("bias", bias)
        if resample is not None:
            taps = torch.tensor(resample_filter, dtype=torch.float32)
            # The outer product of the 1-D filter with itself, (1, 1, k, k), of sum 1.
            self.register_buffer("resample_filter", taps.outer(taps)[None, None] / taps.sum() ** 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H', W')."""
        if self.resample == "fused_down":
            # (B, out, H + 2 filter_padding, W + 2 filter_padding) -> (B, out, H / 2, W / 2).
            # The filter sums to one and has no padding, so it does not change the bias added before it.
            return self._filter(self._convolve(x, self.padding + self.filter_padding), padding=0)
        if self.resample is not None:
            x = self._filter(x, self.filter_padding)  # (B, in, H', W') with H' = 2 H or H / 2
        return self._convolve(x, self.padding)

    def _convolve(self, x: Tensor, padding: int) -> Tensor:
        if self.weight is None or self.bias is None:
            return x
        return F.conv2d(x, self.weight.to(x.dtype), self.bias.to(x.dtype), padding=padding)

    def _filter(self, x: Tensor, padding: int) -> Tensor:
        channels = x.shape[1]
        kernel = self.resample_filter.to(x.dtype).expand(channels, -1, -1, -1)  # (C, 1, k, k), per channel
        if self.resample == "up":
            # Each pixel is spread over four, so a factor of 4 keeps the mean.
            return F.conv_transpose2d(x, 4 * kernel, stride=2, padding=padding, groups=channels)
        return F.conv2d(x, kernel, stride=2, padding=padding, groups=channels)  # (B, C, H / 2, W / 2)


class GroupNorm(nn.Module):
    """Group norm over min(32, channels // 4) groups, for x (B, channels, H, W)."""

    def __init__(self, channels: int, eps: float) -> None:
        groups = min(32, channels // 4)
        if groups == 0 or channels % groups:
            raise ValueError(
                f"got {channels} channels, which cannot be split into {groups} equal groups for normalisation: use a "
                f"multiple of 4, and of 32 from 128 channels on"
            )
        super().__init__()
        self.groups = groups
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each sample's groups of channels, then scale and shift every channel."""
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        if _traced_with_tangent(x):
            return self._written_out(x, weight, bias)
        if unpack_dual(x).tangent is not None:
            x = x.contiguous()  # the derivative takes a view of x, which fails for other memory layouts
        return F.group_norm(x, self.groups, weight, bias, self.eps)

    def _written_out(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Group norm in elementary operations, whose forward-mode derivatives `torch.compile` can trace and fuse."""
        # (B, C, H, W) -> (B, groups, C / groups, H, W); float32, since sums of squares overflow in float16.
        split = x.to(torch.promote_types(x.dtype, torch.float32)).unflatten(1, (self.groups, -1))
        centred = split - split.mean((2, 3, 4), keepdim=True)  # the mean is (B, groups, 1, 1, 1)
        variance = centred.square().mean((2, 3, 4), keepdim=True)
        scaled = (centred * (variance + self.eps).rsqrt()).flatten(1, 2).to(x.dtype)  # (B, C, H, W)
        return scaled * weight[:, None, None] + bias[:, None, None]  # (C, 1, 1) broadcasts over B, H and W


class PositionalEmbedding(nn.Module):
    """[cos(c w), sin(c w)] (B, features) of c (B,), with frequencies w that decrease geometrically from 1.

    With `endpoint` the last frequency is 1/10000, without it one step larger.
    """

    def __init__(self, features: int, *, endpoint: bool = False) -> None:
        super().__init__()
        self.frequencies = features // 2
        self.steps = self.frequencies - 1 if endpoint else self.frequencies

    def forward(self, c: Tensor) -> Tensor:
        """Map (B,) to (B, features)."""
        exponent = torch.arange(self.frequencies, dtype=c.dtype, device=c.device) / self.steps  # 0 to 1 (or just below)
        angle = c[:, None] * 10000.0**-exponent  # (B, features / 2), frequencies 1 to about 1/10000
        return torch.cat([angle.cos(), angle.sin()], dim=1)


class FourierEmbedding(nn.Module):
    """[cos(2π c f), sin(2π c f)] (B, features) of c (B,), with fixed random frequencies f."""

    freqs: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("freqs", 16 * torch.randn(features // 2))  # standard deviation 16, as in NCSN++

    def forward(self, c: Tensor) -> Tensor:
        """Map (B,) to (B, features)."""
        angle = c[:, None] * (2 * math.pi * self.freqs.to(c.dtype))  # (B, features / 2)
        return torch.cat([angle.cos(), angle.sin()], dim=1)


def self_attention(qkv: Tensor, num_heads: int) -> Tensor:
    """Softmax attention over all pixels: (B, 3 C, H, W) to (B, C, H, W).

    The channels of qkv are ordered as (head, feature, query|key|value), the last index varying fastest.
    """
    batch, channels, height, width = qkv.shape
    features, pixels = channels // (3 * num_heads), height * width
    split = qkv.reshape(batch, num_heads, features, 3, pixels)  # (B, head, feature, 3, pixel)
    # (query|key|value, B, head, pixel, feature): the fused kernels need contiguous features.
    q, k, v = split.permute(3, 0, 1, 4, 2).contiguous()
    fused = unpack_dual(q).tangent is None  # fused kernels have no forward-mode derivative
    # softmax(q k^T / sqrt(features)) v, (B, head, pixel, feature): every pixel attends to every pixel.
    out = F.scaled_dot_product_attention(q, k, v) if fused else _plain_attention(q, k, v)
    return out.transpose(2, 3).reshape(batch, num_heads * features, height, width)  # (B, C, H, W)


def _plain_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`F.scaled_dot_product_attention` in operations with forward-mode derivatives, which its fused kernels lack."""
    # Exponentials need at least float32. Scaling k before the cast keeps float16 in range.
    dtype = torch.promote_types(q.dtype, torch.float32)
    logits = q.to(dtype) @ (k / math.sqrt(k.shape[-1])).to(dtype).transpose(2, 3)  # (B, head, query pixel, key pixel)
    return logits.softmax(dim=3).to(v.dtype) @ v  # softmax over the keys, (B, head, pixel, feature)


class UNetBlock(nn.Module):
    """Residual block with a noise embedding, optional resampling and optional self-attention.

    The embedding is added before the second norm, as in DDPM++ (Song et al. 2021, arXiv 2011.13456), or, with
    `adaptive`, scales and shifts the activations after it, as in ADM (Dhariwal & Nichol 2021, arXiv 2105.05233).
    `num_heads` = 0 means no attention. `skip_scale` multiplies each residual sum; sqrt(1/2) keeps the variance.
    `resample_proj` adds a 1 x 1 convolution to a resampled skip even if the number of channels stays the same.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        emb_channels: int,
        *,
        resample: Literal["up", "down"] | None = None,
        num_heads: int = 0,
        dropout: float,
        skip_scale: float,
        eps: float,
        adaptive: bool,
        resample_proj: bool,
        resample_filter: Sequence[float] = (1, 1),
        init: Init,
        init_zero: Init,
        init_attn: Init,
    ) -> None:
        super().__init__()
        self.adaptive = adaptive
        self.num_heads = num_heads
        self.skip_scale = skip_scale

        conv = functools.partial(Conv2d, in_channels, resample=resample, resample_filter=resample_filter, init=init)
        self.norm0 = GroupNorm(in_channels, eps)
        self.conv0 = conv(out_channels, 3)
        # Per channel a scale and a shift, or a shift only.
        self.affine = Linear(emb_channels, out_channels * (2 if adaptive else 1), init=init)
        self.norm1 = GroupNorm(out_channels, eps)
        self.dropout = nn.Dropout(dropout)
        # init_zero makes the residual branches start at (nearly) 0, and so the block as its skip path.
        self.conv1 = Conv2d(out_channels, out_channels, 3, init=init_zero)

        self.skip: nn.Module = nn.Identity()
        if in_channels != out_channels or resample is not None:
            self.skip = conv(out_channels, 1 if in_channels != out_channels or resample_proj else 0)

        if num_heads:
            self.norm2 = GroupNorm(out_channels, eps)
            self.qkv = Conv2d(out_channels, 3 * out_channels, 1, init=init_attn)
            self.proj = Conv2d(out_channels, out_channels, 1, init=init_zero)  # (nearly) 0 at first, too

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) and (B or 1, emb_channels) to (B, out_channels, H', W')."""
        h: Tensor = self.conv0(F.silu(self.norm0(x)))  # (B, out_channels, H', W')
        # The embedding keeps its own precision; only its output is cast to that of the activations.
        params = self.affine(emb).to(h.dtype)[:, :, None, None]  # (B or 1, out or 2 out, 1, 1)
        if self.adaptive:
            scale, shift = params.chunk(2, dim=1)
            h = F.silu(self.norm1(h) * (1 + scale) + shift)  # scale = shift = 0 changes nothing
        else:
            h = F.silu(self.norm1(h + params))
        h = self.conv1(self.dropout(h))
        h = (h + self.skip(x)) * self.skip_scale  # both terms are (B, out_channels, H', W')
        if self.num_heads:
            # qkv is (B, 3 out_channels, H', W'), the result (B, out_channels, H', W').
            attended = self.proj(self_attention(self.qkv(self.norm2(h)), self.num_heads))
            h = (h + attended) * self.skip_scale
        return h
