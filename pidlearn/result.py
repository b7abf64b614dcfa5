"""The outcome of a distillation: the student, its history, and how good it is."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from pidlearn.config import FUNCTIONS, NEW_NAMES, Config
from pidlearn.equations.diffusion import Diffusion
from pidlearn.equations.from_teacher import problem_from_teacher
from pidlearn.equations.problem import Prior, Problem
from pidlearn.evaluation.evaluate import Evaluation, evaluate
from pidlearn.methods import METHODS, method_of, settings_of
from pidlearn.refinement import WithTeacher, with_teacher
from pidlearn.students import files
from pidlearn.students.base import Student
from pidlearn.students.validate import set_samples
from pidlearn.training.stopping import StopReason
from pidlearn.utils.arguments import (
    BATCH,
    GENERATOR,
    LABELS,
    MODULE,
    PATH,
    SEED,
    check_arguments,
    count,
    number,
    optional,
    size,
)
from pidlearn.utils.validation import check_labels, summary
from pidlearn.utils.wrappers import unwrapped
from pidlearn.viewer import Scene
from pidlearn.viewer.build import scene_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Result", "load"]

WATCH_OPTIONS = ["starts", "class_labels", "seed", "axes", "view", "title"]


@dataclass(frozen=True, repr=False)
class Result:
    """The outcome of `pidlearn.distill`.

    Attributes:
        student: the student in eval mode; with averaged weights if ``config.ema`` has a rate.
        averages: the averaged students by decay rate.
        history: arrays over the steps: loss, lr, seconds; and, with ``track_error``, error at error_step.
        config: all settings.
        problem: what was solved; None for a student loaded without its teacher.
        stopped: None if all steps were done, else why not, as a sentence.
        stop_reason: the same for programs; None also for a student loaded from a file.
        teacher_identity: tensors that identify the teacher of a student loaded without it; empty otherwise.
    """

    student: nn.Module
    averages: dict[float, nn.Module]
    history: dict[str, np.ndarray]
    config: Config
    problem: Problem | None
    stopped: str | None = None
    stop_reason: StopReason | None = None
    teacher_identity: Mapping[str, Tensor] = field(default_factory=dict)

    @check_arguments(z=BATCH, class_labels=LABELS, calls=count(), generator=GENERATOR, refine=number(0, 1))
    def generate(
        self,
        z: Tensor,
        class_labels: Tensor | None = None,
        calls: int = 1,
        generator: torch.Generator | None = None,
        refine: float = 1.0,
    ) -> Tensor:
        """Carry initial values z (B, *event) to samples (B, *event).

        A path student of a diffusion, x(z, t), jumps to a time t* in one call, and its teacher takes the others from
        there, or all, by DPM-Solver++(2M). Where it takes over, and the times of its steps, are fitted to solved paths
        when they are first needed; `save` keeps them. The paths are 32,768 with 250 evaluations of the teacher each, or
        256 of images, and each number of calls takes up to about as many evaluations again. Unless that was measured
        to be better, the student makes the sample alone.

        Args:
            z: (B, *event).
            class_labels: (B,) int64, which a class-conditional student needs.
            calls: calls of networks per sample, at most.
            generator: random numbers, for students that add noise between their calls.
            refine: the share of the batch, rounded down, that gets ``calls`` more calls: the samples whose errors look
                largest, by one more call of the student each. The others have these two. Where it was measured to be
                better, a half to a quarter of that share gets all of them, two to four times as many each.

        Raises:
            ValueError: a student loaded without its teacher, or a number of calls that it cannot make use of, such as
                one with ``refine``.
        """
        student = self._student()
        if refine == 1:
            return student.generate(z, class_labels, calls, generator)
        return self._with_teacher().refined(z, class_labels, calls, refine)

    @check_arguments(n=size(), generator=GENERATOR, calls=count(), refine=number(0, 1))
    def sample(
        self,
        n: int,
        class_labels: Tensor | None = None,
        generator: torch.Generator | None = None,
        calls: int = 1,
        refine: float = 1.0,
    ) -> Tensor:
        """Draw n samples (n, *event): fresh initial values, each carried to the sample end as by `generate`.

        Labels are drawn uniformly if the teacher is class-conditional and none are given.

        Raises:
            ValueError: labels that are not (n,), or a student loaded without its teacher.
        """
        problem = self._problem()
        check_labels(class_labels, n, problem.label_dim)
        labels = problem.sample_labels(n, generator) if class_labels is None else class_labels.to(problem.device)
        return self.generate(problem.sample_prior(n, generator), labels, calls, generator, refine)

    @check_arguments(z=BATCH, class_labels=LABELS, calls=count())
    def error_estimate(self, z: Tensor, class_labels: Tensor | None = None, calls: int = 12) -> Tensor:
        """Estimate how far the sample of each z (B, *event) is from the exact one, (B,) float64, without solving.

        The error is the root mean square over the coordinates, in data units, to the exact solution of the teacher's
        ODE. Nine of ten samples are within twice the estimate, on fresh noise. See `pidlearn.refinement.certificate`.

        Args:
            z: (B, *event).
            class_labels: (B,) int64, which a class-conditional student needs.
            calls: calls of networks per sample that are spent on the estimate, besides the one that makes the sample.

        Raises:
            ValueError: a student loaded without its teacher, or one that is no path x(z, t) of a diffusion.
        """
        return self._with_teacher().error_estimate(z, class_labels, calls)

    @check_arguments(n=size(), seed=SEED, calls=count())
    def evaluate(
        self,
        n: int = 4096,
        seed: int = 1,
        calls: int = 1,
        *,
        integrator: str | None = None,
        rtol: float | None = None,
        atol: float | None = None,
    ) -> Evaluation:
        """Metrics on n fresh starts: a mapping that prints as a table.

        For a diffusion, compared with the teacher's own Euler-N path from the same z, where N is
        ``config.reference_n``: ``rmse``, ``relative_rmse`` (over the standard deviation of the teacher's samples),
        ``wrong_mode`` for a Gaussian mixture; and as a distribution, compared with as many of the teacher's samples
        from other noise: ``energy`` and its ``energy_floor``. With several calls of a student that adds noise between
        them (`ConsistencyFunction`), the last two alone. With several calls of a path student, compared with the exact
        path instead of Euler's.
        For any other ODE, over the whole path compared with an adaptive solver's: ``relative_rmse`` over all
        coordinates together, ``worst_coordinate``, the same for the coordinate in which it is largest, and ``rmse``.

        Args:
            n: number of starts.
            seed: seed of the starts; take another than the run's, with which its first batch began (and all batches of
                an ODE with several windows).
            calls: calls per sample, as in `generate`.
            integrator: for an ODE: the solver of the reference, "dopri5" or one of SciPy's, such as "Radau" for a stiff
                field. By default "dopri5", and "Radau" for a `System` that says that it is stiff.
            rtol: its relative tolerance, 1e-8 by default.
            atol: its absolute tolerance, by default 1e-8 of each coordinate's scale.

        Raises:
            ValueError: a student loaded without its teacher, or an integration that fails.
        """
        problem = self._problem()
        chosen = {"integrator": integrator, "rtol": rtol, "atol": atol}
        chosen = {name: value for name, value in chosen.items() if value is not None}
        if chosen and isinstance(problem, Diffusion):
            raise ValueError(f"got {', '.join(chosen)}, but a diffusion is compared with Euler's path: leave them out")
        if chosen:  # the problem itself knows its scale already
            problem = replace(problem, **chosen)  # type: ignore[arg-type]  # fields of an InitialValueProblem
        grid = problem.time_grid(self.config.reference_n, self.config.spacing_function)
        return evaluate(problem, self._student(), grid, n, seed, calls)

    @check_arguments(path=optional(PATH))
    def plot(self, path: str | Path | None = None) -> Figure:
        """A figure of teacher and student from the same starts, and of the loss; written to ``path`` if given.

        The folder of ``path`` is made if it does not exist.
        """
        from pidlearn.viewer.plot import overview

        problem = self._problem()
        grid = problem.time_grid(self.config.reference_n, self.config.spacing_function)
        figure = overview(self._student(), problem, grid, self.history)
        if path is not None:
            if Path(path).is_dir():
                raise ValueError(f"{path} is a folder: pass the path of a file")
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path)
        return figure

    def watch(self, **options: Any) -> Scene:
        """Teacher and student from the same starts, as an interactive scene; options as in `pidlearn.watch`."""
        if unknown := options.keys() - WATCH_OPTIONS:
            raise TypeError(f"got the options {sorted(unknown)}, but watch takes only {WATCH_OPTIONS}: leave them out")
        return scene_of(self._problem(), self.student, **options)

    @check_arguments(path=PATH)
    def save(self, path: str | Path) -> Path:
        """Write student, history and configuration to one file, for `pidlearn.load`."""
        teacher = self.teacher_identity if self.problem is None else self.problem.identity()
        return files.save(self.student, self.history, self.config.to_dict(), self.stopped, path, teacher)

    def __repr__(self) -> str:
        """One line: the student, the teacher, the training and its error."""
        steps = len(self.history["loss"])
        parts = [summary(self.student)]
        if self.problem is not None:
            parts.append(f"teacher {summary(self.problem.teacher)}")
        seconds = self.history["seconds"][-1] if steps else 0.0
        parts.append(f"{steps:,} steps in {seconds:.3g} s")
        if "error" in self.history:
            parts.append(f"error {self.history['error'][-1]:.3g}")
        if self.stopped:
            parts.append(self.stopped)
        return f"Result({'; '.join(parts)})"

    def _repr_html_(self) -> str | None:
        try:
            return self.watch()._repr_html_()
        except ValueError:  # a teacher that cannot be drawn, or none at all: notebooks then show __repr__
            return None

    def _problem(self) -> Problem:
        if self.problem is None:
            raise ValueError("this student was loaded without its teacher: pidlearn.load(path, teacher=...)")
        return self.problem

    def _student(self) -> Student:
        return self._at_hand

    @cached_property
    def _at_hand(self) -> Student:
        """Made once: it keeps the paths that it has solved to measure the student."""
        return with_teacher(self.student, self._problem())

    def _with_teacher(self) -> WithTeacher:
        student = self._student()
        if not isinstance(student, WithTeacher):
            raise ValueError(
                f"got a {type(unwrapped(self.student)).__name__}, but errors are estimated for paths x(z, t) of a "
                f"diffusion: leave refine and error_estimate out, or distill with method='pid'"
            )
        return student


@check_arguments(path=PATH, student=optional(MODULE))
def load(
    path: str | Path,
    teacher: Any = None,
    student: nn.Module | None = None,
    *,
    prior: Prior | None = None,
    event_shape: Sequence[int] | None = None,
) -> Result:
    """Read a file that `Result.save` wrote.

    Args:
        path: the file.
        teacher: as passed to `distill`; needed by all that a `Result` does but `save`, and to load a student that is a
            copy of a third-party network.
        student: as passed to `distill`, to load the weights into: a network or a student that is not made of this
            library's parts. A network needs its teacher, too.
        prior: as passed to `distill`, for an ODE.
        event_shape: as passed to `distill`, if neither teacher nor student has one.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: a file that is damaged or holds something else, a student that cannot be rebuilt from it alone, or
            another teacher than the student's.
    """
    loaded, history, settings, stopped, identity = files.read(path, student, teacher)
    config = _config(settings, path)
    is_network = not hasattr(unwrapped(loaded), "t_max")
    if teacher is None and is_network:
        raise ValueError(
            f"got a {type(unwrapped(loaded)).__name__} as student=, a network whose times and scales the teacher sets: "
            f"pass the teacher, too, or a pidlearn.Trajectory of the network"
        )
    if teacher is None:
        return Result(loaded, {}, history, config, None, stopped, teacher_identity=identity)
    shape = event_shape if event_shape is not None else getattr(loaded, "event_shape", None)
    problem = problem_from_teacher(teacher, config.t_max, config.t_min, prior, shape)
    problem.check_identity(identity, path)
    if is_network:  # which the method made a student of, as it does here
        loaded, *_ = files.read(path, method_of(config.method).wrap(loaded, problem), teacher)
    if isinstance(problem, Diffusion):
        set_samples(loaded, problem.event_shape, problem.label_dim)
    loaded.to(problem.device)
    return Result(loaded, {}, history, config, problem, stopped)


def _config(settings: dict[str, Any], path: str | Path) -> Config:
    """The settings in a file; functions, which no file holds, read as their defaults."""
    named = {NEW_NAMES.get(name, name): value for name, value in settings.items()}
    method, shared = str(named.get("method", "pid")), {field.name for field in fields(Config)}
    own = {name: value for name, value in named.items() if name not in shared}
    of_method = set(settings_of(METHODS[method])) - shared if method in METHODS else set()
    # A method that was passed by name alone has no settings of its own in the file, and one that was an object has all.
    is_whole = method == "pid" or (method in METHODS and own.keys() in (set(), of_method))
    try:
        config = Config.from_dict(named if is_whole else {name: named[name] for name in named if name in shared})
    except Exception as error:  # the errors that a damaged file can lead to cannot be listed
        raise ValueError(f"{path} is damaged, or of another version: {error!s:.600}") from error
    if not is_whole:
        warnings.warn(
            f"the method {method:.100} of the student in {path} is not in pidlearn.methods.METHODS, or has settings "
            f"that no file holds: to train so again, pass method= with its settings"
            + (f" ({own!s:.200})" if own else ""),
            stacklevel=4,
        )
    if functions := sorted(FUNCTIONS - named.keys()):
        warnings.warn(
            f"the student in {path} was trained with functions of your own for {', '.join(functions)}, which a file "
            f"does not hold: result.config has the defaults there"
            + (", and metrics use EDM's grid" if "spacing" in functions else ""),
            stacklevel=4,
        )
    return config
