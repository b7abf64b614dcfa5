"""Assets of the page Any ODE: trajectories of SciPy and of students."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import pidlearn as pid
from app.views.systems.model import SYSTEMS
from benchmarks.app_assets.common import SEED, STARTS_SEED, Metrics, student_trajectories

__all__ = ["tasks"]


def tasks() -> Iterator[tuple[Path, Callable[[Path], Metrics]]]:
    """Yield each file and the function that makes it."""
    for name in SYSTEMS:
        yield Path("systems", f"{name}.npz"), partial(save_system, name)


def save_system(name: str, path: Path) -> Metrics:
    """Train a student and save both solutions, and SciPy's from starts shifted by a thousandth of the spread."""
    system = pid.system(name.removesuffix("_long"))
    if name.endswith("_long"):
        system = replace(system, t_end=3.0)
    result = pid.distill(system, seed=SEED, progress=False)
    times = torch.linspace(system.t_start, system.t_end, 121, dtype=torch.float64)
    starts = system.prior(48, torch.Generator().manual_seed(STARTS_SEED))
    exact, student = system.reference(starts, times), student_trajectories(result, starts, times).double()
    spread = exact.flatten(0, 1).std(0)
    shift = torch.randn(starts.shape, generator=torch.Generator().manual_seed(STARTS_SEED + 1))
    shift = 1e-3 * spread * shift / shift.norm(dim=1, keepdim=True)
    twin = system.reference(starts + shift, times)

    def relative_distance(a: Tensor, b: Tensor) -> np.ndarray:
        return ((a - b) / spread).square().mean((1, 2)).sqrt().numpy()

    metrics = result.evaluate()
    np.savez_compressed(
        path,
        t=times.numpy(),
        names=np.array(system.names),
        exact=exact.numpy().astype(np.float16),
        student=student.numpy().astype(np.float16),
        rmse=relative_distance(student, exact),
        twin=relative_distance(twin, exact),
        figures=np.array(json.dumps(metrics)),
    )
    return metrics
