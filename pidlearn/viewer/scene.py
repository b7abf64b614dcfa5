"""Scenes for the viewer: plain data made of NumPy arrays, written as JSON or as an HTML page. Needs no torch."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from pidlearn.utils.files import write_atomically

__all__ = ["Heat", "Images", "Network", "Plane", "Scene", "View", "phase_plane", "script"]

VERSION = 1

IMPORT = re.compile(r'^import \{.*\} from "\./(.+)";\n', re.MULTILINE)
"""An import of one JavaScript file of the viewer by another."""


@cache
def script() -> str:
    """Return the viewer as one ES module: the files of js/ without their imports, each after those it imports."""
    modules: dict[str, str] = {}

    def add(name: str) -> None:
        text = (Path(__file__).parent / "js" / name).read_text(encoding="utf-8")
        for imported in IMPORT.findall(text):
            if imported not in modules:
                add(imported)
        modules[name] = IMPORT.sub("", text)

    add("viewer.js")
    return "\n".join(modules.values())


@dataclass(frozen=True)
class View:
    """The view of a scene. The viewer's controls change it.

    Attributes:
        n: number of grid points of the teacher's solver.
        solver: euler | heun | exact.
        frame: the frame shown.
        play: whether the animation starts by itself (if the system prefers reduced motion it shows its
            end instead).
        raw: draw x itself instead of x / sqrt(sigma_data^2 + t^2).
        density: draw the density behind the points.
        flow: draw the direction of the vector field.
        trails: draw trajectories.
        probe: the start that is highlighted, in units of x; the first sample if None.
        handover: the frame at which the teacher takes over from the student, in planes that allow it.
        steps: Heun steps of the teacher after the handover; 0 for none.
        row: the selected row of a heat map.
    """

    n: int = 250
    solver: str = "exact"
    frame: int = 0
    play: bool = True
    raw: bool = False
    density: bool = True
    flow: bool = True
    trails: bool = True
    probe: tuple[float, float] | None = None
    handover: int = 36
    steps: int = 0
    row: int | None = None


@dataclass(frozen=True)
class Network:
    """A student that the viewer can evaluate: a `Trajectory` with a residual MLP as its network.

    Attributes:
        weights: the MLP's state dict as arrays: frequencies (2, k), harmonics (h,), first, hidden and out layers.
        t_max: start time of the trajectories.
        sigma_data: standard deviation of the data.
        boundary: hard | increment | soft | signal.
        c_in: factor that scales z before it enters the network.
    """

    weights: Mapping[str, np.ndarray]
    t_max: float
    sigma_data: float
    boundary: str
    c_in: float

    def data(self) -> dict[str, Any]:
        """Return the student as JSON types."""
        w = self.weights

        def layer(name: str) -> dict[str, Any]:
            return {part: packed(w[f"{name}.{part}"]) for part in ("weight", "bias")}

        depth = 1 + max((int(key.split(".")[2]) for key in w if key.startswith("body.hidden.")), default=-1)
        return {
            "t_max": self.t_max,
            "sigma_data": self.sigma_data,
            "boundary": self.boundary,
            "c_in": self.c_in,
            "harmonics": np.asarray(w["harmonics"], float).tolist(),
            "frequencies": packed(w["frequencies"]),
            "first": layer("first"),
            "hidden": [layer(f"body.hidden.{i}") for i in range(depth)],
            "out": layer("body.out"),
        }


@dataclass(frozen=True)
class Plane:
    """A panel of moving points.

    Attributes:
        title: shown above the panel.
        student: drawn in orange: a `Network`, recorded trajectories (F, B, 2), or None.
        handover: whether the teacher's solver can take over from the student.
    """

    title: str = ""
    student: Network | np.ndarray | None = None
    handover: bool = False


@dataclass(frozen=True)
class Heat:
    """A heat map: one row per sample, one column per frame.

    Attributes:
        title: shown above the panel.
        values: (B, F), the first row at the top.
        order: (B,) index of each row's sample.
        limits: the values drawn in the darkest and in the brightest colour.
        log10: whether the values are decimal logarithms, so that the colour scale has powers of ten.
    """

    title: str
    values: np.ndarray
    order: np.ndarray
    limits: tuple[float, float]
    log10: bool = False


@dataclass(frozen=True)
class Images:
    """A panel of small grey images that change with time.

    Attributes:
        title: shown above the panel.
        rows: label to (F, B, R, R) uint8; all images of one column start from the same noise.
    """

    title: str
    rows: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Scene:
    """An interactive picture of a teacher and its students. A notebook displays it.

    Attributes:
        title: a description.
        times: (F,) time of each frame.
        panels: `Plane`, `Heat` or `Images`, side by side; all share times and starts.
        starts: (B, 2) positions at the first time.
        mixture: the teacher, if it is a Gaussian mixture: means (K, 2), weights (K,), covs (K, 2, 2).
        exact: (F, B, 2) the reference trajectories.
        sigma_data: standard deviation of the data, where points of a diffusion are shown; else None (`is_diffusion`).
        rho: exponent of the Karras grids of the teacher's solver.
        limits: ((x low, x high), (y low, y high)) of an ODE's plane.
        axes: names of its axes.
        names: labels of student and teacher in the legend, and of time where that is something else.
        caption: a sentence above the errors.
        view: the first view.
        modes: whether the mixture's components are separate modes, so that samples in a different one are marked.
    """

    title: str
    times: np.ndarray
    panels: Sequence[Plane | Heat | Images]
    starts: np.ndarray | None = None
    mixture: Mapping[str, np.ndarray] | None = None
    exact: np.ndarray | None = None
    sigma_data: float | None = None
    rho: float = 7.0
    limits: tuple[tuple[float, float], tuple[float, float]] | None = None
    axes: tuple[str, str] = ("x₁", "x₂")
    names: Mapping[str, str] = field(default_factory=dict)
    caption: str = ""
    view: View = field(default_factory=View)
    modes: bool = True

    @property
    def is_diffusion(self) -> bool:
        """Whether the scene shows points of a diffusion, in rescaled coordinates: neither another ODE nor images."""
        return self.sigma_data is not None

    def scale(self, t: float | np.ndarray) -> np.ndarray:
        """Return s(t), which x is divided by before it is drawn: sqrt(sigma_data^2 + t^2) of a diffusion, else 1."""
        return np.hypot(self.sigma_data, t) if self.sigma_data is not None else np.ones_like(t, float)

    def data(self) -> dict[str, Any]:
        """Return the scene as JSON types for the viewer in the browser.

        ``id`` is a hash of all content except the view. ``stage`` also excludes the students of planes: between two
        scenes of the same stage, such as two states of a student in training, the viewer keeps the visitor's view.
        """
        content: dict[str, Any] = {
            "version": VERSION,
            "title": self.title,
            "times": np.asarray(self.times, float).tolist(),
            "span": [float(self.times[0]), float(self.times[-1])],
            "rho": self.rho,
            "sigma_data": self.sigma_data,
            "starts": None if self.starts is None else packed(np.asarray(self.starts, np.float32)),
            "mixture": None if self.mixture is None else _mixture(**self.mixture),
            "modes": self.modes,
            "exact": None if self.exact is None else self._recorded(self.exact),
            "panels": [self._panel(panel) for panel in self.panels],
            "limits": self.limits,
            "axes": list(self.axes),
            "names": dict(self.names),
            "caption": self.caption,
        }
        panels: list[dict[str, Any]] = content["panels"]
        stage = {**content, "panels": [{k: v for k, v in panel.items() if k != "student"} for panel in panels]}
        return {**content, "id": digest(content), "stage": digest(stage), "view": asdict(self.view)}

    def seen(self, view: View) -> Scene:
        """Return the same scene with another view."""
        if not isinstance(view, View):
            raise ValueError(f"got view of type {type(view).__name__}, but view must be a pidlearn.viewer.View")
        return replace(self, view=view)

    def html(self) -> str:
        """Return a self-contained HTML page."""
        # Inside a script element, "</script" would end it and "<!--" would change how it is parsed.
        data = json.dumps(self.data()).replace("<", "\\u003c")
        return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{html.escape(self.title)}</title>
<style>
  body {{ margin: 0; padding: 12px; background: #fff; }}
  @media (prefers-color-scheme: dark) {{ body {{ background: #14181f; }} }}
  main {{ max-width: 1100px; margin: auto; }}
</style>
<main id="scene"></main>
<script type="module">
{script()}
mount(document.getElementById("scene"), {data});
</script>
</html>
"""

    def save(self, path: str | Path) -> Path:
        """Write the HTML page to a file, whole or not at all, and return its path. Its folder is made if need be."""
        if not isinstance(path, str | os.PathLike) or not os.fspath(path):
            raise ValueError(f"got path = {path!r:.100}, but path must be a path, such as 'page.html'")
        path = Path(path)
        write_atomically(path, self.html().encode())
        return path

    def _repr_html_(self) -> str:
        height = 380 if any(isinstance(panel, Images) for panel in self.panels) else 720
        page = html.escape(self.html(), quote=True)
        title = html.escape(self.title, quote=True)
        style = f"width: 100%; height: {height}px; border: 0"
        return f'<iframe srcdoc="{page}" loading="lazy" style="{style}" title="{title}"></iframe>'

    def _panel(self, panel: Plane | Heat | Images) -> dict[str, Any]:
        if isinstance(panel, Heat):
            values = packed(np.asarray(panel.values, np.float32))
            order = packed(np.asarray(panel.order, np.int16))
            scale = {"range": panel.limits, "log10": panel.log10}
            return {"type": "heat", "title": panel.title, "values": values, "order": order, **scale}
        if isinstance(panel, Images):
            rows = [{"title": name, "frames": packed(frames)} for name, frames in panel.rows.items()]
            return {"type": "images", "title": panel.title, "rows": rows}
        student = panel.student.data() if isinstance(panel.student, Network) else None
        if isinstance(panel.student, np.ndarray):
            student = {"frames": self._recorded(panel.student)}
        return {"type": "plane", "title": panel.title, "student": student, "handover": panel.handover}

    def _recorded(self, path: np.ndarray) -> dict[str, Any]:
        """Pack trajectories (F, B, 2) as int16, in the coordinates of the picture: a resolution of 1e-4."""
        path = path / self.scale(np.asarray(self.times))[:, None, None]
        scale = float(np.abs(path).max()) / 32767 or 1.0
        return {**packed(np.round(path / scale).astype(np.int16)), "scale": scale}


