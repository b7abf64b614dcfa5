"""The metrics of a student, as `pidlearn.Result.evaluate` returns them."""

from __future__ import annotations

from functools import singledispatch

import torch
from torch import Tensor

from pidlearn.equations.diffusion import Diffusion
from pidlearn.equations.initial_value import InitialValueProblem
from pidlearn.equations.problem import Problem
from pidlearn.evaluation import metrics
from pidlearn.students.base import Student
from pidlearn.teachers.exact import GaussianMixture

__all__ = ["Evaluation", "evaluate"]

MEANINGS = {
    "rmse": "error to the reference from the same start",
    "relative_rmse": "RMSE over the standard deviation of the reference",
    "worst_coordinate": "relative RMSE of the worst coordinate",
    "wrong_mode": "share in another mode than the teacher's",
    "energy": "energy distance to other samples of the teacher",
    "energy_floor": "the same between two halves of those",
}


PATH_NUMBERS = 2**22
"""Numbers of the reference paths of an ODE in memory at a time."""


class Evaluation(dict[str, float]):
    """Metrics by name; printed as a small table."""

    def __str__(self) -> str:
        names = max((len(name) for name in self), default=0)
        return "\n".join(
            f"{name:<{names}}  {value:>10.4g}  {MEANINGS.get(name, '')}".rstrip() for name, value in self.items()
        )

    __repr__ = __str__


@singledispatch
def evaluate(problem: Problem, student: Student, grid: Tensor, n: int, seed: int, calls: int = 1) -> Evaluation:
    """Metrics of a student on n fresh starts.

    Args:
        problem: what the student solves.
        student: the student.
        grid: time grid of the reference solution.
        n: number of samples.
        seed: seed of the starts.
        calls: calls of the student per sample.
    """
    raise TypeError(f"cannot evaluate a {type(problem).__name__}: expected a Diffusion or an InitialValueProblem")


@evaluate.register
def _diffusion(problem: Diffusion, student: Student, grid: Tensor, n: int, seed: int, calls: int = 1) -> Evaluation:
    """Sample by sample against the teacher's Euler path from the same z, and as a distribution."""
    if n < 4:
        raise ValueError(f"got n = {n}, but the energy distance's floor needs two halves of at least 2: pass n >= 4")
    generator = torch.Generator().manual_seed(seed)
    z, labels = problem.sample_prior(n, generator), problem.sample_labels(n, generator)
    ours = student.generate(z, labels, calls, generator)
    # More calls of a path student are its teacher's, which aim at the exact path and not at Euler's.
    exact = calls > 1 and student.has_path
    theirs = problem.exact_samples(z, labels) if exact else problem.reference_samples(z, grid, labels)
    # The distribution is compared with the teacher's samples from other noise, or paired samples would look alike.
    z, labels = problem.sample_prior(n, generator), problem.sample_labels(n, generator)
    others = problem.reference_samples(z, grid, labels)
    result = Evaluation()
    if calls == 1 or not student.adds_noise:
        result |= {"rmse": metrics.rmse(ours, theirs), "relative_rmse": metrics.relative_rmse(ours, theirs)}
        if isinstance(problem.teacher, GaussianMixture):
            result["wrong_mode"] = metrics.wrong_mode_share(ours, theirs, problem.teacher)
    result["energy"] = metrics.energy_distance(ours, others)
    result["energy_floor"] = metrics.floor(metrics.energy_distance, others)
    return result


@evaluate.register
def _initial_value(
    problem: InitialValueProblem, student: Student, grid: Tensor, n: int, seed: int, calls: int = 1
) -> Evaluation:
    """Over the whole path, against the reference from the same start.

    Raises:
        ValueError: another number of calls than one: a path is measured, not its end.
    """
    if calls != 1:
        raise ValueError(f"got calls = {calls}, but the student of an ODE is measured along its path: leave calls out")
    z = problem.sample_prior(n, torch.Generator().manual_seed(seed))
    times = problem.plot_grid(101)
    error = first = second = shift = torch.zeros(())  # sums per coordinate, (d,) float64
    # In parts, since the paths of all samples may not fit into memory.
    for start in z.split(max(1, PATH_NUMBERS // (len(times) * z[0].numel()))):
        exact = problem.reference(start, times).flatten(0, 1).flatten(1).double()  # (101 b, d)
        ours = student.trajectory(start, times).flatten(0, 1).flatten(1).to(exact)
        shift = shift if shift.ndim else exact.mean(0)  # of values far from 0, squares would lose the digits that vary
        error = error + (ours - exact).square().sum(0)
        first, second = first + (exact - shift).sum(0), second + (exact - shift).square().sum(0)
    count = n * len(times)
    variance = second / count - (first / count).square()
    varies = variance > (1e-14 * shift).square()  # more than by rounding
    if not varies.any():
        raise ValueError(
            f"all {n} reference paths are one constant, so an error relative to them is undefined: start from values "
            f"whose paths differ"
        )
    error = error / count
    return Evaluation(
        relative_rmse=(error.sum() / variance.sum()).sqrt().item(),
        worst_coordinate=(error / variance)[varies].max().sqrt().item(),
        rmse=error.mean().sqrt().item(),
    )
