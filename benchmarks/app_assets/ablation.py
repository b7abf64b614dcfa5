"""Assets of the page Break it: students of the ablation's variants, and what the ablation measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch

import pidlearn as pid
from benchmarks.ablation import STEPS, row_of, student_of, variants
from benchmarks.app_assets.common import SEED, STARTS_SEED, Metrics, without_history
from benchmarks.table import RESULTS
from pidlearn.evaluation import metrics

__all__ = ["tasks"]

VARIANTS = (
    *("reference", "eq8", "teacher-gradient", "linear-grid"),
    *("central", "exact", "can", "n10", "n10-central", "n10-exact"),
    *("n18", "n35", "n80", "n1000"),
    *(f"soft-boundary-{weight}" for weight in ("0.1", "0.3", "1", "3", "10", "100")),
)
DATA = ("ring", "checkerboard")


def tasks() -> Iterator[tuple[Path, Callable[[Path], Metrics]]]:
    """Yield each file and the function that makes it."""
    yield Path("break", "measured.json"), save_measurements
    for data in DATA:
        for variant in VARIANTS:
            yield Path("break", f"{data}-{variant}.safetensors"), partial(save_student, data, variant)


def save_student(data: str, variant: str, path: Path) -> Metrics:
    """Train one variant and save it with weights in half precision; return the error of that rounding."""
    table = {v.name: v for v in variants()}
    result = student_of(data, table[variant], STEPS, SEED)
    z = 80 * torch.randn(1000, 2, generator=torch.Generator().manual_seed(STARTS_SEED))
    with torch.no_grad():
        before = result.student(z, 0.002)
        result.student.half()
        without_history(result).save(path)
        after = pid.load(path).student.float()(z, 0.002)
    return {"rounding": metrics.rmse(after, before)}


def save_measurements(path: Path) -> Metrics:
    """Save the ablation's results for these variants: means over its seeds, and half their range."""
    ablation = json.loads((RESULTS / "ablation.json").read_text())
    table: dict[str, dict[str, Metrics]] = {}
    for data in DATA:
        for variant in VARIANTS:
            rows = row_of(ablation["rows"], data, variant)
            keys = ("euler", "euler_wrong", "exact", "exact_wrong", "teacher", "steps")
            columns = {key: [row[key] for row in rows.values()] for key in keys}
            mean = {key: float(np.mean(column)) for key, column in columns.items()}
            spread = {key: float(np.ptp(column)) / 2 for key, column in columns.items()}
            cost = ablation["rows"].get(f"cost/{variant.removeprefix('n10-')}", {}).get("cost", 1.0)
            entry = {"mean": mean, "spread": spread, "seeds": list(rows), "cost": cost}
            table.setdefault(data, {})[variant] = entry
    path.write_text(json.dumps({"command": ablation["facts"]["command"], "rows": table}, indent=1) + "\n")
    return {}
