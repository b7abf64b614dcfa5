"""The training loop and everything around it: optimisers, checkpoints, processes, logs."""

import warnings
from typing import Any

from pidlearn.training.driver import Callback, Training, drive
from pidlearn.training.history import Step
from pidlearn.training.loop import DivergedError, train
from pidlearn.training.optim import OptimizerConfig
from pidlearn.training.stopping import Stop, StopReason
from pidlearn.training.trainer import Trainer

__all__ = [
    "Callback",
    "DivergedError",
    "OptimizerConfig",
    "Step",
    "Stop",
    "StopReason",
    "Trainer",
    "Training",
    "drive",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "Optimisation":
        warnings.warn("Optimisation is now called OptimizerConfig", DeprecationWarning, stacklevel=2)
        return OptimizerConfig
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
