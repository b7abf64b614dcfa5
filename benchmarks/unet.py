"""Distil a small convolutional teacher: `python -m benchmarks.unet`.

The recipe ``digits`` of `pidlearn distill`: its teacher, a class-conditional SongUNet with 0.75 million weights, and
its student. Short runs compare the ways in which the copy of the teacher's network can start; the recipe's own run
follows. All samples start from the same noise and labels, and the classifier is that of `benchmarks.images`.
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
    """Train the missing networks, and write the table and a picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the table and the picture")
    parser.add_argument(
        "--teacher",
        type=Path,
        default=Path("out/digits-teacher.safetensors"),
        help="the teacher's file; trained if missing",
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    recipe, dataset = recipes.read("digits"), digits()
    store = Store(
        args.out, "images-unet", "python -m benchmarks.unet", samples=SAMPLES, short=SHORT, recipe=str(recipe)
    )
    teacher_seconds = None
    if not args.teacher.exists():
        teacher, teacher_seconds = timed(lambda: recipes.teacher_from_recipe(recipe))
        save_teacher(teacher, args.teacher)
    problem = problem_from_teacher(load_teacher(args.teacher))
    generator = torch.Generator().manual_seed(1)
    z, labels = problem.sample_prior(SAMPLES, generator), problem.sample_labels(SAMPLES, generator)
    target = problem.reference_samples(z, pid.karras_grid(), labels)

    def evaluate(x: Tensor, calls: int, seconds: float | None = None) -> dict[str, Any]:
        return {
            "calls": calls,
            "RMSE/std": metrics.relative_rmse(x, target),
            "agreement": metrics.agreement(x, target, dataset.classify),
            "as labelled": (dataset.classify(x).argmax(1) == labels).double().mean().item(),
            "FD": metrics.frechet_distance(x, dataset.train[:SAMPLES], dataset.features),
            "CPU s": seconds,
        }

    for n in (250, 40, 18, 10):
        if f"teacher / Euler-{n}" not in store.rows:
            x = target if n == 250 else problem.reference_samples(z, pid.karras_grid(n), labels)
            store.add(f"teacher / Euler-{n}", evaluate(x, n - 1, teacher_seconds if n == 250 else None))
    for init in STARTS:
        for seed in (0, 1):
            key = f"short run / init={init}, seed {seed}"
            if key not in store.rows:
                result, seconds = timed(
                    lambda init=init, seed=seed: pid.distill(
                        problem.teacher, config=recipe.config, **SHORT, init=init, seed=seed, progress=False
                    )
                )
                store.add(key, evaluate(result.generate(z, labels), 1, seconds))
    if "recipe / student" not in store.rows:
        result, seconds = timed(lambda: pid.distill(problem.teacher, config=recipe.config))
        store.add("recipe / student", evaluate(result.generate(z, labels), 1, seconds))
        images.save_png(image_rows(problem, result.student, z[:24], labels), args.out / "images-unet.png")
    lines = [{"sampler": key, **{k: _format(v) for k, v in row.items()}} for key, row in store.rows.items()]
    store.publish("A convolutional student: digits", TEXT, {"All from the same noise and labels": lines})


def image_rows(problem: Problem, student: Any, z: Tensor, labels: Tensor | None) -> Any:
    """One picture with rows of the teacher's and the student's images from the same noise."""
    labels = None if labels is None else labels[: len(z)]
    rows = {
        "teacher, 249 calls": problem.reference_samples(z, pid.karras_grid(), labels),
        "teacher, 9 calls": problem.reference_samples(z, pid.karras_grid(10), labels),
        "student, 1 call": as_student(student, problem).generate(z, labels),
    }
    return images.comparison(rows, 12)


TEXT = (
    f"Short runs have {SHORT['steps']} steps with batches of {SHORT['batch_size']}; the recipe's run has the recipe's "
    "own. RMSE/std and class agreement compare with the teacher's own Euler-250. FD is the Fréchet distance on a "
    "classifier's 32 features to the 1,500 training images. “As labelled”: the share of samples that the classifier "
    "assigns to their label. CPU s: CPU seconds for distilling the student and, in the row of Euler-250, for training "
    "the teacher, if this run trained it."
)


def _format(value: float | int | None) -> str:
    return "" if value is None else str(value) if isinstance(value, int) else f"{value:.3f}"


if __name__ == "__main__":
    main()
