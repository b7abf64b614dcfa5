"""The rows of one network size: rounding, speed and memory of each variant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

import pidlearn as pid
from benchmarks.gpu.machine import Machine, flop, kernels, shares
from benchmarks.gpu.rounding import Float64Reference
from benchmarks.gpu.tables import LARGEST
from benchmarks.gpu.variants import COMPILED, VARIANTS, Size, step_of
from benchmarks.steps import TrainingStep, draw_batch, random_teacher
from benchmarks.table import Row
from pidlearn.methods import Batch


class Benchmark:
    """The measurements of one size.

    Args:
        name: name of the size.
        size: the network and how it is trained.
        machine: the device.
        backend: of `torch.compile`, for the compiled variants.
    """

    def __init__(self, name: str, size: Size, machine: Machine, backend: str) -> None:
        self.name, self.size, self.machine, self.backend = name, size, machine, backend
        self.teacher = random_teacher(size.network, machine.device)
        self.references: dict[Any, Float64Reference] = {}
        # Pooled as in the official code. Built now, since its package may be missing, rather than after minutes. Chunks
        # smaller than a micro-batch, so that LPIPS takes its gradient in its forward pass at every size.
        chunk = min(32, size.micro_batch // 2)
        lpips = pid.LPIPS("vgg", pooling="average", weights="random", resize=size.resize, chunk=chunk)
        self.lpips = lpips.to(machine.device)

    def rows(self) -> Iterator[tuple[str, Callable[[], Row]]]:
        """The name of each row, and the function that measures it."""
        yield f"{self.name} / machine", self.machine_row
        for variant in VARIANTS:
            yield f"{self.name} / {variant}", partial(self.row, variant, None)
        for variant in COMPILED:
            yield f"{self.name} / {variant}, compiled", partial(self.row, variant, self.backend)
        for variant in VARIANTS:
            yield f"{self.name} / {variant}, {LARGEST}", partial(self.largest_row, variant)

    def machine_row(self) -> Row:
        """The device's peak rates, and the FLOP per image of this size."""
        return {**self.machine.matmul_rates(self.size.matrix), "FLOP": flop(self.size.network)}

    def row(self, variant: str, backend: str | None) -> Row:
        """All measurements of a variant; if one fails, those before it and the reason."""
        row: Row = {}
        self.machine.free_memory()
        try:
            self.measure(variant, backend, row)
        except torch.cuda.OutOfMemoryError:
            row["failed"] = f"{self.size.micro_batch} images do not fit into memory"
        except Exception as error:  # the other variants are still worth measuring
            first, *_ = str(error).strip().split("\n")
            row["failed"] = f"{type(error).__name__}: {first:.200}"
        self.machine.free_memory()
        return row

    def measure(self, variant: str, backend: str | None, row: Row) -> None:
        """Add rounding, speed, memory and shares of the time to ``row``, as soon as each is measured."""
        size, machine = self.size, self.machine
        step = step_of(variant, self.teacher, backend, batch_size=size.batch, micro_batch=size.micro_batch)
        reference = self.reference(step)  # shared by all variants, so not part of their time
        started = machine.time()
        row |= reference.compare(step, self.micro_batch(step))
        step()
        row["first steps, s"] = machine.time() - started  # including compilation
        machine.reset_peak_memory()
        row["images/s"] = size.batch / machine.median_seconds(step)
        row["GiB"] = machine.peak_memory()
        step.set_distance(self.lpips)
        step()
        machine.reset_peak_memory()
        row["images/s, LPIPS"] = size.batch / machine.median_seconds(step)
        row["GiB, LPIPS"] = machine.peak_memory()
        row["shares"] = shares(step, machine)
        row["kernels"] = kernels(step, machine)

    def largest_row(self, variant: str) -> Row:
        """The row of `largest`."""
        return {LARGEST: self.largest(variant)}

    def largest(self, variant: str) -> int | None:
        """The largest batch that fits into memory without micro-batches; None if none of those tried does."""
        for batch in self.size.largest:
            self.machine.free_memory()
            try:
                step_of(variant, self.teacher, None, batch_size=batch)()
            except RuntimeError:  # cuDNN and others have their own errors for a lack of memory
                continue
            return batch
        return None

    def micro_batch(self, step: TrainingStep) -> Batch:
        """A micro-batch of the first batch, the same for all variants, with times over the whole grid."""
        generator = torch.Generator(step.run.problem.rng_device).manual_seed(0)
        # A batch comes in the order of its times, so take every k-th row. It is contiguous, as a step's micro-batches
        # are: with other strides a compiled network would be compiled again.
        stride = self.size.batch // self.size.micro_batch
        return tuple(None if x is None else x[::stride].contiguous() for x in draw_batch(step.run, generator))

    def reference(self, step: TrainingStep) -> Float64Reference:
        """The float64 reference for the step's derivative, computed once."""
        derivative = step.run.config.derivative
        if derivative not in self.references:
            self.references[derivative] = Float64Reference.compute(step, self.teacher, self.micro_batch(step))
        return self.references[derivative]
