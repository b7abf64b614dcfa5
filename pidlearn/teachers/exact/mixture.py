"""Gaussian mixtures: the densities whose diffusion is known in closed form.

Noise of standard deviation sigma turns sum_k w_k N(mu_k, S_k) into sum_k w_k N(mu_k, S_k + sigma^2 I), so that the
score, the denoiser E[x0 | x] and the log-density are exact at every sigma. In the eigenbasis U of S_k, with
eigenvalues l and c = U^T (x - mu_k):

    log N   = -1/2 sum [ c^2 / (l + sigma^2) + log(2 pi (l + sigma^2)) ]
    score   = -U [ c / (l + sigma^2) ]
    E[x0|x] = mu_k + U [ c l / (l + sigma^2) ]

each averaged with the responsibilities of the components. Nothing divides by sigma, and no sigma-sized numbers
cancel, at sigma = 80 as at 0.002.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from pidlearn.utils.broadcast import expand, noise_level

__all__ = ["GaussianMixture", "SubspaceMixture", "toy"]


class GaussianMixture:
    """sum_k w_k N(mu_k, S_k) in any dimension.

    Args:
        means: (K, d).
        covs: full covariances (K, d, d), diagonals (K, d), or one variance for all: a scalar, or one each: (K,).
        weights: (K,) positive; normalised here. Equal if not given.

    Raises:
        ValueError: shapes that do not fit, a covariance that is not symmetric positive definite, weights that are
            not positive.
    """

    def __init__(self, means: Any, covs: Any, weights: Any = None) -> None:
        self.means = _numbers(means)
        if self.means.ndim != 2 or not self.means.isfinite().all():
            raise ValueError(f"means must be finite and (K, d), got {tuple(self.means.shape)}")
        k, d = self.means.shape
        self.weights = _normalised(weights, k)
        covs = _numbers(covs)
        if covs.shape == (k, d, d):
            if (covs - covs.mT).abs().max() > 1e-5 * covs.abs().max():  # they may have been computed in float32
                raise ValueError("full covariances must be symmetric")
            eigenvalues, self._basis = torch.linalg.eigh((covs + covs.mT) / 2)
        elif covs.shape in ((), (k,), (k, d)):
            eigenvalues = covs.reshape(k, -1) if covs.ndim else covs
            eigenvalues, self._basis = eigenvalues.expand(k, d), None
        else:
            raise ValueError(
                f"covs must be (K, d, d), (K, d), (K,) or a scalar with K = {k}, d = {d}; got {tuple(covs.shape)}"
            )
        if not (eigenvalues > 0).all():
            raise ValueError("covariances must be positive definite (standard deviations are squared)")
        self._eigenvalues = eigenvalues
        self._cache: dict[tuple[torch.dtype, torch.device], tuple[Any, ...]] = {}

    @property
    def event_shape(self) -> tuple[int, ...]:
        """(d,)."""
        return tuple(self.means.shape[1:])

    @property
    def std(self) -> float:
        """Standard deviation of one coordinate, over all coordinates and components."""
        mean = self.weights @ self.means
        spread = (self.means - mean).square() + self._eigenvalues
        return math.sqrt(self.weights @ spread.mean(1))

    @property
    def covs(self) -> Tensor:
        """Covariances of the components, (K, d, d) float64."""
        diagonal = torch.diag_embed(self._eigenvalues.contiguous())
        return diagonal if self._basis is None else self._basis @ diagonal @ self._basis.mT

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """(n, d) float32 draws of the clean density."""
        component = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        noise = torch.randn(n, *self.event_shape, dtype=torch.float64, generator=generator)
        noise = noise * self._eigenvalues[component].sqrt()
        if self._basis is not None:
            noise = (self._basis[component] @ noise[..., None])[..., 0]
        return (self.means[component] + noise).float()

    def log_prob(self, x: Tensor, sigma: Any = 0.0) -> Tensor:
        """Log-density of data plus noise of standard deviation sigma, a scalar or (B,): (B, d) -> (B,)."""
        *_, joint = self._look(x, sigma)
        return joint.logsumexp(1) - 0.5 * x.shape[1] * math.log(2 * math.pi)

    def component(self, x: Tensor, sigma: Any = 0.0) -> Tensor:
        """The most responsible component of each point: (B, d) -> (B,) int64."""
        *_, joint = self._look(x, sigma)
        return joint.argmax(1)

    def score(self, x: Tensor, sigma: Any) -> Tensor:
        """Gradient of `log_prob` with respect to x: (B, d) -> (B, d)."""
        c, precision, joint = self._look(x, sigma)
        return -self._rotate_back(joint.softmax(1)[..., None] * c * precision)

    def denoise(self, x: Tensor, sigma: Any, class_labels: Tensor | None = None) -> Tensor:
        """E[x0 | x0 + sigma n = x], (B, d) -> (B, d); sigma is a scalar or (B,), 0 allowed.

        Raises:
            ValueError: if x is not (B, d), or labels are given: a mixture has no classes.
        """
        if class_labels is not None:
            raise ValueError("a GaussianMixture is unconditional: leave class_labels out")
        c, precision, joint = self._look(x, sigma)
        means, eigenvalues, *_ = self._cached(x.dtype, x.device)
        r = joint.softmax(1)
        return r @ means + self._rotate_back(r[..., None] * (c * precision * eigenvalues))

    __call__ = denoise

    def _look(self, x: Tensor, sigma: Any) -> tuple[Tensor, Tensor, Tensor]:
        """c (B, K, d) in each component's eigenbasis, 1 / (l + sigma^2), and log w_k N_k without 2 pi (B, K)."""
        if x.ndim != 2 or x.shape[1:] != self.event_shape:
            raise ValueError(f"x must be (B, {self.event_shape[0]}), got {tuple(x.shape)}")
        means, eigenvalues, log_weights, basis = self._cached(x.dtype, x.device)
        c = x[:, None] - means
        if basis is not None:
            c = torch.einsum("bkd,kde->bke", c, basis)
        variance = eigenvalues + noise_level(sigma, x).square()[:, None, None]
        precision = variance.reciprocal()
        joint = log_weights - 0.5 * (c.square() * precision + variance.log()).sum(-1)
        return c, precision, joint

    def _rotate_back(self, c: Tensor) -> Tensor:
        if self._basis is None:
            return c.sum(1)
        return torch.einsum("bke,kde->bd", c, self._cached(c.dtype, c.device)[3])

    def _cached(self, dtype: torch.dtype, device: torch.device) -> tuple[Any, ...]:
        """means, eigenvalues, log-weights and basis (or None), converted once for each dtype and device."""
        if (dtype, device) not in self._cache:
            parts = (self.means, self._eigenvalues, self.weights.log(), self._basis)
            self._cache[dtype, device] = tuple(p if p is None else p.to(device, dtype) for p in parts)
        return self._cache[dtype, device]

    @cached_property
    def overlap(self) -> float:
        """Share of samples that another component than their own is most responsible for.

        Where it is large the components are no modes: they are the stroke of a curve, or the blur of points.
        """
        generator = torch.Generator().manual_seed(0)
        own = torch.multinomial(self.weights, 4096, replacement=True, generator=generator)
        noise = torch.randn(4096, len(self.means[0]), dtype=torch.float64, generator=generator)
        x = self.means[own] + torch.einsum("bij,bj->bi", torch.linalg.cholesky(self.covs)[own], noise)
        return (self.component(x) != own).double().mean().item()

    @classmethod
    def ring(cls, modes: int = 8, radius: float = 1.0, std: float = 0.15) -> GaussianMixture:
        """Equal isotropic modes on a circle."""
        angle = 2 * math.pi * torch.arange(modes, dtype=torch.float64) / modes
        return cls(radius * torch.stack([angle.cos(), angle.sin()], 1), std**2)

    @classmethod
    def grid(cls, side: int = 5, spacing: float = 0.6, std: float = 0.1) -> GaussianMixture:
        """side x side equal isotropic modes on a square lattice."""
        axis = spacing * (torch.arange(side, dtype=torch.float64) - (side - 1) / 2)
        return cls(torch.cartesian_prod(axis, axis), std**2)

    @classmethod
    def checkerboard(cls, side: float = 0.8, std: float = 0.2) -> GaussianMixture:
        """One mode in each dark square of a 4 x 4 board; the standard deviation is a quarter of a square's side."""
        i, j = torch.cartesian_prod(torch.arange(4), torch.arange(4)).T
        dark = (i + j) % 2 == 0
        centres = torch.stack([i, j], 1)[dark].double() - 1.5
        return cls(side * centres, std**2)

    @classmethod
    def moons(cls, modes: int = 12, std: float = 0.12) -> GaussianMixture:
        """Two interleaved half-circles of overlapping modes."""
        angle = math.pi * torch.linspace(0, 1, modes, dtype=torch.float64)
        upper = torch.stack([angle.cos() - 0.5, angle.sin() - 0.25], 1)
        return cls(torch.cat([upper, -upper]), std**2)

    @classmethod
    def spiral(cls, modes: int = 24, turns: float = 1.5, std: float = 0.1) -> GaussianMixture:
        """Overlapping modes along a spiral that grows from the middle to radius 1.5."""
        # Square roots space the modes evenly along the arc.
        u = torch.linspace(0.04, 1, modes, dtype=torch.float64).sqrt()
        angle = 2 * math.pi * turns * u
        return cls(1.5 * u[:, None] * torch.stack([angle.cos(), angle.sin()], 1), std**2)

    @classmethod
    def anisotropic(cls) -> GaussianMixture:
        """Five unequal modes, stretched and turned differently."""
        means = [[-1.0, 0.6], [0.1, 1.1], [1.1, 0.2], [-0.5, -0.8], [0.8, -1.0]]
        long, short = [0.45, 0.3, 0.4, 0.25, 0.35], [0.08, 0.12, 0.1, 0.25, 0.06]
        turn = torch.tensor([0.6, -0.2, 1.8, 0.0, 0.9], dtype=torch.float64)
        u = torch.stack([turn.cos(), -turn.sin(), turn.sin(), turn.cos()], 1).reshape(-1, 2, 2)
        stds = torch.tensor([long, short], dtype=torch.float64).T
        return cls(means, u @ torch.diag_embed(stds**2) @ u.mT, [0.3, 0.2, 0.25, 0.1, 0.15])


