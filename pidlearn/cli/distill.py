"""`pidlearn distill`: distill an image teacher as a recipe says, in a folder where the run can be resumed."""

from __future__ import annotations

import argparse
import ast
import json
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pidlearn import recipes
from pidlearn.cli.cost import plan
from pidlearn.cli.main import EXIT_INTERRUPTED, EXIT_TERMINATED, duration, positive_int
from pidlearn.cli.shared import resolve_device, side_by_side
from pidlearn.config import NEW_NAMES, OF_METHODS, Config, with_overrides
from pidlearn.data.files import read_images, sampler_of_bytes
from pidlearn.evaluation.images import save_png
from pidlearn.methods import METHODS, method_of
from pidlearn.recipes.reading import tomllib
from pidlearn.result import Result
from pidlearn.run import Run
from pidlearn.teachers import load_teacher, save_teacher
from pidlearn.teachers.adapters.base import AdaptedDenoiser
from pidlearn.training import loggers
from pidlearn.training.distributed import Processes, current_processes
from pidlearn.training.driver import Callback, drive
from pidlearn.training.stopping import StopReason
from pidlearn.utils.arguments import check_argument, size
from pidlearn.utils.deprecation import rename_arguments
from pidlearn.utils.files import write_atomically

__all__ = ["add_arguments", "distill", "parse_settings", "run"]

EXIT_STATUS = {
    StopReason.TERMINATED: EXIT_TERMINATED,
    StopReason.INTERRUPTED: EXIT_INTERRUPTED,
    StopReason.UNSAVED: 1,
    StopReason.DIVERGED: 1,
}
"""Statuses of runs that a signal or an error stopped. A limit ends with status 0."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``pidlearn distill``."""
    several: dict[str, Any] = {"nargs": "+", "action": "extend", "default": []}
    add = parser.add_argument
    add("recipe", nargs="?", help="name of a recipe, or a TOML file")
    add("--list", action="store_true", help="list the recipes and exit")
    add("--teacher", help="a file or a published name, in place of the recipe's teacher")
    add(
        "--data",
        help="images for a method that needs them, of the teacher's size: a folder or .zip, with labels in a "
        "dataset.json as EDM's tools write it; an .npz of images and labels; or cifar-10-batches-bin",
    )
    names = ", ".join(sorted(METHODS))
    add("--method", choices=METHODS, metavar="NAME", help=f"{names} (default: the recipe's, which is pid)")
    add("--out", help="folder of the run (default: runs/RECIPE); a run that is already there is resumed")
    add(
        "--set",
        metavar="NAME=VALUE",
        help="settings, in TOML syntax; None resets one",
        **several,
    )
    add("--dry-run", action="store_true", help="time a few steps, print the plan and exit; nothing is kept")
    add("--max-time", type=duration, metavar="TIME", help="stop this call after: 90 (seconds), 30m, 12h, 2d")
    add("--max-images", type=positive_int, metavar="N", help="stop after training on this many samples")
    add("--save-every", type=positive_int, default=500, metavar="N", help="steps between checkpoints (default: 500)")
    add(
        "--track-error",
        type=positive_int,
        default=0,
        metavar="N",
        help="number of samples used to track the error to the teacher's solution during training",
    )
    add("--reference", type=positive_int, help=argparse.SUPPRESS)  # the name of --track-error in version 0.1
    trackers = " and ".join(loggers.TRACKERS)
    add("--track", choices=loggers.TRACKERS, metavar="NAME", help=f"also send the metrics to {trackers}", **several)
    add("--device", help="cpu, cuda, ... (default: a GPU if there is one)")


def run(arguments: argparse.Namespace) -> int:
    """Distill as a recipe says, or list the recipes."""
    if arguments.list:
        for name, title in recipes.names().items():
            print(f"{name:24} {title}")
        return 0
    settings = parse_settings(arguments.set)
    if arguments.method is not None:
        settings["method"] = arguments.method
    if arguments.recipe is None:
        raise ValueError("the recipe is missing: expected a .toml file, or a name that --list shows")
    if arguments.reference:
        # A FutureWarning, because Python hides a DeprecationWarning from the users of a command.
        warnings.warn("--reference is deprecated: use --track-error", FutureWarning, stacklevel=2)
        arguments.track_error = arguments.reference
    names = ("teacher", "data", "out", "device", "dry_run", "max_time", "max_images", "save_every", "track_error")
    options = {name: getattr(arguments, name) for name in names}
    try:
        result = distill(arguments.recipe, settings=settings, trackers=arguments.track, **options)
    except recipes.UnfinishedError as error:
        print(f"{error}; run the same command again to resume it", file=sys.stderr)
        return EXIT_STATUS.get(error.reason, 0)
    return EXIT_STATUS.get(result.stop_reason, 0) if result and result.stop_reason else 0


def parse_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """Parse NAME=VALUE pairs, with values as in TOML or Python; a word without quotation marks is a string."""
    settings: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"--set got {pair!r}: expected NAME=VALUE, as in lr=1e-4, after the name of the recipe")
        settings[name.strip()] = _parse_value(value)
    return settings


