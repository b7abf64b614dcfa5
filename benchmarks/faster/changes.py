"""What is changed, on which problems."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from benchmarks.faster.methods import (
    AfterRegression,
    Annealed,
    Antithetic,
    Causal,
    CoarseToFine,
    FollowsResidual,
    SeveralTimes,
    Sobol,
    Together,
)
from benchmarks.faster.optimizers import muon, schedule_free_adam, schedule_free_muon, soap
from benchmarks.faster.polish import gauss_newton, lbfgs
from pidlearn.losses.distances import pseudo_huber
from pidlearn.training.optim import OptimizerConfig

TOYS, ODES = ("ring", "checkerboard"), ("pendulum", "lorenz")
MIXTURES, SYSTEMS = ("unseen-1", "unseen-2"), ("fitzhugh_nagumo", "forced_duffing")
DATA = {
    "toys": TOYS,
    "odes": ODES,
    "unseen": (*MIXTURES, *SYSTEMS),
    "digits": ("digits",),
    "digits-mlp": ("digits-mlp",),
}
"""What stands in one table."""
STEPS = {
    **dict.fromkeys((*TOYS, *MIXTURES), 7000),
    **dict.fromkeys(ODES, 7500),
    **dict.fromkeys(SYSTEMS, 9500),
    "digits": 400,
    "digits-mlp": 7500,
}
"""Of the reference."""


def linear(config: OptimizerConfig, step: int, steps: int) -> float:
    """A rate that falls along a line."""
    share = (step + 1) / (steps + 1)
    return min(share / config.warmup, (1 - share) / (1 - config.warmup))


def late(config: OptimizerConfig, step: int, steps: int) -> float:
    """A constant rate that falls along a line in the last third."""
    share = (step + 1) / (steps + 1)
    return min(share / config.warmup, 1.0, 3 * (1 - share))


@dataclass(frozen=True)
class Change:
    """What differs from the reference.

    Attributes:
        settings: fields of `pidlearn.Config`.
        network: options of the MLP.
        schedule: in place of half a cosine.
        polish: what follows the training for ``polish_share`` of the time, by (run, CPU seconds).
        time: share of the reference's CPU time.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    network: Mapping[str, Any] = field(default_factory=dict)
    schedule: Callable[[OptimizerConfig, int, int], float] | None = None
    polish: Callable[[Any, float], None] | None = None
    polish_share: float = 0.0
    time: float = 1.0


MUON: dict[str, Any] = {"optimizer": "muon", "lr": 3e-3}
REFERENCE = Change({"optimizer": "adam", "lr": 6e-3})
CHANGES = {
    "reference": REFERENCE,
    "RAdam": Change({"optimizer": "radam", "lr": 6e-3}),
    "Muon": Change(MUON),
    "Muon in half the time": Change(MUON, time=0.5),
    "Muon, 3 Newton-Schulz steps": Change({**MUON, "optimizer": partial(muon, ns_steps=3)}),
    "matrices' rate x 1/2": Change({**MUON, "matrix_lr": 0.0075}),
    "matrices' rate x 2": Change({**MUON, "matrix_lr": 0.03}),
    "others' rate x 1/2": Change({**MUON, "lr": 1.5e-3, "matrix_lr": 0.015}),
    "others' rate x 2": Change({**MUON, "lr": 6e-3, "matrix_lr": 0.015}),
    "batches of 128": Change({**MUON, "batch_size": 128}),
    "batches of 512": Change({**MUON, "batch_size": 512}),
    "rate falls along a line": Change(MUON, schedule=linear),
    "rate falls in the last third": Change(MUON, schedule=late),
    "momentum 0.9": Change({**MUON, "optimizer": partial(muon, momentum=0.9)}),
    "momentum 0.98": Change({**MUON, "optimizer": partial(muon, momentum=0.98)}),
    "averaged weights, 0.99": Change({**MUON, "ema": (0.99,)}),
    "averaged weights, 0.999, constant rate": Change({**MUON, "ema": (0.999,), "constant": True}),
    "times follow the residual": Change({**MUON, "method": FollowsResidual()}),
    "causal weights": Change({**MUON, "method": Causal()}),
    "Sobol noise": Change({**MUON, "method": Sobol()}),
    "antithetic noise": Change({**MUON, "method": Antithetic()}),
    "c = 0.01": Change({**MUON, "distance": partial(pseudo_huber, c=0.01)}),
    "c = 0.1": Change({**MUON, "distance": partial(pseudo_huber, c=0.1)}),
    "c annealed": Change({**MUON, "method": Annealed()}),
    "width 96": Change(MUON, {"width": 96}),
    "width 48, depth 7": Change(MUON, {"width": 48, "depth": 7}),
    "depth 7": Change(MUON, {"depth": 7}),
    "128 frequencies": Change(MUON, {"fourier": 128}),
    "regression first, a tenth": Change({**MUON, "method": AfterRegression(share=0.1)}),
    "regression first, a third": Change({**MUON, "method": AfterRegression(share=1 / 3)}),
    "LBFGS in the last tenth": Change(MUON, polish=lbfgs, polish_share=0.1),
    "Gauss-Newton in the last tenth": Change(MUON, polish=gauss_newton, polish_share=0.1),
    "eight times per z": Change({**MUON, "method": SeveralTimes()}),
    "schedule-free": Change({"optimizer": schedule_free_muon, "lr": 1.5e-3, "constant": True}),
    "schedule-free Adam": Change({"optimizer": schedule_free_adam, "lr": 6e-3, "constant": True}),
    "SOAP": Change({"optimizer": soap, "lr": 1.2e-2}),
}

