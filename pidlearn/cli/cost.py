"""What a run will cost, measured before it starts on a few steps that are taken back."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import nn

from pidlearn.equations.problem import modules_of
from pidlearn.run import Run

__all__ = ["Plan", "plan"]


@dataclass(frozen=True)
class Plan:
    """A run in numbers; as text, what a person wants to know before it starts.

    Attributes:
        teacher: weights of the teacher; 0 where it is a formula.
        student: weights of the student.
        batch_size: samples a step, of all processes.
        processes: how many share them.
        at_once: samples in memory at a time, of each process.
        steps: left to do.
        seconds: of a step, the median of those measured.
        memory: bytes at the peak, of the device or else of this process; None where it cannot be told.
        device: where it runs.
    """

    teacher: int
    student: int
    batch_size: int
    processes: int
    at_once: int
    steps: int
    seconds: float
    memory: int | None
    device: str

    @property
    def images_per_second(self) -> float:
        """Samples that all processes together train on in a second."""
        return self.batch_size / self.seconds

    def __str__(self) -> str:
        left = timedelta(seconds=round(self.steps * self.seconds))
        memory = "" if self.memory is None else f", {self.memory / 2**30:.1f} GiB at the peak"
        return (
            f"teacher {_count(self.teacher)} weights, student {_count(self.student)}; on {self.device}{memory}\n"
            f"{self.steps:,} steps of {self.batch_size} samples by {self.processes} process"
            f"{'es' * (self.processes > 1)}, {self.at_once} in memory at a time\n"
            f"{self.images_per_second:.3g} samples/s, {self.seconds:.3g} s a step: about {left} to go"
        )


def plan(run: Run, steps: int = 3) -> Plan:
    """Measure a few steps of a run, which is left as it was."""
    if run.problem.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(run.problem.device)
    seconds = run.trial(steps)
    mine = run.team.rows(run.config.batch_size)
    return Plan(
        teacher=sum(map(_weights, modules_of(run.problem.teacher))),
        student=_weights(run.student),
        batch_size=run.config.batch_size,
        processes=run.team.size,
        at_once=min(run.config.micro_batch or run.config.batch_size, mine.stop - mine.start),
        steps=run.config.steps - run.trainer.number,
        seconds=seconds,
        memory=_peak(run.problem.device),
        device=_name(run.problem.device),
    )


def _weights(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _count(weights: int) -> str:
    return f"{weights / 1e6:.1f} million" if weights >= 1e6 else f"{weights:,}"


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()


def _peak(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
