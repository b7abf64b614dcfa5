"""Views as files: figures drawn by Matplotlib, points as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from typing import Any

import numpy as np

from app.shared.trajectories import probe_trajectories, trajectories, wrong_mode
from pidlearn.viewer import Heat, Images, Network, Plane, Scene, View

__all__ = ["csv_bytes", "draw", "gif_bytes", "image_bytes"]

STUDENT, TEACHER, PROBE = "#d55e00", "0.45", "#f0e442"
REACH = 2.9
"""Half-width of a plane of noise, in units of sqrt(sigma_data^2 + t^2); as in viewer/js/coordinates.js."""
TRAILS, WINDING_TRAILS = 20, 6
"""Trajectories drawn for a diffusion, and for another ODE, whose trajectories wind."""
GAPS = 60
"""Arrows drawn for a soft boundary."""
DENSITY_CELLS, FLOW_ARROWS = 84, 15
"""Cells of the density and arrows of the flow along one side of the plane."""
COLUMNS, SHOWN = 12, 24
"""Images per row, and in total."""

Mover = Callable[[int], None]
"""Move a drawing to a frame."""


def draw(scene: Scene, view: View, dpi: int = 130) -> tuple[Any, Mover]:
    """Return a Matplotlib figure of the view, and a function that moves it to another frame."""
    from matplotlib.figure import Figure

    planes = any(isinstance(panel, Plane) for panel in scene.panels)
    teacher, students = trajectories(scene, view) if planes else (None, [])
    probe_teacher: np.ndarray | None = None
    probe_students: list[np.ndarray | None] = [None] * len(students)
    if planes and scene.starts is not None:
        probe_teacher, probe_students = probe_trajectories(scene, view)
    pairs = iter(zip(students, probe_students, strict=True))
    size = (4.6 * len(scene.panels), 4.8) if planes else (9.0, 4.6)
    figure = Figure(figsize=size, dpi=dpi, layout="constrained")
    movers: list[Mover] = []
    for ax, panel in zip(figure.subplots(1, len(scene.panels), squeeze=False)[0], scene.panels, strict=True):
        ax.set_title(panel.title, fontsize=10)
        if isinstance(panel, Plane):
            student, probe_student = next(pairs)
            movers.append(_plane(ax, scene, view, teacher, student))
            if isinstance(panel.student, Network) and panel.student.boundary == "soft" and student is not None:
                _gaps(ax, scene, view, student)
            _probe(ax, scene, view, probe_teacher, probe_student)
        elif isinstance(panel, Heat):
            movers.append(_heat(ax, scene, view, panel))
        else:
            movers.append(_images(ax, panel))
    label = figure.supxlabel("", fontsize=9)
    solver = "SciPy" if view.solver == "exact" or scene.mixture is None else f"{view.solver.title()}-{view.n}"
    legend = f"\ngrey: {solver}    orange: student" if planes else ""
    legend += "    cross: student in a different mode" if scene.mixture is not None and scene.modes else ""

    def move(frame: int) -> None:
        for mover in movers:
            mover(frame)
        label.set_text(f"{scene.names.get('time', 't')} = {scene.times[frame]:.4g}{legend}")

    move(min(view.frame, len(scene.times) - 1))
    return figure, move


def _plane(ax: Any, scene: Scene, view: View, teacher: Any, student: Any) -> Mover:
    """Draw the moving points of teacher and student, their trails, and a line between the two of each sample."""
    from matplotlib.collections import LineCollection

    divisor = _divisor(scene, view)
    if scene.limits is None:
        ax.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH), aspect="equal", xticks=[], yticks=[])
    else:
        ax.set(xlim=scene.limits[0], ylim=scene.limits[1], xlabel=scene.axes[0], ylabel=scene.axes[1])
    background = _background(ax, scene, view) if scene.mixture is not None and not view.raw else None
    wrong = wrong_mode(scene, teacher, student)
    crosses = ax.scatter([], [], s=22, c="black", marker="x", linewidths=1.3, zorder=4)
    joints = LineCollection([], colors="0.6", linewidths=0.6, alpha=0.6)
    ax.add_collection(joints)
    ring = {"s": 16, "facecolors": "none", "edgecolors": TEACHER}
    movers = []
    dot = {"s": 7, "c": STUDENT}
    for path, colour, width, style, shown in (
        (teacher, TEACHER, 2.2, ring, slice(None)),
        (student, STUDENT, 1.0, dot, ~wrong),
    ):
        if path is not None:
            y = path / divisor
            lines = LineCollection([], colors=colour, linewidths=width, alpha=0.7 if view.trails else 0.0)
            ax.add_collection(lines)
            movers.append((y, lines, ax.scatter(y[0, :, 0], y[0, :, 1], linewidths=1.0, zorder=3, **style), shown))
    trails = TRAILS if scene.is_diffusion else WINDING_TRAILS

    def move(frame: int) -> None:
        if background is not None:
            background(frame)
        for y, lines, dots, shown in movers:
            lines.set_segments([y[: frame + 1, i] for i in range(min(trails, y.shape[1]))])
            dots.set_offsets(y[frame, shown])
        if len(movers) == 2:
            joints.set_segments(list(np.stack([y[frame] for y, *_ in movers], 1)))
        if wrong.any():
            crosses.set_offsets((student / divisor)[frame, wrong])

    return move


def _divisor(scene: Scene, view: View) -> np.ndarray:
    """Return the scale that x is divided by before it is drawn, (F, 1, 1)."""
    scale = scene.scale(np.asarray(scene.times, float))
    return (np.full_like(scale, scale[0]) if view.raw else scale)[:, None, None]


def _gaps(ax: Any, scene: Scene, view: View, student: np.ndarray) -> None:
    """Draw arrows from z to x(z, T), which a soft boundary does not force to be equal."""
    z, start = (np.asarray(x, float)[:GAPS] / _divisor(scene, view)[0] for x in (scene.starts, student[0]))
    ax.quiver(*z.T, *(start - z).T, angles="xy", scale_units="xy", scale=1, width=0.004, zorder=5)


def _probe(ax: Any, scene: Scene, view: View, teacher: Any, student: Any) -> None:
    """Draw the visitor's noise point and both its trajectories to the endpoint."""
    for path, colour, width in ((teacher, TEACHER, 3.2), (student, STUDENT, 1.7)):
        if path is not None:
            y = (path / _divisor(scene, view))[:, 0]
            ax.plot(*y.T, color=colour, linewidth=width, zorder=6)
            ax.plot(*y[-1], "o", color=colour, markersize=width + 3, zorder=6)
    either = next((path for path in (teacher, student) if path is not None), None)
    if either is not None:
        at = (either / _divisor(scene, view))[0, 0]
        for colour, width in (("black", 4.5), (PROBE, 2.5)):
            ax.plot(*at, "o", ms=9, mfc="white", mec=colour, mew=width, zorder=7)