def _parse_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):  # TOMLDecodeError is a ValueError, as is that of a number of 4,301 digits
        pass
    try:
        return ast.literal_eval(text)  # None, which TOML does not have, resets a setting of the recipe
    except (
        ValueError,
        TypeError,
        SyntaxError,
        RecursionError,
        MemoryError,
    ):  # the last two: brackets nested too deeply
        return text


def distill(
    recipe: str,
    *,
    teacher: str | None = None,
    data: str | Path | None = None,
    out: str | Path | None = None,
    settings: dict[str, Any] | None = None,
    device: str | None = None,
    dry_run: bool = False,
    max_time: float | None = None,
    max_images: int | None = None,
    save_every: int = 500,
    track_error: int = 0,
    trackers: Sequence[str] = (),
) -> Result | None:
    """Distill as a recipe says, in a folder; an earlier run in it is resumed.

    The folder gets ``checkpoints/``, ``log.jsonl``, ``student.safetensors`` (``student-RATE.safetensors`` for each
    further rate of ``ema``) and, of images, ``samples.png``; for a teacher that the recipe trains also
    ``teacher-checkpoints/``, ``teacher.safetensors`` and ``teacher.json``.

    Args:
        recipe: a name, or a TOML file.
        teacher: a file or published name, in place of the recipe's.
        data: real images, as for `pidlearn.data.read_images`; by default those that the recipe's teacher is trained on.
        out: the folder, by default ``runs/`` and the recipe's name.
        settings: fields of `Config` or of the method, in place of the recipe's.
        device: by default a GPU if there is one.
        dry_run: print the plan and return None; nothing is kept.
        max_time: as in `pidlearn.distill`, like the next three; the time includes the training of a teacher.
        max_images: stop after this many samples.
        save_every: steps between checkpoints.
        track_error: number of samples.
        trackers: names of `loggers.TRACKERS`.

    Raises:
        ValueError: settings that cannot work, or a folder that holds another run or is in use.
        UnfinishedError: the training of the teacher was stopped; the same call resumes it.
    """
    start = time.monotonic()
    check_argument("track_error", track_error, size(0))  # before a teacher is trained
    for name in trackers:
        loggers.check(name)
    resolved = recipes.read(recipe)
    if teacher is not None:
        resolved = replace(resolved, teacher=teacher)
    config = _configured(resolved.config, rename_arguments(settings or {}, NEW_NAMES))
    folder, processes = Path(out or Path("runs", resolved.name)), current_processes()
    if not dry_run:
        folder.mkdir(parents=True, exist_ok=True)  # if that fails, let it fail before a teacher is trained
    limits: dict[str, Any] = {"save_every": save_every, "max_time": max_time, "since": start}
    where = processes.device or resolve_device(device)
    if not isinstance(resolved.teacher, str) and not dry_run:  # refuse what cannot work before a teacher is trained
        sketch = _load_or_train_teacher(resolved, folder, processes, where, True, limits)
        Run(sketch, None, config, data=_data(data, config, resolved, sketch, dry_run))
    teacher_net = _load_or_train_teacher(resolved, folder, processes, where, dry_run, limits)
    if "init" not in (settings or {}):
        config = _possible_init(config, teacher_net, processes)
    run = Run(teacher_net, None, config, data=_data(data, config, resolved, teacher_net, dry_run))
    run.resume(folder / "checkpoints")
    _print_plan(run, None if dry_run else folder / "log.jsonl")
    if dry_run:
        return None
    stop = drive(
        run,
        "student",
        checkpoints=folder / "checkpoints",
        max_images=max_images,
        trackers=run.track_error(track_error),
        callbacks=_loggers(run, resolved.name, folder, trackers),
        **limits,
    )
    result = run.result(stop)
    _write_results(run, result, folder)
    return result


def _configured(config: Config, settings: dict[str, Any]) -> Config:
    """The recipe's configuration with the user's settings; of another method than its own only what any method uses."""
    method = settings.get("method", config.method)
    if type(method_of(method)) is not type(method_of(config.method)):
        defaults = vars(Config())
        config = replace(config, **{name: defaults[name] for name in ("method", "n", "init", *OF_METHODS)})
    return with_overrides(config, settings)


def _data(path: str | Path | None, config: Config, recipe: recipes.Recipe, teacher: nn.Module, dry_run: bool) -> Any:
    """What a method that needs data gets: the user's files, or what the recipe's teacher is trained on."""
    of_teacher: Any = teacher
    if method_of(config.method).needs != "data":
        if path is not None:
            raise ValueError(f"got --data {path}, but method = {config.method!r} needs no data: leave --data out")
        return None
    if path is not None:
        images, labels = read_images(path)
        _check_images(path, images, labels, tuple(of_teacher.event_shape), getattr(of_teacher, "label_dim", 0))
        return sampler_of_bytes(images, labels)
    if not isinstance(recipe.teacher, str):
        return recipes.training_data(recipe.teacher)
    if dry_run:  # what it measures does not depend on the images
        x = torch.zeros(1, *of_teacher.event_shape)
        return (x, torch.zeros(1, dtype=torch.int64)) if getattr(of_teacher, "label_dim", 0) else x
    raise ValueError(
        f"method = {config.method!r} needs real images, but the recipe {recipe.name} has a teacher without them: pass "
        f"--data, a folder, a .zip or an .npz file"
    )


