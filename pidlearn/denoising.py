"""A diffusion teacher of one's own, for images or points small enough to train on a desktop computer."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pidlearn.methods.base import TrainingContext
from pidlearn.methods.denoising import Denoising
from pidlearn.nets import MLP, Preconditioned
from pidlearn.training.distributed import current_processes
from pidlearn.training.driver import Training, drive
from pidlearn.training.optim import OptimizerConfig
from pidlearn.training.trainer import Trainer
from pidlearn.utils.arguments import MODULE, PATH, check_arguments, check_options, optional
from pidlearn.utils.deprecation import rename_arguments
from pidlearn.utils.fingerprint import identity
from pidlearn.utils.random import seeded
from pidlearn.utils.validation import describe_tensor, reraise_with_context
from pidlearn.utils.wrappers import unwrapped

__all__ = ["DenoiserTraining", "train_denoiser"]

OPTIMIZER_CONFIG = (lambda v: isinstance(v, OptimizerConfig), "a pidlearn.train.OptimizerConfig")


@check_arguments(network=optional(MODULE), config=optional(OPTIMIZER_CONFIG), checkpoints=optional(PATH))
def train_denoiser(
    data: Tensor,
    class_labels: Tensor | None = None,
    network: nn.Module | None = None,
    *,
    config: OptimizerConfig | None = None,
    progress: bool = True,
    checkpoints: str | Path | None = None,
    save_every: int = 500,
    max_time: float | None = None,
    **overrides: Any,
) -> Preconditioned:
    """Train D(x, sigma) on data with EDM's preconditioning and loss (Karras et al. 2022, section 5).

    Args:
        data: (M, *event) floating; one standard deviation, over all entries, is used as sigma_data.
        class_labels: (M,) int64, for a class-conditional teacher.
        network: F(x, c_noise, class_labels=None), such as a `SongUNet`, on the device to train on; by default an `MLP`
            of width 192 on the data's device.
        config: how to train; its old name is ``optimisation``.
        progress: show a progress bar.
        checkpoints: folder in which the training is saved, and from which it is resumed if it was stopped. No other
            training may use the folder at the same time.
        save_every: steps between two checkpoints.
        max_time: seconds after which the training is stopped.
        **overrides: single fields of ``config``, such as ``steps=2000``.

    Returns:
        The denoiser with averaged weights, in eval mode. Its ``event_shape`` is set, so `distill` takes it as it is. If
        the training was stopped by ``max_time``, Ctrl-C, SIGTERM or a loss that became NaN, there is a warning. Started
        by ``torchrun`` or ``accelerate launch``, all processes train it together and return the same.

    Raises:
        ValueError: data that are not finite floating numbers, or labels that do not fit them.
    """
    overrides = rename_arguments(overrides, {"optimisation": "config"})
    config = overrides.pop("config", config) or OptimizerConfig(steps=5000, batch_size=256, lr=2e-3, ema=(0.999,))
    check_options("train_denoiser", OptimizerConfig, overrides)
    training = DenoiserTraining(data, class_labels, network, replace(config, **overrides))
    stop = drive(
        training, "teacher", progress=progress, checkpoints=checkpoints, save_every=save_every, max_time=max_time
    )
    if stop:
        warnings.warn(f"the teacher's training was stopped early: {stop}", RuntimeWarning, stacklevel=2)
    return training.result()


class DenoiserTraining(Training):
    """The training of `train_denoiser`, step by step; arguments as there."""

    def __init__(
        self, data: Tensor, class_labels: Tensor | None, network: nn.Module | None, config: OptimizerConfig
    ) -> None:
        sigma_data = _standard_deviation(data, class_labels)
        if network is None:
            classes = 0 if class_labels is None else int(class_labels.max()) + 1
            with seeded(config.seed):
                network = MLP(data.shape[1:], width=192, depth=4, label_dim=classes).to(data.device)
        weight = next((p for p in network.parameters() if p.requires_grad), None)
        if weight is None:
            raise ValueError(
                "the network has no weights to train: none of its parameters requires a gradient; call "
                "requires_grad_() on it"
            )
        processes = current_processes()
        self.denoiser = Preconditioned(network, sigma_data).train()
        self.denoiser.event_shape = tuple(data.shape[1:])
        if processes.device is not None:
            self.denoiser.to(processes.device)
        processes.broadcast_weights(self.denoiser)
        self._data = {"data": data, "class_labels": class_labels}
        labels = None if class_labels is None else class_labels[:2].to(weight.device)
        with seeded(config.seed):  # the check draws no number of the training
            self._check(network, data[:2].to(weight), labels)
        method = Denoising(data.to("cpu", weight.dtype), class_labels)
        context = TrainingContext(self.denoiser, seed=config.seed)
        self._start(Trainer(self.denoiser, method, context, config, processes=processes))

    @torch.no_grad()
    def _check(self, network: nn.Module, x: Tensor, class_labels: Tensor | None) -> None:
        """Call the network once, so that one with another signature fails before it is trained."""
        self.denoiser.eval()  # the averages of a batch norm stay as they are
        with reraise_with_context("network", network, x, torch.ones(len(x)).to(x), class_labels):
            self.denoiser(x, 1.0, class_labels)
        self.denoiser.train()

    def settings(self) -> dict[str, str]:
        """Settings, data and network as text."""
        network = unwrapped(self.denoiser.model)  # a wrapper changes nothing that is computed
        description = (type(network).__name__, getattr(network, "options", None))
        values = {**vars(self.trainer.config), **self._data, "network": description}
        return {name: identity(value) for name, value in values.items() if name != "micro_batch"}

    def result(self) -> Preconditioned:
        """The denoiser with averaged weights, in eval mode."""
        self.denoiser.load_state_dict(self.trainer.best.state_dict())
        return self.denoiser.eval().requires_grad_(False)


def _standard_deviation(data: Tensor, class_labels: Tensor | None) -> float:
    """The standard deviation of the data, after checking them and their labels."""
    usable = isinstance(data, Tensor) and data.is_floating_point() and data.ndim >= 2 and not data.is_meta
    if not usable or data.layout != torch.strided or not data.isfinite().all():
        raise ValueError(
            f"got data {describe_tensor(data)}, but data must be a finite floating tensor (M, *event), images in "
            f"[-1, 1]"
        )
    if class_labels is not None:
        fits = isinstance(class_labels, Tensor) and class_labels.shape == data.shape[:1]
        if not fits or class_labels.is_meta or class_labels.dtype != torch.int64 or (class_labels < 0).any():
            raise ValueError(
                f"got {describe_tensor(class_labels)} for class_labels, but they must be int64 ({len(data)},), 0 or "
                f"more"
            )
    std = data.std().item() if data.numel() > 1 else 0.0
    if not std > 0:
        raise ValueError(
            f"got data {describe_tensor(data)} without variation, but their standard deviation is the denoiser's "
            f"scale: pass samples that differ"
        )
    return std
