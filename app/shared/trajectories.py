"""Trajectories of a scene as the viewer draws them, computed for export. Imports torch when called."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pidlearn.viewer import Network, Plane, Scene, View

__all__ = ["probe_trajectories", "trajectories", "wrong_mode"]

FINE = 500
"""Grid points of the Heun solution that stands in for the exact trajectory of a single start."""


def trajectories(scene: Scene, view: View) -> tuple[np.ndarray | None, list[np.ndarray | None]]:
    """Return the teacher's trajectories (F, B, 2) by the view's solver, and the student's in each plane."""
    teacher = scene.exact
    if scene.mixture is not None and scene.starts is not None and view.solver != "exact":
        teacher = _solve(scene, np.asarray(scene.starts, float), 0, view.n, view.solver)
    students = []
    for panel in scene.panels:
        if isinstance(panel, Plane):
            path = _evaluate(scene, panel.student)
            if path is not None and panel.handover and view.steps:
                # From the handover on, the teacher's solver continues from the student's point.
                rest = _solve(scene, path[view.handover].astype(float), view.handover, view.steps + 1, "heun")
                path = np.concatenate([path[: view.handover], rest])
            students.append(path)
    return teacher, students


def probe_trajectories(scene: Scene, view: View) -> tuple[np.ndarray | None, list[np.ndarray | None]]:
    """Return the same for the visitor's own noise point alone: (F, 1, 2)."""
    assert scene.starts is not None
    probe = np.asarray(scene.starts[0] if view.probe is None else view.probe, float)
    students = [panel.student for panel in scene.panels if isinstance(panel, Plane)]
    if scene.mixture is not None and not any(isinstance(student, np.ndarray) for student in students):
        fine = replace(view, solver="heun", n=FINE) if view.solver == "exact" else view
        return trajectories(replace(scene, starts=probe[None]), fine)
    # Recorded trajectories cannot start anywhere else: take the nearest start.
    i = int(np.hypot(*(np.asarray(scene.starts) - probe).T).argmin())
    recorded = [student if isinstance(student, np.ndarray) else None for student in students]
    teacher, *others = (None if path is None else path[:, i : i + 1] for path in (scene.exact, *recorded))
    return teacher, others


def wrong_mode(scene: Scene, teacher: np.ndarray | None, student: np.ndarray | None) -> np.ndarray:
    """Return which samples of the student end in a different mode than the teacher's, (B,) bool."""
    if scene.mixture is None or not scene.modes or teacher is None or student is None:
        return np.zeros(1 if student is None else student.shape[1], bool)
    import torch

    import pidlearn as pid

    component = pid.GaussianMixture(**scene.mixture).component
    modes = [component(torch.from_numpy(path[-1].astype(float))) for path in (student, teacher)]
    return (modes[0] != modes[1]).numpy()


def _solve(scene: Scene, start: np.ndarray, frame: int, n: int, solver: str) -> np.ndarray:
    """Solve the teacher's ODE from ``start`` (B, 2) at a frame; return the later frames, (F - frame, B, 2)."""
    import torch

    import pidlearn as pid

    assert scene.mixture is not None
    times = np.asarray(scene.times[frame:], float)
    ode = pid.DenoiserODE(pid.GaussianMixture(**scene.mixture))
    grid = pid.karras_grid(n, float(times[-1]), float(times[0]), scene.rho)
    path = pid.solve(ode, torch.from_numpy(start), grid, solver).numpy()
    # Between two grid points the trajectory is drawn as a straight line in t.
    i = np.clip(np.searchsorted(-grid.numpy(), -times, "right") - 1, 0, len(grid) - 2)
    low, high = grid.numpy()[i], grid.numpy()[i + 1]
    share = ((times - low) / (high - low))[:, None, None]
    return path[i] * (1 - share) + path[i + 1] * share


def _evaluate(scene: Scene, student: Network | np.ndarray | None) -> np.ndarray | None:
    """Return the student's trajectories at every frame: recorded ones as they are, a network's evaluated."""
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
