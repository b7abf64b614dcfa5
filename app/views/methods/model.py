"""Two distillation methods from the same noise: what each one learns, its paths, and what the benchmark measured."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from app.shared.assets import ASSETS, PRESETS, scene_arrays
from pidlearn.viewer import Plane, Scene

__all__ = ["CALLS", "FRAMES", "METHODS", "STARTS", "TOY", "Shown", "calls_of", "drawing", "piece", "row", "scene"]

TOY = "ring"
"""The recorded toy; two would exceed the size that all assets may have."""
CALLS = (1, 2, 4, 8)
STARTS, FRAMES = 100, 4
"""Recorded starts, and how many frames of the other pages lie between two recorded ones."""


@dataclass(frozen=True)
class Shown:
    """A method as the page tells of it.

    Attributes:
        label: its name.
        contender: its row in the benchmark.
        piece: which part of the flow map X(x; s -> t) it learns: "start" (s = T), "end" (t = t_min), "all", "steps"
            (neighbours on grids that halve), "corner" (s = T and t = t_min), "some" (s = T and a few t), "new" (of
            another flow: short steps) or "samples" (no step, only where samples end).
        points: where the points x come from.
        identity: the equation that it makes true.
        constant: what is held constant.
        call: the arguments of `pidlearn.distill`.
    """

    label: str
    contender: str
    piece: str
    points: str
    identity: str
    constant: str
    call: str


METHODS = {
    "pid": Shown(
        "PID", "PID", "start", "the student's own path, from noise", "dX/dt = f(X, t)", "the teacher's side", ""
    ),
    "boot": Shown(
        "BOOT",
        "BOOT",
        "start",
        "the student's own path, from noise",
        "one step of the teacher from the student's own value",
        "that value and the teacher's side",
        ', method="boot"',
    ),
    "freeflow": Shown(
        "FreeFlow",
        "FreeFlow, prediction",
        "start",
        "the student's own path, from noise",
        "dX/dt = f(X, t), with the exact derivative",
        "all but the network's output",
        ', method="freeflow"',
    ),
    "lagrangian": Shown(
        "Lagrangian map",
        "Lagrangian map, own path",
        "all",
        "the student's own path, from noise",
        "dX/dt = f(X, t), from any start",
        "the teacher's side",
        ', method="flow_map", identity="lagrangian"',
    ),
    "eulerian": Shown(
        "Eulerian map",
        "Eulerian map",
        "all",
        "noised data",
        "X from a point is X from the teacher's next point",
        "the neighbour's value",
        ', method="flow_map", identity="eulerian", points="data"',
    ),
    "meanflow": Shown(
        "MeanFlow",
        "MeanFlow",
        "all",
        "noised data",
        "the derivative of X along the teacher's path is 0",
        "that derivative",
        ', method="flow_map", identity="meanflow", points="data"',
    ),
    "shortcut": Shown(
        "Shortcut",
        "shortcut",
        "steps",
        "noised data",
        "one step is two steps; the shortest are the teacher's",
        "the two steps",
        ', method="flow_map", identity="semigroup", points="data"',
    ),
    "cd": Shown(
        "CD",
        "CD",
        "end",
        "noised data",
        "X from a point is X from the teacher's next point",
        "the neighbour's value",
        ', method="cd"',
    ),
    "ct": Shown(
        "CT",
        "CT",
        "end",
        "noised data, without the teacher",
        "X at two noise levels of the same data point and noise agree",
        "the value at the lower level",
        ', method="ct"',
    ),
    "scm": Shown(
        "sCM",
        "sCM",
        "end",
        "noised data",
        "the derivative of X along the teacher's path is 0",
        "that derivative",
        ', method="scm"',
    ),
    "pd": Shown(
        "PD",
        "PD",
        "steps",
        "noised data",
        "one step is two steps of the stage before",
        "the stage before",
        ', method="pd"',
    ),
    "endpoint": Shown(
        "Endpoint",
        "endpoint regression",
        "corner",
        "the teacher's solved paths",
        "X(z) is where the solver ends",
        "the solver's end",
        ', method="endpoint"',
    ),
    "dsno": Shown(
        "DSNO",
        "DSNO",
        "some",
        "the teacher's solved paths",
        "X(z) at several times at once is the solver's path",
        "the solver's path",
        ', method="dsno", times=8',
    ),
    "reflow": Shown(
        "2-rectified flow",
        "2-rectified flow",
        "new",
        "lines between noise and the teacher's samples",
        "a new, straighter ODE: the mean of these lines",
        "nothing",
        ', method="reflow"',
    ),
    "corrector": Shown(
        "PID at N = 10, corrected",
        "PID with N = 10, corrector",
        "samples",
        "the student's own samples, noised",
        "the samples' score is the teacher's",
        "both scores",
        ', method="corrector", n=10',
    ),
}
"""The methods of the page, by the names of their files."""


@cache
def measured() -> dict[str, Any]:
    """Load the benchmark's results by method; see `benchmarks.app_assets.methods`."""
    document: dict[str, Any] = json.loads((ASSETS / "methods" / "measured.json").read_text())
    return document


