"""The directions in which a teacher's samples vary."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pidlearn.equations.diffusion import Diffusion
from pidlearn.equations.solvers import solve_end

__all__ = ["principal_directions"]

SAMPLES, CALLS = 1024, 9
"""Number of samples, and calls of the teacher for each: as many evaluations as 36 steps with batches of 256."""
UNSEEN = 0.005
"""Largest share of the variance that directions may leave out: a student cannot learn what depends on the rest."""


@torch.no_grad()
def principal_directions(problem: Diffusion, count: int) -> Tensor | None:
    """The first principal directions of the teacher's own samples, (d, count), one per column.

    They are orthogonal, with lengths in proportion to the standard deviations along them, whose mean square is 1.
    None if the samples vary in more directions than these: a share of more than `UNSEEN` of their variance is left.
    No data are needed: samples of DPM-Solver++(2M) with few calls are made here.

    Args:
        problem: a diffusion, with samples of d numbers.
        count: at most d, and less than `SAMPLES`.
    """
    generator = torch.Generator().manual_seed(0)
    # On the CPU, so that every device has the same noise.
    z, labels = problem.sample_prior(SAMPLES, generator), problem.sample_labels(SAMPLES, generator)
    x = solve_end(problem.ode, z, problem.plot_grid(CALLS + 1), "dpm++", labels)
    x = x.flatten(1).cpu().double()  # (SAMPLES, d)
    _, stds, rows = torch.linalg.svd(x - x.mean(0), full_matrices=False)  # stds in one unit: rows are unit vectors
    if stds[count:].square().sum() > UNSEEN * stds.square().sum():
        return None
    directions = rows[:count].T * stds[:count]
    return directions * (math.sqrt(count) / directions.norm())
