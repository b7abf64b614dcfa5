"""The view in the address bar: written as short query parameters, and validated when it is read back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from pidlearn.viewer import Heat, Scene, View

__all__ = ["PARAMETERS", "VERSION", "clamp_view", "from_params", "from_viewer", "to_params"]

VERSION = "1"
"""Version of the parameters below; an address of another version is ignored."""

SOLVERS = ("euler", "heun", "exact")


def _flag(text: str) -> bool:
    return {"0": False, "1": True}[text]


def _integer(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise ValueError(text)
        return value

    return parse


def _solver(text: str) -> str:
    return SOLVERS[SOLVERS.index(text)]


def _point(text: str) -> tuple[float, float]:
    x, y = (float(part) for part in text.split(","))
    if not (math.isfinite(x) and math.isfinite(y) and max(abs(x), abs(y)) < 1e12):
        raise ValueError(text)
    return x, y


PARAMETERS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "n": ("n", _integer(2, 250)),
    "solver": ("solver", _solver),
    "frame": ("frame", _integer(0, 1000)),
    "play": ("play", _flag),
    "raw": ("raw", _flag),
    "density": ("density", _flag),
    "flow": ("flow", _flag),
    "trails": ("paths", _flag),
    "probe": ("z", _point),
    "handover": ("handover", _integer(1, 1000)),
    "steps": ("k", _integer(0, 16)),
    "row": ("row", _integer(0, 10_000)),
}
"""Field of `View`: its query parameter, and the function that parses it."""


def to_params(view: View, default: View) -> dict[str, str]:
    """Return the query parameters of the fields that differ from the default view."""
    params = {}
    for name, (key, _) in PARAMETERS.items():
        value = getattr(view, name)
        if value is None or value == getattr(default, name):
            continue
        params[key] = _text(value)
    return {"v": VERSION, **params} if params else {}


def from_params(params: Mapping[str, str], default: View) -> tuple[View, list[str]]:
    """Return the view that an address describes, and one message per parameter that is ignored."""
    if params.get("v", VERSION) != VERSION:
        return default, ["This link was made by another version of the app, so the page shows its default view."]
    fields, complaints = {}, []
    for name, (key, parse) in PARAMETERS.items():
        if key in params:
            try:
                fields[name] = parse(params[key])
            except (ValueError, KeyError, OverflowError):
                complaints.append(f"The address has {key}={params[key][:20]!r}, which is not a valid value: ignored.")
    return replace(default, **fields), complaints


def from_viewer(report: Any, default: View) -> View:
    """Return the view that the viewer reports, validated as an address is: a browser can send anything."""
    if not isinstance(report, Mapping):
        return default
    params = {key: _text(report[name]) for name, (key, _) in PARAMETERS.items() if report.get(name) is not None}
    return from_params(params, replace(default, probe=None, row=None))[0]


def clamp_view(scene: Scene, view: View) -> View:
    """Return the view with frame, handover and row within the scene; a selected row also selects its start."""
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
        return ",".join(_text(v) for v in value if not isinstance(v, (tuple, list)))
    return f"{value:g}" if isinstance(value, float) else str(int(value) if isinstance(value, bool) else value)
