"""Distillation: a teacher's ODE in, a student that solves it in one call out.

`steps` is the bare loop, for the user to drive. `distill` drives it, with a progress bar, checkpoints and callbacks,
and returns what has been learned, whatever stops it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pidlearn.config import NEW_NAMES, Config, with_overrides
from pidlearn.equations.problem import Prior
from pidlearn.methods import Method
from pidlearn.result import Result
from pidlearn.run import Run
from pidlearn.training.driver import Callback, drive
from pidlearn.training.stopping import StopReason
from pidlearn.utils.deprecation import rename_arguments

__all__ = ["distill", "steps"]


def distill(
    teacher: Any,
    student: nn.Module | None = None,
    *,
    method: str | Method | None = None,
    config: Config | None = None,
    data: Any = None,
    prior: Prior | None = None,
    t_start: float | None = None,
    t_end: float | None = None,
    event_shape: Sequence[int] | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    progress: bool = True,
    track_error: int = 0,
    checkpoints: str | Path | None = None,
    save_every: int = 500,
    max_time: float | None = None,
    max_images: int | None = None,
    callbacks: Sequence[Callback] = (),
    **overrides: Any,
) -> Result:
    """Train a student that solves the teacher's ODE in one call.

    Args:
        teacher: an exact density, any denoiser ``D(x, sigma, class_labels=None)``, a `DenoiserODE`, or any other ODE. A
            `torch.nn.Module` is put into eval mode; its weights and their ``.grad`` are not changed.
        student: of the kind that the method trains, or a network F(x, time, class_labels=None) to make one of. pid,
            endpoint, boot and freeflow train a `Trajectory`, the first two also any module x(z, t, class_labels=None)
            with ``t_max``, called with t (B,) float64; cd, ct and scm a `ConsistencyFunction`; flow_map and reflow a
            `FlowMap`, whose network takes end_time for flow_map; pd a `ProgressiveStudent`; dsno a `NeuralOperator`,
            whose network takes M times. It is trained in place, from its current weights, on the teacher's device; if
            the teacher has no weights, it stays where it is. Of a bare network pd trains one copy per stage, and leaves
            the network itself as it is. By default one is built: for a convolutional teacher a copy of its network.
        method: name of a method in `pidlearn.methods.METHODS` ("pid" by default), or a `pidlearn.methods.Method`.
        config: settings; unset fields take values that suit the kind of problem (`pidlearn.methods.pid.recipes`). A
            ``result.config`` has none: with another method pass ``n=None``, ``lr=None``, ... for values that suit that.
        data: for methods that need real data: a tensor x (M, *event), a pair (x, class_labels (M,) int64), a map-style
            data set of such items, or a function ``(n, generator=None)`` that returns x or the pair for n samples. By
            default an exact teacher's own samples.
        prior: for an ODE: ``prior(n, generator=None) -> (n, *event)``, the values at ``t_start``.
        t_start: start of the paths; for a diffusion another name of ``t_max``.
        t_end: end of the paths; for a diffusion another name of ``t_min``.
        event_shape: shape of one sample, if the teacher has no such attribute.
        steps: optimiser steps; this and the next two replace the fields of ``config``.
        batch_size: samples per step.
        seed: seed of all random numbers.
        progress: show a progress bar.
        track_error: number of samples used to track the error to the reference solution during training (Euler's on the
            training grid, or SciPy's), with the first of the averaged weights where there are some; 0 for none.
        checkpoints: folder in which the run is saved, and from which it is resumed bit for bit if it was stopped (on a
            GPU as far as its kernels are deterministic). A run that is resumed on another kind of device draws other
            batches. No other run may use the folder at the same time.
        save_every: steps between two checkpoints.
        max_time: seconds of this call after which the run is stopped.
        max_images: samples after which it is stopped, those before a resumption included.
        callbacks: functions of a `Step`, called after each; one that returns True stops the run.
        **overrides: further fields of `Config`, and settings that the method alone has.

    Returns:
        A `Result`. If not all steps were done, ``stopped`` says why: a limit, a callback, an interrupt, SIGTERM, a
        checkpoint that could not be written, or a loss that became NaN, in which case the student has the last good
        weights. Started by ``torchrun`` or ``accelerate launch``, all processes return the same.

    Raises:
        ValueError: a teacher, student, prior or setting that cannot work, or a folder that another run uses, before
            anything is trained.
        OSError: a folder that cannot be written, also before.
    """
    overrides = rename_arguments(overrides, {**NEW_NAMES, "reference": "track_error"})
    if "track_error" in overrides and track_error:
        raise TypeError("got both track_error= and reference=, its old name: pass track_error= alone")
    track_error = overrides.pop("track_error", track_error)
    named = {"method": method, "t_max": t_start, "t_min": t_end, "steps": steps, "batch_size": batch_size, "seed": seed}
    run = Run(teacher, student, _configured(config, named, overrides), prior, event_shape, data)
    if run.problem.device.type == "cpu" and not run.problem.is_low_dimensional and torch.cuda.is_available():
        warnings.warn('the teacher, and so training, is on the CPU: for the GPU pass teacher.to("cuda")', stacklevel=2)
    stop = drive(
        run,
        "student",
        progress=progress,
        checkpoints=checkpoints,
        save_every=save_every,
        max_time=max_time,
        max_images=max_images,
        trackers=run.track_error(track_error),
        callbacks=callbacks,
    )
    if stop and stop.reason is StopReason.DIVERGED:
        warnings.warn(stop.message, RuntimeWarning, stacklevel=2)
    return run.result(stop)


def steps(
    teacher: Any,
    student: nn.Module | None = None,
    config: Config | None = None,
    *,
    method: str | Method | None = None,
    data: Any = None,
    prior: Prior | None = None,
    t_start: float | None = None,
    t_end: float | None = None,
    event_shape: Sequence[int] | None = None,
    **overrides: Any,
) -> Run:
    """The loop of `distill` alone: an iterator that yields a `Step` per update of ``run.student``.

    Arguments as in `distill`, which says when the student that is passed is itself trained. The returned `Run` has its
    ``config``, ``problem`` and ``student`` before the first step, and gives a `Result` at any time: ``run.result()``.

    Raises:
        ValueError: at once, as `distill`; and from the loop, as `DivergedError`, when the loss becomes NaN: the
            student then has its last good weights.
    """
    overrides = rename_arguments(overrides, NEW_NAMES)
    named = {"method": method, "t_max": t_start, "t_min": t_end}
    return Run(teacher, student, _configured(config, named, overrides), prior, event_shape, data)


def _configured(config: Config | None, named: Mapping[str, Any], overrides: Mapping[str, Any]) -> Config:
    """The configuration, with the named arguments that are not None and the other overrides."""
    given = {name: value for name, value in named.items() if value is not None}
    if twice := [name for name in given.keys() & overrides.keys() if given[name] != overrides[name]]:
        raise ValueError(f"{', '.join(twice)} is given twice: t_start and t_end are other names of t_max and t_min")
    return with_overrides(config, {**given, **overrides})
