"""A convolutional student of a convolutional teacher, small enough for a desk: `python -m benchmarks.unet`.

The recipe ``digits`` of `pidlearn distill`: its teacher, a class-conditional SongUNet of 0.75 million weights, and its
student. Short runs compare how the copy of the teacher's network may start; the recipe's own run follows. All from the
same noise and labels; the judge is the classifier of `benchmarks.images`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pidlearn as pid
from benchmarks.images import SAMPLES, digits, timed
from benchmarks.table import RESULTS, Store
from pidlearn import recipes
from pidlearn.equations.from_teacher import problem_from_teacher
from pidlearn.equations.problem import Problem
from pidlearn.evaluation import images, metrics
from pidlearn.students.base import as_student
from pidlearn.teachers import load_teacher, save_teacher

SHORT = {"steps": 400, "batch_size": 64}
STARTS = ("random", "official", "teacher")


def main() -> None:
    """Train what is missing, and write the table and a grid."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--teacher", type=Path, default=Path("out/digits-teacher.safetensors"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    recipe, judge = recipes.read("digits"), digits()
    store = Store(
        args.out, "images-unet", "python -m benchmarks.unet", samples=SAMPLES, short=SHORT, recipe=str(recipe)
    )
    taken = None
    if not args.teacher.exists():
        made, taken = timed(lambda: recipes.teacher_from_recipe(recipe))
        save_teacher(made, args.teacher)
    problem = problem_from_teacher(load_teacher(args.teacher))
    generator = torch.Generator().manual_seed(1)
    z, labels = problem.sample_prior(SAMPLES, generator), problem.sample_labels(SAMPLES, generator)
    target = problem.reference_samples(z, pid.karras_grid(), labels)

    def figures(x: Tensor, calls: int, seconds: float | None = None) -> dict[str, Any]:
        return {
            "calls": calls,
            "RMSE/std": metrics.relative_rmse(x, target),
            "agreement": metrics.agreement(x, target, judge.classify),
            "as labelled": (judge.classify(x).argmax(1) == labels).double().mean().item(),
            "FD": metrics.frechet_distance(x, judge.train[:SAMPLES], judge.features),
            "CPU s": seconds,
        }

    for n in (250, 40, 18, 10):
        if f"teacher / Euler-{n}" not in store.rows:
            x = problem.reference_samples(z, pid.karras_grid(n), labels)
            store.add(f"teacher / Euler-{n}", figures(x, n - 1, taken if n == 250 else None))
    for init in STARTS:
        for seed in (0, 1):
            key = f"short run / init={init}, seed {seed}"
            if key not in store.rows:
                result, seconds = timed(
                    lambda init=init, seed=seed: pid.distill(
                        problem.teacher, config=recipe.config, **SHORT, init=init, seed=seed, progress=False
                    )
                )
                store.add(key, figures(result.generate(z, labels), 1, seconds))
    if "recipe / student" not in store.rows:
        result, seconds = timed(lambda: pid.distill(problem.teacher, config=recipe.config))
        store.add("recipe / student", figures(result.generate(z, labels), 1, seconds))
        images.save_png(grid(problem, result.student, z[:24], labels), args.out / "images-unet.png")
    lines = [{"sampler": key, **{k: _shown(v) for k, v in row.items()}} for key, row in store.rows.items()]
    store.publish("A convolutional student: digits", TEXT, {"All from the same noise and labels": lines})


def grid(problem: Problem, student: Any, z: Tensor, labels: Tensor | None) -> Any:
    """Teacher's and student's images under one another."""
    some = None if labels is None else labels[: len(z)]
    few = problem.reference_samples(z, pid.karras_grid(10), some)
    rows = {
        "teacher, 249 calls": problem.reference_samples(z, pid.karras_grid(), some),
        "teacher, 9 calls": few,
        "student, 1 call": as_student(student, problem).generate(z, some),
    }
    return images.comparison(rows, 12)


TEXT = (
    f"Short runs have {SHORT['steps']} steps of {SHORT['batch_size']}, the recipe's as many as it says. RMSE/std and "
    "class agreement are to the teacher's own Euler-250; FD is the Fréchet distance on a classifier's 32 features to "
    "training images, of which there are 1,500; “as labelled”: the classifier says the label that was asked for. "
    "CPU s: of training the teacher, in Euler-250's row, if this run has, and of distilling the student."
)


def _shown(value: float | int | None) -> str:
    return "" if value is None else str(value) if isinstance(value, int) else f"{value:.3f}"


if __name__ == "__main__":
    main()
