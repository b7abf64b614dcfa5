"""What lets PID learn faster: `python -m benchmarks.faster [--only NAME ...] [--seeds 0 1]`.

Each change has the CPU time of the reference, the recipe of the first release: 7,000 steps of Adam. "Muon" changes its
optimiser, and every further row one more thing. The cost of a step is measured against the reference in turns, right
before the run.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, ClassVar
from unittest import mock

import torch
from torch import Tensor

import pidlearn as pid
from benchmarks.methods.subjects import truth
from benchmarks.table import RESULTS, Store, Task, spread
from pidlearn.evaluation.metrics import rmse
from pidlearn.losses.distances import Distance, checked_distance, pseudo_huber
from pidlearn.methods import Stage
from pidlearn.methods.base import Batch, Context
from pidlearn.methods.pid.method import PID
from pidlearn.training.muon import Muon
from pidlearn.training.optim import MATRIX_LR, OptimizerConfig

STEPS = 7000
DATA = ("ring", "checkerboard")


@dataclass
class Sobol(PID):
    """Noise from a scrambled Sobol sequence, which fills space more evenly than independent draws."""

    def draw(self, context: Context, n: int, generator: torch.Generator) -> Batch:
        z, index, labels = super().draw(context, n, generator)
        assert z is not None
        if context.step == 0:
            self.sequence = torch.quasirandom.SobolEngine(z[0].numel(), scramble=True, seed=context.seed)
        u = self.sequence.draw(n, dtype=torch.float64).clamp(1e-12, 1 - 1e-12)  # (n, d)
        u = u[torch.randperm(n, generator=generator)]  # the times are drawn in order
        normal = math.sqrt(2) * torch.erfinv(2 * u - 1)
        return (context.problem.t_start * normal).to(z).reshape(z.shape), index, labels


@dataclass
class Antithetic(PID):
    """Every z together with -z."""

    def draw(self, context: Context, n: int, generator: torch.Generator) -> Batch:
        z, index, labels = super().draw(context, n, generator)
        assert z is not None
        return torch.cat([z[: n // 2], -z[: n - n // 2]]), index, labels


@dataclass
class FollowsResidual(PID):
    """Times in proportion to the running mean of the loss there, over a floor of a fifth of the recipe's sampling."""

    def begin(self, context: Context, first: bool) -> None:
        super().begin(context, first)
        self.recipe, self.running = self.density.clone(), torch.ones_like(self.density)

    def loss(self, context: Context, batch: Batch) -> Tensor:
        losses = super().loss(context, batch)
        index, new = batch[1], losses.detach().double()
        assert index is not None
        count = torch.zeros_like(self.running).index_add(0, index, torch.ones_like(new))
        mean = torch.zeros_like(self.running).index_add(0, index, new) / count.clamp(min=1)
        self.running = torch.where(count > 0, self.running.lerp(mean, 0.02), self.running)
        if context.step % 50 == 49:
            followed = self.running / self.running.sum()
            self.density = 0.2 * self.recipe / self.recipe.sum() + 0.8 * followed
        return losses


@dataclass
class Causal(FollowsResidual):
    """Weights exp(-sum of the mean losses at all earlier times / 2): an error at t is inherited by all later times.

    Wang, Sankaran & Perdikaris (2022, arXiv 2203.07404); the sum of 250 losses is about 10 at first and 0.5 at last.
    """

    def loss(self, context: Context, batch: Batch) -> Tensor:
        losses, index = super().loss(context, batch), batch[1]
        assert index is not None
        self.density = self.recipe
        weight = torch.exp(-0.5 * (self.running.cumsum(0) - self.running))  # (N - 1,)
        return losses * weight[index].to(losses)


@dataclass
class Annealed(PID):
    """The constant of the pseudo-Huber distance falls from 0.3 to 0.003."""

    def _scaled(self, context: Context) -> Distance:
        return partial(pseudo_huber, c=0.3 * 0.01 ** (context.step / context.steps))