def _check_images(
    path: str | Path, images: Tensor, labels: Tensor | None, shape: tuple[int, ...], classes: int
) -> None:
    """Raise if images of files are not of the teacher's shape, or lack labels of its classes."""
    if images.shape[1:] != shape:
        raise ValueError(
            f"the images in {path} are {tuple(images.shape[1:])}, but the teacher's are {shape}: resize them"
        )
    if not classes:
        return
    if labels is None:
        raise ValueError(
            f"the images in {path} have no labels, but the teacher has {classes} classes: add a dataset.json as EDM's "
            f"tools write it, or pass an .npz file of images and labels"
        )
    if not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(
            f"the images in {path} have class labels {labels.min()}..{labels.max()}, but the teacher has {classes} "
            f"classes: number them 0..{classes - 1}"
        )


def _possible_init(config: Config, teacher: nn.Module, processes: Processes) -> Config:
    """Replace a recipe's ``init`` where the teacher is a third-party network, which has only one."""
    if config.init in (None, "teacher") or not isinstance(teacher, AdaptedDenoiser):
        return config
    if processes.rank == 0:
        print(
            f'the teacher is a third-party network: the student starts as init="teacher" says, not "{config.init}" as '
            f"in the recipe",
            file=sys.stderr,
        )
    return replace(config, init="teacher")


def _loggers(run: Run, name: str, folder: Path, trackers: Sequence[str]) -> list[Callback]:
    """The callbacks that record each step; the first process has them all."""
    if run.processes.rank:
        return []
    sinks = [loggers.tracker(kind, name, folder, vars(run.config)) for kind in trackers]
    return [loggers.jsonl(folder / "log.jsonl"), *sinks]


def _print_plan(run: Run, log: Path | None) -> None:
    """Print to stderr what is left to do, how long it will take, and where its metrics will be."""
    try:
        text = "all steps are already done"
        if run.trainer.step < run.config.steps:
            text = f"{plan(run)}" + (f"\nmetrics of every step: {log}" if log else "")
    except torch.cuda.OutOfMemoryError as error:
        raise ValueError(f"a step does not fit into GPU memory: set a smaller micro_batch ({error})") from error
    if run.processes.rank == 0:
        print(text, file=sys.stderr)


def _write_results(run: Run, result: Result, folder: Path) -> None:
    """Write the students and images of teacher and student, from the first process."""
    if run.processes.rank:
        return
    with _resume_hint(folder / "checkpoints"):
        result.save(folder / "student.safetensors")
        for rate in run.config.ema[1:]:
            replace(result, student=result.averages[rate]).save(folder / f"student-{rate}.safetensors")
        if len(run.problem.event_shape) == 3:  # a teacher's file may be of points, too
            save_png(side_by_side(result.student, run.problem, run.config.grid()), folder / "samples.png")
    print(f"{result.stopped or 'done'}: {folder / 'student.safetensors'}", file=sys.stderr)


def _load_or_train_teacher(
    recipe: recipes.Recipe,
    folder: Path,
    processes: Processes,
    device: torch.device,
    dry_run: bool,
    limits: dict[str, Any],
) -> nn.Module:
    """Return the recipe's teacher; one that the recipe trains is saved in the folder, and loaded from there next time.

    A dry run trains it for one step only: what it measures does not depend on the weights.
    """
    table = recipe.teacher
    if isinstance(table, str):
        return recipes.teacher_from_recipe(recipe, device)
    weights, description = folder / "teacher.safetensors", folder / "teacher.json"
    if weights.exists() and description.exists() and _read_json(description) != table:
        raise ValueError(
            f"{weights} was trained as in {description}, which differs from the recipe: use another folder"
        )
    is_trained = processes.any(processes.rank == 0 and weights.exists())
    if dry_run and not is_trained:
        short = {**table, "training": {**table.get("training", {}), "steps": 1}}
        return recipes.teacher_from_recipe(replace(recipe, teacher=short), device, progress=False)
    if not is_trained:
        teacher = recipes.teacher_from_recipe(recipe, device, checkpoints=folder / "teacher-checkpoints", **limits)
        if processes.rank == 0:
            with _resume_hint(folder / "teacher-checkpoints"):
                # The description first: weights without one would pass for any recipe's.
                write_atomically(description, json.dumps(table, indent=1).encode())
                save_teacher(teacher, weights)
        processes.barrier()  # the others load the file, so it must be there
    return load_teacher(weights).to(device)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path}, which says how teacher.safetensors was trained, is damaged ({error}): delete both files"
        ) from error


@contextmanager
def _resume_hint(checkpoints: Path) -> Iterator[None]:
    """Add to the error of a file that cannot be written what to do."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"{error}; fix the problem and run the same command again to resume from {checkpoints}"
        ) from error
