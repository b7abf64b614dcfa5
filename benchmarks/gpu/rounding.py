"""Rounding errors of a step's residual and gradient, compared with the same derivative in float64."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import pidlearn as pid
from benchmarks.gpu.machine import Machine
from benchmarks.gpu.variants import BASELINE, VARIANTS, step_of
from benchmarks.steps import PAPER, LibraryStep, TrainingStep, draw_batch
from benchmarks.table import Row, Store
from pidlearn.losses.distances import l2
from pidlearn.methods import Batch
from pidlearn.nets import EDMPrecond

SAMPLES = 256
"""Samples along a trained student's trajectories."""


PRODUCTS = {
    torch.ops.aten.convolution: (0, 1),
    torch.ops.aten.convolution_backward: (0, 1, 2),
    torch.ops.aten.mm: (0, 1),
    torch.ops.aten.bmm: (0, 1),
    torch.ops.aten.addmm: (1, 2),
    torch.ops.aten.baddbmm: (1, 2),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: (0, 1, 2),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (0, 1, 2, 3),
}
"""Operations whose factors a GPU rounds to TF32, and which of their arguments these are."""


class TF32(TorchDispatchMode):
    """A context in which the factors of products in float32, forwards and backwards, are rounded as in TF32.

    A GPU then multiplies ten bits of mantissa exactly, and adds in float32, as here.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        factors = PRODUCTS.get(func.overloadpacket, ())
        return func(*(to_tf32(a) if i in factors else a for i, a in enumerate(args)), **(kwargs or {}))


def to_tf32(x: Any) -> Any:
    """A float32 tensor rounded to ten bits of mantissa, half away from zero; anything else as it is."""
    if not isinstance(x, Tensor) or x.dtype != torch.float32:
        return x
    return ((x.contiguous().view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


class RecordingL2:
    """The l2 distance; it records the residuals that it receives."""

    def __init__(self) -> None:
        self.residuals: list[Tensor] = []

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """(B, *event), (B, *event) -> (B,)."""
        self.residuals.append((a - b).detach().double())
        return l2(a, b)


@dataclass(frozen=True)
class Float64Reference:
    """Residuals and gradient of a batch in float64, on the CPU, where they take no memory from what is measured."""

    residuals: Tensor
    gradient: Tensor

    @classmethod
    def compute(cls, step: TrainingStep, teacher: EDMPrecond, batch: Batch, chunk: int = 8) -> Float64Reference:
        """Compute them for the step's student and derivative, in chunks of ``chunk`` images."""
        z, index, labels = batch
        assert z is not None
        assert index is not None
        config, student = step.run.config, copy.deepcopy(step.run.student).double()
        settings = {**PAPER, "derivative": config.derivative, "n": config.n, "batch_size": len(z), "ema": ()}
        exact = LibraryStep(copy.deepcopy(teacher).double(), student=student, **settings)
        distance, gradient = RecordingL2(), torch.zeros((), dtype=torch.float64, device=z.device)
        for rows in torch.arange(len(z), device=z.device).split(chunk):
            part = z[rows].double(), index[rows], None if labels is None else labels[rows]
            # Each chunk's gradient is of its own mean, so weight it by its share of the batch.
            gradient = gradient + exact.gradient(distance, part) * (len(rows) / len(z))
        return cls(torch.cat(distance.residuals).cpu(), gradient.cpu())

    def compare(self, step: TrainingStep, batch: Batch) -> Row:
        """Return the rounding errors of a step's residuals and gradient."""
        distance = RecordingL2()
        gradient = step.gradient(distance, batch).double().cpu()
        return {
            "residual": _rms(self.residuals),
            "residual error": _rms(torch.cat(distance.residuals).cpu() - self.residuals),
            "gradient error": ((gradient - self.gradient).norm() / self.gradient.norm()).item(),
        }


def measure_trained(student: pid.Result, teacher: EDMPrecond, machine: Machine, store: Store) -> None:
    """Add a row per variant: rounding along the trajectories of a trained student, whose residuals are small."""
    references: dict[Any, Float64Reference] = {}
    for name, variant, settings in variants():
        if f"trained / {name}" in store.rows:
            continue
        own = copy.deepcopy(student.student).to(machine.device)
        step = step_of(variant, teacher, None, student=own, batch_size=SAMPLES, n=student.config.n, **settings)
        generator = torch.Generator(step.run.problem.rng_device).manual_seed(0)
        batch, derivative = draw_batch(step.run, generator), step.run.config.derivative
        if derivative not in references:
            references[derivative] = Float64Reference.compute(step, teacher, batch)
        emulated = step.run.config.precision == "tf32" and not machine.cuda
        with TF32() if emulated else nullcontext():
            store.add(f"trained / {name}", references[derivative].compare(step, batch))


def variants() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Name, variant and further settings of each row: all that round in another way, and what TF32 is compared with."""
    yield "official style, float32", BASELINE, {"precision": "float32"}
    yield "ours, float32", "ours, TF32", {"precision": "float32"}
    yield "ours, TF32, exact", "ours, TF32", {"derivative": "exact"}
    for variant, settings in VARIANTS.items():
        if not settings.keys() & {"recompute", "optimizer"}:  # which round as "ours, TF32"
            yield variant, variant, {}


def _rms(x: Tensor) -> float:
    return x.square().mean().sqrt().item()
