"""Training steps to measure: the library's own, and one written out in the style of the official code.

Both start from the same weights and get the same draws of noise, times and labels.
"""

from __future__ import annotations

import copy
import math
from typing import Any
from unittest import mock

import torch
from torch import Tensor

import pidlearn as pid
from pidlearn.losses.distances import DISTANCES, Distance
from pidlearn.methods import Batch
from pidlearn.nets import EDMPrecond
from pidlearn.run import Run
from pidlearn.training.ema import Averages
from pidlearn.utils.overrides import overridden
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
"""The official hyperparameters, except for the distance: the official one, LPIPS, is measured separately."""

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
"""An object or class, and the name of one of its functions."""


def random_teacher(network: dict[str, Any], device: str | torch.device = "cpu") -> EDMPrecond:
    """Build a denoiser with random weights; no layer is zero, so every layer contributes and has a gradient."""
    torch.manual_seed(0)
    with torch.device(device):
        denoiser = EDMPrecond(**network)
        for name, parameter in denoiser.named_parameters():
            if name.endswith(("conv1.weight", "proj.weight", "aux_conv.weight", "out_conv.weight")):
                torch.nn.init.normal_(parameter, std=0.02)
    return denoiser.eval().requires_grad_(False)


class LibraryStep:
    """The library's training step: each call takes the next step of a run.

    Args:
        teacher: the denoiser to distil.
        **settings: arguments of `pidlearn.steps`.
    """

    def __init__(self, teacher: EDMPrecond, **settings: Any) -> None:
        self.run = pid.steps(teacher, **settings)

    def __call__(self) -> float:
        """Update the weights once; returns the loss before the update."""
        return next(self.run).loss

    def gradient(self, distance: Distance, batch: Batch) -> Tensor:
        """Return the gradient of the mean distance over a batch, with respect to all weights, as one vector."""
        trainer = self.run.trainer
        trainer.enter_stage()
        trainer.optimizer.zero_grad()
        with mock.patch.object(trainer.context, "distance", distance), overridden(self.run.overrides):
            trainer.method.loss(trainer.context, batch).mean().backward()
        return _flat_gradient(self.run.student)

    def set_distance(self, distance: Distance) -> None:
        """Use another distance from the next step on."""
        self.run.trainer.context.distance = distance

    def parts(self) -> dict[str, list[Call]]:
        """The functions in which a step spends its time, by what they compute."""
        method: Any = self.run.trainer.method
        method.derivative = method.scheme  # a name becomes the function itself, which can be patched
        return {
            "student": [(method, "derivative")],  # the derivative scheme makes all calls of the student
            "teacher": [(pid.DenoiserODE, "rhs")],
            "optimiser": [(self.run.trainer.optimizer, "step")],
            "averages": [(Averages, "confirm_update")],
        }

    def resident_tensors(self) -> list[Tensor]:
        """Weights, their averages and copies: all that stays in memory between two steps."""
        trainer = self.run.trainer
        modules = (self.run.problem.teacher, trainer.module, *trainer.averages.modules)
        return [*(p for module in modules for p in module.parameters()), *trainer.snapshot.values()]