def _background(ax: Any, scene: Scene, view: View) -> Mover:
    """Draw the density and the flow behind the points, as viewer/js/background.js does."""
    import torch

    import pidlearn as pid

    assert scene.mixture is not None
    mixture = pid.GaussianMixture(**scene.mixture)

    def mesh(side: int) -> torch.Tensor:
        at = REACH * ((2 * torch.arange(side, dtype=torch.float64) + 1) / side - 1)
        return torch.stack(torch.meshgrid(at, at, indexing="xy"), -1).reshape(-1, 2)

    fine, coarse = mesh(DENSITY_CELLS), mesh(FLOW_ARROWS)
    colour = np.zeros((DENSITY_CELLS, DENSITY_CELLS, 4))
    colour[..., :3] = np.array([0, 114, 178]) / 255
    image = ax.imshow(colour, extent=(-REACH, REACH, -REACH, REACH), origin="lower", interpolation="bilinear")
    flow = ax.quiver(
        *coarse.T.numpy(),
        *coarse.T.numpy(),
        color="0.6",
        angles="xy",
        scale_units="xy",
        scale=1,
        width=0.003,
        headwidth=4,
    )
    flow.set_visible(view.flow)
    image.set_visible(view.density)

    def move(frame: int) -> None:
        t = float(scene.times[frame])
        s = float(scene.scale(t))
        p = mixture.log_prob(fine * s, t).exp().reshape(DENSITY_CELLS, DENSITY_CELLS).numpy()
        colour[..., 3] = 0.65 * (p / p.max()) ** 0.7
        image.set_data(colour)
        # y = x / s and t dx/dt = x - D give -t dy/dt = D / s - y sigma_data^2 / s^2, with sigma_data = s(0).
        direction = (mixture.denoise(coarse * s, t) / s - coarse * (float(scene.scale(0.0)) / s) ** 2).numpy()
        size = np.hypot(*direction.T)
        flow.set_UVC(*(direction * (0.36 / (size + 0.6))[:, None]).T)

    return move


