"""What the command line does with images: distil by a recipe, sample, evaluate."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pidlearn import recipes
from pidlearn.cli.cost import plan
from pidlearn.distillation import drive
from pidlearn.equations.grids import karras_grid
from pidlearn.equations.problem import Problem, problem_of
from pidlearn.evaluation import metrics
from pidlearn.evaluation.images import as_files_hold, comparison, image_grid, save_png
from pidlearn.evaluation.inception import Inception
from pidlearn.result import Result
from pidlearn.run import Run
from pidlearn.students import files
from pidlearn.students.official_pid import load_official_student
from pidlearn.students.trajectory import Student
from pidlearn.teachers import load_teacher, save_teacher
from pidlearn.training import loggers
from pidlearn.training.distributed import Team, assembled
from pidlearn.training.loop import Step
from pidlearn.utils.files import write_atomically
from pidlearn.utils.validation import check_labels

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

    The folder gets ``checkpoints/``, ``log.jsonl``, ``student.safetensors``, for each further rate of ``ema`` a
    ``student-RATE.safetensors``, and ``samples.png``, images of teacher and student from the same noise; for a teacher
    that the recipe trains also ``teacher-checkpoints/``, ``teacher.safetensors`` and ``teacher.json``, how it was
    trained. Bars are shown where stderr is a terminal.

    Args:
        recipe: a name, or a TOML file.
        teacher: a file or published name in place of the recipe's.
        out: the folder, ``runs/`` and the recipe's name if not given.
        choices: fields of `Config` in place of the recipe's.
        device: where to train; a GPU if there is one.
        dry_run: tell the plan and stop; nothing is trained or written.
        max_time: seconds, as in `pidlearn.distill` like the next three; a teacher's training counts too.
        max_images: samples.
        save_every: steps between two checkpoints.
        reference: samples whose error is followed.
        trackers: further places that figures go to, of `loggers.TRACKERS`.

    Returns:
        The result; None after a dry run.

    Raises:
        ValueError: a recipe or choices that cannot work, and a folder that holds another run or is in use.
        FileNotFoundError: a teacher that is not at hand.
        OSError: a file that cannot be written. Of a checkpoint that cannot, the result's ``stopped`` tells.
        ImportError: a tracker that is not installed.
        UnfinishedError: a teacher's training that was stopped; the same call goes on with it.
    """
    started = time.monotonic()
    for kind in trackers:
        loggers.check(kind)
    chosen = recipes.read(recipe)
    if teacher is not None:
        chosen = replace(chosen, teacher=teacher)
    folder, team = Path(out or Path("runs", chosen.name)), assembled()
    if not dry_run:
        folder.mkdir(parents=True, exist_ok=True)  # or the first to say that it cannot be is a trained teacher
    limits: dict[str, Any] = {"save_every": save_every, "max_time": max_time, "since": started}
    found = _teacher(chosen, folder, team, team.device or device_of(device), dry_run, limits)
    run = Run(found, None, chosen.config, choices or {}, None, None)
    run.resume(folder / "checkpoints")
    _tell(run, "" if dry_run else f"\nfigures of every step: {folder / 'log.jsonl'}")
    if dry_run:
        return None
    callbacks: list[Callable[..., None]] = []
    if team.rank == 0:
        error = partial(_error, run)
        callbacks += [loggers.jsonl(folder / "log.jsonl", further=error)]
        callbacks += [loggers.tracker(kind, chosen.name, folder, vars(run.config), further=error) for kind in trackers]
    result = drive(
        run,
        progress=sys.stderr.isatty(),
        checkpoints=folder / "checkpoints",
        max_images=max_images,
        reference=reference,
        callbacks=callbacks,
        **limits,
    )
    if team.rank == 0:
        with _advice(folder / "checkpoints"):
            result.save(folder / "student.safetensors")
            for rate in run.config.ema[1:]:
                replace(result, student=result.averages[rate]).save(folder / f"student-{rate}.safetensors")
            save_png(side_by_side(result.student, run.problem, run.config.grid()), folder / "samples.png")
        print(f"{result.stopped or 'done'}: {folder / 'student.safetensors'}", file=sys.stderr)
    return result


@contextmanager
def _advice(checkpoints: Path) -> Iterator[None]:
    """What is left and what to do, added to the message of a file that cannot be written."""
    try:
        yield
    except OSError as error:
        raise OSError(f"{error}; once it can be written the same command goes on from {checkpoints}") from error


def _error(run: Run, step: Step) -> dict[str, float]:
    """The error that a ``reference`` follows, where it was measured at this step."""
    number, error = run.errors[-1] if run.errors else (0, 0.0)
    return {"error": error} if number == step.number else {}


