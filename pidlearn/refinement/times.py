"""The times of a solver's steps, fitted to solved paths.

Where steps have to be short depends on the teacher, and where the first begins on the student. With N steps from t* to
t_end, the lengths of the steps in ln t are

    ln h_i = sum_j c_j P_j(u_i),    u_i = -1 + 2 i / (N - 1),    i = 0 .. N - 1,    j < min(8, N),

with Legendre's polynomials P_j (a single step has the first alone), and t* is where they begin:
t* = t_end exp(sum_i h_i). Karras' grid is the start, and the trust-region method of `scipy.optimize.least_squares`
takes it to smaller errors at the end of the paths.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from numpy.polynomial.legendre import legvander
from torch import Tensor

from pidlearn.equations.diffusion import Diffusion
from pidlearn.refinement.handover import Plan

__all__ = ["fit"]

Floats = npt.NDArray[np.float64]

COEFFICIENTS = 8
"""At most this many, whatever the number of steps: each costs one more solve per iteration."""
SHORTEST, LONGEST = 1e-4, 10.0
"""Bounds of h, so that no try of the fit has steps that vanish or overflow."""
DIFFERENCE = 0.02
"""Of a coefficient, for derivatives: a step is then longer or shorter by a fiftieth at most."""


def fit(plan: Plan, problem: Diffusion, misses: Callable[[Plan], Tensor], tries: int) -> tuple[float, Plan]:
    """Fit t* and the times of the steps.

    Args:
        plan: the start, in which the student has a part.
        problem: what is solved.
        misses: the errors of all samples with a plan, of any shape.
        tries: the most plans that are tried, apart from those for derivatives.

    Returns:
        Half the sum of the squared errors, in units of the data's standard deviation, and the plan.
    """
    from scipy.optimize import least_squares  # imported here, since it is slow and few calls need it

    span = math.log(problem.t_start / problem.t_end)
    lengths = -np.diff(np.log(plan.times))  # (N,)
    basis = legvander(np.linspace(-1, 1, len(lengths)), min(len(lengths), COEFFICIENTS) - 1)  # (N, J)

    def planned(c: Floats) -> Plan:
        h = np.exp(np.clip(basis @ c, math.log(SHORTEST), math.log(LONGEST)))
        h *= min(1.0, span / h.sum())  # the first begins at t_start at the earliest
        above = np.append(np.cumsum(h[::-1])[::-1], 0.0)  # ln(t_i / t_end), (N + 1,)
        times = problem.t_end * np.exp(above)
        if math.isclose(above[0], span):  # up to rounding: otherwise the student would spend a call at t_start
            times[0] = problem.t_start
        return replace(plan, times=times.tolist())

    def errors(c: Floats) -> Floats:
        relative = misses(planned(c)).double() / problem.data_scale  # least_squares also stops at an absolute tolerance
        return relative.flatten().cpu().numpy()

    def slopes(c: Floats) -> Floats:
        here = errors(c)
        moved = c + DIFFERENCE * np.eye(len(c))
        return np.stack([(errors(there) - here) / DIFFERENCE for there in moved], 1)

    start = np.linalg.lstsq(basis, np.log(lengths), rcond=None)[0]
    solution = least_squares(errors, start, slopes, max_nfev=tries)
    return solution.cost, planned(solution.x)
