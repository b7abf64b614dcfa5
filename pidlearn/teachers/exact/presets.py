"""Preset two-dimensional mixtures by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pidlearn.teachers.exact.mixture import GaussianMixture
from pidlearn.utils.arguments import check_options

__all__ = ["PRESETS", "toy"]

PRESETS: dict[str, Callable[..., GaussianMixture]] = {
    name: getattr(GaussianMixture, name) for name in ("ring", "grid", "checkerboard", "moons", "spiral", "anisotropic")
}


def toy(name: str, **options: Any) -> GaussianMixture:
    """Return a preset mixture by name: ring, grid, checkerboard, moons, spiral or anisotropic.

    Options are those of the constructor of that name, such as ``modes`` for `GaussianMixture.ring`.

    Raises:
        ValueError: for another name.
    """
    if not isinstance(name, str) or name not in PRESETS:
        raise ValueError(f"got {name!r}, but toy must be one of {sorted(PRESETS)}")
    check_options(f"toy {name!r}", PRESETS[name], options)
    return PRESETS[name](**options)
