"""A Gaussian mixture in a low-dimensional affine subspace of image space, with an exact denoiser."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pidlearn.teachers.exact.mixture import GaussianMixture, as_float64
from pidlearn.utils.arguments import GENERATOR, SEED, STD, check_arguments, size
from pidlearn.utils.broadcast import expand_like, noise_level
from pidlearn.utils.validation import check_batch, describe_tensor

__all__ = ["SubspaceMixture"]

SKLEARN_SEED = (lambda v: SEED[0](v) and v < 2**32, "a whole number from 0 to 2^32 - 1")
MIXTURE = (lambda v: isinstance(v, GaussianMixture), "a GaussianMixture")


class SubspaceMixture:
    """A Gaussian mixture in r directions of a d-dimensional sample, and small isotropic noise in all others.

    An exact teacher for images: no d x d covariance is formed. For x = m + V u + (off-plane part), the coordinates u
    are denoised by the mixture, and the off-plane part by its Wiener filter.

    Args:
        mixture: the density of u, in r dimensions.
        basis: (d, r) with orthonormal columns V.
        offset: (*event) the point m at u = 0, with d entries; its shape is the event shape.
        off_plane_std: standard deviation in the directions orthogonal to V, > 0.

    Raises:
        ValueError: for a basis of another shape or with columns that are not orthonormal, or an off_plane_std <= 0.
    """

    @check_arguments(mixture=MIXTURE, off_plane_std=STD)
    def __init__(self, mixture: GaussianMixture, basis: Any, offset: Any, off_plane_std: float) -> None:
        self.mixture = mixture
        self.basis = as_float64("basis", basis)
        self.offset = as_float64("offset", offset)
        self.off_plane_std = float(off_plane_std)
        if self.basis.shape != (self.offset.numel(), *mixture.event_shape):
            raise ValueError(
                f"got a basis of shape {tuple(self.basis.shape)}, but basis must be (d, r) = "
                f"({self.offset.numel()}, {mixture.event_shape[0]})"
            )
        gram = self.basis.T @ self.basis  # (r, r), V^T V
        if not torch.allclose(gram, torch.eye(len(gram), dtype=gram.dtype), atol=1e-6):
            raise ValueError(
                "the columns of basis are not orthonormal, but must be: orthonormalise them with torch.linalg.qr"
            )

    @classmethod
    @check_arguments(components=size(), directions=size(), off_plane_std=STD, seed=SKLEARN_SEED)
    def fit(
        cls, data: Tensor, components: int = 30, directions: int = 64, off_plane_std: float = 0.03, seed: int = 0
    ) -> SubspaceMixture:
        """Fit to data (M, *event): principal directions, and a full-covariance mixture in them by scikit-learn's EM.

        Raises:
            ValueError: for fewer data than directions or components, or more directions than dimensions.
            ImportError: if scikit-learn is not installed.
        """
        data = as_float64("data", data)
        if data.ndim < 2 or not data.isfinite().all():
            raise ValueError(
                f"got {describe_tensor(data)}, or NaN, but data must be finite (M, *event): leave such rows out"
            )
        flat = data.flatten(1)
        most = min(flat.shape)
        if not (1 <= directions <= most and 1 <= components <= len(flat)):
            raise ValueError(
                f"got {directions} directions and {components} components; {len(flat)} data in {flat.shape[1]} "
                f"dimensions allow 1 to {most} directions and 1 to {len(flat)} components"
            )
        try:
            from sklearn.mixture import GaussianMixture as SklearnMixture
        except ImportError as error:
            raise ImportError("fitting a mixture needs scikit-learn: pip install 'pidlearn[images]'") from error
        mean = flat.mean(0)
        # eigh sorts eigenvalues in increasing order: the last eigenvectors are the principal directions.
        # Covariance (d, d); the last r eigenvectors, reversed, are V (d, r).
        basis = torch.linalg.eigh(flat.T.cov().reshape(flat.shape[1], -1)).eigenvectors[:, -directions:].flip(1)
        # The mixture is of u = V^T (y - m), (M, r).
        fitted = SklearnMixture(components, reg_covar=1e-4, random_state=seed).fit(((flat - mean) @ basis).numpy())
        inner = GaussianMixture(fitted.means_, fitted.covariances_, fitted.weights_)
        return cls(inner, basis, mean.reshape(data.shape[1:]), off_plane_std)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one image."""
        return tuple(self.offset.shape)

    @property
    def std(self) -> float:
        """Standard deviation of one pixel, averaged (as a variance) over all pixels."""
        d, r = self.basis.shape
        total = r * self.mixture.std**2 + (d - r) * self.off_plane_std**2  # trace of the covariance
        return math.sqrt(total / d)

    @check_arguments(n=size(), generator=GENERATOR)
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Return n samples of the clean density, (n, *event) float32."""
        noise = torch.randn(n, len(self.basis), dtype=torch.float64, generator=generator)
        off = self.off_plane_std * (noise - noise @ self.basis @ self.basis.T)  # projected off the plane
        flat = self.mixture.sample(n, generator).double() @ self.basis.T + off  # V u plus off-plane, (n, d)
        return (self.offset + flat.reshape(n, *self.event_shape)).float()

    def denoise(self, x: Tensor, sigma: Any, class_labels: Tensor | None = None) -> Tensor:
        """Return E[x0 | x0 + sigma n = x], (B, *event) -> (B, *event); sigma is a scalar or (B,), 0 allowed.

        Raises:
            ValueError: for an x of another shape, or class labels: a mixture has no classes.
        """
        check_batch(x, "x", self.event_shape)
        dtype, x = x.dtype, x.to(torch.promote_types(x.dtype, torch.float32))  # squares of halves overflow at 256
        basis, offset = self.basis.to(x), self.offset.to(x)
        flat = (x - offset).flatten(1)  # (B, d)
        # u is V^T (x - m). White noise keeps its sigma in orthonormal coordinates, so D(u, sigma) is the mixture's own.
        u = flat @ basis  # (B, r)
        variance = noise_level(sigma, x).square()
        # In the other directions data and noise are Gaussian, and E[x0 | x] is a constant share of x.
        keep = expand_like(self.off_plane_std**2 / (self.off_plane_std**2 + variance), flat)  # the Wiener filter's gain
        # keep (flat - V u) + V D(u), with one product by V^T.
        out = keep * flat + (self.mixture.denoise(u, sigma, class_labels) - keep * u) @ basis.T
        return (offset + out.reshape(x.shape)).to(dtype)

    __call__ = denoise

    def __repr__(self) -> str:
        k, r = self.mixture.means.shape
        return (
            f"{type(self).__name__}({k} components in {r} of {len(self.basis)} dimensions, event shape "
            f"{self.event_shape}, off-plane std {self.off_plane_std:g})"
        )
