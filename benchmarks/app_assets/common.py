"""What all groups of assets share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

import pidlearn as pid
from pidlearn.utils.batching import call_student

__all__ = ["SEED", "STARTS_SEED", "Metrics", "student_trajectories", "without_history"]

SEED, STARTS_SEED = 0, 7
"""Seed of all training, and of all noise that is shown."""

Metrics = dict[str, Any]


def without_history(result: pid.Result) -> pid.Result:
    """Return the result without its history, which would be larger than the student."""
    return replace(result, history={name: column[:0] for name, column in result.history.items()})


@torch.no_grad()
def student_trajectories(result: pid.Result, starts: Tensor, times: Tensor, labels: Tensor | None = None) -> Tensor:
    """Evaluate the student at every time, (F, B, *event)."""
    return torch.stack([call_student(result.student, starts, t, labels) for t in times])
