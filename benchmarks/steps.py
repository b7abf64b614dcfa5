"""Training steps to be measured: a run's own, and one as the official code takes it, written out.

Both start from the same weights and get the same draws of noise, times and labels.
"""

from __future__ import annotations

import copy
from typing import Any
from unittest import mock

import torch
from torch import Tensor

import pidlearn as pid
from pidlearn.equations.ode import DenoiserODE
from pidlearn.losses.distances import DISTANCES, Distance
from pidlearn.methods import Batch
from pidlearn.methods.pid.loss import _LearnedTerm
from pidlearn.nets import EDMPrecond, blocks
from pidlearn.run import Run
from pidlearn.training.ema import Averages
from pidlearn.training.execution import overridden
from pidlearn.utils.validation import resolve

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
    "time_sampling": "uniform",
    "init": "official",
}
"""The official hyper-parameters. LPIPS, its distance, is measured apart."""

CIFAR10: dict[str, Any] = {
    "img_resolution": 32,
    "img_channels": 3,
    "model_type": "SongUNet",
    "model_channels": 128,
    "channel_mult": [2, 2, 2],
    "num_blocks": 4,
    "attn_resolutions": [16],
    "dropout": 0.0,
}
IMAGENET64: dict[str, Any] = {
    "img_resolution": 64,
    "img_channels": 3,
    "label_dim": 1000,
    "model_type": "DhariwalUNet",
    "model_channels": 192,
    "channel_mult": [1, 2, 3, 4],
    "num_blocks": 3,
    "attn_resolutions": [32, 16, 8],
    "dropout": 0.0,
}
"""EDM's networks."""

Call = tuple[Any, str]
"""An object or class, and the name of a function of it."""


def teacher_of(network: dict[str, Any], device: str | torch.device = "cpu") -> EDMPrecond:
    """A denoiser of random weights, none of them zero: every layer has work to do and a gradient."""
    torch.manual_seed(0)
    with torch.device(device):
        denoiser = EDMPrecond(**network)
        for name, parameter in denoiser.named_parameters():
            if name.endswith(("conv1.weight", "proj.weight", "aux_conv.weight", "out_conv.weight")):
                torch.nn.init.normal_(parameter, std=0.02)
    return denoiser.eval().requires_grad_(False)


class Ours:
    """The next step of a run."""

    def __init__(self, teacher: EDMPrecond, **choices: Any) -> None:
        self.run = pid.steps(teacher, **choices)

    def __call__(self) -> float:
        """One update; the loss before it."""
        return next(self.run).loss

    def gradient(self, distance: Distance, batch: Batch) -> Tensor:
        """Of that distance's mean over a batch, of all weights in a row."""
        trainer = self.run.trainer
        trainer.enter_stage()
        trainer.optimizer.zero_grad()
        with mock.patch.object(trainer.context, "distance", distance), overridden(self.run.overrides):
            trainer.method.loss(trainer.context, batch).mean().backward()
        return _row(self.run.student)

    def measured_by(self, distance: Distance) -> None:
        """Take another distance from here on."""
        self.run.trainer.context.distance = distance

    def calls(self) -> dict[str, list[Call]]:
        """What takes which share of a step."""
        return {
            "student": [(_LearnedTerm, "__call__"), (_LearnedTerm, "jvp")],
            "teacher": [(DenoiserODE, "rhs")],
            "optimiser": [(self.run.trainer.optimizer, "step")],
            "averages": [(Averages, "include_update")],
        }

    def held(self) -> list[Tensor]:
        """What there is of weights between two steps."""
        trainer = self.run.trainer
        modules = (self.run.problem.teacher, trainer.module, *trainer.averages.modules)
        return [*(p for module in modules for p in module.parameters()), *trainer.snapshot.values()]