ADAM: dict[str, Any] = {"optimizer": "adam", "lr": 1e-3}
IMAGES: dict[str, Any] = {**ADAM, "batch_size": 32}
IMAGES_MUON: dict[str, Any] = {**IMAGES, "optimizer": "muon"}
DIGITS = {
    "reference": Change({**ADAM, "batch_size": 128}),
    **{f"batches of {size}": Change({**ADAM, "batch_size": size}) for size in (64, 32, 16)},
    "batches of 32, rate x 1/2": Change({**IMAGES, "lr": 5e-4}),
    "batches of 32, rate x 2": Change({**IMAGES, "lr": 2e-3}),
    "batches of 32, Muon": Change(IMAGES_MUON),
    "batches of 32, Muon, rate x 2": Change({**IMAGES_MUON, "lr": 2e-3}),
    "batches of 32, Muon, matrices' rate x 1/2": Change({**IMAGES_MUON, "matrix_lr": 0.0025}),
    "batches of 32, Muon, matrices' rate x 2": Change({**IMAGES_MUON, "matrix_lr": 0.01}),
    "batches of 32, Muon, c = 0.1": Change({**IMAGES_MUON, "distance": partial(pseudo_huber, c=0.1)}),
    "batches of 32, SOAP": Change({**IMAGES, "optimizer": soap}),
    "batches of 32, schedule-free Adam": Change({**IMAGES, "optimizer": schedule_free_adam, "constant": True}),
    "batches of 32, eight times per z": Change({**IMAGES_MUON, "method": SeveralTimes()}),
    "batches of 32, rate falls along a line": Change(IMAGES, schedule=linear),
    "batches of 32, times follow the residual": Change({**IMAGES, "method": FollowsResidual()}),
    "batches of 32, regression first, a fifth": Change({**IMAGES, "method": AfterRegression(pairs=1024)}),
    "batches of 32, regression first, a half": Change({**IMAGES, "method": AfterRegression(share=0.5, pairs=1024)}),
}


MLP: dict[str, Any] = {"optimizer": "adam", "lr": 2.5e-3}
DIGITS_MLP = {
    "reference": Change(MLP),
    "rate x 1/2": Change({**MLP, "lr": 1.25e-3}),
    "rate x 2": Change({**MLP, "lr": 5e-3}),
    "batches of 64": Change({**MLP, "batch_size": 64}),
    "batches of 256": Change({**MLP, "batch_size": 256}),
    "batches of 64, rate x 1/2": Change({**MLP, "batch_size": 64, "lr": 1.25e-3}),
    "Muon": Change({"optimizer": "muon", "lr": 1e-3}),
    "Muon, rate x 3": Change({"optimizer": "muon", "lr": 3e-3}),
    "rate falls along a line": Change(MLP, schedule=linear),
    "averaged weights, 0.999": Change({**MLP, "ema": (0.999,)}),
    "times follow the residual": Change({**MLP, "method": FollowsResidual()}),
    "antithetic noise": Change({**MLP, "method": Antithetic()}),
    "c = 0.1": Change({**MLP, "distance": partial(pseudo_huber, c=0.1)}),
    "width 256, depth 6": Change(MLP, {"width": 256, "depth": 6}),
    "width 512": Change(MLP, {"width": 512}),
    "layer norms": Change(MLP, {"norm": True}),
    "regression first, a fifth": Change({**MLP, "method": AfterRegression(pairs=16384)}),
    "regression first, a half": Change({**MLP, "method": AfterRegression(share=0.5, pairs=16384)}),
}

WINDOWS = {
    "reference": Change(),
    "coarse to fine": Change({"method": CoarseToFine()}),
    "windows together": Change({"method": Together(), "batch_size": 32}),
    "windows together, rate x 1/2": Change({"method": Together(), "batch_size": 32, "lr": 2e-3}),
}
"""Of ODEs, whose reference has 40 windows, one after another."""

RECIPES = {"reference": Change({"optimizer": "adam"}), "today's recipe": Change()}
"""Of the unseen problems, without further settings."""


def changes(data: str) -> dict[str, Change]:
    """The changes that are tried on a toy, an ODE, an unseen problem, or digits."""
    others = {**dict.fromkeys(ODES, WINDOWS), **dict.fromkeys(DATA["unseen"], RECIPES)}
    return {"digits": DIGITS, "digits-mlp": DIGITS_MLP, **others}.get(data, CHANGES)
