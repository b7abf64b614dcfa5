"""One training step of the paper's CIFAR-10 network, made narrower, beside a step as the official code takes it.

    python -m benchmarks.training_step [--repeats 5] [--out FOLDER]

Both get the same weights and draws. The official-style step is written out below: two calls of the student, one of the
teacher, attention that keeps the whole matrix, RAdam and three averages tensor by tensor, float32. Steps are timed in
turn, so that a machine that changes its speed changes it for all. Memory is what two steps add to the peak of a process
of its own, and what weights, averages and copies of them take before.
"""

from __future__ import annotations

import argparse
import copy
import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

import pidlearn as pid
from benchmarks.table import RESULTS, Store
from pidlearn.nets import EDMPrecond, blocks

SIZES = ((16, 2), (16, 8), (64, 8))
"""Channels and batch."""
RATES = (0.999, 0.9999, 0.99995)
PAPER: dict[str, Any] = {
    "steps": 1000,
    "lr": 2e-4,
    "warmup": 0.0,
    "constant": True,
    "optimizer": "radam",
    "beta2": 0.999,
    "ema": RATES,
    "distance": "l2",
    "index": "uniform",
    "init": "official",
}
OURS: dict[str, dict[str, Any]] = {
    "ours": {},
    "ours, half the batch at a time": {"micro_batch": -1},
    "ours, activations recomputed": {"recompute": True},
    "ours, both": {"micro_batch": -1, "recompute": True},
    "ours, central": {"derivative": "central"},
    "ours, exact": {"derivative": "exact"},
    "ours, exact, bfloat16": {"derivative": "exact", "precision": "bfloat16"},
}
OFFICIAL = "official style"


def teacher_of(channels: int) -> EDMPrecond:
    """EDM's CIFAR-10 denoiser with fewer channels, of random weights."""
    torch.manual_seed(0)
    shape = {"channel_mult": [2, 2, 2], "num_blocks": 4, "attn_resolutions": [16], "dropout": 0.0}
    denoiser = EDMPrecond(32, 3, model_type="SongUNet", model_channels=channels, **shape)
    for name, parameter in denoiser.named_parameters():
        if name.endswith(("conv1.weight", "proj.weight", "aux_conv.weight")):
            torch.nn.init.normal_(parameter, std=0.02)
    return denoiser.eval().requires_grad_(False)


class Ours:
    """The next step of a run."""

    def __init__(self, run: Any) -> None:
        self.run = run

    def __call__(self) -> float:
        """One update; the loss before it."""
        return next(self.run).loss


class OfficialStyle:
    """The step written out, on the batches that a run of ours draws."""

    def __init__(self, run: Any) -> None:
        self.run = run
        self.teacher = run.problem.teacher
        self.network = copy.deepcopy(self.teacher.model).requires_grad_(True)
        self.optimizer = torch.optim.RAdam(self.network.parameters(), 2e-4, foreach=False)
        self.averages = [copy.deepcopy(list(self.network.parameters())) for _ in RATES]
        self.generator = torch.Generator().manual_seed(run.config.seed)

    def __call__(self) -> float:
        """One update; the loss before it."""
        z, index, _ = self.run._draw(0, self.generator)
        grid = self.run.config.grid()
        with mock.patch.object(blocks.F, "scaled_dot_product_attention", blocks._plain_attention):
            loss = self.loss(z, grid[index].float(), grid[index + 1].float()).mean()
            self.optimizer.zero_grad()
            loss.backward()
        self.optimizer.step()
        for rate, average in zip(RATES, self.averages, strict=True):
            for slow, new in zip(average, self.network.parameters(), strict=True):
                slow.detach().mul_(rate).add_(new.detach(), alpha=1 - rate)
        return loss.item()

    def loss(self, z: Tensor, t: Tensor, t_next: Tensor) -> Tensor:
        """The squared residual, (B,)."""

        def wide(values: Tensor) -> Tensor:
            return values[:, None, None, None]

        def x(at: Tensor) -> Tensor:
            image = self.network(z / (0.5**2 + 80**2) ** 0.5, at.log() / 4)
            return wide(at / 80) * z + wide(1 - at / 80) * image

        now, after = x(t), x(t_next)
        with torch.no_grad():
            target = self.teacher(now, t)
        slope = (now - after) / wide(t - t_next)
        return (now - wide(t) * slope - target).square().flatten(1).mean(1)


def step_of(name: str, channels: int, batch: int) -> Callable[[], float]:
    """A function that takes one step and returns its loss."""
    choices = {**PAPER, **OURS.get(name, {}), "batch_size": batch}
    if choices.get("micro_batch"):
        choices["micro_batch"] = batch // 2
    run = pid.steps(teacher_of(channels), **choices)
    return OfficialStyle(run) if name == OFFICIAL else Ours(run)


def timed(channels: int, batch: int, repeats: int) -> dict[str, dict[str, float]]:
    """CPU seconds and losses of all the steps, in turn."""
    steps = {name: step_of(name, channels, batch) for name in (OFFICIAL, *OURS)}
    losses = {name: step() for name, step in steps.items()}  # warms up too
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            started = time.process_time()
            step()
            seconds[name].append(time.process_time() - started)
    return {
        name: {
            "loss": losses[name],
            "seconds": statistics.median(mine),
            "times as fast": statistics.median(a / b for a, b in zip(seconds[OFFICIAL], mine, strict=True)),
        }
        for name, mine in seconds.items()
    }


def memory(name: str, channels: int, batch: int) -> float:
    """MiB of weights, their averages and copies, and what two steps add to the peak of this process."""
    torch.set_num_threads(1)
    step = step_of(name, channels, batch)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is in use
    before = resident("VmRSS")
    step()
    step()
    return resident("VmHWM") - before + sum(x.nbytes for x in held(step)) / 2**20


def held(step: Any) -> list[Tensor]:
    """What there is of weights between two steps."""
    if isinstance(step, OfficialStyle):
        return [
            *step.teacher.parameters(),
            *step.network.parameters(),
            *(p for average in step.averages for p in average),
        ]
    trainer = step.run.trainer
    modules = (step.run.problem.teacher, trainer.module, *trainer.averages)
    return [*(p for module in modules for p in module.parameters()), *trainer._good.values()]


def resident(which: str) -> float:
    """MiB of this process in memory: VmRSS now, VmHWM at the peak. Linux says it."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(which))
    return int(line.split()[1]) / 1024


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    store = Store(
        args.out, "training-step", "python -m benchmarks.training_step", repeats=args.repeats, paper=PAPER, ours=OURS
    )
    for size in SIZES:
        rows = timed(*size, args.repeats)
        for name, row in rows.items():
            # A process of its own each: what one has freed would not count for the next.
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                store.add(f"{heading(*size)} / {name}", {**row, "MiB": pool.submit(memory, name, *size).result()})
    store.publish("A training step", TEXT, {heading(*size): lines(store, heading(*size)) for size in SIZES})


def heading(channels: int, batch: int) -> str:
    """Of a size."""
    return f"{channels} channels, batch {batch}"


TEXT = (
    "The CIFAR-10 network of the paper with fewer channels, 32 x 32 pixels, float32 unless said. Times are CPU "
    "seconds, ratios medians of pairs; memory is that of weights, averages and what two steps add. Central and exact "
    "differ from the others in what they compute: an exact step costs what it does here wherever there is no fused "
    "kernel for its tangents."
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
