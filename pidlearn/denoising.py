"""A diffusion teacher of one's own, for images or points small enough to train at a desk."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pidlearn.nets import MLP, Preconditioned
from pidlearn.training.checkpoints import claimed, load_run, restore, save
from pidlearn.training.distributed import assembled
from pidlearn.training.driver import until_stopped
from pidlearn.training.loop import Batch, DivergedError, Objective, Optimisation, Step, Trainer
from pidlearn.utils.broadcast import expand
from pidlearn.utils.fingerprint import identity
from pidlearn.utils.random import seeded
from pidlearn.utils.validation import what

__all__ = ["train_denoiser"]

P_MEAN, P_STD = -1.2, 1.2
"""Mean and standard deviation of ln(sigma) in training (Karras et al. 2022, table 1)."""


def train_denoiser(
    data: Tensor,
    class_labels: Tensor | None = None,
    network: nn.Module | None = None,
    *,
    optimisation: Optimisation | None = None,
    progress: bool = True,
    checkpoints: str | Path | None = None,
    save_every: int = 500,
    max_time: float | None = None,
    **overrides: Any,
) -> Preconditioned:
    """Train D(x, sigma) on data with EDM's preconditioning and loss (Karras et al. 2022, section 5).

    Args:
        data: (M, *event) floating; one standard deviation, that of all its entries, serves as sigma_data.
        class_labels: (M,) int64, for a class-conditional teacher.
        network: F(x, c_noise, class_labels=None), such as a `SongUNet`, on the device to train on; an `MLP` of width
            192, where the data are, if not given.
        optimisation: how.
        progress: show a bar.
        checkpoints: a folder. The training is saved there, and continued from there if it was stopped. No other may
            use the folder at the same time.
        save_every: steps between two checkpoints.
        max_time: seconds after which it is stopped.
        **overrides: single fields of ``optimisation``, such as ``steps=2000``.

    Returns:
        The denoiser, in eval mode, of the averaged weights. Its ``event_shape`` is set, so that `distill` takes it as
        it is. What was stopped by ``max_time``, Ctrl-C, SIGTERM or a loss that became NaN comes with a warning. Started
        by ``torchrun`` or ``accelerate launch``, all processes train it together and return the same.

    Raises:
        ValueError: data that are not finite floating numbers, or labels that do not fit them.
    """
    how = replace(optimisation or Optimisation(steps=5000, batch_size=256, lr=2e-3, ema=(0.999,)), **overrides)
    training = DenoiserTraining(data, class_labels, network, how)
    try:
        stopped = training.drive(progress, checkpoints, save_every, max_time)
    except DivergedError as error:
        stopped = str(error)
    if stopped:
        warnings.warn(f"the teacher is less trained than asked for: {stopped}", RuntimeWarning, stacklevel=2)
    return training.result()


class DenoiserTraining:
    """What `train_denoiser` does, step by step; arguments as there. Iterate to train."""

    def __init__(
        self, data: Tensor, class_labels: Tensor | None, network: nn.Module | None, optimisation: Optimisation
    ) -> None:
        sigma_data = _scale(data, class_labels)
        self.data, self.class_labels, self.optimisation = data, class_labels, optimisation
        if network is None:
            classes = 0 if class_labels is None else int(class_labels.max()) + 1
            with seeded(optimisation.seed):
                network = MLP(data.shape[1:], width=192, depth=4, label_dim=classes).to(data.device)
        weight = next((p for p in network.parameters() if p.requires_grad), None)
        if weight is None:
            raise ValueError("the network has no weights to train: none of its parameters requires a gradient")
        team = assembled()
        self.denoiser = Preconditioned(network, sigma_data).train()
        self.denoiser.event_shape = tuple(data.shape[1:])
        if team.device is not None:
            self.denoiser.to(team.device)
        team.align(self.denoiser)
        draw = partial(_draw, data.to("cpu", weight.dtype), class_labels, optimisation.batch_size)
        objective = Objective(draw, partial(_losses, self.denoiser))
        self.trainer = Trainer(self.denoiser, objective, optimisation, team=team)

    def __iter__(self) -> Iterator[Step]:
        return iter(self.trainer)

    def drive(
        self,
        progress: bool = True,
        checkpoints: str | Path | None = None,
        save_every: int = 500,
        max_time: float | None = None,
        since: float | None = None,
    ) -> str | None:
        """Train, from the newest checkpoint on if there is one; why it was stopped, if it was."""
        first = self.trainer.team.rank == 0
        with claimed(checkpoints, first):
            if checkpoints is not None and (state := load_run(checkpoints, self._choices())):
                restore(self.trainer, state, checkpoints)
            return until_stopped(
                self,
                "teacher",
                progress=progress,
                checkpoints=checkpoints,
                save_every=save_every,
                max_time=max_time,
                since=since,
            )

    def save(self, folder: str | Path) -> None:
        """Everything that the rest of the training depends on, written by the first process."""
        if self.trainer.team.rank == 0:
            state = {"choices": self._choices(), "trainer": self.trainer.state_dict()}
            save(folder, self.trainer.number, state)

    def _choices(self) -> dict[str, str]:
        network = self.denoiser.model
        description = (type(network).__name__, getattr(network, "options", None))
        chosen = {**vars(self.optimisation), "data": self.data, "class_labels": self.class_labels}
        chosen["network"] = description
        return {name: identity(value) for name, value in chosen.items() if name != "micro_batch"}

    def result(self) -> Preconditioned:
        """The denoiser of the averaged weights, in eval mode."""
        self.denoiser.load_state_dict(self.trainer.best.state_dict())
        return self.denoiser.eval().requires_grad_(False)


def _scale(data: Tensor, class_labels: Tensor | None) -> float:
    """The standard deviation of the data, once they and their labels fit."""
    if not isinstance(data, Tensor) or not data.is_floating_point() or data.ndim < 2 or not data.isfinite().all():
        raise ValueError("data must be a finite floating tensor (M, *event); scale images to [-1, 1]")
    if class_labels is not None:
        fits = isinstance(class_labels, Tensor) and class_labels.shape == data.shape[:1]
        if not fits or class_labels.dtype != torch.int64 or (class_labels < 0).any():
            raise ValueError(f"class_labels must be int64 ({len(data)},), 0 or more; got {what(class_labels)}")
    sigma_data = data.std().item() if data.numel() > 1 else 0.0
    if not sigma_data > 0:
        raise ValueError(f"data must vary, for their standard deviation is the scale of the denoiser; got {what(data)}")
    return sigma_data


def _draw(data: Tensor, class_labels: Tensor | None, batch_size: int, number: int, generator: torch.Generator) -> Batch:
    """Clean data, their noise levels, noise and labels."""
    index = torch.randint(len(data), (batch_size,), generator=generator)
    y = data[index]
    sigma = (P_MEAN + P_STD * torch.randn(batch_size, generator=generator)).exp().to(y)
    noise = torch.randn(y.shape, generator=generator).to(y)
    return y, sigma, noise, None if class_labels is None else class_labels[index]


def _losses(denoiser: Preconditioned, number: int, batch: Batch) -> Tensor:
    """lambda(sigma) |D(y + n) - y|^2, (B,): EDM's Eq. 2 with the weights of its table 1."""
    device = next(denoiser.parameters()).device
    y, sigma, noise, *labels = (x.to(device) for x in batch if x is not None)
    error = denoiser(y + expand(sigma, y) * noise, sigma, *labels) - y
    weight = (sigma**2 + denoiser.sigma_data**2) / (sigma * denoiser.sigma_data) ** 2
    return weight * error.square().flatten(1).mean(1)