class OfficialStyleStep:
    """A training step in the style of the official code, on the same batches as `LibraryStep`.

    The student is evaluated twice and the teacher once; attention stores the whole attention matrix; RAdam and the
    averages are updated tensor by tensor.

    Args:
        teacher: the denoiser to distil; the student starts as a copy of its network.
        half: compute both networks in float16, with the loss scaled against underflow.
        compile: a backend of `torch.compile` for both networks, or None.
        **settings: arguments of `pidlearn.steps`.
    """

    def __init__(self, teacher: EDMPrecond, *, half: bool = False, compile: str | None = None, **settings: Any) -> None:
        self.run = pid.steps(teacher, **{**settings, "ema": ()})
        self.run.trainer.snapshot.clear()  # or its memory would count
        student: Any = self.run.student
        self.network, self.c_in, config = student.network, student.c_in, self.run.config
        for module in (self.network, teacher):
            module.to(memory_format=torch.contiguous_format)
        self.rates = settings["ema"]
        self.averages = [copy.deepcopy(list(self.network.parameters())) for _ in self.rates]
        self.optimizer = torch.optim.RAdam(self.network.parameters(), config.lr, foreach=False)
        self.generator = torch.Generator(self.run.problem.rng_device).manual_seed(config.seed)
        self.distance: Distance = resolve("distance", config.distance, DISTANCES)
        self.compute_dtype, self.loss_scale = (torch.float16, 256.0) if half else (None, 1.0)
        self.overrides = [*self.run.overrides, (teacher, "compute_dtype", self.compute_dtype)]
        if compile:
            networks = (self.network, teacher.model)
            self.overrides += [(net, "forward", torch.compile(net.forward, backend=compile)) for net in networks]

    def __call__(self) -> float:
        """Update the weights once; returns the loss before the update."""
        self.optimizer.zero_grad()
        batch = draw_batch(self.run, self.generator)
        size = self.run.config.batch_size
        rows = torch.arange(size).split(self.run.config.micro_batch or size)
        parts = [tuple(None if x is None else x[part] for x in batch) for part in rows]
        loss = sum(self.backward(self.distance, part, size) for part in parts)
        self.unscale()
        self.optimizer.step()
        self.update_averages()
        return loss

    def gradient(self, distance: Distance, batch: Batch) -> Tensor:
        """Return the gradient of the mean distance over a batch; see `LibraryStep`."""
        self.optimizer.zero_grad()
        assert batch[0] is not None
        self.backward(distance, batch, len(batch[0]))
        self.unscale()
        return _flat_gradient(self.network)

    def set_distance(self, distance: Distance) -> None:
        """Use another distance from the next step on."""
        self.distance = distance

    def backward(self, distance: Distance, part: Batch, batch_size: int) -> float:
        """Add the gradient of part of a batch; returns what the part adds to the mean loss over ``batch_size``."""
        z, index, labels = part
        assert z is not None
        grid = self.run.config.grid().to(z.device)
        plain = mock.patch.object(torch.nn.functional, "scaled_dot_product_attention", unfused_attention)
        with plain, overridden(self.overrides):
            lhs, rhs = self.residual_sides(z, grid[index], grid[index + 1], labels)
            loss = distance(lhs, rhs).sum() / batch_size
            (self.loss_scale * loss).backward()
        return loss.item()

    def unscale(self) -> None:
        """Divide the gradient by the factor on the loss."""
        if self.loss_scale != 1:
            torch._foreach_div_([p.grad for p in self.network.parameters() if p.grad is not None], self.loss_scale)

    def residual_sides(self, z: Tensor, t: Tensor, t_next: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Both sides of Eq. 9, x - t dx/dt = D(x, t), with a forward difference; (B, *event) each."""
        t, t_next = t.to(z.dtype), t_next.to(z.dtype)
        x, x_next = self.trajectory(z, t, labels), self.trajectory(z, t_next, labels)
        dxdt = (x - x_next) / _expand(t - t_next)
        return x - _expand(t) * dxdt, self.denoise(x.detach(), t, labels)

    def trajectory(self, z: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        """The student x(z, t)."""
        scaled = (self.c_in * z).to(self.compute_dtype or z.dtype)
        image = self.network(scaled, t.log() / 4, labels).to(z.dtype)
        return _expand(t / 80) * z + _expand(1 - t / 80) * image

    @torch.no_grad()
    def denoise(self, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        """The teacher D(x, t)."""
        image: Tensor = self.run.problem.teacher(x, t, labels)
        return image

    @torch.no_grad()
    def update_averages(self) -> None:
        """Move the averages towards the weights."""
        for rate, average in zip(self.rates, self.averages, strict=True):
            for slow, new in zip(average, self.network.parameters(), strict=True):
                slow.mul_(rate).add_(new, alpha=1 - rate)

    def parts(self) -> dict[str, list[Call]]:
        """The functions in which a step spends its time; see `LibraryStep`."""
        return {
            "student": [(self, "trajectory")],
            "teacher": [(self, "denoise")],
            "optimiser": [(self.optimizer, "step")],
            "averages": [(self, "update_averages")],
        }

    def resident_tensors(self) -> list[Tensor]:
        """All that stays in memory between two steps; see `LibraryStep`."""
        averages = [p for average in self.averages for p in average]
        return [*self.run.problem.teacher.parameters(), *self.network.parameters(), *averages]


TrainingStep = LibraryStep | OfficialStyleStep


def draw_batch(run: Run, generator: torch.Generator) -> Batch:
    """Draw the first batch of a run with the given random numbers."""
    run.trainer.enter_stage()
    return run.trainer.method.draw(run.trainer.context, run.config.batch_size, generator)


def unfused_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of q, k and v, each (B, heads, pixels, features), through its whole (pixels, pixels) matrix."""
    # Exponentials need at least float32. Scaling k before the cast keeps float16 in range.
    dtype = torch.promote_types(q.dtype, torch.float32)
    logits = q.to(dtype) @ (k / math.sqrt(k.shape[-1])).to(dtype).transpose(2, 3)
    return logits.softmax(dim=3).to(v.dtype) @ v


def _flat_gradient(module: torch.nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])


def _expand(values: Tensor) -> Tensor:
    """(B,) to (B, 1, 1, 1)."""
    return values[:, None, None, None]
