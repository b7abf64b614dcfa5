"""Recipes: which teacher, and what of `Config` it is distilled with, as TOML files by name.

    teacher = "edm-cifar10-uncond-vp"       a published teacher's name or a file, as `load_teacher` takes it; or a table
    base = "cifar10"                        another recipe, beside this one or of ours, whose entries hold where this
                                            one has none
    [config]                                fields of `pidlearn.Config`

A teacher's file is looked for from the folder that one works in. A teacher that is a table is trained first, on data
that are at hand:

    [teacher]
    data = "digits"                         or "fashion-mnist"
    resolution = 8                          pixels a side that the images are resized to, if not theirs
    labels = true                           whether it is told the classes
    [teacher.network]                       options of `SongUNet` that the data do not settle
    [teacher.training]                      fields of `Optimisation`
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pidlearn import data
from pidlearn.config import Config
from pidlearn.denoising import DenoiserTraining
from pidlearn.nets import SongUNet
from pidlearn.teachers import load_teacher
from pidlearn.training.loop import DivergedError, Optimisation
from pidlearn.utils.random import seeded

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["Recipe", "UnfinishedError", "images_of", "names", "read", "resized", "teacher_of"]

FOLDER = Path(__file__).parent
TEACHER = {"data", "resolution", "labels", "network", "training"}
GIVEN_BY_THE_DATA = {"img_resolution", "in_channels", "out_channels", "label_dim"}


@dataclass(frozen=True)
class Recipe:
    """A teacher and how it is distilled.

    Attributes:
        name: of the file.
        teacher: a name or file for `load_teacher`, or the table of one that is trained.
        config: the choices.
    """

    name: str
    teacher: str | Mapping[str, Any]
    config: Config


def names() -> dict[str, str]:
    """The recipes that come with the library, each with the first line of its file."""
    return {
        path.stem: path.read_text(encoding="utf-8").splitlines()[0].strip("# ")
        for path in sorted(FOLDER.glob("*.toml"), key=lambda path: path.stem)
    }


def read(source: str | Path) -> Recipe:
    """The recipe of that name, or in that TOML file.

    Raises:
        ValueError: for a name that is none, and a file that is no recipe, saying what in it is wrong.
    """
    path = Path(source) if str(source).endswith(".toml") else FOLDER / f"{source}.toml"
    if not path.is_file():
        raise ValueError(f"there is no recipe {str(source)!r}: take a .toml file or one of {', '.join(names())}")
    content = _merged(path, ())
    if "teacher" not in content:
        raise ValueError(f"{path} does not say which teacher")
    try:
        config = Config(**content["config"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"[config] of {path}: {error}") from error
    _check_teacher(path, content["teacher"])
    return Recipe(path.stem, content["teacher"], config)


def _merged(path: Path, below: tuple[Path, ...]) -> dict[str, Any]:
    """A file's entries over those of its bases."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no recipe: {error}") from error
    unknown = sorted(content.keys() - {"base", "teacher", "config"})
    if unknown:
        raise ValueError(f"{path} has {', '.join(unknown)}, which no recipe has: there are base, teacher and config")
    _check_table(path, "config", content.setdefault("config", {}), {field.name for field in fields(Config)})
    base = content.pop("base", None)
    if base is None:
        return content
    other = next((file for at in (path.parent, FOLDER) if (file := (at / f"{base}.toml").resolve()).is_file()), None)
    if other is None:
        raise ValueError(f"base = {base!r} in {path} is no recipe beside it, and none of {', '.join(names())}")
    if other in (path.resolve(), *below):
        raise ValueError(f"{path} is its own base")
    under = _merged(other, (path.resolve(), *below))
    return {**under, **content, "config": {**under["config"], **content["config"]}}


def _check_table(path: Path, name: str, table: Any, known: set[str]) -> None:
    if not isinstance(table, dict):
        raise ValueError(f"{name} in {path} must be a table, got {table!r:.200}")
    wrong = sorted(table.keys() - known)
    if wrong:
        raise ValueError(f"[{name}] of {path} has {', '.join(wrong)}: there are {', '.join(sorted(known))}")


def _check_teacher(path: Path, teacher: Any) -> None:
    if isinstance(teacher, str):
        return
    if not isinstance(teacher, dict) or str(teacher.get("data")) not in DATA or teacher.keys() - TEACHER:
        raise ValueError(
            f"teacher in {path} must be a name, a file, or a table with data = {' | '.join(DATA)} and of "
            f"{', '.join(sorted(TEACHER))}; got {teacher!r:.200}"
        )
    size, labels, training = teacher.get("resolution", 1), teacher.get("labels", False), teacher.get("training", {})
    if type(size) is not int or size < 1:
        raise ValueError(f"[teacher] of {path}: resolution must be a whole number of pixels, got {size!r}")
    if not isinstance(labels, bool):
        raise ValueError(f"[teacher] of {path}: labels must be true or false, got {labels!r}")
    options = set(inspect.signature(SongUNet).parameters) - GIVEN_BY_THE_DATA
    _check_table(path, "teacher.network", teacher.get("network", {}), options)
    _check_table(path, "teacher.training", training, {field.name for field in fields(Optimisation)})
    try:
        Optimisation(**training)
    except (TypeError, ValueError) as error:
        raise ValueError(f"[teacher.training] of {path}: {error}") from error


DATA = {"digits": data.digits, "fashion-mnist": data.fashion_mnist}


def images_of(teacher: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """The images (n, 1, R, R) float32 in [-1, 1] that a teacher's table names, and their labels (n,) int64."""
    images, labels = DATA[teacher["data"]]()
    return resized(images, teacher.get("resolution")), labels


def resized(images: Tensor, size: int | None) -> Tensor:
    """Images (n, C, R, R) in [-1, 1] at so many pixels a side; None leaves them as they are."""
    if size in (None, images.shape[-1]):
        return images
    return F.interpolate(images, size=(size, size), mode="bilinear", antialias=True).clamp(-1, 1)


class UnfinishedError(Exception):
    """The training of a recipe's teacher was stopped; ``reason`` says by what."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the teacher is not trained yet: {reason}")
        self.reason = reason


def teacher_of(recipe: Recipe, device: str | torch.device = "cpu", **options: Any) -> nn.Module:
    """The recipe's teacher on that device, loaded or trained there.

    Args:
        recipe: which.
        device: where.
        **options: of `DenoiserTraining.drive`, for one that is trained.

    Raises:
        FileNotFoundError: for one that is not at hand, saying where it should be.
        ValueError: for options that make no network, and a training that diverged.
        UnfinishedError: for a training that was stopped. The same call goes on with it, if it has ``checkpoints``.
    """
    if isinstance(recipe.teacher, str):
        return load_teacher(recipe.teacher).to(device)
    images, labels = images_of(recipe.teacher)
    given = labels if recipe.teacher.get("labels") else None
    how = Optimisation(**recipe.teacher.get("training", {}))
    channels, size = images.shape[1:3]
    try:
        with seeded(how.seed):
            label_dim = 0 if given is None else int(labels.max()) + 1
            network = SongUNet(size, channels, channels, label_dim, **recipe.teacher.get("network", {})).to(device)
    except (TypeError, ValueError, RuntimeError, ArithmeticError, LookupError) as error:
        raise ValueError(f"[teacher.network] of {recipe.name} makes no network: {error}") from error
    training = DenoiserTraining(images, given, network, how)
    try:
        stopped = training.drive(**options)
    except DivergedError as error:
        raise ValueError(f"the teacher of {recipe.name}: {error}") from error
    if stopped:
        raise UnfinishedError(stopped)
    return training.result()
