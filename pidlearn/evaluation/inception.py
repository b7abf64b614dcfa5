"""Features of images that published figures are computed on: the Inception network of FID."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from pidlearn.evaluation.images import to_uint8
from pidlearn.utils.downloads import Published
from pidlearn.utils.optional_imports import package
from pidlearn.utils.validation import what

__all__ = ["Inception"]

WEIGHTS = Published(
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    "the Inception weights of FID",
)


class Inception(nn.Module):
    """The 2,048 features of FID (Heusel et al. 2017): (B, C, H, W) in [-1, 1], C = 1 or 3, to (B, 2048) float32.

    Images become bytes first (`to_uint8`), as if they had been written to files and read again, and
    grey ones three equal channels. The network is the port of the TensorFlow graph in torch-fidelity, resizing to 299
    pixels as that graph does. The weights follow the input's device. No gradient passes.

    Args:
        weights: the file ``weights-inception-2015-12-05-6726825d.pth``; None looks in torch's cache and fetches it.

    Raises:
        ImportError: without the packages torch_fidelity or torchvision.
        ValueError: weights that cannot be found or are others; from a call, what is no batch of images.
    """

    def __init__(self, weights: str | Path | None = None) -> None:
        super().__init__()
        extractor = package("torch_fidelity", "FID").FeatureExtractorInceptionV3
        WEIGHTS.load(weights)  # torch-fidelity executes what the file says: first see that it holds tensors alone
        path = WEIGHTS.find(weights)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.network = extractor("inception-v3-compat", ["2048"], str(path))
        except RuntimeError as error:
            raise ValueError(f"{path} does not hold {WEIGHTS.what}: {error!s:.300}") from error

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) to (B, 2048)."""
        if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ValueError(f"Inception takes images (B, C, H, W) with C = 1 or 3, got {what(images)}")
        found: Tensor = self.network.to(images.device)(to_uint8(images).expand(-1, 3, -1, -1))[0]
        return found
