"""What `benchmarks.student` measures: sizes, samplers, short runs, and the names of its rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks.images import SAMPLES


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        steps: steps of a short run.
        samples: samples for the metrics.
        few: the first of these samples, for the error during training and for solutions on many grids.
        points: numbers of grid points, of students and of Euler's method.
    """

    steps: int = 1000
    samples: int = SAMPLES
    few: int = 256
    points: tuple[int, ...] = (18, 40, 80, 250, 1000)


SIZES = {
    "fashion-mnist": Size(steps=600, samples=1000, points=(18, 80, 250)),  # for a CPU
    "fashion-mnist-32": Size(),
    "digits": Size(samples=1500),
}
TOY_SIZE = Size(8, 80, 16, (18, 250))
TOY = """
base = "digits"
[teacher]
data = "digits"
labels = true
[teacher.network]
model_channels = 8
channel_mult = [1]
num_blocks = 1
attn_resolutions = []
dropout = 0.0
[teacher.training]
steps = 16
batch_size = 32
[config]
steps = 64
batch_size = 32
"""
"""The recipe of a dry run."""

SAMPLERS = {
    "Euler-250": ("euler", 250),
    **{f"Euler-{n}": ("euler", n) for n in (40, 18, 10)},
    "Heun-18": ("heun", 18),
    **{f"DPM-Solver++(2M)-{n}": ("dpm++", n) for n in (40, 18, 10)},
}
"""Samplers of the teacher: a solver and its number of grid points."""

STUDENT = "student, 1 call"
SHORT = {"init": "teacher", "derivative": "forward", "n": 250}
"""Settings of the reference short run; each other short run changes one of them."""
SWEEPS = {
    "starts": ("init", ("random", "official", "teacher")),
    "derivatives": ("derivative", ("forward", "central", "exact")),
}
"""Parts made of short runs: the setting that each varies, and its values."""


def short_key(**setting: Any) -> str:
    """The row of a short run; sweeps share the reference run, which changes no setting."""
    changed = [f"{name}={value}" for name, value in setting.items() if SHORT[name] != value]
    return f"short, {changed[0] if changed else 'reference'}"