class SubspaceMixture:
    """A Gaussian mixture in r directions of a d-dimensional event, and small isotropic noise in all others.

    The exact teacher for images: covariances of d x d pixels are never formed. For x = m + V u + (off-plane),
    the plane is denoised by the mixture and the rest by its own Wiener filter.

    Args:
        mixture: the density of u, in r dimensions.
        basis: (d, r) with orthonormal columns V.
        offset: (*event) the point m where u = 0, with d entries; it gives the event its shape.
        off_plane_std: standard deviation of the directions that V leaves out, > 0.
    """

    def __init__(self, mixture: GaussianMixture, basis: Any, offset: Any, off_plane_std: float) -> None:
        self.mixture = mixture
        self.basis = _numbers(basis)
        self.offset = _numbers(offset)
        self.off_plane_std = float(off_plane_std)
        if self.basis.shape != (self.offset.numel(), *mixture.event_shape):
            raise ValueError(
                f"basis must be (d, r) = ({self.offset.numel()}, {mixture.event_shape[0]}), "
                f"got {tuple(self.basis.shape)}"
            )
        gram = self.basis.T @ self.basis
        if not torch.allclose(gram, torch.eye(len(gram), dtype=gram.dtype), atol=1e-6):
            raise ValueError("the columns of basis must be orthonormal (torch.linalg.qr makes them so)")
        if not off_plane_std > 0:
            raise ValueError(f"off_plane_std must be positive, got {off_plane_std}")

    @classmethod
    def fit(
        cls, data: Tensor, components: int = 30, directions: int = 64, off_plane_std: float = 0.03, seed: int = 0
    ) -> SubspaceMixture:
        """Fit to data (M, *event): principal directions, and a full-covariance mixture in them (scikit-learn's EM).

        Raises:
            ValueError: fewer data than directions or components, or more directions than dimensions.
            ImportError: without scikit-learn.
        """
        flat = _numbers(data.flatten(1))
        most = min(flat.shape)
        if not (1 <= directions <= most and 1 <= components <= len(flat)):
            raise ValueError(
                f"{len(flat)} data of {flat.shape[1]} dimensions allow at most {most} directions and {len(flat)} "
                f"components; got {directions} and {components}"
            )
        try:
            from sklearn.mixture import GaussianMixture as Fitted
        except ImportError as error:
            raise ImportError("fitting a mixture needs scikit-learn: pip install 'pidlearn[images]'") from error
        mean = flat.mean(0)
        # eigh sorts upwards: the last eigenvectors of the covariance are the principal directions.
        basis = torch.linalg.eigh(flat.T.cov().reshape(flat.shape[1], -1)).eigenvectors[:, -directions:].flip(1)
        fitted = Fitted(components, reg_covar=1e-4, random_state=seed).fit(((flat - mean) @ basis).numpy())
        inner = GaussianMixture(fitted.means_, fitted.covariances_, fitted.weights_)
        return cls(inner, basis, mean.reshape(data.shape[1:]), off_plane_std)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one image."""
        return tuple(self.offset.shape)

    @property
    def std(self) -> float:
        """Standard deviation of a pixel about the data mean, over all pixels."""
        d, r = self.basis.shape
        total = r * self.mixture.std**2 + (d - r) * self.off_plane_std**2
        return math.sqrt(total / d)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """(n, *event) float32 draws of the clean density."""
        noise = torch.randn(n, len(self.basis), dtype=torch.float64, generator=generator)
        off = self.off_plane_std * (noise - noise @ self.basis @ self.basis.T)
        flat = self.mixture.sample(n, generator).double() @ self.basis.T + off
        return (self.offset + flat.reshape(n, *self.event_shape)).float()

    def denoise(self, x: Tensor, sigma: Any, class_labels: Tensor | None = None) -> Tensor:
        """E[x0 | x0 + sigma n = x], (B, *event) -> (B, *event). Raises ValueError as the mixture does."""
        if x.shape[1:] != self.event_shape:
            raise ValueError(f"x must be (B, {', '.join(map(str, self.event_shape))}), got {tuple(x.shape)}")
        basis, offset = self.basis.to(x), self.offset.to(x)
        flat = (x - offset).flatten(1)
        u = flat @ basis
        variance = noise_level(sigma, x).square()
        keep = expand(self.off_plane_std**2 / (self.off_plane_std**2 + variance), flat)
        out = keep * flat + (self.mixture.denoise(u, sigma, class_labels) - keep * u) @ basis.T
        return offset + out.reshape(x.shape)

    __call__ = denoise


PRESETS: dict[str, Callable[..., GaussianMixture]] = {
    name: getattr(GaussianMixture, name) for name in ("ring", "grid", "checkerboard", "moons", "spiral", "anisotropic")
}


def toy(name: str, **options: Any) -> GaussianMixture:
    """A preset mixture by name: ring, grid, checkerboard, moons, spiral, anisotropic."""
    if name not in PRESETS:
        raise ValueError(f"toy must be one of {sorted(PRESETS)}, got {name!r}")
    return PRESETS[name](**options)


def _numbers(given: Any) -> Tensor:
    """What describes a density, float64 on the CPU; the density is computed where it is asked."""
    return torch.as_tensor(given, dtype=torch.float64, device="cpu")


def _normalised(weights: Sequence[float] | Tensor | None, k: int) -> Tensor:
    if weights is None:
        return torch.full((k,), 1 / k, dtype=torch.float64)
    weights = _numbers(weights)
    if weights.shape != (k,) or not ((weights > 0) & weights.isfinite()).all():
        raise ValueError(f"weights must be {k} positive numbers, got {tuple(weights.shape)}")
    return weights / weights.sum()
