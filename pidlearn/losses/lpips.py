"""LPIPS, the learned perceptual distance between images (Zhang et al. 2018, arXiv 1801.03924).

    d(a, b) = sum over layers l of  mean over pixels  w_l . (f_l(a) - f_l(b))^2

f_l are the activations of a classifier trained on ImageNet, normalized to unit length at each pixel, and w_l >= 0 are
weights fitted to human judgements. The PID paper uses it. It is a pseudo-metric: d(a, a) = 0, but d(a, b) = 0 does not
imply a = b, because layers discard information. Theorem 1 holds for LPIPS in one direction only, for LPIPS + l2 in
both.
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

from pidlearn.utils.arguments import PATH, VALUES, check_arguments, count, one_of, optional, size
from pidlearn.utils.downloads import Published
from pidlearn.utils.optional_imports import package
from pidlearn.utils.random import seeded
from pidlearn.utils.validation import describe_tensor

__all__ = ["LPIPS", "check_images"]

_AT = "https://download.pytorch.org/models"
TRUNKS = {
    "vgg": Published(f"{_AT}/vgg16-397923af.pth", "the VGG-16 weights of LPIPS"),
    "alex": Published(f"{_AT}/alexnet-owt-7be5be79.pth", "the AlexNet weights of LPIPS"),
    "squeeze": Published(f"{_AT}/squeezenet1_1-b8a52dc0.pth", "the SqueezeNet weights of LPIPS"),
}
SMALLEST = {"vgg": 16, "alex": 31, "squeeze": 17}
"""Smallest image that each trunk takes, in pixels per side."""


class LPIPS(nn.Module):
    """LPIPS as a distance: (a, b), both (B, C, H, W) in [-1, 1] with C = 1 or 3, to (B,).

    Computed in float32 or float64, under autocast as well: a and b are nearly equal, and in bfloat16 the distance would
    be that of their rounding errors. The frozen weights are cast to the images' device and dtype at each call, which
    leaves the module's own as they are; for images on a GPU, move the module there first. The result has the images'
    dtype, or float32 if that is lower.

    Args:
        net: the trunk, vgg | alex | squeeze.
        resize: pixels per side to which images are resized, bilinearly as in the official PID code; None for no
            resizing.
        pooling: "max", as LPIPS was fitted, or "average", which replaces max pools as the official PID code does.
        weights: the file of the trunk's torchvision weights; None looks in torch's cache and downloads it; "random" is
            an untrained trunk, always the same, for tests and timings.
        chunk: pairs in the trunk at a time. The gradient of each chunk is computed immediately and kept as an image, so
            that memory is that of one chunk and nothing is computed twice; second derivatives are not available then.
            None for the whole batch at once.

    Raises:
        ImportError: without the packages lpips or torchvision.
        ValueError: for other values of these arguments, or weights that are missing; when called, for anything but two
            such batches.
    """

    @check_arguments(
        net=one_of(*TRUNKS),
        resize=optional(size()),
        pooling=one_of("max", "average"),
        weights=optional(PATH),
        chunk=optional(count()),
    )
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
        if resize is not None and resize < SMALLEST[net]:
            raise ValueError(f"got resize={resize}; resize must be None or, for {net}, at least {SMALLEST[net]} pixels")
        self.net, self.resize, self.pooling, self.chunk = net, resize, pooling, chunk
        self.layers = _Layers(_published(net, weights), resize)
        if pooling == "average":
            _average(self.layers.trunk)
        self.requires_grad_(False).eval()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the distance of each pair, (B, C, H, W), (B, C, H, W) -> (B,); exactly zero where a = b."""
        check_images(a, b)
        if self.resize is None and min(a.shape[2:]) < SMALLEST[self.net]:
            raise ValueError(
                f"got images of {tuple(a.shape[2:])} pixels; {self.net} takes images of at least "
                f"{SMALLEST[self.net]} pixels per side: set resize=, or use another net ({SMALLEST})"
            )
        dtype = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
        a, b = a.to(dtype), b.to(dtype)
        # Not in place: inside a torch.func transform or inference mode, that would make the weights unusable for good.
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
    """The network itself: (B, C, H, W), (B, C, H, W) -> (B,), for images in the dtype of its weights."""

    def __init__(self, published: Any, resize: int | None) -> None:
        super().__init__()
        self.resize = resize
        self.scaling, self.trunk = published.scaling_layer, published.net
        self.scales = nn.ParameterList([line.model[-1].weight for line in published.lins])  # w_l, (1, C_l, 1, 1)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        # One pass each, not one over both: if only a needs a gradient, no activations of b are kept; and equal images
        # go through the same sums in the same order, so that their distance is exactly zero.
        layers = zip(self._features(a), self._features(b), self.scales, strict=True)
        # Per layer, over channels: (B, C_l, H_l, W_l) -> (B, 1, H_l, W_l), over pixels: (B,), and stacked: (layers, B).
        return torch.stack([F.conv2d((fa - fb).square(), scale).mean((1, 2, 3)) for fa, fb, scale in layers]).sum(0)

    def _features(self, x: Tensor) -> list[Tensor]:
        if self.resize is not None:
            x = F.interpolate(x, size=(self.resize, self.resize), mode="bilinear")  # (B, C, resize, resize)
        # Unit length over the channels of each pixel; 1e-10 is for zero vectors. `scaling` makes grey 3 channels.
        return [f / (torch.linalg.vector_norm(f, dim=1, keepdim=True) + 1e-10) for f in self.trunk(self.scaling(x))]