@dataclass
class AfterRegression(PID):
    """A first share of the steps on solved paths: x(z, t_i) against DPM-Solver++'s states at its 20 times."""

    share: float = 0.2
    pairs: ClassVar[int] = 4096

    def stages(self, context: Context, steps: int) -> list[Stage]:
        first = round(self.share * steps)
        return [Stage(context.student, first), Stage(context.student, steps - first)]

    def begin(self, context: Context, first: bool) -> None:
        super().begin(context, first)
        if context.stage_index:
            return
        ode, grid = context.problem.ode, pid.karras_grid(21)
        self.z = context.problem.sample_prior(self.pairs, torch.Generator().manual_seed(context.seed + 1))
        self.times, self.paths = grid[1:], pid.solve(ode, self.z, grid, "dpm++")[1:]

    def draw(self, context: Context, n: int, generator: torch.Generator) -> Batch:
        if context.stage_index:
            return super().draw(context, n, generator)
        which, when = (torch.randint(k, (n,), generator=generator) for k in (self.pairs, len(self.times)))
        return self.z[which], when, self.paths[when, which]

    def loss(self, context: Context, batch: Batch) -> Tensor:
        if context.stage_index:
            return super().loss(context, batch)
        z, when, x = batch
        assert z is not None
        assert when is not None
        assert x is not None
        a, _ = context.student.skip_term(self.times[when])
        (learned,) = context.student.learned_term(z, self.times[when])  # (1 - t/T) F
        return checked_distance(context.distance, learned, x - a.to(z)[:, None] * z)


def linear(config: OptimizerConfig, step: int, steps: int) -> float:
    """A rate that falls along a line."""
    share = (step + 1) / (steps + 1)
    return min(share / config.warmup, (1 - share) / (1 - config.warmup))


def late(config: OptimizerConfig, step: int, steps: int) -> float:
    """A constant rate that falls along a line in the last third."""
    share = (step + 1) / (steps + 1)
    return min(share / config.warmup, 1.0, 3 * (1 - share))


def muon(parameters: Any, config: OptimizerConfig, **options: Any) -> Muon:
    """Muon with options that `pidlearn.Config` has not."""
    return Muon(parameters, config.lr, (0.9, config.beta2), matrix_lr=MATRIX_LR * config.lr, **options)


@dataclass(frozen=True)
class Change:
    """What differs from the reference.

    Attributes:
        settings: fields of `pidlearn.Config`.
        network: options of the MLP.
        schedule: in place of half a cosine.
        polish: share of the time for LBFGS at the end.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    network: Mapping[str, Any] = field(default_factory=dict)
    schedule: Callable[[OptimizerConfig, int, int], float] | None = None
    polish: float = 0.0


MUON: dict[str, Any] = {"optimizer": "muon", "lr": 3e-3}
REFERENCE = Change({"optimizer": "adam", "lr": 6e-3})
CHANGES = {
    "reference": REFERENCE,
    "RAdam": Change({"optimizer": "radam", "lr": 6e-3}),
    "Muon": Change(MUON),
    "Muon, 3 Newton-Schulz steps": Change({**MUON, "optimizer": partial(muon, ns_steps=3)}),
    "matrices' rate x 1/2": Change({**MUON, "matrix_lr": 0.0075}),
    "matrices' rate x 2": Change({**MUON, "matrix_lr": 0.03}),
    "others' rate x 1/2": Change({**MUON, "lr": 1.5e-3, "matrix_lr": 0.015}),
    "others' rate x 2": Change({**MUON, "lr": 6e-3, "matrix_lr": 0.015}),
    "batches of 128": Change({**MUON, "batch_size": 128}),
    "batches of 512": Change({**MUON, "batch_size": 512}),
    "rate falls along a line": Change(MUON, schedule=linear),
    "rate falls in the last third": Change(MUON, schedule=late),
    "momentum 0.9": Change({**MUON, "optimizer": partial(muon, momentum=0.9)}),
    "momentum 0.98": Change({**MUON, "optimizer": partial(muon, momentum=0.98)}),
    "averaged weights, 0.99": Change({**MUON, "ema": (0.99,)}),
    "averaged weights, 0.999, constant rate": Change({**MUON, "ema": (0.999,), "constant": True}),
    "times follow the residual": Change({**MUON, "method": FollowsResidual()}),
    "causal weights": Change({**MUON, "method": Causal()}),
    "Sobol noise": Change({**MUON, "method": Sobol()}),
    "antithetic noise": Change({**MUON, "method": Antithetic()}),
    "c = 0.01": Change({**MUON, "distance": partial(pseudo_huber, c=0.01)}),
    "c = 0.1": Change({**MUON, "distance": partial(pseudo_huber, c=0.1)}),
    "c annealed": Change({**MUON, "method": Annealed()}),
    "width 96": Change(MUON, {"width": 96}),
    "width 48, depth 7": Change(MUON, {"width": 48, "depth": 7}),
    "depth 7": Change(MUON, {"depth": 7}),
    "128 frequencies": Change(MUON, {"fourier": 128}),
    "regression first, a tenth": Change({**MUON, "method": AfterRegression(share=0.1)}),
    "regression first, a third": Change({**MUON, "method": AfterRegression(share=1 / 3)}),
    "LBFGS in the last tenth": Change(MUON, polish=0.1),
}


def scheduled(change: Change) -> AbstractContextManager[Any]:
    """A context in which training has the schedule of a change."""
    return mock.patch("pidlearn.training.trainer.schedule", change.schedule) if change.schedule else nullcontext()


def started(data: str, change: Change, steps: int, seed: int) -> Iterator[Any]:
    """The steps of a run, not yet taken."""
    teacher = pid.toy(data)
    torch.manual_seed(seed)
    student = pid.Trajectory(pid.nets.MLP(teacher.event_shape, **change.network), sigma_data=teacher.std)
    return pid.steps(teacher, student, steps=steps, seed=seed, **change.settings)


def cost(data: str, change: Change, block: int = 30, rounds: int = 7) -> float:
    """The CPU time of a step relative to the reference: the median over rounds of ``block`` steps of each."""
    runs = [started(data, one, 10**6, 0) for one in (change, REFERENCE)]
    ratios = []
    for _ in range(rounds):
        spent = []
        for run in runs:
            begun = time.process_time()
            list(islice(run, block))
            spent.append(time.process_time() - begun)
        ratios.append(spent[0] / spent[1])
    return median(ratios[1:])  # the first round warms up, and solves paths


def mean_cost(data: str, change: Change) -> float:
    """The cost of a step of a whole run, of which a first share may have another one."""
    method = change.settings.get("method")
    if not isinstance(method, AfterRegression):
        return cost(data, change)
    return method.share * cost(data, change) + (1 - method.share) * cost(data, CHANGES["Muon"])


def row(data: str, name: str, seed: int) -> dict[str, float]:
    """Train with one change for the reference's CPU time; the error of one call to Euler-250."""
    change = CHANGES[name]
    steps = round(STEPS * (1 - change.polish) / mean_cost(data, change)) if name != "reference" else STEPS
    begun = time.process_time()
    with scheduled(change):
        run: Any = started(data, change, steps, seed)
        for _ in run:
            pass
    if change.polish:
        polish(run, (time.process_time() - begun) * change.polish / (1 - change.polish))
    seconds, true = time.process_time() - begun, truth(data)
    x = run.result().generate(true.z).double()
    return {"error": rmse(x, true.euler), "steps": steps, "seconds": seconds}