def device_of(name: str | None) -> torch.device:
    """The device of that name, or a GPU if there is one.

    Raises:
        ValueError: for one that is not here.
    """
    try:
        return torch.empty(0, device=name or ("cuda" if torch.cuda.is_available() else "cpu")).device
    except (RuntimeError, AssertionError) as error:  # of torch without CUDA
        reason = str(error).partition("\n")[0][:150]
        raise ValueError(f"there is no device {name!r} here: {reason}") from error


def _teacher(
    recipe: recipes.Recipe, folder: Path, team: Team, device: torch.device, dry_run: bool, limits: dict[str, Any]
) -> nn.Module:
    """The recipe's teacher; one that is trained is kept in the folder, and taken from there the next time.

    What a dry run measures does not depend on its weights.
    """
    table = recipe.teacher
    if isinstance(table, str):
        return recipes.teacher_of(recipe, device)
    file, kept = folder / "teacher.safetensors", folder / "teacher.json"
    if file.exists() and kept.exists() and _read(kept) != table:
        raise ValueError(f"{file} was trained as {kept} says, and the recipe says otherwise: take another folder")
    trained = team.any(team.rank == 0 and file.exists())
    if dry_run and not trained:
        brief = {**table, "training": {**table.get("training", {}), "steps": 1}}
        return recipes.teacher_of(replace(recipe, teacher=brief), device, progress=False)
    if not trained:
        found = recipes.teacher_of(
            recipe, device, progress=sys.stderr.isatty(), checkpoints=folder / "teacher-checkpoints", **limits
        )
        if team.rank == 0:
            with _advice(folder / "teacher-checkpoints"):
                write_atomically(kept, json.dumps(table, indent=1).encode())
                save_teacher(found, file)
        team.wait()
    return load_teacher(file).to(device)