def _heat(ax: Any, scene: Scene, view: View, panel: Heat) -> Mover:
    """Draw the heat map, a line at the current time and the selected row."""
    low, high = panel.limits
    image = ax.imshow(panel.values, aspect="auto", cmap="viridis", vmin=low, vmax=high, interpolation="nearest")
    scale = (lambda value, _: f"{10**value:.2g}") if panel.log10 else None
    ax.figure.colorbar(image, ax=ax, fraction=0.05, pad=0.02, ticks=np.linspace(low, high, 5), format=scale)
    at = np.linspace(0, len(scene.times) - 1, 5).round().astype(int)
    ax.set(xticks=at, xticklabels=[f"{scene.times[i]:.2g}" for i in at], yticks=[], xlabel="t", ylabel="samples")
    line = ax.axvline(0, color="white", linewidth=1.5)
    if view.row is not None:
        ax.axhspan(view.row - 0.5, view.row + 0.5, fill=False, edgecolor="black", linewidth=3)
        ax.axhspan(view.row - 0.5, view.row + 0.5, fill=False, edgecolor="white", linewidth=1.2)
    return lambda frame: line.set_xdata([frame, frame])


def _images(ax: Any, panel: Images) -> Mover:
    """Draw the images of each row, in bands of at most `COLUMNS`."""
    shown = min(SHOWN, next(iter(panel.rows.values())).shape[1])
    bands = -(-shown // COLUMNS)
    across = -(-shown // bands)

    def sheet(frame: int) -> np.ndarray:
        strips = [frames[frame, b * across :][:across] for b in range(bands) for frames in panel.rows.values()]
        # Pad every strip to full width, and separate images by one white pixel.
        padded = [np.pad(s, ((0, across - len(s)), (0, 1), (0, 1)), constant_values=255) for s in strips]
        return np.concatenate([np.concatenate(list(strip), 1) for strip in padded], 0)

    first = sheet(0)
    image = ax.imshow(first, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    names = [*panel.rows] * bands
    ticks = (np.arange(len(names)) + 0.5) * first.shape[0] / len(names) - 1
    ax.set(xticks=[], yticks=ticks, yticklabels=names)
    ax.spines[:].set_visible(False)
    return lambda frame: image.set_data(sheet(frame))


def image_bytes(scene: Scene, view: View, kind: str) -> bytes:
    """Return the view as a "png" or "svg" file."""
    figure, _ = draw(scene, view)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind)
    return buffer.getvalue()


def gif_bytes(scene: Scene, view: View) -> bytes:
    """Return a film from noise to data: every second frame, with a pause on the last."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    figure, move = draw(scene, view, dpi=70)
    canvas = FigureCanvasAgg(figure)
    images = []
    for frame in range(0, len(scene.times), 2):
        move(frame)
        canvas.draw()
        figure.set_layout_engine("none")  # the first frame's layout stays: computing it takes a third of the time
        images.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").quantize(255))
    buffer = io.BytesIO()
    durations = [90] * (len(images) - 1) + [1500]
    images[0].save(buffer, "GIF", save_all=True, append_images=images[1:], duration=durations, loop=0)
    return buffer.getvalue()


def csv_bytes(scene: Scene, view: View) -> bytes:
    """Return the starts and the positions at the view's frame as CSV: one row per sample, in units of x."""
    teacher, students = trajectories(scene, view)
    frame = min(view.frame, len(scene.times) - 1)
    titles = [panel.title or "student" for panel in scene.panels if isinstance(panel, Plane)]
    named = {"teacher": teacher, **dict(zip(titles, students, strict=True))}
    axes = (1, 2) if scene.is_diffusion else scene.axes
    columns = {"z": scene.starts, **{name: path[frame] for name, path in named.items() if path is not None}}
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([f"{name} {axis}" for name in columns for axis in axes] + ["t"])
    t = float(scene.times[frame])
    for row in np.concatenate([np.asarray(column, float) for column in columns.values()], 1):
        writer.writerow([f"{v:.7g}" for v in row] + [f"{t:.7g}"])
    return text.getvalue().encode()