@cache
def recorded(method: str) -> dict[int, np.ndarray]:
    """The recorded paths (F, B, 2) of a method's student, by number of calls."""
    arrays = scene_arrays(TOY)
    scale = np.hypot(arrays["sigma_data"], arrays["times"][::FRAMES])[:, None, None]
    with np.load(ASSETS / "methods" / f"{TOY}-{method}.npz") as file:
        return {k: file[f"paths {k}"] * float(file[f"unit {k}"]) * scale for k in CALLS if f"paths {k}" in file}


def calls_of(method: str, calls: int) -> int:
    """The number of calls that is shown: ``calls``, or 1 for a student that cannot make use of more."""
    return calls if calls in recorded(method) else 1


def scene(methods: tuple[str, str], calls: int) -> Scene:
    """The scene of two students and the exact paths, from the same starts."""
    planes = []
    for method in methods:
        k = calls_of(method, calls)
        planes.append(Plane(f"{METHODS[method].label}: {k} call{'s' * (k > 1)}", recorded(method)[k]))
    arrays = dict(scene_arrays(TOY))
    arrays |= {"times": arrays["times"][::FRAMES], "exact": arrays["exact"][::FRAMES, :STARTS]}
    arrays |= {"starts": arrays["starts"][:STARTS]}
    title = f"{PRESETS[TOY]}: {' and '.join(METHODS[method].label for method in methods)}, from the same noise"
    return Scene(title, panels=planes, names={"student": "student", "teacher": "exact path"}, **arrays)


def row(method: str, calls: int) -> str:
    """What the benchmark measured, as a sentence."""
    results = measured()["rows"][method]
    k = str(calls_of(method, calls))
    errors = results["calls"][k]
    paths = (
        "Noise is added between the calls, so that samples no longer belong to their z."
        if method in ("cd", "ct", "scm") and k != "1"
        else f"Error to the exact ODE **{errors['exact']:.4f}** (to Euler-250 {errors['euler']:.4f}), "
        f"{100 * errors['wrong']:.1f} % in another mode."
    )
    return (
        f"{paths} Energy distance to the teacher's samples **{1e4 * errors['energy']:.1f}** · 10⁻⁴; two sets of the "
        f"teacher's own are {1e4 * measured()['energy floor']:.1f} away from 0 on average. "
        f"{results['steps']:,.0f} steps, {results['seeds']} seed{'s' * (results['seeds'] > 1)}."
    )


def drawing(method: str) -> str:
    """The (s, t) triangle as SVG, with the piece of the flow map that the method learns in orange; see `piece`."""
    shown = METHODS[method]
    left, top, size = 34, 12, 150
    right, bottom = left + size, top + size
    learned = {
        "start": f'<line x1="{right}" y1="{top}" x2="{right}" y2="{bottom}" class="m"/>',
        "end": f'<line x1="{left}" y1="{bottom}" x2="{right}" y2="{bottom}" class="m"/>',
        "all": f'<path d="M{left},{bottom} L{right},{top} L{right},{bottom} Z" class="a"/>',
        "corner": f'<circle cx="{right}" cy="{bottom}" r="6" class="d"/>',
        "samples": f'<circle cx="{right}" cy="{bottom}" r="7" class="o"/>',
        "new": f'<line x1="{left}" y1="{bottom}" x2="{right}" y2="{top}" class="m" stroke-dasharray="1 11"/>',
        "some": "".join(f'<circle cx="{right}" cy="{bottom - k * 18}" r="5" class="d"/>' for k in range(8)),
        "steps": "".join(
            f'<circle cx="{left + (k + 1) * size / n}" cy="{bottom - k * size / n}" r="4" class="d"/>'
            for n in (8, 4, 2, 1)
            for k in range(n)
        ),
    }[shown.piece]
    return f"""<svg viewBox="0 0 220 200" width="220" xmlns="http://www.w3.org/2000/svg">
<style>.m{{stroke:#d55e00;stroke-width:6;stroke-linecap:round}}.a{{fill:#d55e00;opacity:.75}}.d{{fill:#d55e00}}
.o{{fill:none;stroke:#d55e00;stroke-width:3}}.g{{stroke:#888;fill:#8882}}text{{font:12px sans-serif;fill:#888}}</style>
<path d="M{left},{bottom} L{right},{top} L{right},{bottom} Z" class="g"/>{learned}
<text x="{left - 2}" y="{bottom + 18}">0</text><text x="{right - 4}" y="{bottom + 18}">T</text>
<text x="{left + size / 2 - 30}" y="{bottom + 32}">start s</text>
<text x="{left - 16}" y="{bottom}">0</text><text x="{left - 16}" y="{top + 8}">T</text>
<text x="2" y="{top + size / 2}">end t</text></svg>"""


def piece(method: str) -> str:
    """In words, for those who do not see the drawing, which piece it is."""
    return {
        "start": "from s = T to every t",
        "end": "from every s to the end",
        "all": "from every s to every t",
        "corner": "from s = T to the end",
        "samples": "no step, but the distribution of the samples",
        "new": "the short steps of another flow, whose paths are straighter",
        "some": "from s = T to several times",
        "steps": "the steps of grids that halve",
    }[METHODS[method].piece]
