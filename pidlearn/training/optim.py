"""How weights are updated: the optimiser, its settings and the learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from pidlearn.methods.base import Stage
from pidlearn.training.muon import Muon
from pidlearn.utils.settings import COUNT, FLAG, SIZE, Rule, Settings, is_number, is_whole
from pidlearn.utils.validation import reraise_from_function, summary

__all__ = ["MATRIX_LR", "OPTIMIZERS", "OptimizerConfig", "build_optimizer", "schedule"]

MATRIX_LR = 5
"""Muon's rate for matrices over Adam's for the rest: a ratio that is good on toys and ODEs."""


@dataclass(frozen=True)
class OptimizerConfig(Settings):
    """How a network is trained.

    Attributes:
        steps: optimiser steps in total.
        batch_size: samples per step, over all processes.
        lr: peak learning rate.
        warmup: share of a stage over which the rate rises linearly; it then falls to zero along a cosine.
        constant: keep the rate constant after the warm-up instead (the official recipe).
        beta2: decay of Adam's second moment.
        optimizer: "adam", "radam" or "muon" (`pidlearn.training.muon.Muon`), or a function of (parameters, this) that
            returns a `torch.optim.Optimizer`.
        matrix_lr: peak learning rate of Muon's matrices; None for 5 times ``lr``, the rate of all other weights.
        ema: decay rates of the averaged copies of the weights, kept side by side; the first is the one returned. In a
            student of several windows each is averaged over its own updates.
        seed: seed of all random numbers.
        micro_batch: samples per forward and backward pass, in each process; their gradients are accumulated. None for
            the whole batch at once.
    """

    steps: int = 6000
    batch_size: int = 256
    lr: float = 4e-3
    warmup: float = 0.02
    constant: bool = False
    beta2: float = 0.99
    optimizer: str | Callable[[Any, OptimizerConfig], torch.optim.Optimizer] = "adam"
    matrix_lr: float | None = None
    ema: tuple[float, ...] = ()
    seed: int = 0
    micro_batch: int | None = None

    def rules(self) -> dict[str, Rule]:
        """The rule for each field, by name."""
        return {
            **super().rules(),
            "steps": (lambda v: is_whole(v) and 1 <= v < 2**63, "a whole number from 1 to 2^63 - 1"),
            "batch_size": SIZE,
            "lr": (lambda v: is_number(v) and v > 0, "a positive number"),
            "warmup": (lambda v: is_number(v) and 0 <= v < 1, "a share of the steps, 0 <= warmup < 1"),
            "constant": FLAG,
            "beta2": (lambda v: is_number(v) and 0 <= v < 1, "a decay rate, 0 <= beta2 < 1"),
            "optimizer": (
                lambda v: v in OPTIMIZERS if isinstance(v, str) else callable(v) and not isinstance(v, type),
                f"one of {sorted(OPTIMIZERS)} or a function of (parameters, config)",
            ),
            "matrix_lr": (lambda v: v is None or (is_number(v) and v > 0), "a positive number, or None"),
            "ema": (
                lambda v: isinstance(v, tuple) and all(is_number(rate) and 0 <= rate < 1 for rate in v),
                "a tuple of decay rates in [0, 1), such as (0.999,)",
            ),
            "seed": (lambda v: is_whole(v) and 0 <= v < 2**63, "a whole number from 0 to 2^63 - 1"),
            "micro_batch": (lambda v: v is None or COUNT[0](v), "a whole number of at least 1, or None"),
        }


OPTIMIZERS: dict[str, Callable[[Any, OptimizerConfig], torch.optim.Optimizer]] = {
    "adam": lambda parameters, o: torch.optim.Adam(parameters, o.lr, (0.9, o.beta2), fused=True),
    "muon": lambda parameters, o: Muon(
        parameters, o.lr, (0.9, o.beta2), matrix_lr=MATRIX_LR * o.lr if o.matrix_lr is None else o.matrix_lr
    ),
    "radam": lambda parameters, o: torch.optim.RAdam(parameters, o.lr, (0.9, o.beta2), foreach=True),
}


def build_optimizer(stage: Stage, config: OptimizerConfig) -> torch.optim.Optimizer:
    """An optimiser of the trainable parameters of a stage, with the peak rate of each group as ``initial_lr``.

    Raises:
        ValueError: a rate for matrices without Muon, or a function that returns no optimiser.
    """
    if config.optimizer in OPTIMIZERS and config.optimizer != "muon" and config.matrix_lr is not None:
        raise ValueError(
            f"got matrix_lr = {config.matrix_lr:g}, but {config.optimizer} has one rate for all weights: pass "
            f'optimizer="muon", or leave matrix_lr out'
        )
    build = OPTIMIZERS[config.optimizer] if isinstance(config.optimizer, str) else config.optimizer
    parameters: list[Any] = [p for p in stage.part.parameters() if p.requires_grad]
    if stage.auxiliary is not None:
        second = [p for p in stage.auxiliary.parameters() if p.requires_grad]
        parameters = [{"params": parameters}, {"params": second, "lr": stage.auxiliary_lr * config.lr}]
    with reraise_from_function("function optimizer=", "optimizer(parameters, config)"):
        optimizer = build(parameters, config)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ValueError(
            f"the function optimizer= returned {summary(optimizer)}, but must return a torch.optim.Optimizer of the "
            f"parameters that it is called with"
        )
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]  # the schedule multiplies it
    return optimizer


def schedule(config: OptimizerConfig, step: int, steps: int) -> float:
    """The learning rate of step ``step`` (from 0) of a stage of ``steps`` steps, relative to the peak.

    A function of the step alone, rather than a `torch.optim.lr_scheduler`: those compute a rate from the last one, or
    count their own calls, which a run that resumes bit for bit would have to save and keep equal to its steps.
    """
    share = (step + 1) / (steps + 1)  # strictly between 0 and 1: no step has the rate 0
    if share < config.warmup:
        return share / config.warmup  # linear, up to 1 at share = warmup
    # Half a cosine from 1 at share = warmup to 0 at share = 1.
    return 1.0 if config.constant else 0.5 * (1 + math.cos(math.pi * (share - config.warmup) / (1 - config.warmup)))
