"""What the command line does with images: distil by a recipe, sample, evaluate."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pidlearn import logs, metrics, recipes
from pidlearn.distillation import drive
from pidlearn.errors import check_labels
from pidlearn.features import Inception
from pidlearn.grid import karras_grid
from pidlearn.images import comparison, image_grid, save_png
from pidlearn.plan import plan
from pidlearn.problem import Problem, problem_of
from pidlearn.result import Result, load
from pidlearn.run import Run
from pidlearn.teachers import load_official_student, load_teacher, save_teacher

__all__ = ["distill", "evaluate", "read_student", "sample"]

SHOWN, AT_ONCE = 16, 250
"""Images of a grid, and samples in memory at a time."""


def distill(
    recipe: str,
    *,
    teacher: str | None = None,
    out: str | Path | None = None,
    choices: dict[str, Any] | None = None,
    device: str | None = None,
    dry_run: bool = False,
    max_time: float | None = None,
    max_images: int | None = None,
    save_every: int = 500,
    reference: int = 0,
    trackers: Sequence[str] = (),
) -> Result | None:
    """Distil as a recipe says, into a folder; what is there of an earlier run is continued.

    The folder gets ``teacher.safetensors`` where the recipe trains one, ``checkpoints/``, ``log.jsonl``,
    ``student.safetensors`` and ``samples.png``: teacher's and student's images from the same noise.

    Args:
        recipe: a name, or a TOML file.
        teacher: a file or published name in place of the recipe's.
        out: the folder, ``runs/`` and the recipe's name if not given.
        choices: fields of `Config` in place of the recipe's.
        device: where to train; a GPU if there is one.
        dry_run: tell the plan and stop.
        max_time: seconds, as in `pidlearn.distill`, like the next three.
        max_images: samples.
        save_every: steps between two checkpoints.
        reference: samples whose error is followed.
        trackers: further places that figures go to, of `logs.TRACKERS`.

    Returns:
        The result; None after a dry run.
    """
    chosen = recipes.read(recipe)
    if teacher is not None:
        chosen = replace(chosen, teacher=teacher)
    folder = Path(out or Path("runs", chosen.name))
    found = _teacher(chosen, folder).to(device or best_device())
    run = Run(found, None, chosen.config, choices or {}, None, None)
    first = run.team.rank == 0
    told = plan(run)
    if first:
        print(told, file=sys.stderr)
    if dry_run:
        return None
    callbacks: list[Callable[..., None]] = [logs.jsonl(folder / "log.jsonl")] if first else []
    if first:
        callbacks += [logs.tracker(kind, chosen.name, folder, vars(run.config)) for kind in trackers]
    result = drive(
        run,
        checkpoints=folder / "checkpoints",
        save_every=save_every,
        max_time=max_time,
        max_images=max_images,
        reference=reference,
        callbacks=callbacks,
    )
    if first:
        result.save(folder / "student.safetensors")
        save_png(side_by_side(result.student, run.problem, run.config.grid()), folder / "samples.png")
        print(f"{result.stopped or 'done'}: {folder / 'student.safetensors'}", file=sys.stderr)
    return result


def best_device() -> str:
    """A GPU if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def _teacher(recipe: recipes.Recipe, folder: Path) -> nn.Module:
    """The recipe's teacher; one that is trained is kept in the folder, and taken from there the next time."""
    file = folder / "teacher.safetensors"
    if isinstance(recipe.teacher, str):
        return recipes.teacher_of(recipe)
    if not file.exists():
        save_teacher(recipes.teacher_of(recipe), file)
    return load_teacher(file)


def read_student(path: str | Path) -> nn.Module:
    """A student of ours, or of the official PID repository."""
    with Path(path).open("rb") as file:
        archive = file.read(2) == b"PK"
    return load_official_student(path) if archive else load(path).student


