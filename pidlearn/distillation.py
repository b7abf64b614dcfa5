"""Distillation: a teacher's ODE in, a student that solves it in one call out.

`steps` is the loop, yours to drive. `distill` drives it for you, with a progress bar, checkpoints and callbacks, and
returns what it has, whatever stops it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from pidlearn.config import Config
from pidlearn.equations.problem import Prior
from pidlearn.result import Result
from pidlearn.run import Run
from pidlearn.training.checkpoints import claimed
from pidlearn.training.driver import Callback, until_stopped
from pidlearn.training.loop import DivergedError

__all__ = ["distill", "drive", "steps"]


def distill(
    teacher: Any,
    student: nn.Module | None = None,
    *,
    config: Config | None = None,
    prior: Prior | None = None,
    t_start: float | None = None,
    t_end: float | None = None,
    event_shape: Sequence[int] | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    progress: bool = True,
    reference: int = 0,
    checkpoints: str | Path | None = None,
    save_every: int = 500,
    max_time: float | None = None,
    max_images: int | None = None,
    callbacks: Sequence[Callback] = (),
    **overrides: Any,
) -> Result:
    """Train a student that jumps along the teacher's ODE in one call.

    Args:
        teacher: a toy density, any denoiser ``D(x, sigma, class_labels=None)``, a `DenoiserODE`, or any other ODE. A
            `torch.nn.Module` is put into eval mode; its weights and their ``.grad`` are left alone.
        student: a `Trajectory`; a network F(x, time, class_labels=None) to make one of; or any module
            x(z, t, class_labels=None) with ``t_max``, which gets t as (B,) float64. It is trained in place, from the
            weights that it has, on the teacher's device; where the teacher is a formula or a function, on its own. Left
            out, one that fits is built: for a convolutional teacher a copy of its network.
        config: choices in place of those of the recipe for such a teacher.
        prior: for an ODE: ``prior(n, generator=None) -> (n, *event)``, the values at ``t_start``.
        t_start: where paths start; for a diffusion another name of ``t_max``.
        t_end: where they end; for a diffusion another name of ``t_min``.
        event_shape: shape of one sample, where the teacher does not say.
        steps: as in ``config``, like the next two.
        batch_size: samples a step.
        seed: of everything random.
        progress: show a bar.
        reference: if positive, follow the error of so many samples to the teacher's own solver.
        checkpoints: a folder. The run is saved there, and continued from there bit for bit if it was stopped, with
            torch's own random numbers where they were: on a GPU as far as its kernels repeat themselves, and from one
            kind of device to another with other batches. No other run may use the folder at the same time.
        save_every: steps between two checkpoints.
        max_time: seconds after which the run is stopped.
        max_images: samples after which it is stopped.
        callbacks: functions of a `Step`, called after each; one that returns True stops the run.
        **overrides: further fields of `Config`.

    Returns:
        A `Result`; its ``stopped`` says why if not all steps were done: a limit, a callback, an interrupt, SIGTERM, a
        checkpoint that could not be written, or a loss that became NaN, in which case the student holds the last good
        weights. Started by ``torchrun`` or ``accelerate launch``, all processes return the same.

    Raises:
        ValueError: a teacher, student, prior or choice that cannot work, or a folder that another process uses, before
            anything is trained.
        OSError: a folder that cannot be written, as early.
    """
    short = {"steps": steps, "batch_size": batch_size, "seed": seed, "t_max": t_start, "t_min": t_end}
    chosen = {**{name: value for name, value in short.items() if value is not None}, **overrides}
    run = Run(teacher, student, config, chosen, prior, event_shape)
    return drive(
        run,
        progress=progress,
        reference=reference,
        checkpoints=checkpoints,
        save_every=save_every,
        max_time=max_time,
        max_images=max_images,
        callbacks=callbacks,
    )


def drive(
    run: Run,
    *,
    progress: bool = True,
    reference: int = 0,
    checkpoints: str | Path | None = None,
    save_every: int = 500,
    max_time: float | None = None,
    since: float | None = None,
    max_images: int | None = None,
    callbacks: Sequence[Callback] = (),
) -> Result:
    """The loop of `distill`, of a run that `steps` returned; arguments as there and of `until_stopped`."""
    with claimed(checkpoints, run.team.rank == 0):
        if checkpoints is not None:
            run.resume(checkpoints)
        try:
            stopped = until_stopped(
                run,
                "student",
                progress=progress,
                checkpoints=checkpoints,
                save_every=save_every,
                max_time=max_time,
                since=since,
                max_images=max_images,
                callbacks=callbacks,
                follow=run.follow(reference) if reference > 0 else None,
            )
        except DivergedError as error:
            stopped = str(error)
            warnings.warn(stopped, RuntimeWarning, stacklevel=3)
    return run.result(stopped)


def steps(
    teacher: Any,
    student: nn.Module | None = None,
    config: Config | None = None,
    *,
    prior: Prior | None = None,
    t_start: float | None = None,
    t_end: float | None = None,
    event_shape: Sequence[int] | None = None,
    **overrides: Any,
) -> Run:
    """The loop of `distill` alone: an iterator that trains the student in place and yields a `Step` after each update.

    Arguments as in `distill`. The `Run` that is returned knows its ``config``, ``problem`` and ``student`` before the
    first step, and gives a `Result` at any time: ``run.result()``.

    Raises:
        ValueError: at once, as `distill`; and from the loop, as `DivergedError`, when the loss becomes NaN: the
            student then holds its last good weights.
    """
    span = {name: value for name, value in {"t_max": t_start, "t_min": t_end}.items() if value is not None}
    return Run(teacher, student, config, {**span, **overrides}, prior, event_shape)
