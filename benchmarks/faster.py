"""What lets PID learn faster: `python -m benchmarks.faster [--data DATA] [--only NAME ...] [--seeds 0 1]`.

DATA is toys, unseen, digits (with a U-Net) or digits-mlp. Each change has the CPU time of the reference, Adam as in the
recipes of the first release: on toys 7,000 steps, on digits 400 with batches of 128, a fifth of the recipe's; with an
MLP today's recipe, since the first release's rate of 4e-3 is unstable there. On toys, "Muon" changes the optimiser, and
every further row one more thing. The unseen mixtures and ODEs, which had no part in the choice, have Adam's recipe and
today's only. The cost of a step is measured against the reference in turns, right before the run.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any
from unittest import mock

import torch
from torch import Tensor

import pidlearn as pid
from benchmarks import learning
from benchmarks.methods.subjects import subject, truth
from benchmarks.table import RESULTS, Store, Task, spread
from pidlearn import recipes
from pidlearn.evaluation.metrics import rmse
from pidlearn.losses.distances import Distance, checked_distance, pseudo_huber
from pidlearn.methods import Stage
from pidlearn.methods.base import Batch, Context
from pidlearn.methods.pid.method import PID
from pidlearn.students.build import as_trajectory, build_student
from pidlearn.training.loop import DivergedError
from pidlearn.training.muon import Muon
from pidlearn.training.optim import MATRIX_LR, OptimizerConfig
from pidlearn.utils.broadcast import expand_like

TOYS = ("ring", "checkerboard")
MIXTURES, SYSTEMS = ("unseen-1", "unseen-2"), ("fitzhugh_nagumo", "forced_duffing")
DATA = {
    "toys": TOYS,
    "unseen": (*MIXTURES, *SYSTEMS),
    "digits": ("digits",),
    "digits-mlp": ("digits-mlp",),
}
"""What stands in one table."""
STEPS = {**dict.fromkeys((*TOYS, *MIXTURES), 7000), **dict.fromkeys(SYSTEMS, 9500), "digits": 400, "digits-mlp": 7500}
"""Of the reference."""


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
    pairs: int = 4096

    def stages(self, context: Context, steps: int) -> list[Stage]:
        first = round(self.share * steps)
        return [Stage(context.student, first), Stage(context.student, steps - first)]

    def begin(self, context: Context, first: bool) -> None:
        super().begin(context, first)
        if context.stage_index:
            return
        problem, grid, generator = context.problem, pid.karras_grid(21), torch.Generator().manual_seed(context.seed + 1)
        self.z, self.labels = problem.sample_prior(self.pairs, generator), problem.sample_labels(self.pairs, generator)
        self.times, self.paths = grid[1:], pid.solve(problem.ode, self.z, grid, "dpm++", class_labels=self.labels)[1:]

    def draw(self, context: Context, n: int, generator: torch.Generator) -> Batch:
        if context.stage_index:
            return super().draw(context, n, generator)
        which, when = (torch.randint(k, (n,), generator=generator) for k in (self.pairs, len(self.times)))
        labels = None if self.labels is None else self.labels[which]
        return self.z[which], when, labels, self.paths[when, which]

    def loss(self, context: Context, batch: Batch) -> Tensor:
        if context.stage_index:
            return super().loss(context, batch)
        z, when, labels, x = batch
        a, _ = context.student.skip_term(self.times[when])
        (learned,) = context.student.learned_term(z, self.times[when], class_labels=labels)  # (1 - t/T) F
        return checked_distance(context.distance, learned, x - expand_like(a, z) * z)


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
        time: share of the reference's CPU time.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    network: Mapping[str, Any] = field(default_factory=dict)
    schedule: Callable[[OptimizerConfig, int, int], float] | None = None
    polish: float = 0.0
    time: float = 1.0


MUON: dict[str, Any] = {"optimizer": "muon", "lr": 3e-3}
REFERENCE = Change({"optimizer": "adam", "lr": 6e-3})
CHANGES = {
    "reference": REFERENCE,
    "RAdam": Change({"optimizer": "radam", "lr": 6e-3}),
    "Muon": Change(MUON),
    "Muon in half the time": Change(MUON, time=0.5),
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

ADAM: dict[str, Any] = {"optimizer": "adam", "lr": 1e-3}
IMAGES: dict[str, Any] = {**ADAM, "batch_size": 32}
IMAGES_MUON: dict[str, Any] = {**IMAGES, "optimizer": "muon"}
DIGITS = {
    "reference": Change({**ADAM, "batch_size": 128}),
    **{f"batches of {size}": Change({**ADAM, "batch_size": size}) for size in (64, 32, 16)},
    "batches of 32, rate x 1/2": Change({**IMAGES, "lr": 5e-4}),
    "batches of 32, rate x 2": Change({**IMAGES, "lr": 2e-3}),
    "batches of 32, Muon": Change(IMAGES_MUON),
    "batches of 32, Muon, rate x 2": Change({**IMAGES_MUON, "lr": 2e-3}),
    "batches of 32, Muon, matrices' rate x 1/2": Change({**IMAGES_MUON, "matrix_lr": 0.0025}),
    "batches of 32, Muon, matrices' rate x 2": Change({**IMAGES_MUON, "matrix_lr": 0.01}),
    "batches of 32, Muon, c = 0.1": Change({**IMAGES_MUON, "distance": partial(pseudo_huber, c=0.1)}),
    "batches of 32, rate falls along a line": Change(IMAGES, schedule=linear),
    "batches of 32, times follow the residual": Change({**IMAGES, "method": FollowsResidual()}),
    "batches of 32, regression first, a fifth": Change({**IMAGES, "method": AfterRegression(pairs=1024)}),
    "batches of 32, regression first, a half": Change({**IMAGES, "method": AfterRegression(share=0.5, pairs=1024)}),
}


MLP: dict[str, Any] = {"optimizer": "adam", "lr": 2.5e-3}
DIGITS_MLP = {
    "reference": Change(MLP),
    "rate x 1/2": Change({**MLP, "lr": 1.25e-3}),
    "rate x 2": Change({**MLP, "lr": 5e-3}),
    "batches of 64": Change({**MLP, "batch_size": 64}),
    "batches of 256": Change({**MLP, "batch_size": 256}),
    "batches of 64, rate x 1/2": Change({**MLP, "batch_size": 64, "lr": 1.25e-3}),
    "Muon": Change({"optimizer": "muon", "lr": 1e-3}),
    "Muon, rate x 3": Change({"optimizer": "muon", "lr": 3e-3}),
    "rate falls along a line": Change(MLP, schedule=linear),
    "averaged weights, 0.999": Change({**MLP, "ema": (0.999,)}),
    "times follow the residual": Change({**MLP, "method": FollowsResidual()}),
    "antithetic noise": Change({**MLP, "method": Antithetic()}),
    "c = 0.1": Change({**MLP, "distance": partial(pseudo_huber, c=0.1)}),
    "width 256, depth 6": Change(MLP, {"width": 256, "depth": 6}),
    "width 512": Change(MLP, {"width": 512}),
    "layer norms": Change(MLP, {"norm": True}),
    "regression first, a fifth": Change({**MLP, "method": AfterRegression(pairs=16384)}),
    "regression first, a half": Change({**MLP, "method": AfterRegression(share=0.5, pairs=16384)}),
}

RECIPES = {"reference": Change({"optimizer": "adam"}), "today's recipe": Change()}
"""Of the unseen problems, without further settings."""


def changes(data: str) -> dict[str, Change]:
    """The changes that are tried on a toy, an unseen problem, or digits."""
    return {"digits": DIGITS, "digits-mlp": DIGITS_MLP, **dict.fromkeys(DATA["unseen"], RECIPES)}.get(data, CHANGES)


def scheduled(change: Change) -> AbstractContextManager[Any]:
    """A context in which training has the schedule of a change."""
    return mock.patch("pidlearn.training.trainer.schedule", change.schedule) if change.schedule else nullcontext()


def started(data: str, change: Change, steps: int, seed: int) -> Iterator[Any]:
    """The steps of a run, not yet taken."""
    settings = {"steps": steps, "seed": seed, **change.settings}
    if data in DATA["unseen"]:
        return pid.steps(**learning.problem(data), **settings)
    problem, student = subject(data).problem, None
    config = recipes.read(data).config if data == "digits" else None
    if change.network:
        torch.manual_seed(seed)
        usual: Any = build_student(problem)
        network = pid.nets.MLP(**{**usual.network.options, **change.network})
        if "fourier" not in change.network:
            network.frequencies.copy_(usual.network.frequencies)
        student = as_trajectory(network, problem)
    return pid.steps(problem.teacher, student, config=config, **settings)


def cost(data: str, change: Change) -> tuple[float, float]:
    """The CPU time of a step, and of what comes before the first, both in steps of the reference.

    The first is the median over rounds of some steps of each; paths are solved in the first round, which also warms up.
    """
    block, rounds = (3, 5) if data == "digits" else (30, 7)
    runs = [started(data, one, 10**6, 0) for one in (change, changes(data)["reference"])]
    spent = []
    for _ in range(rounds):
        spent.append([])
        for run in runs:
            begun = time.process_time()
            list(islice(run, block))
            spent[-1].append(time.process_time() - begun)
    (first, warm), *rest = spent
    ratio = median(ours / theirs for ours, theirs in rest)
    return ratio, max(0.0, block * (first - ratio * warm) / median(theirs for _, theirs in rest))


def costs(data: str, change: Change) -> tuple[float, float]:
    """The costs of a whole run, of which a first share of the steps may have another one."""
    per_step, before = cost(data, change)
    method = change.settings.get("method")
    if not isinstance(method, AfterRegression):
        return per_step, 0.0
    rest, _ = cost(data, Change({name: value for name, value in change.settings.items() if name != "method"}))
    return method.share * per_step + (1 - method.share) * rest, before


def row(data: str, name: str, seed: int) -> dict[str, float | None]:
    """Train with one change for its share of the reference's CPU time; the error of one call to Euler-250.

    A run that diverges has none.
    """
    change, steps = changes(data)[name], STEPS[data]
    if name != "reference":
        per_step, before = costs(data, change)
        steps = round((steps * change.time * (1 - change.polish) - before) / per_step)
    begun = time.process_time()
    try:
        with scheduled(change):
            run: Any = started(data, change, steps, seed)
            for _ in run:
                pass
    except DivergedError:
        return {"error": None, "steps": steps, "seconds": time.process_time() - begun}
    if change.polish:
        polish(run, (time.process_time() - begun) * change.polish / (1 - change.polish))
    seconds = time.process_time() - begun
    return {"error": error(data, run.result()), "steps": steps, "seconds": seconds}


def error(data: str, result: Any) -> float:
    """The error of a run's result on new noise or initial values."""
    if data in DATA["unseen"]:
        return learning.errors(data, result.student)["error"]
    true = truth(data)
    return rmse(result.generate(true.z, true.labels).double(), true.euler) / true.unit


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


