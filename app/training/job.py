"""A training job: plain data that a page describes and a worker process receives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from app.training.expression import InitialValueProblem

__all__ = ["DERIVATIVES", "ZOO", "TrainingJob", "build_teacher"]

DERIVATIVES = ("forward", "central", "exact")
ZOO = {
    "pendulum": "Pendulum",
    "lotka_volterra": "Lotka-Volterra",
    "van_der_pol": "Van der Pol",
    "lorenz": "Lorenz",
    "logistic": "Logistic",
    "stiff": "Stiff",
}


@dataclass(frozen=True)
class TrainingJob:
    """What to train.

    Attributes:
        title: a description of the teacher.
        kind: preset | points | system | equations.
        teacher: the name of a preset or system; (means, weights, std) of points; the parsed problem of equations.
        steps: number of optimizer steps.
        settings: fields of the recipe that differ from its defaults: n, derivative, seed.
    """

    title: str
    kind: str
    teacher: Any
    steps: int
    settings: dict[str, Any]


def build_teacher(job: TrainingJob) -> Any:
    """Return the teacher in a form that `pidlearn.distill` accepts. Imports torch."""
    import torch

    import pidlearn as pid

    if job.kind == "preset":
        return pid.toy(job.teacher)
    if job.kind == "system":
        return pid.system(job.teacher)
    if job.kind == "points":
        means, weights, std = job.teacher
        return pid.GaussianMixture(means, std**2, weights)
    problem: InitialValueProblem = job.teacher

    def f(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        values = dict(zip(problem.fields, x.unbind(1), strict=True))
        # Adding 0 * x broadcasts a constant derivative to the batch, (B,).
        return torch.stack([x[:, 0] * 0 + d for d in problem.derivatives({**values, "t": t}, torch)], 1)

    low, high = zip(*problem.box.values(), strict=True)
    return pid.System(f, low, high, *problem.span, tuple(problem.fields))
