"""`make assets`: train what ships with the app, record it, and say in a manifest what was made and measured.

    python -m app.make_assets [--only watch break systems images] [--force]

A file that is there is not made again. Everything is seeded; at most 5 MB in all.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import pidlearn as pid
from app import compute
from app.models import shipped
from app.models.shipped import ASSETS, PRESETS
from app.models.systems import SYSTEMS
from benchmarks.ablation import STEPS, row_of, student_of, variants
from benchmarks.table import RESULTS
from pidlearn import data
from pidlearn.cli import commands
from pidlearn.evaluation import metrics
from pidlearn.utils.batching import ask

SEED, STARTS = 0, 7
"""Of all training, and of all noise that is shown."""

VARIANTS = (
    *("reference", "eq8", "teacher-gradient", "linear-grid"),
    *("central", "exact", "can", "n10", "n10-central", "n10-exact"),
    *("n18", "n35", "n80", "n1000"),
    *(f"soft-boundary-{weight}" for weight in ("0.1", "0.3", "1", "3", "10", "100")),
)
BREAK = ("ring", "checkerboard")
IMAGES = {"digits": 24, "clothes": 14, "fashion": 14}
"""Data sets, and how many starts of each."""
CLOTHES = Path("out", "fashion-mnist")
"""Where `benchmarks.student` keeps its run."""

Figures = dict[str, Any]


def light(result: pid.Result) -> pid.Result:
    """Without the history, which would be larger than the student."""
    return replace(result, history={name: column[:0] for name, column in result.history.items()})


@torch.no_grad()
def path_of(result: pid.Result, starts: Tensor, times: Tensor, labels: Tensor | None = None) -> Tensor:
    """The student's values at every time, (F, B, *event)."""
    return torch.stack([ask(result.student, starts, t, labels) for t in times])


def watch_student(name: str, path: Path) -> Figures:
    """The default student of a preset."""
    result = pid.distill(pid.toy(name), seed=SEED, progress=False)
    light(result).save(path)
    return result.evaluate()


def watch_paths(name: str, path: Path) -> Figures:
    """Starts of a preset, SciPy's paths from them in the coordinates that are drawn, and the mixture."""
    mixture, times = pid.toy(name), pid.karras_grid(61)
    z = 80 * torch.randn(400, 2, generator=torch.Generator().manual_seed(STARTS))
    exact = pid.solve(pid.DenoiserODE(mixture), z.double(), times, "scipy", rtol=1e-8, atol=1e-8).numpy()
    y = exact / np.hypot(mixture.std, times.numpy())[:, None, None]
    scale = np.abs(y).max() / 32767  # int16: 1e-4 of the picture
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


def broken(name: str, variant: str, path: Path) -> Figures:
    """The student of one row of the ablation, its weights rounded to half precision."""
    table = {v.name: v for v in variants()}
    result = student_of(name, table[variant], STEPS, SEED)
    z = 80 * torch.randn(1000, 2, generator=torch.Generator().manual_seed(STARTS))
    with torch.no_grad():
        before = result.student(z, 0.002)
        result.student.half()
        light(result).save(path)
        after = pid.load(path).student.float()(z, 0.002)
    return {"rounding": metrics.rmse(after, before)}


def measured(path: Path) -> Figures:
    """What the ablation measured of these variants: means over its seeds, and half their range."""
    found = json.loads((RESULTS / "ablation.json").read_text())
    table: dict[str, dict[str, Figures]] = {}
    for name in BREAK:
        for variant in VARIANTS:
            rows = row_of(found["rows"], name, variant)
            keys = ("euler", "euler_wrong", "exact", "exact_wrong", "teacher", "steps")
            columns = {key: [row[key] for row in rows.values()] for key in keys}
            mean = {key: float(np.mean(column)) for key, column in columns.items()}
            spread = {key: float(np.ptp(column)) / 2 for key, column in columns.items()}
            cost = found["rows"].get(f"cost/{variant.removeprefix('n10-')}", {}).get("cost", 1.0)
            entry = {"mean": mean, "spread": spread, "seeds": list(rows), "cost": cost}
            table.setdefault(name, {})[variant] = entry
    path.write_text(json.dumps({"command": found["facts"]["command"], "rows": table}, indent=1) + "\n")
    return {}


def recorded_system(name: str, path: Path) -> Figures:
    """Paths of SciPy and of a student; and of SciPy from starts that differ by a thousandth of the spread."""
    system = pid.system(name.removesuffix("_long"))
    if name.endswith("_long"):
        system = replace(system, t_end=3.0)
    result = pid.distill(system, seed=SEED, progress=False)
    times = torch.linspace(system.t_start, system.t_end, 121, dtype=torch.float64)
    starts = system.prior(48, torch.Generator().manual_seed(STARTS))
    exact, student = system.reference(starts, times), path_of(result, starts, times).double()
    spread = exact.flatten(0, 1).std(0)
    aside = torch.randn(starts.shape, generator=torch.Generator().manual_seed(STARTS + 1))
    aside = 1e-3 * spread * aside / aside.norm(dim=1, keepdim=True)
    twin = system.reference(starts + aside, times)

    def apart(a: Tensor, b: Tensor) -> np.ndarray:
        return ((a - b) / spread).square().mean((1, 2)).sqrt().numpy()

    figures = result.evaluate()
    np.savez_compressed(
        path,
        t=times.numpy(),
        names=np.array(system.names),
        exact=exact.numpy().astype(np.float16),
        student=student.numpy().astype(np.float16),
        rmse=apart(student, exact),
        twin=apart(twin, exact),
        figures=np.array(json.dumps(figures)),
    )
    return figures


