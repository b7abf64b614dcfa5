"""A view as the address bar holds it: short text out, a view that makes sense back, whatever was typed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from pidlearn.viewer import Heat, Scene, View

__all__ = ["READ", "VERSION", "params_of", "view_from", "view_of", "within"]

VERSION = "1"
"""Of the meaning of the parameters below; an address of another version is not guessed at."""

SOLVERS = ("euler", "heun", "exact")


def _flag(text: str) -> bool:
    return {"0": False, "1": True}[text]


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise ValueError(text)
        return value

    return read


def _solver(text: str) -> str:
    return SOLVERS[SOLVERS.index(text)]


def _point(text: str) -> tuple[float, float]:
    x, y = (float(part) for part in text.split(","))
    if not (math.isfinite(x) and math.isfinite(y) and max(abs(x), abs(y)) < 1e12):
        raise ValueError(text)
    return x, y


READ: dict[str, tuple[str, Callable[[str], Any]]] = {
    "n": ("n", _whole(2, 250)),
    "solver": ("solver", _solver),
    "frame": ("frame", _whole(0, 1000)),
    "play": ("play", _flag),
    "raw": ("raw", _flag),
    "density": ("density", _flag),
    "flow": ("flow", _flag),
    "trails": ("paths", _flag),
    "probe": ("z", _point),
    "handover": ("handover", _whole(1, 1000)),
    "steps": ("k", _whole(0, 16)),
    "row": ("row", _whole(0, 10_000)),
}
"""Field of `View`: its name in the address, and how it is read."""


def params_of(view: View, default: View) -> dict[str, str]:
    """The parameters that tell this view from the default one."""
    found = {}
    for name, (key, _) in READ.items():
        value = getattr(view, name)
        if value is None or value == getattr(default, name):
            continue
        found[key] = _text(value)
    return {"v": VERSION, **found} if found else {}


def view_of(params: Mapping[str, str], default: View) -> tuple[View, list[str]]:
    """The view that an address asks for, and a sentence for each part of it that cannot be had."""
    if params.get("v", VERSION) != VERSION:
        return default, ["This address was made by another version of the app, so the page starts as usual."]
    chosen, complaints = {}, []
    for name, (key, read) in READ.items():
        if key in params:
            try:
                chosen[name] = read(params[key])
            except (ValueError, KeyError, OverflowError):
                complaints.append(f"The address says {key}={params[key][:20]!r}, which is no value of it: left out.")
    return replace(default, **chosen), complaints


def view_from(told: Mapping[str, Any] | None, default: View) -> View:
    """The view that the viewer reports, read as strictly as an address: a browser can be made to say anything."""
    if not told:
        return default
    said = {key: _text(told[name]) for name, (key, _) in READ.items() if told.get(name) is not None}
    return view_of(said, replace(default, probe=None, row=None))[0]


def within(scene: Scene, view: View) -> View:
    """The view with a frame, a handover and a row that this scene has; a row that is lit is the start followed."""
    last = len(scene.times) - 1
    heat = next((panel for panel in scene.panels if isinstance(panel, Heat)), None)
    row = None if view.row is None or heat is None else min(view.row, len(heat.values) - 1)
    probe = view.probe
    if row is not None and probe is None and heat is not None and scene.starts is not None:
        x, y = scene.starts[heat.order[row]].tolist()
        probe = x, y
    return replace(view, frame=min(view.frame, last), handover=min(view.handover, last - 1), row=row, probe=probe)


def _text(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return ",".join(_text(v) for v in value)
    return f"{value:g}" if isinstance(value, float) else str(int(value) if isinstance(value, bool) else value)