def check_images(a: Tensor, b: Tensor) -> None:
    """Raise ValueError unless a and b are two batches of images that LPIPS can compare."""
    image = VALUES[0](a) and a.ndim == 4 and len(a) and a.shape[1] in (1, 3)
    if not image or not VALUES[0](b) or b.shape != a.shape:
        raise ValueError(
            f"got {describe_tensor(a)} and {describe_tensor(b)}, but LPIPS compares two batches of images (B, C, H, "
            f"W) of one shape, with C = 1 or 3"
        )


class _ByChunks(torch.autograd.Function):
    """Distances of a batch, chunk by chunk, each with its gradient.

    This is exact because d_i depends only on the i-th pair: the gradient of a chunk's sum has that of each d_i as rows.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, distance: Callable[[Tensor, Tensor], Tensor], chunk: int) -> Tensor:
        values, gradients = [], []
        for pair in _pairs(a, b, chunk):
            # Leaves of a graph of their own, so that it is freed with the chunk.
            sides = [x.detach().requires_grad_(n) for x, n in zip(pair, ctx.needs_input_grad, strict=False)]
            with torch.enable_grad():
                d = distance(*sides)
                # (chunk, C, H, W) for each side that needs it.
                gradients.append(torch.autograd.grad(d.sum(), [x for x in sides if x.requires_grad]))
            values.append(d.detach())
        ctx.save_for_backward(*map(torch.cat, zip(*gradients, strict=True)))  # each (B, C, H, W)
        return torch.cat(values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved = iter(ctx.saved_tensors)
        # Chain rule: dL/da_i = dL/dd_i * dd_i/da_i, with (B,) -> (B, 1, 1, 1).
        scaled = [grad[:, None, None, None] * next(saved) if n else None for n in ctx.needs_input_grad[:2]]
        return (*scaled, None, None)


def _pairs(a: Tensor, b: Tensor, chunk: int) -> zip[tuple[Tensor, Tensor]]:
    return zip(a.split(chunk), b.split(chunk), strict=True)


def _published(net: str, weights: str | Path | None) -> Any:
    """Build the lpips package's module, with its linear weights and the trunk's."""
    lpips = package("lpips", "LPIPS")
    state = None if weights == "random" else TRUNKS[net].load(weights)
    with seeded(0), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lpips passes torchvision an argument by its old name
        module = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    if state is not None:
        try:
            # lpips cuts the classifier into slices: "slice2.5.weight" is torchvision's "features.5.weight".
            module.net.load_state_dict(
                {key: state[f"features.{key.split('.', 1)[1]}"] for key in module.net.state_dict()}
            )
        except (KeyError, RuntimeError) as error:
            raise ValueError(
                f"{weights or TRUNKS[net].path} does not hold {TRUNKS[net].title}: {error!s:.300}"
            ) from error
    return module


def _average(module: nn.Module) -> None:
    """Replace max pools by average pools of the same shape."""
    for name, child in module.named_children():
        if isinstance(child, nn.MaxPool2d):
            setattr(module, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding, child.ceil_mode))
        else:
            _average(child)