def diverged(row: dict[str, Any]) -> bool:
    """Whether training stopped as diverged, or ended with samples far from all data."""
    return row["error"] is None or not row["error"] <= 10  # false for NaN, which diverged, too


def lines(rows: dict[str, dict[str, Any]], names: Sequence[str]) -> list[dict[str, str]]:
    """One line per change: its error on each of the data, and the geometric mean of its ratios to what it changes."""
    changed = "Muon" if names == TOYS else "reference"
    table = []
    for name in changes(names[0]):
        line, ratios, seconds = {"change": name}, [], []
        for data in names:
            ours, theirs = ([r for key, r in rows.items() if key.startswith(f"{data}/{n}/")] for n in (name, changed))
            if ours:
                errors = [r["error"] for r in ours if not diverged(r)]
                words = [spread(errors, 4)] if errors else []
                line[data] = " or ".join(words + ["diverged"] * (len(errors) < len(ours)))
                line[f"{data}, steps"] = f"{ours[0]['steps']:,.0f}"
                seconds += [r["seconds"] for r in ours]
                both = [(a, b) for a, b in zip(ours, theirs, strict=False) if not (diverged(a) or diverged(b))]
                ratios += [a["error"] / b["error"] for a, b in both]
        if len(line) > 1:
            line |= {f"to {changed}": f"{geometric_mean(ratios):.2f}" if ratios else "", "CPU s": spread(seconds, 0)}
            table.append(line)
    return table


