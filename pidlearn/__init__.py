"""Physics-informed distillation: the whole trajectory of a diffusion model, or of any ODE, as one network call."""

import sys
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pidlearn.public import *  # noqa: F403 - the names that type checkers see are those of __all__

SHORT_NAMES = {
    "checkpoint": "training.checkpoints",
    "commands": "cli.commands",
    "denoiser": "denoising",
    "derivative": "methods.pid.derivatives",
    "distance": "losses.distances",
    "errors": "utils.validation",
    "features": "evaluation.inception",
    "grid": "equations.grids",
    "images": "evaluation.images",
    "io": "students.files",
    "logs": "training.loggers",
    "loss": "methods.pid.loss",
    "metrics": "evaluation.metrics",
    "ode": "equations.ode",
    "perceptual": "losses.lpips",
    "plot": "viewer.plot",
    "problem": "equations.problem",
    "sampling": "losses.time_sampling",
    "scenes": "viewer.build",
    "solvers": "equations.solvers",
    "toys": "teachers.exact",
    "train": "training",
    "trajectory": "students",
}
"""Documented module names, such as `pidlearn.metrics`, and the modules that they stand for."""


class _ShortNames(MetaPathFinder, Loader):
    """Import `pidlearn.metrics` as the very module `pidlearn.evaluation.metrics`, and so the modules below it."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        package, *names = fullname.split(".")
        return ModuleSpec(fullname, self) if package == __name__ and names and names[0] in SHORT_NAMES else None

    def exec_module(self, module: ModuleType) -> None:
        # The import system takes what is in sys.modules after this call.
        _, short, *below = module.__name__.split(".")
        sys.modules[module.__name__] = import_module(".".join([__name__, SHORT_NAMES[short], *below]))


sys.meta_path.insert(0, _ShortNames())


def __getattr__(name: str) -> Any:
    # Public names are looked up on first use, so that what needs no torch, such as the viewer, starts in a moment.
    if not name.startswith("_") and find_spec(f"{__name__}.{name}"):
        return import_module(f"{__name__}.{name}")
    if name == "__all__" or not name.startswith("_"):
        public = import_module("pidlearn.public")
        if name == "__all__" or name in public.__all__:
            return getattr(public, name)
    raise AttributeError(f"module 'pidlearn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *import_module("pidlearn.public").__all__})
