"""Views as files: pictures by Matplotlib, points as CSV, a page of HTML by the scene itself."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from app.models import shipped
from pidlearn.viewer import Heat, Images, Network, Plane, Scene, View

__all__ = ["gif", "picture", "points"]

STUDENT, TEACHER, PROBE = "#d55e00", "0.45", "#f0e442"
REACH = 2.9
TRAILS, WINDING, GAPS, SIDE, ARROWS = 20, 6, 60, 84, 15
"""Paths drawn of a flow and of an ODE, which wind; arrows of a soft boundary; density and flow along a side."""
ACROSS, SHOWN = 12, 24
"""Images in a row, and in all."""
FINE = 500
"""Heun's points of the single path that stands for the exact one."""


def paths(scene: Scene, view: View) -> tuple[np.ndarray | None, list[np.ndarray | None]]:
    """The teacher's path (F, B, 2) by the view's solver at the scene's frames, and each plane's student's."""
    teacher = scene.exact
    if scene.mixture is not None and scene.starts is not None and view.solver != "exact":
        teacher = _solved(scene, np.asarray(scene.starts, float), 0, view.n, view.solver)
    students = []
    for panel in scene.panels:
        if isinstance(panel, Plane):
            path = _student(scene, panel.student)
            if path is not None and panel.handover and view.steps:
                # From the student's point at the handover the teacher walks the rest.
                rest = _solved(scene, path[view.handover].astype(float), view.handover, view.steps + 1, "heun")
                path = np.concatenate([path[: view.handover], rest])
            students.append(path)
    return teacher, students


def probed(scene: Scene, view: View) -> tuple[np.ndarray | None, list[np.ndarray | None]]:
    """As `paths`, of the one start that the visitor follows: (F, 1, 2)."""
    assert scene.starts is not None
    probe = np.asarray(scene.starts[0] if view.probe is None else view.probe, float)
    students = [panel.student for panel in scene.panels if isinstance(panel, Plane)]
    if scene.mixture is not None and not any(isinstance(student, np.ndarray) for student in students):
        fine = replace(view, solver="heun", n=FINE) if view.solver == "exact" else view
        return paths(replace(scene, starts=probe[None]), fine)
    i = int(np.hypot(*(np.asarray(scene.starts) - probe).T).argmin())
    recorded = [student if isinstance(student, np.ndarray) else None for student in students]
    one, *others = (None if path is None else path[:, i : i + 1] for path in (scene.exact, *recorded))
    return one, others


def _solved(scene: Scene, start: np.ndarray, frame: int, n: int, solver: str) -> np.ndarray:
    """The teacher's path from ``start`` at a frame, at the frames from there on: (F - frame, B, 2)."""
    import torch

    import pidlearn as pid

    assert scene.mixture is not None
    times = np.asarray(scene.times[frame:], float)
    ode = pid.DenoiserODE(pid.GaussianMixture(**scene.mixture))
    grid = pid.karras_grid(n, float(times[-1]), float(times[0]), scene.rho)
    path = pid.solve(ode, torch.from_numpy(start), grid, solver).numpy()
    # Between two of its points a solver's path is the straight line in t.
    where = np.clip(np.searchsorted(-grid.numpy(), -times, "right") - 1, 0, len(grid) - 2)
    low, high = grid.numpy()[where], grid.numpy()[where + 1]
    share = ((times - low) / (high - low))[:, None, None]
    return path[where] * (1 - share) + path[where + 1] * share


def _student(scene: Scene, student: Network | np.ndarray | None) -> np.ndarray | None:
    if not isinstance(student, Network):
        return student
    import torch

    import pidlearn as pid

    weights = {name: torch.from_numpy(np.asarray(value, np.float32)) for name, value in student.weights.items()}
    depth = 1 + sum(name.startswith("body.hidden.") and name.endswith("weight") for name in weights)
    network = pid.nets.MLP(
        2,
        width=len(weights["first.bias"]),
        depth=depth,
        fourier=weights["frequencies"].shape[1],
        harmonics=len(weights["harmonics"]),
    )
    network.load_state_dict(weights)
    trajectory = pid.Trajectory(
        network, student.t_max, sigma_data=student.sigma_data, boundary=student.boundary, c_in=student.c_in
    )
    z = torch.from_numpy(np.asarray(scene.starts, np.float32))
    return trajectory.trajectory(z, torch.from_numpy(np.asarray(scene.times, float))).numpy()


