"""What pages show of shipped students, computed: `make assets` records it, so that no page waits for torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

import pidlearn as pid
from app.models import more_steps as more
from app.models import shipped
from pidlearn.evaluation.metrics import rmse

__all__ = ["lipschitz", "more_steps", "residuals"]


def length(a: Tensor, b: Tensor) -> Tensor:
    """Root mean square of the difference over coordinates, (B,)."""
    return (a - b).square().mean(1).sqrt()


@torch.no_grad()
def residuals(preset: str, count: int = 150, n: int = 250) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of a shipped student from the first starts of its scene, by the forward difference.

    Returns:
        t (N - 1,); rms over coordinates of Eq. 8's dx/dt - f and of Eq. 9's x - t dx/dt - D, both (N - 1, B); and the
        distance (B,) of x(z, t_min) from Euler-N's end.
    """
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
    return grid[:-1].numpy(), np.stack(rows[0]), np.stack(rows[1]), error.numpy()


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


@torch.no_grad()
def more_steps(preset: str) -> list[dict[str, Any]]:
    """Rows of method, calls, rmse to the exact ODE over the scene's starts and, of a handover, t_star."""
    ship = shipped.arrays(preset)
    ode, student = pid.DenoiserODE(pid.toy(preset)), pid.load(shipped.student_file(preset)).student
    z, exact = torch.from_numpy(ship["starts"]), torch.from_numpy(ship["exact"][-1])
    rows: list[dict[str, Any]] = []

    def add(method: str, calls: int, x: torch.Tensor, **further: float) -> None:
        rows.append({"method": method, "calls": calls, "error": rmse(x.double(), exact), **further})

    add("student alone", 1, student(z, 0.002))
    for t_star in more.HANDOVERS:
        jump = student(z, t_star)
        for k in more.STEPS:
            grid = pid.karras_grid(k + 1, 0.002, t_star)
            end = pid.solve(ode, jump, grid, "heun")[-1]
            add(f"student to t = {t_star:g}, then Heun", 1 + 2 * k, end, t_star=t_star)
    for n in (3, 5, 9, 13, 18, 25, 35):
        add("teacher, Heun", 2 * (n - 1), pid.solve(ode, z, pid.karras_grid(n), "heun")[-1])
        add("teacher, Euler", 2 * (n - 1), pid.solve(ode, z, pid.karras_grid(2 * n - 1))[-1])
    return rows