@torch.no_grad()
def sample(
    student: str | Path,
    out: str | Path,
    *,
    n: int = 64,
    seed: int = 0,
    label: int | None = None,
    teacher: str | None = None,
    device: str | None = None,
) -> Path:
    """Images of a student in one call each, as a grid; beside its teacher's Euler-250 from the same noise, if given.

    Args:
        student: a file of `Result.save`, or of the official PID repository.
        out: a PNG file.
        n: how many.
        seed: of the noise, and of labels that are not given.
        label: one class for all.
        teacher: as `load_teacher` takes it.
        device: a GPU if there is one.

    Raises:
        ValueError: files that are none, or a label that the student does not know.
    """
    found = read_student(student).to(device or best_device())
    generator = torch.Generator().manual_seed(seed)
    if teacher is not None:
        problem = problem_of(load_teacher(teacher).to(device or best_device()))
        return save_png(side_by_side(found, problem, None, n, seed, label), Path(out))
    label_dim: int = found.label_dim  # type: ignore[assignment]  # of a Student
    labels = None if label is None else torch.full((n,), label)
    if label is not None and not label_dim:
        raise ValueError("the student knows no classes: leave label out")
    check_labels(labels, n, label_dim)
    images: Tensor = found.sample(n, labels, generator)  # type: ignore[operator]  # of a Student
    return save_png(image_grid(images), Path(out))


@torch.no_grad()
def side_by_side(
    student: nn.Module,
    problem: Problem,
    grid: Tensor | None,
    n: int = SHOWN,
    seed: int = 0,
    label: int | None = None,
) -> Any:
    """Teacher's and student's images from the same noise, under one another, as `comparison` draws them."""
    generator = torch.Generator().manual_seed(seed)
    z, labels = problem.draw(n, generator), problem.draw_labels(n, generator)
    if label is not None:
        labels = torch.full((n,), label, device=problem.device)
        check_labels(labels, n, problem.label_dim)
    grid = karras_grid(250, problem.t_end, problem.t_start) if grid is None else grid
    rows = {
        f"teacher, {len(grid) - 1} calls": problem.reference_ends(z, grid, labels),
        "student, 1 call": problem.student_ends(student, z, labels),
    }
    return comparison(rows)


@torch.no_grad()
def evaluate(
    student: str | Path,
    teacher: str,
    *,
    n: int = 1000,
    seed: int = 0,
    fid: str | Path | None = None,
    inception: str | Path | None = None,
    real: str | None = None,
    device: str | None = None,
) -> dict[str, Any]:
    """Figures of a student on n samples, each named with n and the seed.

    Always: ``relative_rmse`` to the teacher's Euler-250 from the same noise. With a reference: ``fid`` of the student's
    samples as bytes. With real images: Fréchet distance, precision and recall to as many of them, on the features of
    Inception if its weights are given, else on pixels.

    Args:
        student: as in `sample`.
        teacher: as in `sample`.
        n: samples; published FIDs take 50,000.
        seed: of the noise.
        fid: an ``.npz`` of ``mu`` and ``sigma``, such as EDM's references.
        inception: the weights of Inception, looked for in torch's cache if not given.
        real: data to compare with, "digits" or "fashion-mnist".
        device: a GPU if there is one.

    Raises:
        ValueError: files that are missing or others, before anything is computed.
    """
    where = device or best_device()
    found, problem = read_student(student).to(where), problem_of(load_teacher(teacher).to(where))
    features = Inception(inception) if fid or inception else None
    reference = metrics.read_statistics(fid) if fid else None
    generator = torch.Generator().manual_seed(seed)
    z, labels = problem.draw(n, generator), problem.draw_labels(n, generator)
    ours = problem.student_ends(found, z, labels)
    few = min(n, 1000)
    some = None if labels is None else labels[:few]
    theirs = problem.reference_ends(z[:few], karras_grid(250, problem.t_end, problem.t_start), some)
    figures: dict[str, Any] = {
        "n": n,
        "seed": seed,
        f"relative_rmse (n = {few})": metrics.relative_rmse(ours[:few], theirs),
    }
    if reference is not None:
        figures[f"fid (n = {n})"] = metrics.frechet_distance(metrics.statistics(_parts(ours), features), reference)
    if real is not None:
        images = recipes.images_of({"data": real, "resolution": problem.event_shape[-1]})[0][:n]
        kind = "Inception" if features else "pixels"
        told = f"({kind}, n = {len(ours)}, {len(images)} real)"
        figures[f"frechet {told}"] = metrics.frechet_distance(ours.cpu(), images, features)
        precision, recall = metrics.precision_recall(ours.cpu(), images, features)
        figures |= {f"precision {told}": precision, f"recall {told}": recall}
    return figures


def _parts(images: Tensor) -> Iterator[Tensor]:
    yield from images.split(AT_ONCE)


def told(figures: dict[str, Any]) -> str:
    """Figures as JSON, for a person and for a program."""
    return json.dumps({key: round(value, 6) if isinstance(value, float) else value for key, value in figures.items()})