class OfficialStyle:
    """The step written out, on the batches that a run of ours draws: two calls of the student and one of the teacher,
    attention that keeps the whole matrix, RAdam and averages tensor by tensor.

    Args:
        teacher: whose network the student starts as a copy of.
        half: whether both networks compute in float16, with the loss scaled against underflow.
        compile: a backend of `torch.compile` for both, or None.
        **choices: of the run.
    """

    def __init__(self, teacher: EDMPrecond, *, half: bool = False, compile: str | None = None, **choices: Any) -> None:
        self.run = pid.steps(teacher, **{**choices, "ema": ()})
        self.run.trainer.snapshot.clear()
        self.network, config = self.run.student.network, self.run.config
        for module in (self.network, teacher):
            module.to(memory_format=torch.contiguous_format)
        self.rates = choices["ema"]
        self.averages = [copy.deepcopy(list(self.network.parameters())) for _ in self.rates]
        self.optimizer = torch.optim.RAdam(self.network.parameters(), config.lr, foreach=False)
        self.generator = torch.Generator(self.run.problem.rng_device).manual_seed(config.seed)
        self.distance: Distance = resolve("distance", config.distance, DISTANCES)
        self.body, self.scale = (torch.float16, 256.0) if half else (None, 1.0)
        self.switches = [*self.run.overrides, (teacher, "compute_dtype", self.body)]
        if compile:
            nets = (self.network, teacher.model)
            self.switches += [(net, "forward", torch.compile(net.forward, backend=compile)) for net in nets]

    def __call__(self) -> float:
        """One update; the loss before it."""
        self.optimizer.zero_grad()
        batch = draw(self.run, self.generator)
        rows = torch.arange(len(batch[0])).split(self.run.config.micro_batch or len(batch[0]))
        parts = [tuple(None if x is None else x[part] for x in batch) for part in rows]
        loss = sum(self.backward(self.distance, part, len(batch[0])) for part in parts)
        self.unscale()
        self.optimizer.step()
        self.average()
        return loss

    def gradient(self, distance: Distance, batch: Batch) -> Tensor:
        """As of `Ours`."""
        self.optimizer.zero_grad()
        self.backward(distance, batch, len(batch[0]))
        self.unscale()
        return _row(self.network)

    def measured_by(self, distance: Distance) -> None:
        """As of `Ours`."""
        self.distance = distance

    def backward(self, distance: Distance, batch: Batch, of: int) -> float:
        """What a part of a batch of so many adds to the mean loss, and to the gradient."""
        z, index, labels = batch
        grid = self.run.config.grid().to(z.device)
        plain = mock.patch.object(blocks.F, "scaled_dot_product_attention", blocks._plain_attention)
        with plain, overridden(self.switches):
            lhs, rhs = self.sides(z, grid[index], grid[index + 1], labels)
            loss = distance(lhs, rhs).sum() / of
            (self.scale * loss).backward()
        return loss.item()

    def unscale(self) -> None:
        """Divide the gradient by what the loss was multiplied by."""
        if self.scale != 1:
            torch._foreach_div_([p.grad for p in self.network.parameters() if p.grad is not None], self.scale)

    def sides(self, z: Tensor, t: Tensor, t_next: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Both sides of the residual, as images."""
        t, t_next = t.to(z.dtype), t_next.to(z.dtype)
        now, after = self.student(z, t, labels), self.student(z, t_next, labels)
        slope = (now - after) / _wide(t - t_next)
        return now - _wide(t) * slope, self.teach(now.detach(), t, labels)

    def student(self, z: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        """x(z, t)."""
        scaled = (self.run.student.c_in * z).to(self.body or z.dtype)
        image = self.network(scaled, t.log() / 4, labels).to(z.dtype)
        return _wide(t / 80) * z + _wide(1 - t / 80) * image

    @torch.no_grad()
    def teach(self, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        """D(x, t)."""
        image: Tensor = self.run.problem.teacher(x, t, labels)
        return image

    @torch.no_grad()
    def average(self) -> None:
        """Move the averages towards the weights."""
        for rate, average in zip(self.rates, self.averages, strict=True):
            for slow, new in zip(average, self.network.parameters(), strict=True):
                slow.mul_(rate).add_(new, alpha=1 - rate)

    def calls(self) -> dict[str, list[Call]]:
        """As of `Ours`."""
        return {
            "student": [(self, "student")],
            "teacher": [(self, "teach")],
            "optimiser": [(self.optimizer, "step")],
            "averages": [(self, "average")],
        }

    def held(self) -> list[Tensor]:
        """As of `Ours`."""
        averages = [p for average in self.averages for p in average]
        return [*self.run.problem.teacher.parameters(), *self.network.parameters(), *averages]


def draw(run: Run, generator: torch.Generator) -> Batch:
    """The first batch of a run, from random numbers of one's own."""
    run.trainer.enter_stage()
    return run.trainer.method.draw(run.trainer.context, run.config.batch_size, generator)


def _row(module: torch.nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])


def _wide(values: Tensor) -> Tensor:
    return values[:, None, None, None]
