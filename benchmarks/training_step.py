"""Compare a training step of the library with one in the style of the official code, on a narrow CIFAR-10 network.

    python -m benchmarks.training_step [--repeats 5] [--out FOLDER]

Both get the same weights and draws; the official-style step is written out in `benchmarks.steps`. Steps are timed in
turn, so that changes of the machine's speed affect all of them. Memory is measured in a separate process: what two
steps add to its peak, plus the weights, their averages and copies.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from benchmarks.steps import CIFAR10, PAPER, LibraryStep, OfficialStyleStep, TrainingStep, random_teacher
from benchmarks.table import RESULTS, Store

SIZES = ((16, 2), (16, 8), (64, 8))
"""Channels and batch size."""

OURS: dict[str, dict[str, Any]] = {
    "ours": {},
    "ours, half the batch at a time": {"micro_batch": -1},
    "ours, activations recomputed": {"recompute": True},
    "ours, both": {"micro_batch": -1, "recompute": True},
    "ours, Muon": {"optimizer": "muon"},
    "ours, central": {"derivative": "central"},
    "ours, exact": {"derivative": "exact"},
    "ours, exact, bfloat16": {"derivative": "exact", "precision": "bfloat16"},
}
OFFICIAL = "official style"


def step_of(name: str, channels: int, batch: int) -> TrainingStep:
    """Build the training step with that name."""
    settings = {**PAPER, **OURS.get(name, {}), "batch_size": batch}
    if "micro_batch" in settings:
        settings["micro_batch"] = batch // 2
    step = OfficialStyleStep if name == OFFICIAL else LibraryStep
    return step(random_teacher({**CIFAR10, "model_channels": channels}), **settings)


def timed(channels: int, batch: int, repeats: int) -> dict[str, dict[str, float]]:
    """Time all steps in turn; returns their CPU seconds, speedups and first losses by name."""
    steps = {name: step_of(name, channels, batch) for name in (OFFICIAL, *OURS)}
    losses = {name: step() for name, step in steps.items()}  # also a warm-up
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            started = time.process_time()
            step()
            seconds[name].append(time.process_time() - started)
    return {
        name: {
            "loss": losses[name],
            "seconds": statistics.median(times),
            "times as fast": statistics.median(a / b for a, b in zip(seconds[OFFICIAL], times, strict=True)),
        }
        for name, times in seconds.items()
    }


def memory(name: str, channels: int, batch: int) -> float:
    """MiB of weights, their averages and copies, plus what two steps add to the peak of this process."""
    torch.set_num_threads(1)
    step = step_of(name, channels, batch)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak to the current value
    before = resident("VmRSS")
    step()
    step()
    return resident("VmHWM") - before + sum(x.nbytes for x in step.resident_tensors()) / 2**20


def resident(field: str) -> float:
    """MiB of this process in memory on Linux: VmRSS now, VmHWM at the peak."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def main() -> None:
    """Measure all sizes, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="timings per step; their median counts")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the table")
    args = parser.parse_args()
    torch.set_num_threads(1)
    store = Store(
        args.out, "training-step", "python -m benchmarks.training_step", repeats=args.repeats, paper=PAPER, ours=OURS
    )
    for size in SIZES:
        rows = timed(*size, args.repeats)
        for name, row in rows.items():
            # A new process for each: memory that one step has freed would not count for the next.
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                store.add(f"{heading(*size)} / {name}", {**row, "MiB": pool.submit(memory, name, *size).result()})
    store.publish("A training step", TEXT, {heading(*size): lines(store, heading(*size)) for size in SIZES})


def heading(channels: int, batch: int) -> str:
    """The heading of a size."""
    return f"{channels} channels, batch {batch}"


TEXT = (
    "The paper's CIFAR-10 network with fewer channels, 32 x 32 pixels, float32 unless stated otherwise. Times are CPU "
    "seconds, speedups medians over pairs of steps; memory is that of weights, averages and what two steps add. The "
    "central and the exact step compute other derivatives than the rest. The cost of the exact step holds wherever "
    "there is no fused kernel for its tangents."
)


def lines(store: Store, size: str) -> list[dict[str, str]]:
    """The rows of one size, as text."""
    prefix = f"{size} / "
    rows = {key.removeprefix(prefix): row for key, row in store.rows.items() if key.startswith(prefix)}
    official = rows[OFFICIAL]
    return [
        {
            "step": name,
            "s": f"{row['seconds']:.3f}",
            "times as fast": f"{row['times as fast']:.2f}",
            "memory, MiB": f"{row['MiB']:.0f}",
            "of the official's": f"{row['MiB'] / official['MiB']:.2f}",
            "loss of the first step": f"{row['loss']:.6g}",
        }
        for name, row in rows.items()
    ]


if __name__ == "__main__":
    main()