def phase_plane(
    title: str,
    times: np.ndarray,
    exact: np.ndarray,
    panels: Sequence[Plane],
    axes: tuple[str, str],
    view: View | None = None,
) -> Scene:
    """Return the scene of an ODE other than a diffusion.

    Args:
        title: a description.
        times: (F,) time of each frame.
        exact: (F, B, 2) SciPy's trajectories, which also determine the limits of the plane.
        panels: the students.
        axes: names of the axes.
        view: the first view.
    """
    low, high = exact.min((0, 1)), exact.max((0, 1))
    margin = 0.06 * (high - low) + 1e-9
    x, y = ((float(a), float(b)) for a, b in zip(low - margin, high + margin, strict=True))
    names = {"student": "student", "teacher": "SciPy"}
    return Scene(
        title, times, panels, exact[0], exact=exact, limits=(x, y), axes=axes, names=names, view=view or View()
    )


def digest(content: Any) -> str:
    """Return a short hash of JSON data."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def packed(array: np.ndarray) -> dict[str, Any]:
    """Pack an array as shape, dtype and base64 of its little-endian bytes."""
    array = np.ascontiguousarray(array)
    kind = array.dtype.newbyteorder("<")
    return {
        "shape": list(array.shape),
        "dtype": kind.name,
        "data": base64.b64encode(array.astype(kind).tobytes()).decode(),
    }


def _mixture(means: np.ndarray, weights: np.ndarray, covs: np.ndarray) -> dict[str, Any]:
    eigenvalues, basis = np.linalg.eigh(covs)
    arrays = {"means": means, "weights": weights, "eigenvalues": eigenvalues, "basis": basis}
    return {name: np.asarray(array, float).tolist() for name, array in arrays.items()}
