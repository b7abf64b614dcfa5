"""Image features for published metrics: the Inception network of FID."""

from __future__ import annotations

import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from pidlearn.evaluation.images import to_uint8
from pidlearn.utils.arguments import PATH, check_arguments, optional
from pidlearn.utils.downloads import Published
from pidlearn.utils.optional_imports import package
from pidlearn.utils.validation import describe_tensor

__all__ = ["Inception"]

WEIGHTS = Published(
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    "the Inception weights of FID",
)


class Inception(nn.Module):
    """The 2,048 features of FID (Heusel et al. 2017): (B, C, H, W) in [-1, 1], C = 1 or 3, to (B, 2048) float32.

    Images are rounded to bytes first (`to_uint8`), as if they had been written to files and read again; the channel of
    a grey image is repeated. The network is torch-fidelity's port of the TensorFlow graph and resizes to 299 pixels as
    that graph does. The weights follow the input's device. No gradients flow through it.

    Args:
        weights: the file ``weights-inception-2015-12-05-6726825d.pth``; None looks in torch's cache and downloads it.

    Raises:
        ImportError: without the packages torch_fidelity or torchvision.
        ValueError: for weights that are missing or of another network; when called, for anything but a batch of images.
    """

    @check_arguments(weights=optional(PATH))
    def __init__(self, weights: str | Path | None = None) -> None:
        super().__init__()
        extractor = package("torch_fidelity", "FID").FeatureExtractorInceptionV3
        state = WEIGHTS.load(weights)
        # torch-fidelity takes a path and unpickles that file without any restriction. Instead of the file that was
        # downloaded it therefore gets one that is written here, of the tensors that our own reader found.
        with TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            path = Path(folder, WEIGHTS.name)
            torch.save(state, path)
            try:
                self.network = extractor("inception-v3-compat", ["2048"], str(path))
            except RuntimeError as error:
                raise ValueError(f"{weights or WEIGHTS.path} does not hold {WEIGHTS.title}: {error!s:.300}") from error

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return the features of (B, C, H, W) images, (B, 2048)."""
        if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ValueError(f"got {describe_tensor(images)}; Inception takes images (B, C, H, W) with C = 1 or 3")
        # (B, 1 or 3, H, W) bytes -> (B, 3, H, W) -> (B, 2048). FID's references were computed from bytes, too.
        features: Tensor = self.network.to(images.device)(to_uint8(images).expand(-1, 3, -1, -1))[0]
        return features
