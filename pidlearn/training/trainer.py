"""The state of a training: what `pidlearn.training.loop.train` works on, and what a checkpoint holds."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from copy import deepcopy
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor, nn

from pidlearn.methods.base import Method, Stage, TrainingContext
from pidlearn.training.distributed import Processes
from pidlearn.training.ema import Averages
from pidlearn.training.history import History
from pidlearn.training.optim import OptimizerConfig, build_optimizer, schedule
from pidlearn.utils.random import mixed, seeded
from pidlearn.utils.settings import COUNT
from pidlearn.utils.wrappers import renamed_for

__all__ = ["Trainer"]


class Trainer:
    """Weights, optimiser, averages, random numbers and history of a run.

    Args:
        module: what is trained, in place.
        method: draws batches and computes losses.
        context: what the method may use.
        config: how weights are updated.
        stages: the run's stages, in order; ``method.stages`` if not given.
        processes: the processes that share each batch.
        device: the device on which batches are drawn.

    Raises:
        ValueError: gradients that are switched off, or fewer samples in a batch than processes.
    """

    SNAPSHOT_EVERY = 20
    """Steps between two copies of good weights."""

    def __init__(
        self,
        module: nn.Module,
        method: Method[Any],
        context: TrainingContext,
        config: OptimizerConfig,
        stages: Sequence[Stage] | None = None,
        processes: Processes | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if not torch.is_grad_enabled():
            raise ValueError("gradients are switched off: train outside of torch.no_grad() and torch.inference_mode()")
        self.processes = processes or Processes()
        if config.batch_size < self.processes.size:
            raise ValueError(
                f"batch_size = {config.batch_size} leaves some of {self.processes.size} processes without a sample: "
                f"use more samples or fewer processes"
            )
        self.module, self.method, self.context, self.config = module, method, context, config
        self.generator = torch.Generator(device).manual_seed(config.seed)
        self.stages = _checked(list(stages or method.stages(context, config.steps)), method)
        self._starts = [0, *accumulate(stage.steps for stage in self.stages)]
        if self._starts[-1] != config.steps:
            raise ValueError(
                f"the stages of {type(method).__name__} have {self._starts[-1]} steps in total, but the run has "
                f"{config.steps}: their steps must add up to those of the run"
            )
        self._entered: int | None = None  # index of the stage for which method.begin was called
        self.optimizer = build_optimizer(self.stages[0], config)
        self.averages = Averages(module, config.ema)
        self.history = History(self.learning_rate)
        context.steps, context.averaged = config.steps, lambda: self.best
        # Good weights to return to after a divergence: the averages, which lag behind, or else a copy.
        self.snapshot: dict[str, Any] = {} if config.ema else _copy(module)

    @property
    def step(self) -> int:
        """Steps done."""
        return len(self.history)

    @property
    def best(self) -> nn.Module:
        """The first averaged copy, up to date, or the module itself if there is none."""
        return self.averaged[0] if self.config.ema else self.module

    @property
    def averaged(self) -> list[nn.Module]:
        """The averaged copies, one per rate of ``config.ema``, with the last update included."""
        self.averages.flush()
        return self.averages.modules

    def learning_rate(self, step: int) -> float:
        """The learning rate of step ``step`` (from 0)."""
        return self.config.lr * self._lr_factor(step)

    def _lr_factor(self, step: int) -> float:
        index = self._stage_of(step)
        stage = self.stages[index]
        return stage.lr_scale * schedule(self.config, step - self._starts[index], stage.steps)

    def _stage_of(self, step: int) -> int:
        return bisect_right(self._starts, step) - 1

    def stretches_left(self) -> list[tuple[int, int]]:
        """First step and end of what is left of each stage."""
        return [(max(self.step, a), b) for a, b in pairwise(self._starts) if b > self.step]

    # The parts of one training step, in their order.

    def enter_stage(self) -> None:
        """Prepare the stage that the next step belongs to; at its first step it gets an optimiser of its own."""
        index = self._stage_of(self.step)
        first = self.step == self._starts[index]
        if first:
            self.optimizer = build_optimizer(self.stages[index], self.config)
        self.context.step = self.step
        if self._entered != index:
            self._begin(index, first)

    def _begin(self, index: int, first: bool) -> None:
        self.context.stage, self.context.stage_index = self.stages[index], index
        with seeded(self.config.seed, index):  # for networks that the method builds
            self.method.begin(self.context, first)
        self._entered = index

    def set_learning_rate(self) -> float:
        """Set the next step's rate in the optimiser, and return it for a group at the peak rate."""
        factor = self._lr_factor(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        return self.config.lr * factor

    def weights(self) -> list[Tensor]:
        """The parameters in training."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def gradients(self) -> list[Tensor]:
        """Their gradients, where there are any."""
        gradients = [p.grad for p in self.weights() if p.grad is not None]
        if not gradients:
            raise ValueError(
                "the loss does not depend on the weights: the student or the distance cuts the gradient; remove "
                "detach() and no_grad() from it"
            )
        return gradients

    def note_update(self) -> None:
        """Note that the optimiser has made a step. Each stage averages its own updates only."""
        self.averages.note_update(self.context.stage.part, restart=self.step in self._starts)

    # Recovery from divergence.

    @property
    def good_weights(self) -> str:
        """Which weights a diverged run ends with, for messages."""
        return "the averaged ones" if self.config.ema else f"those of at most {self.SNAPSHOT_EVERY} steps before that"

    def confirm_update(self) -> None:
        """Average the weights of this step, which gave a finite loss; every few steps, keep a copy of them."""
        self.averages.confirm_update()
        if self.snapshot and self.step % self.SNAPSHOT_EVERY == 0:
            _copy_into(self.snapshot, self.module.state_dict())

    def restore_good_weights(self) -> None:
        """Put the last good weights back."""
        self.averages.drop_update()
        self.module.load_state_dict(self.snapshot or self.averages.modules[0].state_dict())

    # Checkpoints.

    def state_dict(self) -> dict[str, Any]:
        """All that the rest of the run depends on: containers of tensors, numbers and strings."""
        self.averages.flush()
        return {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "averages": self.averages.state_dict(),
            "stage": self._entered,
            # Before its first stage, a method has no state to save.
            "method": {} if self._entered is None else self.method.state_dict(),
            "generator": self.generator.get_state(),
            "snapshot": self.snapshot,
            "history": self.history.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was called."""
        # Weights by the names of this module: the run may have been saved with it compiled or wrapped, or without.
        self.module.load_state_dict(renamed_for(self.module, state["module"]))
        self.history.load_state_dict(state["history"])
        # The stage of the last step done, perhaps its last: files without it were written after a step.
        entered = state.get("stage", self._stage_of(self.step - 1) if self.step else None)
        self.optimizer = build_optimizer(self.stages[entered or 0], self.config)
        self.optimizer.load_state_dict(state["optimizer"])
        self._align_moments()
        self.averages.load_state_dict(state["averages"])
        self._entered = None
        if entered is not None and self.step < self.config.steps:
            self.context.step = self.step
            self._begin(entered, first=False)
            self.method.load_state_dict(state["method"])
        _copy_into(self.snapshot, renamed_for(self.module, state["snapshot"]))
        if len(state["generator"]) == len(self.generator.get_state()):
            self.generator.set_state(state["generator"])
        else:  # saved on another kind of device, whose generator cannot be continued here
            self.generator.manual_seed(mixed(self.config.seed, self.step))

    def _align_moments(self) -> None:
        """Give the optimiser's moments the strides of their weights, which differ between devices.

        Fused kernels walk through weights and moments in the order of memory.

        Raises:
            ValueError: moments of another shape, which the optimiser itself does not check.
        """
        for weight, moments in self.optimizer.state.items():
            for name, moment in moments.items():
                # Only of optimisers of one's own may moments be smaller than their weights.
                if isinstance(self.config.optimizer, str) and moment.ndim and moment.shape != weight.shape:
                    raise ValueError(f"{name} is {tuple(moment.shape)} for a weight {tuple(weight.shape)}")
                if isinstance(moment, Tensor) and moment.shape == weight.shape and moment.stride() != weight.stride():
                    moments[name] = torch.empty_like(weight, dtype=moment.dtype, device=moment.device).copy_(moment)


def _checked(stages: list[Stage], method: Method[Any]) -> list[Stage]:
    for stage in stages:
        if not isinstance(stage, Stage) or not isinstance(stage.part, nn.Module) or not COUNT[0](stage.steps):
            raise TypeError(
                f"{type(method).__name__}.stages returned {stage!r:.200}, but must return Stages of a module and a "
                f"number of steps, at least 1"
            )
    return stages


def _copy(module: nn.Module) -> dict[str, Any]:
    state = module.state_dict().items()
    return {name: value.detach().clone() if isinstance(value, Tensor) else deepcopy(value) for name, value in state}


def _copy_into(target: dict[str, Any], source: dict[str, Any]) -> None:
    """Copy the tensors of one state into those of another, without further memory."""
    for name, value in source.items():
        if isinstance(value, Tensor):
            if value.shape != target[name].shape:  # which copy_ might broadcast
                raise ValueError(f"{name} is {tuple(value.shape)} instead of {tuple(target[name].shape)}")
            target[name].copy_(value)
        else:
            target[name] = deepcopy(value)