def residual_along(name: str, path: Path) -> Figures:
    """The residual along a shipped student's paths, and how steep the field is there."""
    t, eq8, eq9, end_error = compute.residuals(name)
    times = shipped.arrays(name)["times"]
    frames = np.abs(t[:, None] - times[None]).argmin(0)
    slopes = compute.lipschitz(name)
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


def handed_over(name: str, path: Path) -> Figures:
    """Errors of the student with some steps of the teacher after it, beside solvers alone."""
    path.write_text(json.dumps(compute.more_steps(name), indent=1) + "\n")
    return {}


def image_student(name: str) -> pid.Result:
    """The student of a data set, with its teacher."""
    if name == "clothes":
        result = commands.distill("fashion-mnist", out=CLOTHES)  # an hour of one core, unless it is there
        assert result is not None
        return result
    if name == "digits":
        return pid.distill(pid.train_denoiser(data.digits()[0], progress=False), seed=SEED, progress=False)
    return pid.distill(pid.SubspaceMixture.fit(data.fashion_mnist()[0]), seed=SEED, progress=False)


def recorded_images(name: str, path: Path) -> Figures:
    """Paths of small images, over sqrt(1 + t^2) so that noise fits the grey scale."""
    result = image_student(name)
    problem, count = result.problem, IMAGES[name]
    assert problem is not None
    z = 80 * torch.randn(count, *problem.event_shape, generator=torch.Generator().manual_seed(STARTS))
    labels = problem.draw_labels(count, torch.Generator().manual_seed(0))
    fine = pid.karras_grid(241)
    times = fine[::8]

    def grey(x: Tensor, t: Tensor) -> np.ndarray:
        shown = x / (1 + t**2).sqrt().to(x).reshape(-1, *[1] * (x.ndim - 1))
        return ((shown.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).squeeze(-3).numpy()

    if name == "clothes":  # whose reference takes half an hour: as the benchmark has found it
        found = json.loads((RESULTS / "student-fashion-mnist.json").read_text())["rows"]["student, 1 call"]
        figures: Figures = {"relative_rmse": found["RMSE/std"]}
    else:
        figures = result.evaluate(1000)
    np.savez_compressed(
        path,
        times=times.numpy(),
        teacher=grey(problem.reference(z, fine, labels)[::8], times),
        student=grey(path_of(result, z, times, labels), times),
        teacher10=grey(problem.reference(z, pid.karras_grid(10), labels)[-1:], times[-1:]),
        figures=np.array(json.dumps(figures)),
    )
    return figures


def tasks() -> Iterator[tuple[str, Path, Callable[[Path], Figures]]]:
    """Group, file and what makes it."""
    for name in PRESETS:
        yield "watch", Path("watch", f"{name}.npz"), partial(watch_paths, name)
        yield "watch", Path("watch", f"{name}.safetensors"), partial(watch_student, name)
    for name in PRESETS:
        yield "watch", Path("residual", f"{name}.npz"), partial(residual_along, name)
        yield "watch", Path("more_steps", f"{name}.json"), partial(handed_over, name)
    for name in SYSTEMS:
        yield "systems", Path("systems", f"{name}.npz"), partial(recorded_system, name)
    yield "break", Path("break", "measured.json"), measured
    for name in BREAK:
        for variant in VARIANTS:
            file = Path("break", f"{name}-{variant}.safetensors")
            yield "break", file, partial(broken, name, variant)
    for name in IMAGES:
        yield "images", Path("images", f"{name}.npz"), partial(recorded_images, name)


def main() -> None:
    """Make what is missing."""
    parser = argparse.ArgumentParser(prog="python -m app.make_assets", description="What ships with the app.")
    groups = ("watch", "systems", "break", "images")
    parser.add_argument("--only", nargs="+", choices=groups, default=groups)
    parser.add_argument("--force", action="store_true", help="make again what is there")
    given = parser.parse_args()
    torch.set_num_threads(1)  # small matrices are slower on several
    manifest_file = ASSETS / "manifest.json"
    manifest = json.loads(manifest_file.read_text()) if manifest_file.exists() else {}
    for group, name, make in tasks():
        path = ASSETS / name
        if group not in given.only or (path.exists() and str(name) in manifest and not given.force):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        figures = make(path)
        content = path.read_bytes()
        manifest[str(name)] = {
            "sha256": hashlib.sha256(content).hexdigest(),
            "bytes": len(content),
            "torch": torch.__version__,
            "seed": SEED,
            "figures": figures,
        }
        manifest_file.write_text(json.dumps(dict(sorted(manifest.items())), indent=1) + "\n")
        print(f"{name}: {len(content) / 1000:.0f} kB  {figures}", flush=True)
    print(f"{sum(entry['bytes'] for entry in manifest.values()) / 1e6:.2f} MB in all")


if __name__ == "__main__":
    main()