def polish(run: Any, seconds: float) -> None:
    """LBFGS on one large batch for some CPU seconds."""
    method, context = run.trainer.method, run.trainer.context
    batch = method.draw(context, 8192, torch.Generator().manual_seed(7))
    optimizer = torch.optim.LBFGS(run.student.parameters(), max_iter=5, history_size=20, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = method.loss(context, batch).mean()
        loss.backward()
        return loss

    begun = time.process_time()
    while time.process_time() - begun < seconds:
        optimizer.step(closure)


def lines(rows: dict[str, dict[str, float]]) -> list[dict[str, str]]:
    """One line per change: its error on each toy, and the geometric mean of its ratios to Muon's own."""
    table = []
    for name in CHANGES:
        line, ratios = {"change": name}, []
        for data in DATA:
            ours, muons = ([r for key, r in rows.items() if key.startswith(f"{data}/{n}/")] for n in (name, "Muon"))
            if ours:
                line[data] = spread([r["error"] for r in ours], 4)
                line[f"{data}, steps"] = f"{ours[0]['steps']:,.0f}"
                ratios += [math.log(a["error"] / b["error"]) for a, b in zip(ours, muons, strict=False)]
        if ratios:
            table.append({**line, "to Muon's": f"{math.exp(sum(ratios) / len(ratios)):.2f}"})
    return table


TEXT = f"""RMSE to Euler-250 of one call on new noise, in data units (scale about 1), after the CPU time that {STEPS:,}
steps of the reference take; means over the seeds ± half of the range. From "Muon" on, each row changes one thing more
than the optimiser. The last column is the ratio to Muon's own error, the geometric mean over toys and seeds."""


def main() -> None:
    """Compute the missing rows, and publish the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--only", nargs="+", default=list(CHANGES), choices=CHANGES, metavar="NAME")
    parser.add_argument("--jobs", type=int, default=2, help="number of processes, with one thread each")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the table")
    args = parser.parse_args()
    store = Store(args.out, "faster", "python -m benchmarks.faster", steps=STEPS)
    tasks: dict[str, Task] = {
        f"{data}/{name}/seed {seed}": (row, data, name, seed)
        for seed in args.seeds
        for name in args.only
        for data in DATA
    }
    store.fill(tasks, args.jobs)
    seeds = sorted({key.split("/seed ")[1] for key in store.rows})
    store.publish("What lets PID learn faster", f"{TEXT} Seeds {', '.join(seeds)}.", {"Toys": lines(store.rows)})


if __name__ == "__main__":
    main()
