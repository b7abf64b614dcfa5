"""Assets of the toy data sets: pages Watch, Residual, Train and More steps."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import pidlearn as pid
from app.shared import assets
from benchmarks.app_assets.common import SEED, STARTS_SEED, Metrics, without_history
from benchmarks.calls import plain
from pidlearn.equations.from_teacher import problem_from_teacher
from pidlearn.evaluation.metrics import rmse
from pidlearn.refinement.certificate import size

__all__ = ["errors_by_calls", "estimates", "handover_errors", "lipschitz", "residuals", "tasks"]

HANDOVERS = (2.0, 1.0, 0.5, 0.2)
"""Times t* at which the teacher takes over."""
STEPS = (1, 2, 4, 8, 12, 16)
"""Heun steps of the teacher from there."""
CALLS = (2, 3, 4, 5, 7, 9, 11, 13, 15, 17, 20, 33, 50)
"""Calls of the other lines."""
REPLAYED = 250
"""Samples of the training that the page Train replays."""
EXTRA = 12
"""Calls of the estimate of a sample's error."""


def tasks() -> Iterator[tuple[Path, Callable[[Path], Metrics]]]:
    """Yield each file and the function that makes it."""
    for name in assets.PRESETS:
        yield Path("watch", f"{name}.npz"), partial(save_trajectories, name)
        yield Path("watch", f"{name}.safetensors"), partial(save_student, name)
    yield Path("train", "replay.npz"), partial(save_replay, next(iter(assets.PRESETS)))
    for name in assets.PRESETS:
        yield Path("residual", f"{name}.npz"), partial(save_residuals, name)
        yield Path("more_steps", f"{name}.json"), partial(save_more_steps, name)


def save_student(preset: str, path: Path) -> Metrics:
    """Train and save the default student of a preset."""
    result = pid.distill(pid.toy(preset), seed=SEED, progress=False)
    without_history(result).save(path)
    return result.evaluate()


def save_trajectories(preset: str, path: Path) -> Metrics:
    """Save the mixture, 400 starts, and SciPy's trajectories from them as they are drawn."""
    mixture, times = pid.toy(preset), pid.karras_grid(61)
    z = 80 * torch.randn(400, 2, generator=torch.Generator().manual_seed(STARTS_SEED))
    exact = pid.solve(pid.DenoiserODE(mixture), z.double(), times, "scipy", rtol=1e-8, atol=1e-8).numpy()
    y = exact / np.hypot(mixture.std, times.numpy())[:, None, None]
    scale = np.abs(y).max() / 32767  # int16: a step is 1e-4 of the picture
    eigenvalues, basis = np.linalg.eigh(mixture.covs.numpy())
    np.savez_compressed(
        path,
        z=z.numpy(),
        times=times.numpy(),
        exact=np.round(y / scale).astype(np.int16),
        exact_scale=scale,
        means=mixture.means.numpy(),
        weights=mixture.weights.numpy(),
        eigenvalues=eigenvalues,
        basis=basis,
        sigma_data=mixture.std,
    )
    return {}


def save_replay(preset: str, path: Path) -> Metrics:
    """Save a training: where the student's samples are after some steps, from the scene's starts."""
    arrays = assets.scene_arrays(preset)
    z, exact = torch.from_numpy(arrays["starts"][:REPLAYED]), arrays["exact"][-1, :REPLAYED]
    run = pid.steps(pid.toy(preset), seed=SEED)
    last = run.config.steps
    steps = sorted({0, last, *(round(last * 10 ** (-3 * (1 - k / 24))) for k in range(25))})  # more at the beginning
    samples = []

    def record() -> None:
        with torch.no_grad():
            samples.append(run.student(z, run.problem.t_end).numpy())

    record()
    for step in run:
        if step.number in steps:
            record()
    frames = np.stack(samples)  # (F, B, 2), of the weights themselves, without their average
    scale = np.abs(frames).max() / 2000  # finer than a pixel
    np.savez_compressed(
        path, steps=np.array(steps), exact=exact, samples=np.round(frames / scale).astype(np.int16), scale=scale
    )
    return {"error": float(np.sqrt(((frames[-1] - exact) ** 2).mean()))}


def rms_distance(a: Tensor, b: Tensor) -> Tensor:
    """Root mean square of the difference over coordinates, (B,)."""
    return (a - b).square().mean(1).sqrt()