def draw(scene: Scene, view: View, dpi: int = 130) -> tuple[Any, Callable[[int], None]]:
    """A Matplotlib figure of the view, and a function of the frame that moves it."""
    from matplotlib.figure import Figure

    planes = any(isinstance(panel, Plane) for panel in scene.panels)
    teacher, students = paths(scene, view) if planes else (None, [])
    single, singles = probed(scene, view) if planes and scene.starts is not None else (None, [None] * len(students))
    ours = iter(zip(students, singles, strict=True))
    size = (4.6 * len(scene.panels), 4.8) if planes else (9.0, 4.6)
    figure = Figure(figsize=size, dpi=dpi, layout="constrained")
    movers: list[Callable[[int], None]] = []
    for ax, panel in zip(figure.subplots(1, len(scene.panels), squeeze=False)[0], scene.panels, strict=True):
        ax.set_title(panel.title, fontsize=10)
        if isinstance(panel, Plane):
            student, followed = next(ours)
            movers.append(_plane(ax, scene, view, teacher, student))
            if isinstance(panel.student, Network) and panel.student.boundary == "soft" and student is not None:
                _gaps(ax, scene, view, student)
            _probe(ax, scene, view, single, followed)
        elif isinstance(panel, Heat):
            movers.append(_heat(ax, scene, view, panel))
        else:
            movers.append(_images(ax, panel))
    label = figure.supxlabel("", fontsize=9)
    solver = "SciPy" if view.solver == "exact" or scene.mixture is None else f"{view.solver.title()}-{view.n}"
    legend = f"\ngrey: {solver}    orange: the student" if planes else ""
    legend += "    cross: in another mode" if scene.mixture is not None and scene.modes else ""

    def move(frame: int) -> None:
        for mover in movers:
            mover(frame)
        label.set_text(f"t = {scene.times[frame]:.3g}{legend}")

    move(min(view.frame, len(scene.times) - 1))
    return figure, move


def _plane(ax: Any, scene: Scene, view: View, teacher: Any, student: Any) -> Callable[[int], None]:
    from matplotlib.collections import LineCollection

    divisor = _divisor(scene, view)
    if scene.limits is None:
        ax.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH), aspect="equal", xticks=[], yticks=[])
    else:
        ax.set(xlim=scene.limits[0], ylim=scene.limits[1], xlabel=scene.axes[0], ylabel=scene.axes[1])
    ground = _ground(ax, scene, view) if scene.mixture is not None and not view.raw else None
    wrong = _wrong(scene, teacher, student)
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
    trails = TRAILS if scene.sigma_data is not None else WINDING

    def move(frame: int) -> None:
        if ground is not None:
            ground(frame)
        for y, lines, dots, shown in movers:
            lines.set_segments([y[: frame + 1, i] for i in range(min(trails, y.shape[1]))])
            dots.set_offsets(y[frame, shown])
        if len(movers) == 2:
            joints.set_segments(list(np.stack([y[frame] for y, *_ in movers], 1)))
        if wrong.any():
            crosses.set_offsets((student / divisor)[frame, wrong])

    return move


def _divisor(scene: Scene, view: View) -> np.ndarray:
    """(F, 1, 1) what x is divided by before it is drawn."""
    times = np.asarray(scene.times, float)
    scale = np.ones_like(times) if scene.sigma_data is None else np.hypot(scene.sigma_data, times)
    return (np.full_like(scale, scale[0]) if view.raw else scale)[:, None, None]


def _gaps(ax: Any, scene: Scene, view: View, student: np.ndarray) -> None:
    """Where a soft boundary lets paths start: arrows from z to x(z, T)."""
    z, start = (np.asarray(x, float)[:GAPS] / _divisor(scene, view)[0] for x in (scene.starts, student[0]))
    ax.quiver(*z.T, *(start - z).T, angles="xy", scale_units="xy", scale=1, width=0.004, zorder=5)


def _probe(ax: Any, scene: Scene, view: View, teacher: Any, student: Any) -> None:
    """The start that is followed, and both its paths to the end."""
    for path, colour, width in ((teacher, TEACHER, 3.2), (student, STUDENT, 1.7)):
        if path is not None:
            y = (path / _divisor(scene, view))[:, 0]
            ax.plot(*y.T, color=colour, linewidth=width, zorder=6)
            ax.plot(*y[-1], "o", color=colour, markersize=width + 3, zorder=6)
    some = next((path for path in (teacher, student) if path is not None), None)
    if some is not None:
        at = (some / _divisor(scene, view))[0, 0]
        for colour, width in (("black", 4.5), (PROBE, 2.5)):
            ax.plot(*at, "o", ms=9, mfc="white", mec=colour, mew=width, zorder=7)