def unseen_lines(rows: dict[str, dict[str, Any]]) -> list[dict[str, str]]:
    """One line per unseen problem: the errors of both recipes, and their ratio."""
    table = []
    for data in DATA["unseen"]:
        old, new = ([r for key, r in rows.items() if key.startswith(f"{data}/{name}/")] for name in RECIPES)
        if new:
            ratios = [b["error"] / a["error"] for a, b in zip(old, new, strict=True)]
            table.append(
                {
                    "problem": data,
                    "the first release's": spread([r["error"] for r in old], 4),
                    "its steps": f"{old[0]['steps']:,}",
                    "today's": spread([r["error"] for r in new], 4),
                    "steps": f"{new[0]['steps']:,}",
                    "ratio": f"{geometric_mean(ratios):.2f}",
                }
            )
    return table


TEXT = {
    "toys": f"""RMSE to Euler-250 of one call on new noise, in data units (scale about 1), after the CPU time that
{STEPS["ring"]:,} steps of the reference take, or half of it where a row says so; means over the seeds ± half of the
range. From "Muon" on, each row changes one thing more than the optimiser. The last column is the ratio to Muon's own
error, the geometric mean over toys and seeds.""",
    "unseen": """Two random mixtures and two ODEs that had no part in the choice of today's recipes: those of the first
release, with Adam, and today's for the same CPU time. Mixtures: RMSE to Euler-250 of one call on new noise, in data
units. ODEs: over the whole path, from new initial values, relative to the standard deviation over times and initial
values. Means over the seeds ± half of the range; the ratio is the geometric mean over the seeds.""",
    "digits": f"""RMSE of one call to Euler-250 on new noise, relative to the standard deviation of the teacher's
samples, after the CPU time that {STEPS["digits"]} steps of the reference take, a fifth of the recipe's own, solved
paths included; means over the seeds ± half of the range.""",
    "digits-mlp": f"""RMSE of one call to Euler-250 on new noise, relative to the standard deviation of the teacher's
samples, after the CPU time of the recipe, {STEPS["digits-mlp"]:,} steps of the reference, solved paths included; means
over the seeds ± half of the range.""",
}
COSTS = """How many steps have that time is measured in turns with the reference, right before each run. The runs
themselves shared their cores with others, which slows them by different amounts: their CPU seconds are in the last
column, and ratios within a tenth of 1 say little."""
TITLES = {
    "toys": "",
    "unseen": ", unseen problems",
    "digits": ", digits with a U-Net",
    "digits-mlp": ", digits with an MLP",
}