@torch.no_grad()
def residuals(preset: str, count: int = 150, n: int = 250) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the residuals of a shipped student by forward differences, from the first starts of its scene.

    Returns:
        t (N - 1,); the root mean square over coordinates of dx/dt - f (Eq. 8) and of x - t dx/dt - D (Eq. 9), both
        (N - 1, B); and the distance (B,) of x(z, t_min) from the endpoint of Euler's method with N points.
    """
    teacher, student = pid.toy(preset), pid.load(assets.student_path(preset)).student
    z = torch.from_numpy(assets.scene_arrays(preset)["starts"][:count])
    grid = pid.karras_grid(n)
    # As a VelocityODE the same flow has the residual of Eq. 8.
    flow = pid.DenoiserODE(teacher)
    forms: list[Any] = [pid.VelocityODE(flow.velocity), flow]
    rows: list[list[np.ndarray]] = [[], []]
    for i in range(n - 1):
        index = torch.full((len(z),), i)
        for form, row in zip(forms, rows, strict=True):
            row.append(pid.pid_loss(student, form, z, grid, index, distance=rms_distance).numpy())
    endpoint = pid.solve(flow, z, grid)[-1]
    error = rms_distance(student(z, grid[-1]), endpoint)
    return grid[:-1].numpy(), np.stack(rows[0]), np.stack(rows[1]), error.numpy()


def lipschitz(preset: str, count: int = 200) -> dict[str, np.ndarray]:
    """Return median and maximum over exact trajectories of the spectral norm of df/dx, at each frame's time.

    f = (x - D) / t, so df/dx = (1 - dD/dx) / t: it grows as 1/t where D does not depend on x.
    """
    arrays = assets.scene_arrays(preset)
    teacher = pid.toy(preset)
    times, paths = torch.from_numpy(arrays["times"]), torch.from_numpy(arrays["exact"][:, :count])
    norms = []
    for t, x in zip(times, paths, strict=True):
        jacobian = torch.func.vmap(torch.func.jacrev(lambda x, t=t: teacher.denoise(x[None], t)[0]))(x)  # (B, 2, 2)
        norms.append(torch.linalg.matrix_norm((torch.eye(2) - jacobian) / t, 2))
    values = torch.stack(norms).numpy()  # (F, B)
    return {"t": times.numpy(), "median": np.median(values, 1), "largest": values.max(1)}


def save_residuals(preset: str, path: Path) -> Metrics:
    """Save the residuals along a shipped student's trajectories, and the slope of the field there."""
    t, eq8, eq9, end_error = residuals(preset)
    times = assets.scene_arrays(preset)["times"]
    frames = np.abs(t[:, None] - times[None]).argmin(0)
    slopes = lipschitz(preset)
    np.savez_compressed(
        path,
        t=t,
        eq8=np.sqrt((eq8**2).mean(1)),
        eq9=np.sqrt((eq9**2).mean(1)),
        frames=eq9[frames].astype(np.float16),
        path=eq9.mean(0),
        end_error=end_error,
        median=slopes["median"],
        largest=slopes["largest"],
    )
    return {}


@cache
def solved(preset: str) -> tuple[Tensor, Tensor]:
    """Starts that no picture shows, since of 400 a single one in a wrong mode would decide, and their exact samples."""
    problem: Any = problem_from_teacher(pid.toy(preset))
    z = problem.sample_prior(4096, torch.Generator().manual_seed(10**6))
    return z, problem.exact_samples(z.double())


@torch.no_grad()
def handover_errors(preset: str) -> list[dict[str, Any]]:
    """Return rows of method, calls, RMSE to the exact ODE over new starts and (with a handover) t_star."""
    ode, student = pid.DenoiserODE(pid.toy(preset)), pid.load(assets.student_path(preset)).student
    z, exact = solved(preset)
    rows: list[dict[str, Any]] = []

    def add(method: str, calls: int, x: torch.Tensor, **columns: float) -> None:
        rows.append({"method": method, "calls": calls, "error": rmse(x.double(), exact), **columns})

    add("student alone", 1, student(z, 0.002))
    for t_star in HANDOVERS:
        jump = student(z, t_star)
        for k in STEPS:
            grid = pid.karras_grid(k + 1, 0.002, t_star)
            x = pid.solve(ode, jump, grid, "heun")[-1]
            add(f"student to t = {t_star:g}, then Heun", 1 + 2 * k, x, t_star=t_star)
    return rows


def errors_by_calls(preset: str) -> list[dict[str, Any]]:
    """Return such rows of the best plain solver, and of the student and the teacher as `Result.generate` plans it."""
    teacher = pid.toy(preset)
    ode, result = pid.DenoiserODE(teacher), pid.load(assets.student_path(preset), teacher)
    z, exact = solved(preset)
    rows: list[dict[str, Any]] = []
    for calls in CALLS:
        best = min(rmse(x.double(), exact) for _, x in plain(ode, z.double(), calls))
        rows.append({"method": "teacher, its best solver", "calls": calls, "error": best})
    for calls in (1, *CALLS[:-2]):
        error = rmse(result.generate(z, calls=calls).double(), exact)
        rows.append({"method": "student, then as measured", "calls": calls, "error": error})
    return rows


def estimates(preset: str) -> dict[str, list[float]]:
    """Return true and estimated errors of one call from the scene's starts, and which of them are in a wrong mode."""
    arrays, teacher = assets.scene_arrays(preset), pid.toy(preset)
    result = pid.load(assets.student_path(preset), teacher)
    z, exact = torch.from_numpy(arrays["starts"]), torch.from_numpy(arrays["exact"][-1])
    x = result.generate(z).double()
    wrong = teacher.component(x) != teacher.component(exact)
    columns = {"error": size(x - exact), "estimate": result.error_estimate(z, calls=EXTRA), "wrong": wrong.double()}
    return {name: [float(f"{value:.4g}") for value in column.tolist()] for name, column in columns.items()}


def save_more_steps(preset: str, path: Path) -> Metrics:
    """Save the errors of the student with and without steps of the teacher, of solvers alone, and their estimates."""
    rows = handover_errors(preset) + errors_by_calls(preset)
    path.write_text(json.dumps({"errors": rows, "estimates": estimates(preset)}, indent=1) + "\n")
    return {}
