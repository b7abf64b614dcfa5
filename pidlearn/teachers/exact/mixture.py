"""Gaussian mixtures: densities whose diffusion is known in closed form.

Noise of standard deviation sigma turns sum_k w_k N(mu_k, S_k) into sum_k w_k N(mu_k, S_k + sigma^2 I), so that the
score, the denoiser E[x0 | x] and the log-density are exact at every sigma. In the eigenbasis U of S_k, with
eigenvalues l and c = U^T (x - mu_k):

    log N   = -1/2 sum [ c^2 / (l + sigma^2) + log(2 pi (l + sigma^2)) ]
    score   = -U [ c / (l + sigma^2) ]
    E[x0|x] = mu_k + U [ c l / (l + sigma^2) ]

each averaged with the responsibilities of the components. Nothing divides by sigma, and no numbers of the size of
sigma cancel, so float32 is accurate from sigma = 0.002 to 80.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from pidlearn.utils.arguments import GENERATOR, STD, check_arguments, number, size
from pidlearn.utils.broadcast import noise_level
from pidlearn.utils.validation import as_real, check_batch

__all__ = ["GaussianMixture", "as_float64"]


class GaussianMixture:
    """sum_k w_k N(mu_k, S_k) in any dimension.

    Args:
        means: (K, d).
        covs: full covariances (K, d, d), diagonals (K, d), one variance per component (K,), or a scalar for all.
        weights: (K,) positive; normalised here. Equal by default.

    Raises:
        ValueError: for inconsistent shapes, a covariance that is not symmetric positive definite, or weights that are
            not positive.
    """

    def __init__(self, means: Any, covs: Any, weights: Any = None) -> None:
        self.means = as_float64("means", means)
        if self.means.ndim != 2 or not self.means.numel() or not self.means.isfinite().all():
            raise ValueError(
                f"got means of shape {tuple(self.means.shape)}, or NaN, but means must be finite numbers (K, d), one "
                f"row per component"
            )
        k, d = self.means.shape
        self.weights = _normalised(weights, k)
        covs = as_float64("covs", covs)
        if covs.shape == (k, d, d):
            if not covs.isfinite().all():
                raise ValueError(
                    "full covariances have NaN or infinity, but must be finite: check the data that they are of"
                )
            if (covs - covs.mT).abs().max() > 1e-5 * covs.abs().max():  # allows for covariances computed in float32
                raise ValueError(
                    "full covariances differ from their transposes, but must be symmetric: pass (covs + covs.mT) / 2"
                )
            eigenvalues, self._basis = torch.linalg.eigh((covs + covs.mT) / 2)  # S = U diag(l) U^T: (K, d), (K, d, d)
        elif covs.shape in ((), (k,), (k, d)):
            eigenvalues = covs.reshape(k, -1) if covs.ndim else covs  # (), (K, 1) or (K, d)
            eigenvalues, self._basis = eigenvalues.expand(k, d), None
        else:
            raise ValueError(
                f"got covs of shape {tuple(covs.shape)}, but covs must be (K, d, d), (K, d), (K,) or a scalar with K "
                f"= {k}, d = {d}"
            )
        if not ((eigenvalues > 0) & eigenvalues.isfinite()).all():
            raise ValueError(
                f"got variances from {eigenvalues.min():g} to {eigenvalues.max():g}, but covs must be finite and "
                f"positive definite: pass variances, the squares of standard deviations"
            )
        self._eigenvalues = eigenvalues  # (K, d), of the covariances; _basis (K, d, d) holds the eigenvectors
        self._cache: dict[tuple[torch.dtype, torch.device], tuple[Any, ...]] = {}

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one sample, (d,)."""
        return tuple(self.means.shape[1:])

    @property
    def std(self) -> float:
        """Standard deviation of one coordinate, averaged (as a variance) over all coordinates and components."""
        mean = self.weights @ self.means
        spread = (self.means - mean).square() + self._eigenvalues  # (K, d): between the components, plus within each
        return math.sqrt(self.weights @ spread.mean(1))

    @property
    def covs(self) -> Tensor:
        """Covariances of the components, (K, d, d) float64."""
        diagonal = torch.diag_embed(self._eigenvalues.contiguous())
        return diagonal if self._basis is None else self._basis @ diagonal @ self._basis.mT  # U diag(l) U^T

    @check_arguments(n=size(), generator=GENERATOR)
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Return n samples of the clean density, (n, d) float32."""
        component = torch.multinomial(self.weights, n, replacement=True, generator=generator)  # (n,)
        noise = torch.randn(n, *self.event_shape, dtype=torch.float64, generator=generator)
        noise = noise * self._eigenvalues[component].sqrt()  # (n, d), in the component's eigenbasis
        if self._basis is not None:
            noise = (self._basis[component] @ noise[..., None])[..., 0]  # U c per sample
        return (self.means[component] + noise).float()

    def log_prob(self, x: Tensor, sigma: Any = 0.0) -> Tensor:
        """Return the log-density of data plus noise of standard deviation sigma, a scalar or (B,): (B, d) -> (B,)."""
        *_, joint = self._components_at(x, sigma)
        # (B, K) -> (B,): the sum over components, and the factor (2 pi)^(-d/2) that all of them share.
        return (joint.logsumexp(1) - 0.5 * x.shape[1] * math.log(2 * math.pi)).to(x.dtype)

    def component(self, x: Tensor, sigma: Any = 0.0) -> Tensor:
        """Return the index of each point's most responsible component: (B, d) -> (B,) int64."""
        *_, joint = self._components_at(x, sigma)
        return joint.argmax(1)

    def score(self, x: Tensor, sigma: Any) -> Tensor:
        """Return the gradient of `log_prob` with respect to x: (B, d) -> (B, d)."""
        c, precision, joint = self._components_at(x, sigma)
        # grad log sum_k w_k N_k = sum_k r_k grad log N_k, with the responsibilities r (B, K).
        r = self._responsibilities(precision, joint)
        return -self._rotate_back(r[..., None] * c * precision).to(x.dtype)

    def denoise(self, x: Tensor, sigma: Any, class_labels: Tensor | None = None) -> Tensor:
        """Return E[x0 | x0 + sigma n = x], (B, d) -> (B, d); sigma is a scalar or (B,), 0 allowed.

        Raises:
            ValueError: if x is not (B, d), or for class labels: a mixture has no classes.
        """
        if class_labels is not None:
            raise ValueError("a GaussianMixture is unconditional: leave class_labels out")
        c, precision, joint = self._components_at(x, sigma)
        means, eigenvalues, *_ = self._cached(c.dtype, x.device)
        r = self._responsibilities(precision, joint)
        # sum_k r_k (mu_k + U c l / (l + sigma^2)): l / (l + sigma^2) is the share of c that is signal.
        return (r @ means + self._rotate_back(r[..., None] * (c * precision * eigenvalues))).to(x.dtype)

    __call__ = denoise

    def _components_at(self, x: Tensor, sigma: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Return c (B, K, d) in each component's eigenbasis, 1 / (l + sigma^2), and log w_k N_k without 2 pi (B, K).

        They are computed in float32 at least: in half precision, squares overflow at 256.
        """
        check_batch(x, "x", self.event_shape)
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        means, eigenvalues, log_weights, basis = self._cached(x.dtype, x.device)
        c = x[:, None] - means  # (B, 1, d) - (K, d) -> (B, K, d)
        if basis is not None:
            c = torch.einsum("bkd,kde->bke", c, basis)  # U^T (x - mu_k)
        variance = eigenvalues + noise_level(sigma, x).square()[:, None, None]  # (B, K, d)
        precision = variance.reciprocal()
        # (B, K): each N_k is a product over its eigendirections.
        joint = log_weights - 0.5 * (c.square() * precision + variance.log()).sum(-1)
        return c, precision, joint

    def _responsibilities(self, precision: Tensor, joint: Tensor) -> Tensor:
        """Return each component's share in each point, (B, K), from `_components_at`."""
        # Where sigma^2 overflows, as at infinity, every density is 0: no x can tell components apart, and their weights
        # remain.
        drowned = (precision == 0).all(-1)  # (B, K)
        return torch.where(drowned, self._cached(joint.dtype, joint.device)[2].exp(), joint.softmax(1))

    def _rotate_back(self, c: Tensor) -> Tensor:
        """Sum c (B, K, d), in the components' eigenbases, over the components: (B, d)."""
        if self._basis is None:
            return c.sum(1)
        return torch.einsum("bke,kde->bd", c, self._cached(c.dtype, c.device)[3])  # U c, summed over the components k

    def _cached(self, dtype: torch.dtype, device: torch.device) -> tuple[Any, ...]:
        """Return means, eigenvalues, log-weights and basis (or None), converted once per dtype and device."""
        if (dtype, device) not in self._cache:
            parts = (self.means, self._eigenvalues, self.weights.log(), self._basis)
            self._cache[dtype, device] = tuple(p if p is None else p.to(device, dtype) for p in parts)
        return self._cache[dtype, device]

    @cached_property
    def overlap(self) -> float:
        """Fraction of samples whose most responsible component is not the one that they were drawn from.

        If it is large, the components are not separate modes: they trace a curve, or blur a set of points.
        """
        generator = torch.Generator().manual_seed(0)
        own = torch.multinomial(self.weights, 4096, replacement=True, generator=generator)
        noise = torch.randn(4096, len(self.means[0]), dtype=torch.float64, generator=generator)
        x = self.means[own] + torch.einsum("bij,bj->bi", torch.linalg.cholesky(self.covs)[own], noise)  # L L^T = S
        return (self.component(x) != own).double().mean().item()

    @classmethod
    @check_arguments(modes=size(), radius=number(), std=STD)
    def ring(cls, modes: int = 8, radius: float = 1.0, std: float = 0.15) -> GaussianMixture:
        """Equal isotropic modes on a circle."""
        angle = 2 * math.pi * torch.arange(modes, dtype=torch.float64) / modes
        return cls(radius * torch.stack([angle.cos(), angle.sin()], 1), std**2)  # one variance for all

    @classmethod
    @check_arguments(side=size(), spacing=number(), std=STD)
    def grid(cls, side: int = 5, spacing: float = 0.6, std: float = 0.1) -> GaussianMixture:
        """side x side equal isotropic modes on a square lattice."""
        axis = spacing * (torch.arange(side, dtype=torch.float64) - (side - 1) / 2)
        return cls(torch.cartesian_prod(axis, axis), std**2)

    @classmethod
    @check_arguments(side=number(), std=STD)
    def checkerboard(cls, side: float = 0.8, std: float = 0.2) -> GaussianMixture:
        """One mode per dark square of a 4 x 4 board, with a standard deviation of a quarter of a square's side."""
        i, j = torch.cartesian_prod(torch.arange(4), torch.arange(4)).T
        dark = (i + j) % 2 == 0
        centres = torch.stack([i, j], 1)[dark].double() - 1.5
        return cls(side * centres, std**2)

    @classmethod
    @check_arguments(modes=size(), std=STD)
    def moons(cls, modes: int = 12, std: float = 0.12) -> GaussianMixture:
        """Two interleaved half-circles of overlapping modes."""
        angle = math.pi * torch.linspace(0, 1, modes, dtype=torch.float64)
        # The lower moon is the upper one reflected in the origin.
        upper = torch.stack([angle.cos() - 0.5, angle.sin() - 0.25], 1)
        return cls(torch.cat([upper, -upper]), std**2)

    @classmethod
    @check_arguments(modes=size(), turns=number(), std=STD)
    def spiral(cls, modes: int = 24, turns: float = 1.5, std: float = 0.1) -> GaussianMixture:
        """Overlapping modes along a spiral from the centre to radius 1.5."""
        # The arc length grows with the square of the radius, so square roots space the modes evenly along it.
        u = torch.linspace(0.04, 1, modes, dtype=torch.float64).sqrt()
        angle = 2 * math.pi * turns * u
        return cls(1.5 * u[:, None] * torch.stack([angle.cos(), angle.sin()], 1), std**2)

    @classmethod
    def anisotropic(cls) -> GaussianMixture:
        """Five modes of different weight, shape and orientation."""
        means = [[-1.0, 0.6], [0.1, 1.1], [1.1, 0.2], [-0.5, -0.8], [0.8, -1.0]]
        long, short = [0.45, 0.3, 0.4, 0.25, 0.35], [0.08, 0.12, 0.1, 0.25, 0.06]
        angle = torch.tensor([0.6, -0.2, 1.8, 0.0, 0.9], dtype=torch.float64)
        u = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).reshape(-1, 2, 2)  # rotations
        stds = torch.tensor([long, short], dtype=torch.float64).T
        return cls(means, u @ torch.diag_embed(stds**2) @ u.mT, [0.3, 0.2, 0.25, 0.1, 0.15])  # R diag(std^2) R^T

    def __repr__(self) -> str:
        k, d = self.means.shape
        return f"{type(self).__name__}({k} components in {d} dimensions, std {self.std:.2g})"


def as_float64(name: str, values: Any) -> Tensor:
    """Convert a density's parameters to float64 on the CPU. They are cast to the dtype and device of each call's x.

    Raises:
        ValueError: for anything but real numbers.
    """
    return as_real(name, values, torch.float64).cpu()


def _normalised(weights: Sequence[float] | Tensor | None, k: int) -> Tensor:
    if weights is None:
        return torch.full((k,), 1 / k, dtype=torch.float64)
    weights = as_float64("weights", weights)
    if weights.shape != (k,) or not ((weights > 0) & weights.isfinite()).all():
        raise ValueError(
            f"got weights of shape {tuple(weights.shape)}, but weights must be {k} positive numbers, one per component"
        )
    return weights / weights.sum()
