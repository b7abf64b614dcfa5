"""LPIPS, the learned perceptual distance between images (Zhang et al. 2018, arXiv 1801.03924).

    d(a, b) = sum over layers l of  mean over pixels  w_l . (f_l(a) - f_l(b))^2

f_l are the activations of a classifier trained on ImageNet, scaled to unit length at each pixel, and w_l >= 0 weights
fitted to human judgements. PID was published with it. It is a pseudo-metric: a = b gives zero, but zero need not mean
a = b, for layers forget. Theorem 1 holds of it in one direction; of LPIPS + l2 in both.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call

from pidlearn.utils.downloads import Published
from pidlearn.utils.optional_imports import package
from pidlearn.utils.random import seeded
from pidlearn.utils.validation import what

__all__ = ["LPIPS", "check_images"]

_AT = "https://download.pytorch.org/models"
TRUNKS = {
    "vgg": Published(f"{_AT}/vgg16-397923af.pth", "the VGG-16 weights of LPIPS"),
    "alex": Published(f"{_AT}/alexnet-owt-7be5be79.pth", "the AlexNet weights of LPIPS"),
    "squeeze": Published(f"{_AT}/squeezenet1_1-b8a52dc0.pth", "the SqueezeNet weights of LPIPS"),
}
SMALLEST = {"vgg": 16, "alex": 31, "squeeze": 17}
"""Pixels a side that the trunk still takes."""


class LPIPS(nn.Module):
    """LPIPS as a distance: (a, b), both (B, C, H, W) in [-1, 1] with C = 1 or 3, to (B,).

    Computed in float32 at least, under autocast too: a and b are nearly alike, and in bfloat16 the distance would be
    that of their rounding. The frozen weights stay as they are, and are cast to the images' device and dtype at each
    call: for images on a GPU, move the module there before. What is returned has that dtype.

    Args:
        net: the trunk, vgg | alex | squeeze.
        resize: images are resized to so many pixels a side, bilinearly as in the official PID code; None leaves them.
        pooling: "max", as LPIPS was fitted; "average" puts average pools in their place, as the official PID code
            does.
        weights: file of the trunk's torchvision weights; None looks in torch's cache and fetches them; "random" is an
            untrained trunk, always the same, for tests and timings.
        chunk: pairs in the trunk at a time. The gradient of each chunk is taken at once and kept as an image, so memory
            stays that of a chunk and nothing is computed twice; second derivatives are then not to be had. None puts
            the whole batch through.

    Raises:
        ImportError: without the packages lpips or torchvision.
        ValueError: choices that are none, weights that cannot be found; from a call, what are not two such batches.
    """

    def __init__(
        self,
        net: str = "vgg",
        *,
        resize: int | None = 224,
        pooling: str = "max",
        weights: str | Path | None = None,
        chunk: int | None = 32,
    ) -> None:
        super().__init__()
        if net not in TRUNKS:
            raise ValueError(f"net must be one of {sorted(TRUNKS)}, got {net!r}")
        if resize is not None and resize < SMALLEST[net]:
            raise ValueError(f"resize must be None or at least {SMALLEST[net]} pixels for {net}, got {resize}")
        if pooling not in ("max", "average"):
            raise ValueError(f'pooling must be "max" or "average", got {pooling!r}')
        if chunk is not None and chunk < 1:
            raise ValueError(f"chunk counts images and must be None or at least 1, got {chunk}")
        self.net, self.resize, self.pooling, self.chunk = net, resize, pooling, chunk
        self.layers = _Layers(_published(net, weights), resize)
        if pooling == "average":
            _average(self.layers.trunk)
        self.requires_grad_(False).eval()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """(B, C, H, W), (B, C, H, W) -> (B,), zero where a = b."""
        check_images(a, b)
        if self.resize is None and min(a.shape[2:]) < SMALLEST[self.net]:
            raise ValueError(
                f"{self.net} takes images of at least {SMALLEST[self.net]} pixels a side, got {tuple(a.shape[2:])}: "
                f"let LPIPS resize them, or take another net ({SMALLEST})"
            )
        dtype = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
        a, b = a.to(dtype), b.to(dtype)
        # Never in place: within a transform of torch.func, or in inference mode, that would spoil the weights for good.
        weights = {name: value.to(a) for name, value in self.layers.state_dict().items()}

        def distance(a: Tensor, b: Tensor) -> Tensor:
            return functional_call(self.layers, weights, (a, b))

        with torch.autocast(a.device.type, enabled=False):
            if self.chunk is None or len(a) <= self.chunk:
                return distance(a, b)
            if torch.is_grad_enabled() and (a.requires_grad or b.requires_grad):
                return _ByChunks.apply(a, b, distance, self.chunk)
            return torch.cat([distance(*pair) for pair in _pairs(a, b, self.chunk)])


class _Layers(nn.Module):
    """The network itself: (B, C, H, W), (B, C, H, W) -> (B,), of images in the dtype of its weights."""

    def __init__(self, published: Any, resize: int | None) -> None:
        super().__init__()
        self.resize = resize
        self.scaling, self.trunk = published.scaling_layer, published.net
        self.scales = nn.ParameterList([line.model[-1].weight for line in published.lins])

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        # One pass each, not one over both: where only a needs a gradient nothing of b is kept, and equal images meet
        # the same sums in the same order, so that their distance is exactly zero.
        layers = zip(self._features(a), self._features(b), self.scales, strict=True)
        return torch.stack([F.conv2d((fa - fb).square(), scale).mean((1, 2, 3)) for fa, fb, scale in layers]).sum(0)

    def _features(self, x: Tensor) -> list[Tensor]:
        if self.resize is not None:
            x = F.interpolate(x, size=(self.resize, self.resize), mode="bilinear")
        return [f / (torch.linalg.vector_norm(f, dim=1, keepdim=True) + 1e-10) for f in self.trunk(self.scaling(x))]


def check_images(a: Tensor, b: Tensor) -> None:
    """Raise unless these are two batches that LPIPS compares."""
    image = isinstance(a, Tensor) and a.is_floating_point() and a.ndim == 4 and len(a) and a.shape[1] in (1, 3)
    if not image or not isinstance(b, Tensor) or b.shape != a.shape:
        raise ValueError(
            f"LPIPS compares two batches of images (B, C, H, W) with C = 1 or 3, got {what(a)} and {what(b)}"
        )


class _ByChunks(torch.autograd.Function):
    """Distances of a batch, chunk by chunk, each with its gradient: d_i depends on the i-th pair alone."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, distance: Callable[[Tensor, Tensor], Tensor], chunk: int) -> Tensor:
        values, gradients = [], []
        for pair in _pairs(a, b, chunk):
            sides = [x.detach().requires_grad_(n) for x, n in zip(pair, ctx.needs_input_grad, strict=False)]
            with torch.enable_grad():
                d = distance(*sides)
                gradients.append(torch.autograd.grad(d.sum(), [x for x in sides if x.requires_grad]))
            values.append(d.detach())
        ctx.save_for_backward(*map(torch.cat, zip(*gradients, strict=True)))
        return torch.cat(values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved = iter(ctx.saved_tensors)
        scaled = [grad[:, None, None, None] * next(saved) if n else None for n in ctx.needs_input_grad[:2]]
        return (*scaled, None, None)


def _pairs(a: Tensor, b: Tensor, chunk: int) -> zip[tuple[Tensor, Tensor]]:
    return zip(a.split(chunk), b.split(chunk), strict=True)


def _published(net: str, weights: str | Path | None) -> Any:
    """The lpips package's module, with its linear weights and the trunk's."""
    lpips = package("lpips", "LPIPS")
    state = None if weights == "random" else TRUNKS[net].load(weights)
    with seeded(0), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the old name of an argument, between lpips and torchvision
        module = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    if state is not None:
        try:
            # Slices of the classifier: "slice2.5.weight" there is its "features.5.weight".
            module.net.load_state_dict(
                {key: state[f"features.{key.split('.', 1)[1]}"] for key in module.net.state_dict()}
            )
        except (KeyError, RuntimeError) as error:
            raise ValueError(
                f"{weights or TRUNKS[net].file} does not hold {TRUNKS[net].what}: {error!s:.300}"
            ) from error
    return module


def _average(module: nn.Module) -> None:
    """Put average pools in the place of maximum pools."""
    for name, child in module.named_children():
        if isinstance(child, nn.MaxPool2d):
            setattr(module, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding, child.ceil_mode))
        else:
            _average(child)
