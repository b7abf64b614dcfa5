"""Variants of PID."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

import pidlearn as pid
from pidlearn.losses.distances import Distance, checked_distance, pseudo_huber
from pidlearn.methods import Stage
from pidlearn.methods.base import Batch, Context
from pidlearn.methods.pid.method import PID
from pidlearn.utils.broadcast import expand_like


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
    """Every z together with -z, at the same time."""

    def draw(self, context: Context, n: int, generator: torch.Generator) -> Batch:
        z, index, labels = super().draw(context, n, generator)
        assert z is not None
        assert index is not None
        twice = torch.arange(n, device=z.device) // 2
        sign = 1 - 2 * (torch.arange(n, device=z.device) % 2)  # 1, -1, 1, ...
        return expand_like(sign, z) * z[twice], index[2 * twice], None if labels is None else labels[twice]


@dataclass
class SeveralTimes(PID):
    """Every z at eight times."""

    def draw(self, context: Context, n: int, generator: torch.Generator) -> Batch:
        z, index, labels = super().draw(context, n, generator)
        assert z is not None
        assert index is not None
        few = torch.arange(n, device=z.device) // 8
        mixed = torch.randperm(n, generator=generator).to(z.device)  # the times are drawn in order
        return z[few], index[mixed], None if labels is None else labels[few]


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


@dataclass
class CoarseToFine(PID):
    """On a third of the grid's points in a first share of each window's steps."""

    share: float = 0.5

    def begin(self, context: Context, first: bool) -> None:
        super().begin(context, first)
        self.begun, self.fine = context.step, (self.grid, self.density)

    def loss(self, context: Context, batch: Batch) -> Tensor:
        every = 3 if context.step - self.begun < self.share * context.stage.steps else 1
        grid, density = self.fine
        self.grid, self.density = grid[::every], density[::every]
        return super().loss(context, batch)


@dataclass
class Together(PID):
    """All windows at every step, each from the states that those before it reach."""

    def stages(self, context: Context, steps: int) -> list[Stage]:
        return [Stage(context.student, steps)]

    def begin(self, context: Context, first: bool) -> None:
        windows, n = context.student.windows, context.n
        whole = context.time_grid(len(windows) * (n - 1) + 1)
        self.grids = [whole[i * (n - 1) : (i + 1) * (n - 1) + 1] for i in range(len(windows))]
        self.density = torch.ones(n - 1)

    def draw(self, context: Context, n: int, generator: torch.Generator) -> Batch:
        return context.problem.sample_prior(n, generator), None, None

    def loss(self, context: Context, batch: Batch) -> Tensor:
        x, whole, losses = batch[0], context.stage, []
        for window, grid in zip(context.student.windows, self.grids, strict=True):
            self.grid = grid
            context.stage = Stage(window, whole.steps)
            losses.append(super().loss(context, (x, None, None)))
            with torch.no_grad():
                x = window(x, window.t_min)
        context.stage = whole
        return torch.cat(losses)
