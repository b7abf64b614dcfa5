"""Read and check recipes, which are TOML files:

    teacher = "edm-cifar10-uncond-vp"       name of a published teacher, or a file, as for `load_teacher`; or a table
    base = "cifar10"                        another recipe, in the same folder or of this package, for the entries that
                                            this one does not have
    [config]                                fields of `pidlearn.Config`, and of the method that it names

A relative path of a teacher starts at the working directory. A teacher that is a table is trained first, on one of the
data sets of `pidlearn.data`:

    [teacher]
    data = "digits"                         or "fashion-mnist"
    resolution = 8                          resize the images to this many pixels per side
    labels = true                           train a class-conditional teacher
    [teacher.network]                       options of `SongUNet` that the data set does not determine
    [teacher.training]                      fields of `OptimizerConfig`
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from pidlearn.config import NEW_NAMES, Config, with_overrides
from pidlearn.data import DATA_SETS
from pidlearn.methods import METHODS, settings_of
from pidlearn.nets import SongUNet
from pidlearn.training.optim import OptimizerConfig
from pidlearn.utils.arguments import PATH, check_arguments
from pidlearn.utils.deprecation import rename_arguments

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["Recipe", "names", "read", "tomllib"]

FOLDER = Path(__file__).parent
TEACHER_KEYS = {"data", "resolution", "labels", "network", "training"}
MAX_SIZE = 4096
"""Limit of pixels, channels, blocks and other sizes of a teacher that is trained: more would fill any memory."""
MAX_WEIGHTS = 2**31
"""Limit of weights of a teacher that is trained: four times those of the largest published networks."""
SET_BY_DATA = {"img_resolution", "in_channels", "out_channels", "label_dim"}
"""Arguments of the teacher's network that follow from the data set, so that a recipe cannot set them."""


@dataclass(frozen=True)
class Recipe:
    """A teacher and the configuration to distill it with.

    Attributes:
        name: name of the file, without ".toml".
        teacher: name or file for `load_teacher`, or the table of a teacher to train.
        config: the configuration.
    """

    name: str
    teacher: str | Mapping[str, Any]
    config: Config


def names() -> dict[str, str]:
    """Return the recipes of this package by name, each with the first line of its file."""
    return {
        path.stem: path.read_text(encoding="utf-8").splitlines()[0].strip("# ")
        for path in sorted(FOLDER.glob("*.toml"), key=lambda path: path.stem)
    }


@check_arguments(source=PATH)
def read(source: str | Path) -> Recipe:
    """Read a recipe, by the name of one of this package or from a TOML file.

    Raises:
        ValueError: an unknown name, or a file that is not a recipe; the message names the file and the entry.
    """
    path = Path(source) if str(source).endswith(".toml") else FOLDER / f"{source}.toml"
    if not path.is_file():
        raise ValueError(f"there is no recipe {str(source)!r}: expected a .toml file or one of {', '.join(names())}")
    content = _read_merged(path, ())
    if "teacher" not in content:
        raise ValueError(f"{path} has no teacher: add teacher = NAME or FILE, or a table [teacher]")
    try:
        config = with_overrides(None, rename_arguments(content["config"], NEW_NAMES))
    except (TypeError, ValueError) as error:
        raise ValueError(f"[config] of {path}: {error}") from error
    _check_teacher(path, content["teacher"])
    return Recipe(path.stem, content["teacher"], config)


