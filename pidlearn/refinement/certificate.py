"""How far a sample is from the exact one, estimated without solving: a certificate for each sample.

Four signs of an error, of which the first ones are used where there are calls for them. All are sizes (B,), the root
mean square over the coordinates of a sample:

    the end's distance to where a neighbour of z ends, along z or across             1 call of the student each
    the end's distance to its own denoised image at a small noise level              1 call of the teacher
    the end's distance to the end of a jump to t* that the teacher continues         the remaining calls

The first two are large near the ridges between modes, where errors are largest, the third between modes; the last is
an embedded pair, as in a Runge-Kutta method. A regression on solved paths joins them to an estimate of the error, and
a quantile of its own errors on other paths (split conformal prediction: Papadopoulos et al. 2002) scales it, so that
nine tenths of fresh samples are within twice the estimate.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pidlearn.equations.diffusion import Diffusion
from pidlearn.refinement.handover import carry, handover, jump
from pidlearn.students.base import Student
from pidlearn.utils.batching import in_chunks

__all__ = ["Certificate", "certify", "estimate", "size"]

WITHIN, FACTOR = 0.9, 2.0
"""This share of samples is within this multiple of the estimate."""
NEIGHBOUR = 0.01
"""Distance of the neighbours of z, relative to z."""
DENOISED_AT = 0.15
"""The small noise level, in units of the data's standard deviation."""
SHORT = 3
"""Calls for all signs but the last, which needs a jump and at least one step."""


@dataclass(frozen=True)
class Certificate:
    """A fitted estimate for a number of extra calls per sample.

    Attributes:
        calls: extra calls, besides the one that made the sample.
        t_star: where the teacher continues, for the last sign.
        coefficients: of the regression, whose terms are 1, the logarithms of all signs and their products.
        scale: factor on the regression's estimate.
        across: whether the only neighbour, where one call is all, lies across; else along z.
    """

    calls: int
    t_star: float
    coefficients: list[float]
    scale: float
    across: bool = False

    def serves(self, problem: Diffusion, calls: int) -> bool:
        """Whether it estimates errors of the problem's samples by so many extra calls."""
        signs = min(calls, SHORT) + (calls >= SHORT + 2)
        terms = 1 + signs + signs * (signs + 1) // 2
        fits = len(self.coefficients) == terms and all(map(math.isfinite, self.coefficients))
        scales = math.isfinite(self.scale) and self.scale > 0
        counts = isinstance(self.calls, int) and self.calls == calls
        turns = isinstance(self.across, bool) and self.across <= (calls == 1)
        return fits and scales and counts and turns and problem.t_end < self.t_star < problem.t_start


def size(x: Tensor) -> Tensor:
    """Root mean square over the coordinates of each sample, (B,) float64."""
    return x.double().flatten(1).square().mean(1).sqrt()


@torch.no_grad()
def signs(
    student: Student,
    problem: Diffusion,
    z: Tensor,
    x: Tensor,
    calls: int,
    class_labels: Tensor | None,
    across: bool = False,
) -> Callable[[float], Tensor]:
    """The signs of errors in the samples x (B, *event) of z, (B, F), as a function of t*."""
    # One direction for all samples, so that an estimate does not depend on the rest of its batch.
    direction = torch.randn(z.shape[1:], generator=torch.Generator().manual_seed(0), dtype=z.dtype).to(z.device)
    neighbours = [NEIGHBOUR * z, NEIGHBOUR * problem.t_start * direction]
    moved = neighbours[across : across + calls]
    columns = [size(jump(student, z + move, problem.t_end, class_labels) - x) for move in moved]
    if calls >= SHORT:
        sigma = DENOISED_AT * problem.data_scale
        denoised = in_chunks(lambda x, labels: problem.ode.rhs(x, torch.as_tensor(sigma), labels), x, class_labels)
        columns.append(size(denoised - x))
    short = torch.stack(columns, 1)

    def all_signs(t_star: float) -> Tensor:
        if calls < SHORT + 2:
            return short
        continued = carry(handover(problem, calls - SHORT, t_star), student, problem, z, class_labels)
        return torch.cat([short, size(continued - x)[:, None]], 1)

    return all_signs


def estimate(
    certificate: Certificate,
    student: Student,
    problem: Diffusion,
    z: Tensor,
    x: Tensor,
    class_labels: Tensor | None = None,
) -> Tensor:
    """The estimated error of each sample x (B, *event) of z, (B,) float64, in data units."""
    of = signs(student, problem, z, x, certificate.calls, class_labels, certificate.across)
    seen = of(certificate.t_star)
    coefficients = torch.tensor(certificate.coefficients, dtype=torch.float64, device=z.device)
    return certificate.scale * _predicted(seen, coefficients)


def certify(
    student: Student,
    problem: Diffusion,
    z: Tensor,
    x: Tensor,
    exact: Tensor,
    calls: int,
    times: tuple[float, ...],
    class_labels: Tensor | None = None,
) -> Certificate:
    """Fit a certificate to samples x (B, *event) of z whose exact samples are known.

    Half of them serve for the regression, and the others to choose t* among the times and the scale.
    """
    error, half = size(x - exact).clamp(min=torch.finfo(torch.float64).tiny).cpu(), len(z) // 2
    fits = []
    for across in (False, True) if calls == 1 else (False,):
        of = signs(student, problem, z, x, calls, class_labels, across)
        for t_star in times if calls >= SHORT + 2 else times[:1]:
            terms = _terms(of(t_star)).cpu()  # on a GPU, lstsq takes no matrix whose columns depend on one another
            # Relative errors count: the estimate is to be right for good samples and bad ones.
            coefficients = torch.linalg.lstsq(terms[:half], error[:half].log()[:, None]).solution[:, 0]
            misses = error[half:].log() - terms[half:] @ coefficients
            # A single sign serves to find the worst samples.
            loss = misses.square().mean() if calls > 1 else -_of_the_worst(error, terms @ coefficients)
            fits.append((loss.item(), t_star, across, coefficients, misses))
    _, t_star, across, coefficients, misses = min(fits, key=lambda fit: fit[0])
    # The k-th smallest of n fresh errors is exceeded by one more with probability 1 - k / (n + 1).
    k = min(len(misses), math.ceil(WITHIN * (len(misses) + 1)))
    scale = misses.sort().values[k - 1].exp().item() / FACTOR
    return Certificate(calls, t_star, coefficients.tolist(), scale, across)


def _of_the_worst(error: Tensor, estimate: Tensor) -> Tensor:
    """The share of the squared error that the tenth with the largest estimates has."""
    return error[estimate.topk(math.ceil(len(error) / 10)).indices].square().sum() / error.square().sum()


def _terms(signs: Tensor) -> Tensor:
    """1, the logarithms of the signs (B, F), and their products."""
    logs = signs.clamp(min=1e-9).log()
    products = [logs[:, i] * logs[:, j] for i in range(logs.shape[1]) for j in range(i + 1)]
    return torch.stack([torch.ones_like(logs[:, 0]), *logs.unbind(1), *products], 1)


def _predicted(signs: Tensor, coefficients: Tensor) -> Tensor:
    return (_terms(signs) @ coefficients).exp()
