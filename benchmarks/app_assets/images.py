"""Assets of images: on their way from noise, of the page Images, and after several calls, of the page More steps."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import pidlearn as pid
from benchmarks import calls
from benchmarks.app_assets.common import SEED, STARTS_SEED, Metrics, student_trajectories
from benchmarks.table import RESULTS
from pidlearn import data
from pidlearn.cli import commands
from pidlearn.evaluation.images import to_uint8
from pidlearn.refinement.certificate import size

__all__ = ["tasks"]

COUNTS = {"digits": 24, "clothes": 14, "fashion": 14}
"""Number of starts per data set."""
CLOTHES_RUN = Path("out", "fashion-mnist")
"""The folder of `benchmarks.student`'s run."""
DIGITS_RUN = Path("out", "digits")
"""The folder of ``pidlearn distill digits``."""
PICTURED = (1, 3, 5, 9, 20)
"""Numbers of calls whose samples are shown."""
COLUMNS = 16


def tasks() -> Iterator[tuple[Path, Callable[[Path], Metrics]]]:
    """Yield each file and the function that makes it."""
    for name in COUNTS:
        yield Path("images", f"{name}.npz"), partial(save_images, name)
    yield Path("more_steps", "digits.npz"), save_calls


def train_student(name: str) -> pid.Result:
    """Return the student of a data set, with its teacher."""
    if name == "clothes":
        result = commands.distill("fashion-mnist", out=CLOTHES_RUN)  # an hour on one core, unless the run is there
        assert result is not None
        return result
    if name == "digits":
        return pid.distill(pid.train_denoiser(data.digits()[0], progress=False), seed=SEED, progress=False)
    return pid.distill(pid.SubspaceMixture.fit(data.fashion_mnist()[0]), seed=SEED, progress=False)


def save_images(name: str, path: Path) -> Metrics:
    """Save trajectories of small images, divided by sqrt(1 + t^2) so that noise fits the grey scale."""
    result = train_student(name)
    problem, count = result.problem, COUNTS[name]
    assert problem is not None
    z = 80 * torch.randn(count, *problem.event_shape, generator=torch.Generator().manual_seed(STARTS_SEED))
    labels = problem.sample_labels(count, torch.Generator().manual_seed(0))
    fine = pid.karras_grid(241)
    times = fine[::8]

    def grey(x: Tensor, t: Tensor) -> np.ndarray:
        shown = x / (1 + t**2).sqrt().to(x).reshape(-1, *[1] * (x.ndim - 1))
        return ((shown.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).squeeze(-3).numpy()

    if name == "clothes":  # its reference takes half an hour: use what the benchmark has measured
        row = json.loads((RESULTS / "student-fashion-mnist.json").read_text())["rows"]["student, 1 call"]
        metrics: Metrics = {"relative_rmse": row["RMSE/std"]}
    else:
        metrics = result.evaluate(1000)
    np.savez_compressed(
        path,
        times=times.numpy(),
        teacher=grey(problem.reference(z, fine, labels)[::8], times),
        student=grey(student_trajectories(result, z, times, labels), times),
        teacher10=grey(problem.reference(z, pid.karras_grid(10), labels)[-1:], times[-1:]),
        figures=np.array(json.dumps(metrics)),
    )
    return metrics


def save_calls(path: Path) -> Metrics:
    """Save what `benchmarks.calls` measured, and samples by number of calls, from the worst estimate to the best."""
    subject, rows = calls.images("digits", DIGITS_RUN), json.loads((RESULTS / "calls-digits.json").read_text())["rows"]
    result, measured = subject.result, rows["digits/seed 0"]["errors"]
    alone = {"method": "student alone", "calls": 1, "error": measured["1"]}
    solvers = [
        {"method": "teacher, its best solver", "calls": int(k), "error": min(errors.values())}
        for k, errors in rows["digits/solvers"].items()
        if k != "1"
    ]
    planned = [
        {"method": "student, then as measured", "calls": int(k), "error": error} for k, error in measured.items()
    ]
    x, estimate = (
        result.generate(subject.z, subject.labels),
        result.error_estimate(subject.z, subject.labels, calls=calls.EXTRA[-1]),
    )
    wrong = subject.mode(x.double()) != subject.mode(subject.exact)
    columns = {"error": size(x - subject.exact), "estimate": estimate, "wrong": wrong.double()}
    shown = estimate.argsort(descending=True)[:: len(estimate) // COLUMNS][:COLUMNS]
    assert subject.labels is not None  # of a teacher with classes
    z, labels = subject.z[shown], subject.labels[shown]
    pictures = [result.generate(z, labels, calls=k) for k in PICTURED] + [subject.exact[shown].float()]
    document = {
        "errors": [alone, *solvers, *planned],
        "estimates": {
            name: [float(f"{value:.4g}") for value in column[:400].tolist()] for name, column in columns.items()
        },
        "calls": PICTURED,
    }
    np.savez_compressed(
        path, figures=np.array(json.dumps(document)), pictures=to_uint8(torch.stack(pictures))[:, :, 0].numpy()
    )
    return {}
