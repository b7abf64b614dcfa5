"""What a distillation leaves: the student, how it got there, and how good it is."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from pidlearn.config import Config
from pidlearn.equations.problem import Prior, Problem, problem_of
from pidlearn.evaluation import metrics
from pidlearn.students import files
from pidlearn.teachers.exact import GaussianMixture
from pidlearn.utils.batching import ask
from pidlearn.utils.validation import check_labels
from pidlearn.viewer import Scene
from pidlearn.viewer.build import scene_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Result", "load"]


@dataclass(frozen=True)
class Result:
    """The outcome of `distill`.

    Attributes:
        student: x(z, t), in eval mode; of averaged weights where ``config.ema`` asks for them.
        averages: the students of each averaging rate, by rate.
        history: arrays over the steps: loss, lr, seconds; and, if a reference was asked for, error at error_step.
        config: all the choices made.
        problem: what was solved; None for a student loaded without its teacher.
        stopped: None if all steps were done, else why not.
    """

    student: nn.Module
    averages: dict[float, nn.Module]
    history: dict[str, np.ndarray]
    config: Config
    problem: Problem | None
    stopped: str | None = None

    def sample(self, n: int, class_labels: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """n samples (n, *event): new starts, each carried to the sample end in one call.

        Labels are drawn uniformly where the teacher has classes and none are given.

        Raises:
            ValueError: for labels that are not n, or a student that was loaded without its teacher.
        """
        problem = self._problem()
        check_labels(class_labels, n, problem.label_dim)
        labels = problem.draw_labels(n, generator) if class_labels is None else class_labels.to(problem.device)
        with torch.no_grad():
            return ask(self.student, problem.draw(n, generator), problem.t_end, labels)

    def evaluate(self, n: int = 4096, seed: int = 1) -> dict[str, float]:
        """Figures of merit on n fresh starts.

        For a diffusion, against the teacher's own Euler-N path from the same z: ``rmse``, ``relative_rmse`` (over the
        spread of the teacher's samples), ``wrong_mode`` for a Gaussian mixture; and as a distribution, against an
        equal number of the teacher's samples from other noise: ``energy``, beside ``energy_floor``.
        For any other ODE, over the whole path against SciPy: ``relative_rmse`` over all coordinates together,
        ``worst_coordinate``, the same of the coordinate in which it is largest, and ``rmse``.

        Raises:
            ValueError: for a student that was loaded without its teacher.
        """
        problem = self._problem()
        generator = torch.Generator().manual_seed(seed)
        z, labels = problem.draw(n, generator), problem.draw_labels(n, generator)
        if problem.sigma_data is None:
            return self._evaluate_path(problem, z)
        grid, ours = self.config.grid(), problem.student_ends(self.student, z, labels)
        theirs = problem.reference_ends(z, grid, labels)
        others = problem.reference_ends(problem.draw(n, generator), grid, problem.draw_labels(n, generator))
        figures = {"rmse": metrics.rmse(ours, theirs), "relative_rmse": metrics.relative_rmse(ours, theirs)}
        if isinstance(problem.teacher, GaussianMixture):
            figures["wrong_mode"] = metrics.wrong_mode_share(ours, theirs, problem.teacher)
        figures["energy"] = metrics.energy_distance(ours, others)
        figures["energy_floor"] = metrics.floor(metrics.energy_distance, others)
        return figures

    def _evaluate_path(self, problem: Problem, z: Tensor) -> dict[str, float]:
        grid = torch.linspace(problem.t_start, problem.t_end, 101, dtype=torch.float64)
        exact = problem.reference(z, grid)
        with torch.no_grad():
            ours = torch.stack([ask(self.student, z, t) for t in grid]).to(exact)
        a, b = ours.flatten(0, 1), exact.flatten(0, 1)
        scale = b.flatten(1).std(0)
        apart = (a - b).flatten(1).square().mean(0).sqrt()[scale > 0] / scale[scale > 0]
        return {
            "relative_rmse": metrics.relative_rmse(a, b),
            "worst_coordinate": apart.max().item() if len(apart) else 0.0,
            "rmse": metrics.rmse(ours, exact),
        }

    def plot(self, path: str | Path | None = None) -> Figure:
        """One figure that shows teacher and student from the same starts; written to ``path`` if given."""
        from pidlearn.viewer.plot import overview

        figure = overview(self.student, self._problem(), self.config, self.history)
        if path is not None:
            figure.savefig(path)
        return figure

    def watch(self, **options: Any) -> Scene:
        """Teacher and student from the same starts, to play with in a notebook or a browser; see `pidlearn.watch`."""
        return scene_of(self._problem(), self.student, **options)

    def _repr_html_(self) -> str | None:
        try:
            return self.watch()._repr_html_()
        except ValueError:  # nothing to draw it by: the plain repr will do
            return None

    def save(self, path: str | Path) -> Path:
        """Write student, history and configuration to one file, for `pidlearn.load`."""
        return files.save(self.student, self.history, config_to_json(self.config), self.stopped, path)

    def _problem(self) -> Problem:
        if self.problem is None:
            raise ValueError("this student was loaded without its teacher: pidlearn.load(path, teacher=...)")
        return self.problem


def load(
    path: str | Path,
    teacher: Any = None,
    student: nn.Module | None = None,
    *,
    prior: Prior | None = None,
    event_shape: Sequence[int] | None = None,
) -> Result:
    """Read what `Result.save` wrote.

    Args:
        path: the file.
        teacher: as given to `distill`; needed for `Result.sample`, `evaluate` and `plot`, and by a student that is a
            copy of a network of diffusers or of your own.
        student: a module to fill, for a student that was not made of this library's parts.
        prior: as given to `distill`, for an ODE.
        event_shape: as given to `distill`, where neither teacher nor student says.

    Raises:
        ValueError: a file that is damaged or not ours, or a student that cannot be rebuilt from it alone.
    """
    found, history, settings, stopped = files.read(path, student, teacher)
    config = _config_from_json(settings, path)
    problem = None
    if teacher is not None:
        shape = event_shape or getattr(found, "event_shape", None)
        problem = problem_of(teacher, config.t_max, config.t_min, prior, shape)
        found.to(problem.device)
    return Result(found, {}, history, config, problem, stopped)


RENAMED_FIELDS: dict[str, str] = {}
"""Fields of `Config` by the names that they have in older files."""


def config_to_json(config: Config) -> dict[str, Any]:
    """Return the settings as values that a file can hold; functions among them are left out."""
    return {name: value for name, value in vars(config).items() if not callable(value)}


def _config_from_json(settings: dict[str, Any], path: str | Path) -> Config:
    """Make a `Config` of a file's settings; functions, which no file holds, read as their defaults."""
    try:
        config = Config(**{RENAMED_FIELDS.get(name, name): value for name, value in settings.items()})
    except Exception as error:  # the errors that a damaged file can lead to cannot be listed
        raise ValueError(f"{path} is damaged, or of another version: {error!s:.600}") from error
    if "spacing" not in settings:
        warnings.warn(
            f"the student in {path} was trained on a time grid of your own function, which a file does not hold: "
            f"metrics on config.grid() use EDM's grid instead",
            stacklevel=3,
        )
    return config
