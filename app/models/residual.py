"""What training makes small, along a student's paths: where in time it is, and what it has to do with the end."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

import pidlearn as pid
from app.models import shipped
from pidlearn.viewer import Heat, Plane, Scene, View

__all__ = ["Residuals", "along", "lipschitz", "scene"]

ROWS = 150


@dataclass(frozen=True)
class Residuals:
    """Of a student over its teacher, at N - 1 grid points.

    Attributes:
        t: (N - 1,) grid times.
        eq8: (N - 1, B) rms over coordinates of dx/dt - f.
        eq9: (N - 1, B) that of x - t dx/dt - D.
        end_error: (B,) distance of x(z, t_min) from Euler-N's end.
    """

    t: np.ndarray
    eq8: np.ndarray
    eq9: np.ndarray
    end_error: np.ndarray


def length(a: Tensor, b: Tensor) -> Tensor:
    """Root mean square of the difference over coordinates, (B,)."""
    return (a - b).square().mean(1).sqrt()


@cache
@torch.no_grad()
def along(preset: str, count: int = ROWS, n: int = 250) -> Residuals:
    """The residuals of a shipped student from the first starts of its scene, by the forward difference."""
    teacher, student = pid.toy(preset), pid.load(shipped.student_file(preset)).student
    z = torch.from_numpy(shipped.arrays(preset)["starts"][:count])
    grid = pid.karras_grid(n)
    # A velocity is all that Eq. 8 knows of the teacher: the same flow, stated as any ODE is.
    flow = pid.DenoiserODE(teacher)
    forms: list[Any] = [pid.VelocityODE(flow.velocity), flow]
    rows: list[list[np.ndarray]] = [[], []]
    for i in range(n - 1):
        index = torch.full((len(z),), i)
        for form, row in zip(forms, rows, strict=True):
            row.append(pid.pid_loss(student, form, z, grid, index, distance=length).numpy())
    end = pid.solve(flow, z, grid)[-1]
    error = length(student(z, grid[-1]), end)
    return Residuals(grid[:-1].numpy(), np.stack(rows[0]), np.stack(rows[1]), error.numpy())


@cache
def lipschitz(preset: str, count: int = 200) -> dict[str, np.ndarray]:
    """Spectral norm of df/dx over exact paths, at each frame's time: its median and its largest over the samples.

    f = (x - D) / t, so df/dx = (1 - dD/dx) / t: it grows as 1/t where D forgets x.
    """
    ship = shipped.arrays(preset)
    teacher = pid.toy(preset)
    times, paths = torch.from_numpy(ship["times"]), torch.from_numpy(ship["exact"][:, :count])
    norms = []
    for t, x in zip(times, paths, strict=True):
        jacobian = torch.func.vmap(torch.func.jacrev(lambda x, t=t: teacher.denoise(x[None], t)[0]))(x)
        slope = (torch.eye(2) - jacobian) / t
        norms.append(torch.linalg.matrix_norm(slope, 2))
    found = torch.stack(norms).numpy()
    return {"t": times.numpy(), "median": np.median(found, 1), "largest": found.max(1)}


def scene(preset: str, residuals: Residuals) -> Scene:
    """The paths beside a map of Eq. 9's residual, a row a sample, sorted by the error at the end."""
    ship = shipped.arrays(preset)
    frames = np.abs(residuals.t[:, None] - ship["times"][None]).argmin(0)
    order = residuals.end_error.argsort()
    values = np.log10(np.maximum(residuals.eq9[frames][:, order].T, 1e-6))
    limits = (float(np.quantile(values, 0.02)), float(np.quantile(values, 0.995)))
    count = len(order)
    some = {**ship, "starts": ship["starts"][:count], "exact": ship["exact"][:, :count]}
    planes = [Plane("Student", shipped.network(shipped.student_file(preset)))]
    title = f"{shipped.PRESETS[preset]}: residual of the student along {count} paths"
    heat = Heat("Residual of Eq. 9, dark to bright: point at a row", values, order, limits)
    view = View(frame=60, play=False, trails=False, flow=False)
    return Scene(title, panels=[*planes, heat], view=view, **some)