def _read(told: Path) -> Any:
    try:
        return json.loads(told.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{told}, how the teacher beside it was trained, is damaged ({error}): remove both") from error


def _tell(run: Run, where: str) -> None:
    """The plan of what is left to do, and where its figures will be, to stderr."""
    try:
        told = f"{plan(run)}{where}" if run.trainer.number < run.config.steps else "nothing is left to do"
    except torch.cuda.OutOfMemoryError as error:
        raise ValueError(f"a step does not fit into memory: take a smaller micro_batch ({error})") from error
    if run.team.rank == 0:
        print(told, file=sys.stderr)


def read_student(path: str | Path, teacher: nn.Module | None = None) -> Student:
    """A student of ours, or of the official PID repository; of another make's, with its teacher."""
    with Path(path).open("rb") as file:
        archive = file.read(2) == b"PK"
    found = load_official_student(path) if archive else files.read(path, teacher=teacher)[0]
    if not isinstance(found, Student):
        raise ValueError(f"{path} holds a {type(found).__name__}, which cannot be sampled from")
    return found


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
        out: the PNG file to write.
        n: how many.
        seed: of the noise, and of labels that are not given.
        label: one class for all.
        teacher: as `load_teacher` takes it.
        device: a GPU if there is one.

    Raises:
        ValueError: files that are none, a name that is no PNG's, a label that the student does not know, or a teacher
            of other images.
    """
    if Path(out).suffix.lower() != ".png":
        raise ValueError(f"the images are written as PNG: expected a name that ends in .png, got {out}")
    where = device_of(device)
    theirs = load_teacher(teacher).to(where) if teacher else None
    found = read_student(student, theirs).to(where)
    if label is not None and not found.label_dim:
        raise ValueError("the student knows no classes: leave label out")
    labels = None if label is None else torch.full((n,), label)
    check_labels(labels, n, found.label_dim)
    if theirs is not None:
        problem = _problem(found, theirs)
        return save_png(side_by_side(found, problem, None, n, seed, labels), Path(out))
    return save_png(image_grid(found.sample(n, labels, torch.Generator().manual_seed(seed))), Path(out))


def _problem(student: Student, teacher: nn.Module) -> Problem:
    """What the student was trained to solve, as far as it tells: over its own span, with that teacher."""
    problem = problem_of(teacher, student.t_max, student.t_min)
    one, two = [(x.event_shape, x.label_dim) for x in (student, problem)]
    if one != two:
        told = [f"images {shape} of {classes} classes" for shape, classes in (one, two)]
        raise ValueError(f"the student makes {told[0]}, the teacher {told[1]}: it is not the student's")
    return problem


@torch.no_grad()
def side_by_side(
    student: nn.Module,
    problem: Problem,
    grid: Tensor | None,
    n: int = SHOWN,
    seed: int = 0,
    labels: Tensor | None = None,
) -> np.ndarray:
    """Teacher's and student's images from the same noise, under one another, as `comparison` draws them."""
    generator = torch.Generator().manual_seed(seed)
    z = problem.draw(n, generator)
    labels = problem.draw_labels(n, generator) if labels is None else labels.to(problem.device)
    grid = karras_grid(250, problem.t_end, problem.t_start) if grid is None else grid
    rows = {
        f"teacher, {len(grid) - 1} calls": problem.reference_ends(z, grid, labels),
        "student, 1 call": problem.student_ends(student, z, labels),
    }
    return comparison(rows)


@torch.no_grad()
def evaluate(
    student: str | Path,
    *,
    teacher: str | None = None,
    n: int = 1000,
    seed: int = 0,
    fid: str | Path | None = None,
    inception: str | Path | None = None,
    real: str | None = None,
    device: str | None = None,
) -> dict[str, Any]:
    """Figures of a student on n samples, each named with n and the seed.

    With a teacher: ``relative_rmse`` to its Euler-250 from the same noise. With a reference: ``fid``. With real images:
    Fréchet distance, precision and recall to as many of them, on the features of Inception if its weights or a
    reference are given, else on pixels. All but the first are of images as bytes, as files would hold them.

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
        FileNotFoundError: files that are missing, before anything is computed.
        ValueError: files that are others, samples too few for a figure, or nothing to measure, as early.
    """
    if not (teacher or fid or real):
        raise ValueError("there is nothing to compare with: give a teacher, a reference for the FID, or real images")
    if inception and not (fid or real):
        raise ValueError("Inception's features are of no use without a reference for the FID or real images")
    if teacher and n < 2:
        raise ValueError("a relative error takes 2 samples or more: give -n")
    where = device_of(device)
    theirs = load_teacher(teacher).to(where) if teacher else None
    found = read_student(student, theirs).to(where)
    problem = _problem(found, theirs) if theirs is not None else None
    shape = found.sample(1).shape[1:]
    reference = metrics.read_statistics(fid) if fid else None
    images = _real(real, shape, n).to(where) if real else None
    features = Inception(inception) if fid or inception else as_files_hold

    def featured(images: Tensor) -> Tensor:
        return torch.cat([features(part).flatten(1) for part in images.split(AT_ONCE)])

    if fid or real:
        k = featured(torch.zeros(1, *shape, device=where)).shape[1]
        if reference and len(reference.mean) != k:
            raise ValueError(f"{fid} is of {len(reference.mean)} features, and Inception has {k}")
        for side, samples in {"-n": n, real: n if images is None else len(images)}.items():
            if samples <= k:
                raise ValueError(f"{samples} samples ({side}) are too few for a Fréchet distance of {k} features")
    ours = found.sample(n, generator=torch.Generator().manual_seed(seed))
    figures: dict[str, Any] = {"n": n, "seed": seed}
    if problem:
        few = min(n, 1000)
        figures[f"relative_rmse (n = {few})"] = metrics.relative_rmse(ours[:few], _theirs(problem, n, seed, few))
    if reference:
        parts = featured(ours).split(AT_ONCE)
        figures[f"fid (n = {n})"] = metrics.frechet_distance(metrics.statistics(parts), reference)
    if images is not None:
        kind = "pixels" if features is as_files_hold else "Inception"
        told = f"({kind}, n = {n}, {len(images)} real)"
        sides = featured(ours), featured(images)
        figures[f"frechet {told}"] = metrics.frechet_distance(*sides)
        figures[f"precision {told}"], figures[f"recall {told}"] = metrics.precision_recall(*sides)
    return figures


def _real(name: str, shape: torch.Size, n: int) -> Tensor:
    """Up to n real images in that shape."""
    images = recipes.images_of({"data": name, "resolution": shape[-1]})[0][:n]
    if images.shape[1:] != shape:
        raise ValueError(f"{name} are images {tuple(images.shape[1:])}, the student's {tuple(shape)}")
    return images


def _theirs(problem: Problem, n: int, seed: int, few: int) -> Tensor:
    """The teacher's images from the noise of the first few of a student's n samples."""
    generator = torch.Generator().manual_seed(seed)
    z, labels = problem.draw(n, generator), problem.draw_labels(n, generator)
    grid = karras_grid(250, problem.t_end, problem.t_start)
    return problem.reference_ends(z[:few], grid, None if labels is None else labels[:few])


def told(figures: dict[str, Any]) -> str:
    """Figures as JSON, for a person and for a program."""
    return json.dumps({key: round(value, 6) if isinstance(value, float) else value for key, value in figures.items()})
