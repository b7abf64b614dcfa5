"""What the viewer is told: arrays in, JSON or a page of HTML out."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Heat", "Images", "Network", "Plane", "Scene", "View", "phase_plane", "script"]

VERSION = 1


@cache
def script() -> str:
    """The text of viewer.js, an ES module."""
    return (Path(__file__).parent / "viewer.js").read_text(encoding="utf-8")


@dataclass(frozen=True)
class View:
    """What of a scene is looked at; all of it can be changed in the picture.

    Attributes:
        n: grid points of the teacher's solver.
        solver: euler | heun | exact.
        frame: position in time, as a frame of the scene.
        play: whether it moves by itself (not where the visitor prefers reduced motion).
        raw: x itself in place of x / sqrt(sigma_data^2 + t^2).
        density: show the density behind the points.
        flow: show where the field points.
        trails: show paths.
        probe: the start that is followed, in units of x; the first sample if None.
        handover: frame at which the teacher takes over from the student, where the scene allows it.
        steps: Heun steps of the teacher from there.
        row: the row of a heat-map that is lit.
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
    """A student that the viewer evaluates itself: a residual MLP within a trajectory.

    Attributes:
        weights: the network's state dict as arrays: frequencies (2, k), harmonics (h,), first, hidden and out layers.
        t_max: where paths start.
        sigma_data: standard deviation of the data.
        boundary: hard | increment | soft.
        c_in: scale of z on its way into the network.
    """

    weights: Mapping[str, np.ndarray]
    t_max: float
    sigma_data: float
    boundary: str
    c_in: float

    def data(self) -> dict[str, Any]:
        """For the viewer."""
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
        title: above it.
        student: what is drawn in orange: a `Network`, recorded paths (F, B, 2), or None.
        handover: whether the teacher may take over from the student on the way.
    """

    title: str = ""
    student: Network | np.ndarray | None = None
    handover: bool = False


@dataclass(frozen=True)
class Heat:
    """A panel of residuals: a row a sample, a column a frame.

    Attributes:
        title: above it.
        values: (B, F), drawn from dark to bright over ``limits``, the first row at the top.
        order: (B,) the sample of each row.
        limits: values of the darkest and the brightest colour.
    """

    title: str
    values: np.ndarray
    order: np.ndarray
    limits: tuple[float, float]


@dataclass(frozen=True)
class Images:
    """A panel of small grey images that change with time.

    Attributes:
        title: above it.
        rows: name to (F, B, R, R) uint8; one column is one start.
    """

    title: str
    rows: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Scene:
    """Something to look at. In a notebook it shows itself.

    Attributes:
        title: what it is.
        times: (F,) of the frames.
        panels: `Plane`, `Heat` or `Images`, side by side; all share time and starts.
        starts: (B, 2) at the first time.
        mixture: the teacher where it is a Gaussian mixture: means (K, 2), weights (K,), covs (K, 2, 2).
        exact: (F, B, 2) the reference paths.
        sigma_data: standard deviation of the data of a diffusion; None for any other ODE.
        rho: of the teacher's grids.
        limits: ((x low, x high), (y low, y high)) of the plane of an ODE.
        axes: names of its axes.
        names: of student and teacher in the legend.
        caption: a sentence before the figures.
        view: what is looked at first.
        modes: whether the mixture's components are modes, so that ending in another one is told.
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

    def data(self) -> dict[str, Any]:
        """All of it as JSON types, for viewer.js.

        ``id`` tells scenes apart, whatever is looked at; ``stage`` those that differ in more than their planes'
        students: between two of one stage, as a student in training leaves them, the viewer keeps the visitor's view.
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
        """The same scene, looked at otherwise."""
        return replace(self, view=view)

    def html(self) -> str:
        """A whole page that needs nothing but a browser."""
        # "</script" would end the script element wherever it stands, and "<!--" change how it is read.
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
        """Write `html` to a file."""
        path = Path(path)
        path.write_text(self.html(), encoding="utf-8")
        return path

    def _repr_html_(self) -> str:
        height = 380 if any(isinstance(panel, Images) for panel in self.panels) else 720
        page = html.escape(self.html(), quote=True)
        title = html.escape(self.title, quote=True)
        return f'<iframe srcdoc="{page}" style="width: 100%; height: {height}px; border: 0" title="{title}"></iframe>'

    def _panel(self, panel: Plane | Heat | Images) -> dict[str, Any]:
        if isinstance(panel, Heat):
            values = packed(np.asarray(panel.values, np.float32))
            order = packed(np.asarray(panel.order, np.int16))
            return {"type": "heat", "title": panel.title, "values": values, "order": order, "range": panel.limits}
        if isinstance(panel, Images):
            rows = [{"title": name, "frames": packed(frames)} for name, frames in panel.rows.items()]
            return {"type": "images", "title": panel.title, "rows": rows}
        student = panel.student.data() if isinstance(panel.student, Network) else None
        if isinstance(panel.student, np.ndarray):
            student = {"frames": self._recorded(panel.student)}
        return {"type": "plane", "title": panel.title, "student": student, "handover": panel.handover}

    def _recorded(self, path: np.ndarray) -> dict[str, Any]:
        """Paths (F, B, 2) in the coordinates that they are drawn in, as int16: 1e-4 of the picture."""
        if self.sigma_data is not None:
            path = path / np.hypot(self.sigma_data, np.asarray(self.times))[:, None, None]
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
    """Paths of an ODE that is no diffusion, SciPy's (F, B, 2) and students', within the exact ones' bounds."""
    low, high = exact.min((0, 1)), exact.max((0, 1))
    margin = 0.06 * (high - low) + 1e-9
    x, y = ((float(a), float(b)) for a, b in zip(low - margin, high + margin, strict=True))
    names = {"student": "student", "teacher": "SciPy"}
    return Scene(
        title, times, panels, exact[0], exact=exact, limits=(x, y), axes=axes, names=names, view=view or View()
    )


def digest(content: Any) -> str:
    """A short name of JSON data by what they hold."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def packed(array: np.ndarray) -> dict[str, Any]:
    """An array as shape, dtype and base64 of its little-endian bytes."""
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
