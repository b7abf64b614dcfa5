"""What a run will cost, measured on a few steps that are undone."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import nn

from pidlearn.equations.from_teacher import modules_of
from pidlearn.run import Run

__all__ = ["Plan", "plan"]


@dataclass(frozen=True)
class Plan:
    """The size of a run and the time that it will take; ``str(plan)`` is what a user wants to know before it starts.

    Attributes:
        teacher: parameters of the teacher; 0 if it is a formula.
        student: parameters of the student.
        batch_size: samples per step, over all processes.
        processes: number of processes that share the batch.
        micro_batch: samples in memory at a time, per process.
        steps: steps left to do.
        seconds: median time of the measured steps.
        memory: peak memory in bytes, of the GPU or else of this process; None where it is unknown.
        device: name of the device.
    """

    teacher: int
    student: int
    batch_size: int
    processes: int
    micro_batch: int
    steps: int
    seconds: float
    memory: int | None
    device: str

    @property
    def images_per_second(self) -> float:
        """Training samples per second, over all processes."""
        return self.batch_size / self.seconds

    def __str__(self) -> str:
        left = timedelta(seconds=round(self.steps * self.seconds))
        memory = "" if self.memory is None else f", peak memory {self.memory / 2**30:.1f} GiB"
        return (
            f"teacher {_format_count(self.teacher)} parameters, student {_format_count(self.student)}; "
            f"on {self.device}{memory}\n"
            f"{self.steps:,} steps of {self.batch_size} samples by {self.processes} process"
            f"{'es' * (self.processes > 1)}, {self.micro_batch} in memory at a time\n"
            f"{self.images_per_second:.3g} samples/s, {self.seconds:.3g} s per step: about {left} left"
        )


def plan(run: Run, steps: int = 3) -> Plan:
    """Time a few training steps; the state of the run is restored afterwards."""
    device = run.problem.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = run.time_steps(steps)
    rows = run.processes.shard(run.config.batch_size)
    return Plan(
        teacher=sum(map(_parameters, modules_of(run.problem.teacher))),
        student=_parameters(run.student),
        batch_size=run.config.batch_size,
        processes=run.processes.size,
        micro_batch=min(run.config.micro_batch or run.config.batch_size, rows.stop - rows.start),
        steps=run.config.steps - run.trainer.step,
        seconds=seconds,
        memory=_peak_memory(device),
        device=_device_name(device),
    )


def _parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _format_count(parameters: int) -> str:
    return f"{parameters / 1e6:.1f} million" if parameters >= 1e6 else f"{parameters:,}"


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()


def _peak_memory(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS, in KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
