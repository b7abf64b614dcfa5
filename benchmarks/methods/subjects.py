"""What the methods are compared on: teachers whose samples from the same noise are known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pidlearn as pid
from benchmarks.images import digits
from benchmarks.kept import kept
from pidlearn import recipes
from pidlearn.equations.diffusion import Diffusion
from pidlearn.equations.from_teacher import problem_from_teacher
from pidlearn.equations.solvers import solve_end
from pidlearn.evaluation.metrics import agreement, rmse, wrong_mode_share
from pidlearn.recipes.teacher import training_data
from pidlearn.teachers import load_teacher, save_teacher
from pidlearn.utils.fingerprint import digest

__all__ = ["TOYS", "Subject", "Truth", "subject", "truth"]

TOYS = ("ring", "checkerboard", "anisotropic")
TOY_RATES = {"adam": (1e-3, 2e-3, 4e-3, 8e-3, 16e-3), "muon": (7.5e-4, 1.5e-3, 3e-3, 6e-3, 12e-3)}
TEACHERS = {"digits": Path("out/digits-teacher.safetensors"), "digits-mlp": Path("out/digits-mlp-teacher.safetensors")}
"""Files of trained teachers: that of the recipe ``digits``, which `benchmarks.unet` uses, too, and an MLP."""


@dataclass(frozen=True)
class Subject:
    """A teacher, and how its students are trained.

    Attributes:
        problem: of the teacher.
        samples: how many are compared.
        data: for methods that need some; None if the teacher draws its own.
        settings: of every run.
        rates: optimisers and their peak learning rates that the search tries for every method.
        budget: each run has the CPU time of this number of steps of PID with Adam, measured right before it: processors
            differ, and so does one from hour to hour.
        trial: steps of the short run that measures what a step costs: stages and grids of a method shrink with it.
    """

    problem: Any
    samples: int = 8192
    data: Any = None
    settings: dict[str, Any] = field(default_factory=dict)
    rates: dict[str, tuple[float, ...]] = field(default_factory=lambda: TOY_RATES)
    budget: int = 6000
    trial: int = 240


@dataclass(frozen=True)
class Truth:
    """Noise, and where it ends.

    Attributes:
        z: (n, *event).
        labels: (n,) or None.
        euler: the ends of Euler-250, (n, *event) float64.
        exact: those of the ODE.
        others: Euler-250's ends from other noise.
        unit: of errors: 1 on toys, whose scale is about 1; of images the standard deviation, as in `relative_rmse`.
        wrong: the share of samples (n, *event) in another mode than ``exact``, or of another class.
    """

    z: Tensor
    labels: Tensor | None
    euler: Tensor
    exact: Tensor
    others: Tensor
    unit: float
    wrong: Callable[[Tensor], float]


@cache
def subject(name: str) -> Subject:
    """One of `TOYS`, or a network on 8 x 8 images: "digits", a class-conditional U-Net, or "digits-mlp"."""
    if name in TOYS:
        return Subject(problem_from_teacher(pid.toy(name)))
    problem = problem_from_teacher(load_teacher(_teacher(name)))
    if name == "digits-mlp":
        return Subject(problem, samples=2048)
    recipe = recipes.read("digits")
    return Subject(
        problem,
        samples=1024,
        data=training_data(recipe.teacher),
        settings={"batch_size": 64},
        rates={"adam": (2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3)},
        budget=200,
        trial=20,
    )


def _teacher(name: str) -> Path:
    """The file of a trained teacher, which is trained if it is missing."""
    path = TEACHERS[name]
    if not path.exists():
        is_mlp = name == "digits-mlp"
        teacher = pid.train_denoiser(digits().train) if is_mlp else recipes.teacher_from_recipe(recipes.read("digits"))
        save_teacher(teacher, path)
    return path


@cache
def truth(name: str) -> Truth:
    """New noise of a subject, and where it ends."""
    of, solved = subject(name), _solved(name)
    if name in TOYS:
        unit = 1.0

        def wrong(x: Tensor) -> float:
            return wrong_mode_share(x, solved["exact"], of.problem.teacher)
    else:
        exact, classify = solved["exact"], digits().classify
        unit = rmse(exact, exact.mean(0, keepdim=True).expand_as(exact))

        def wrong(x: Tensor) -> float:
            return 1 - agreement(x.float(), solved["exact"].float(), classify)

    return Truth(**solved, unit=unit, wrong=wrong)


def _solved(name: str) -> dict[str, Any]:
    """The tensors of `Truth`. Those of a U-Net take minutes, and are kept next to their teacher, as are an MLP's."""
    if name not in TEACHERS:
        return _solve(name)
    teacher = _teacher(name)
    tensors: dict[str, Any] = kept(
        teacher.with_name(f"{name}-truth-{digest(teacher.read_bytes())}.pt"), lambda: _solve(name)
    )
    return tensors


def _solve(name: str) -> dict[str, Any]:
    """Draw noise, and solve for its ends."""
    of = subject(name)
    problem: Diffusion = of.problem
    noise = []
    for seed in (10**6, 10**6 + 1):
        generator = torch.Generator().manual_seed(seed)
        noise.append((problem.sample_prior(of.samples, generator), problem.sample_labels(of.samples, generator)))
    (z, labels), other = noise
    grid = pid.karras_grid()

    def ends(z: Tensor, labels: Tensor | None) -> Tensor:
        return problem.reference_samples(z, grid, labels).double()

    if name in TOYS:
        exact = pid.solve(problem.ode, z.double(), grid[[0, -1]], "scipy", rtol=1e-8, atol=1e-8)[-1]
    else:
        exact = solve_end(problem.ode, z, grid, "heun", labels).double()
    return {"z": z, "labels": labels, "euler": ends(z, labels), "exact": exact, "others": ends(*other)}