def main() -> None:
    """Compute the missing rows, and publish the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="toys", choices=DATA, help="digits: with a U-Net")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="names of changes; all")
    parser.add_argument("--jobs", type=int, default=2, help="number of processes, with one thread each")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the table")
    args = parser.parse_args()
    names = DATA[args.data]
    if unknown := set(args.only or ()) - set(changes(names[0])):
        parser.error(f"no such changes: {', '.join(sorted(unknown))}")
    if args.data in ("digits", "digits-mlp"):
        truth(args.data)  # before the processes that read it
    name, options = ("faster", "") if args.data == "toys" else (f"faster-{args.data}", f" --data {args.data}")
    store = Store(args.out, name, f"python -m benchmarks.faster{options}", steps=STEPS[names[0]])
    tasks: dict[str, Task] = {
        f"{data}/{change}/seed {seed}": (row, data, change, seed)
        for seed in args.seeds
        for change in args.only or changes(names[0])
        for data in names
    }
    store.fill(tasks, args.jobs)
    seeds = sorted({key.split("/seed ")[1] for key in store.rows})
    title = f"What lets PID learn faster{TITLES[args.data]}"
    text = f"{TEXT[args.data]} {'' if args.data == 'unseen' else COSTS} Seeds {', '.join(seeds)}."
    table = unseen_lines(store.rows) if args.data == "unseen" else lines(store.rows, names)
    store.publish(title, text, {args.data: table})


if __name__ == "__main__":
    main()