def _read_merged(path: Path, derived: tuple[Path, ...]) -> dict[str, Any]:
    """Read a file's entries, completed by those of its bases; ``derived`` are the files that have it as a base."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # some editors begin a file with a BOM
    # ValueError: not TOML, not UTF-8, or a number of over 4,300 digits. RecursionError: brackets nested too deeply.
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a recipe, for it cannot be read as TOML: {error}") from error
    unknown = sorted(content.keys() - {"base", "teacher", "config"})
    if unknown:
        raise ValueError(f"{path} has unknown entries {', '.join(unknown)}: expected base, teacher and [config]")
    known = {field.name for field in fields(Config)} | NEW_NAMES.keys()
    known.update(*map(settings_of, METHODS.values()))
    _check_table(path, "config", content.setdefault("config", {}), known)
    base = content.pop("base", None)
    if base is None:
        return content
    base_path = _find_base(path, base)
    if base_path in (path.resolve(), *derived):
        raise ValueError(f"{path} is its own base, directly or through others: remove one base of that circle")
    below = _read_merged(base_path, (path.resolve(), *derived))
    # A teacher replaces the base's as a whole; [config] is merged field by field.
    return {**below, **content, "config": {**below["config"], **content["config"]}}


def _find_base(path: Path, base: Any) -> Path:
    """Path of a base, first in the folder of the file that names it."""
    for folder in (path.parent, FOLDER):
        if (file := (folder / f"{base}.toml").resolve()).is_file():
            return file
    raise ValueError(
        f"base = {base!r} in {path} is not a recipe: expected one in its folder, or one of {', '.join(names())}"
    )


def _check_table(path: Path, name: str, table: Any, known: set[str]) -> None:
    if not isinstance(table, dict):
        raise ValueError(f"{name} in {path} is {table!r:.200}, but {name} must be a table")
    unknown = sorted(table.keys() - known)
    if unknown:
        raise ValueError(
            f"[{name}] of {path} has unknown entries {', '.join(unknown)}: expected {', '.join(sorted(known))}"
        )


def _check_teacher(path: Path, teacher: Any) -> None:
    if isinstance(teacher, str):
        return
    if not isinstance(teacher, dict) or str(teacher.get("data")) not in DATA_SETS or teacher.keys() - TEACHER_KEYS:
        raise ValueError(
            f"teacher in {path} is {teacher!r:.200}, but teacher must be a name, a file, or a table with data = "
            f"{' | '.join(DATA_SETS)} and no other entries than {', '.join(sorted(TEACHER_KEYS))}"
        )
    size, labels, training = teacher.get("resolution", 1), teacher.get("labels", False), teacher.get("training", {})
    if type(size) is not int or not 1 <= size <= MAX_SIZE:  # bool is a subclass of int
        raise ValueError(
            f"[teacher] of {path}: got resolution = {size!r:.80}, but resolution must be an integer from 1 to "
            f"{MAX_SIZE}, in pixels"
        )
    if not isinstance(labels, bool):
        raise ValueError(f"[teacher] of {path}: got labels = {labels!r}, but labels must be true or false")
    options = set(inspect.signature(SongUNet).parameters) - SET_BY_DATA
    _check_table(path, "teacher.network", teacher.get("network", {}), options)
    for name, value in teacher.get("network", {}).items():
        largest = max((v for v in (value if isinstance(value, list) else [value]) if isinstance(v, int)), default=0)
        if largest > MAX_SIZE:
            raise ValueError(
                f"[teacher.network] of {path}: got {name} = {largest!r:.80}, but {name} must be at most {MAX_SIZE}"
            )
    _check_network(path, teacher.get("network", {}), teacher.get("resolution", MAX_SIZE))
    _check_table(path, "teacher.training", training, {field.name for field in fields(OptimizerConfig)})
    try:
        OptimizerConfig(**training)
    except (TypeError, ValueError) as error:
        raise ValueError(f"[teacher.training] of {path}: {error}") from error


def _check_network(path: Path, options: Mapping[str, Any], resolution: int) -> None:
    """Build the network on the meta device, which takes no memory, and count its weights."""
    try:
        with torch.device("meta"):
            network = SongUNet(resolution, 1, 1, **options)
    except (TypeError, ValueError, RuntimeError, ArithmeticError, LookupError) as error:
        raise ValueError(f"[teacher.network] of {path} cannot be built: {error}") from error
    weights = sum(weight.numel() for weight in network.parameters())
    if weights > MAX_WEIGHTS:
        raise ValueError(
            f"[teacher.network] of {path} makes a network of {weights:,} weights, but it may have {MAX_WEIGHTS:,}: use "
            f"fewer channels or blocks"
        )
