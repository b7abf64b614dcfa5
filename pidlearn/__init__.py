"""Physics-informed distillation: the whole trajectory of a diffusion model, or of any ODE, as one network call."""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pidlearn.public import *  # noqa: F403 - the names that type checkers see are those of __all__


def __getattr__(name: str) -> Any:
    # What needs no torch, such as the viewer and the app's first page, starts in a moment and never waits for it.
    if not name.startswith("_") and find_spec(f"pidlearn.{name}"):
        return import_module(f"pidlearn.{name}")
    if name == "__all__" or not name.startswith("_"):
        public = import_module("pidlearn.public")
        if name == "__all__" or name in public.__all__:
            return getattr(public, name)
    raise AttributeError(f"module 'pidlearn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *import_module("pidlearn.public").__all__})