def _ground(ax: Any, scene: Scene, view: View) -> Callable[[int], None]:
    """What lies behind the points: the density, and where the flow carries them, as the viewer draws both."""
    import torch

    import pidlearn as pid

    assert scene.mixture is not None
    assert scene.sigma_data is not None
    sigma_data, mixture = scene.sigma_data, pid.GaussianMixture(**scene.mixture)

    def mesh(side: int) -> torch.Tensor:
        at = REACH * ((2 * torch.arange(side, dtype=torch.float64) + 1) / side - 1)
        return torch.stack(torch.meshgrid(at, at, indexing="xy"), -1).reshape(-1, 2)

    fine, coarse = mesh(SIDE), mesh(ARROWS)
    colour = np.zeros((SIDE, SIDE, 4))
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
        s = float(np.hypot(sigma_data, t))
        p = mixture.log_prob(fine * s, t).exp().reshape(SIDE, SIDE).numpy()
        colour[..., 3] = 0.65 * (p / p.max()) ** 0.7
        image.set_data(colour)
        # y = x / s and t dx/dt = x - D give -t dy/dt = D / s - y sigma_data^2 / s^2.
        way = (mixture.denoise(coarse * s, t) / s - coarse * (sigma_data / s) ** 2).numpy()
        size = np.hypot(*way.T)
        flow.set_UVC(*(way * (0.36 / (size + 0.6))[:, None]).T)

    return move


def _wrong(scene: Scene, teacher: Any, student: Any) -> np.ndarray:
    """(B,) which samples of the student end in another mode than the teacher's."""
    if scene.mixture is None or not scene.modes or teacher is None or student is None:
        return np.zeros(1 if student is None else student.shape[1], bool)
    import torch

    import pidlearn as pid

    component = pid.GaussianMixture(**scene.mixture).component
    ours, theirs = (component(torch.from_numpy(path[-1].astype(float))) for path in (student, teacher))
    return (ours != theirs).numpy()


def _heat(ax: Any, scene: Scene, view: View, panel: Heat) -> Callable[[int], None]:
    low, high = panel.limits
    ax.imshow(panel.values, aspect="auto", cmap="viridis", vmin=low, vmax=high, interpolation="nearest")
    at = np.linspace(0, len(scene.times) - 1, 5).round().astype(int)
    ax.set(xticks=at, xticklabels=[f"{scene.times[i]:.2g}" for i in at], yticks=[], xlabel="t", ylabel="samples")
    line = ax.axvline(0, color="white", linewidth=1.5)
    if view.row is not None:
        ax.axhspan(view.row - 0.5, view.row + 0.5, fill=False, edgecolor="black", linewidth=3)
        ax.axhspan(view.row - 0.5, view.row + 0.5, fill=False, edgecolor="white", linewidth=1.2)
    return lambda frame: line.set_xdata([frame, frame])


def _images(ax: Any, panel: Images) -> Callable[[int], None]:
    shown = min(SHOWN, next(iter(panel.rows.values())).shape[1])
    bands = -(-shown // ACROSS)
    across = -(-shown // bands)

    def sheet(frame: int) -> np.ndarray:
        lines = [frames[frame, b * across :][:across] for b in range(bands) for frames in panel.rows.values()]
        filled = [np.pad(line, ((0, across - len(line)), (0, 1), (0, 1)), constant_values=255) for line in lines]
        return np.concatenate([np.concatenate(list(line), 1) for line in filled], 0)

    first = sheet(0)
    image = ax.imshow(first, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    names = [*panel.rows] * bands
    ticks = (np.arange(len(names)) + 0.5) * first.shape[0] / len(names) - 1
    ax.set(xticks=[], yticks=ticks, yticklabels=names)
    ax.spines[:].set_visible(False)
    return lambda frame: image.set_data(sheet(frame))


def picture(scene: Scene, view: View, kind: str) -> bytes:
    """The view as "png" or "svg"."""
    figure, _ = draw(scene, view)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind)
    return buffer.getvalue()


def gif(scene: Scene, view: View) -> bytes:
    """The whole way from noise to data, every second frame, with a rest at the end."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    figure, move = draw(scene, view, dpi=70)
    canvas = FigureCanvasAgg(figure)
    images = []
    for frame in range(0, len(scene.times), 2):
        move(frame)
        canvas.draw()
        images.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").quantize(255))
    buffer = io.BytesIO()
    durations = [90] * (len(images) - 1) + [1500]
    images[0].save(buffer, "GIF", save_all=True, append_images=images[1:], duration=durations, loop=0)
    return buffer.getvalue()


def points(scene: Scene, view: View) -> bytes:
    """Where everything is at the view's frame, and where it started: a row a sample, in units of x."""
    teacher, students = paths(scene, view)
    frame = min(view.frame, len(scene.times) - 1)
    titles = [panel.title or "student" for panel in scene.panels if isinstance(panel, Plane)]
    named = {"teacher": teacher, **dict(zip(titles, students, strict=True))}
    axes = (1, 2) if scene.sigma_data is not None else scene.axes
    columns = {"z": scene.starts, **{name: path[frame] for name, path in named.items() if path is not None}}
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([f"{name} {axis}" for name in columns for axis in axes] + ["t"])
    t = float(scene.times[frame])
    for row in np.concatenate([np.asarray(column, float) for column in columns.values()], 1):
        writer.writerow([f"{v:.7g}" for v in row] + [f"{t:.7g}"])
    return text.getvalue().encode()


def student(preset: str) -> bytes:
    """The shipped student's file."""
    return shipped.student_file(preset).read_bytes()
