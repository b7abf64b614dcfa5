"""A recipe's teacher: loaded from a file, or trained on a small data set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pidlearn.data import DATA_SETS
from pidlearn.denoising import DenoiserTraining
from pidlearn.nets import SongUNet
from pidlearn.recipes.reading import Recipe
from pidlearn.teachers import load_teacher
from pidlearn.teachers.files.build import complete
from pidlearn.training.driver import drive
from pidlearn.training.optim import OptimizerConfig
from pidlearn.training.stopping import Stop, StopReason
from pidlearn.utils import arguments
from pidlearn.utils.arguments import VALUES, check_arguments, optional
from pidlearn.utils.random import seeded

__all__ = ["UnfinishedError", "load_images", "resize", "teacher_from_recipe", "training_data"]


TABLE = (
    lambda v: isinstance(v, Mapping) and str(v.get("data")) in DATA_SETS,
    f"the table of a teacher, with data = {' | '.join(DATA_SETS)}",
)
RECIPE = (lambda v: isinstance(v, Recipe), "a Recipe, as pidlearn.recipes.read returns it")
IMAGES = (lambda v: VALUES[0](v) and v.ndim == 4 and v.numel() > 0, "floating-point images (n, C, R, R), n >= 1")


class UnfinishedError(Exception):
    """The training of a recipe's teacher was stopped; ``reason`` says why, for programs."""

    def __init__(self, stop: Stop) -> None:
        super().__init__(f"the teacher's training was stopped: {stop}")
        self.reason = stop.reason


@check_arguments(teacher=TABLE)
def load_images(teacher: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Load the data set of a teacher's table.

    Returns:
        Images (n, 1, R, R) float32 in [-1, 1], at the table's resolution R, and class labels (n,) int64.
    """
    images, labels = DATA_SETS[teacher["data"]]()
    return resize(images, teacher.get("resolution")), labels


@check_arguments(teacher=TABLE)
def training_data(teacher: Mapping[str, Any]) -> Tensor | tuple[Tensor, Tensor]:
    """What a teacher's table trains it on: images, and class labels if it is class-conditional; as in `load_images`."""
    images, labels = load_images(teacher)
    return (images, labels) if teacher.get("labels") else images


@check_arguments(images=IMAGES, size=optional(arguments.size()))
def resize(images: Tensor, size: int | None) -> Tensor:
    """Resize images (n, C, R, R) in [-1, 1] to (n, C, size, size); None returns them unchanged."""
    if size in (None, images.shape[-1]):
        return images
    # With antialiasing, a smaller image averages over all pixels instead of skipping some.
    single = images.to(torch.promote_types(images.dtype, torch.float32))  # half precision has no such filter
    resized = F.interpolate(single, size=(size, size), mode="bilinear", antialias=True)
    return resized.clamp(-1, 1).to(images.dtype)


@check_arguments(recipe=RECIPE)
def teacher_from_recipe(recipe: Recipe, device: str | torch.device = "cpu", **options: Any) -> nn.Module:
    """Load a recipe's teacher, or train it.

    Args:
        recipe: the recipe.
        device: device of the training, and of the returned teacher.
        **options: for a teacher that is trained, of `pidlearn.training.driver.drive`.

    Raises:
        FileNotFoundError: a file that is missing and cannot be downloaded; the message says where it should be.
        ValueError: network options that do not fit together, or a training that diverged.
        UnfinishedError: a training that was stopped; with ``checkpoints``, the same call resumes it.
    """
    if isinstance(recipe.teacher, str):
        return load_teacher(recipe.teacher).to(device)
    images, labels = load_images(recipe.teacher)
    class_labels = labels if recipe.teacher.get("labels") else None
    config = OptimizerConfig(**recipe.teacher.get("training", {}))
    channels, size = images.shape[1:3]
    try:
        with seeded(config.seed):
            label_dim = 0 if class_labels is None else int(class_labels.max()) + 1
            network = SongUNet(size, channels, channels, label_dim, **recipe.teacher.get("network", {})).to(device)
        complete(SongUNet, network.options, network.state_dict())  # or else it could not be saved once it is trained
    except (TypeError, ValueError, RuntimeError, ArithmeticError, LookupError) as error:
        raise ValueError(f"[teacher.network] of {recipe.name} cannot be built: {error}") from error
    training = DenoiserTraining(images, class_labels, network, config)
    stop = drive(training, "teacher", **options)
    if stop and stop.reason is StopReason.DIVERGED:
        raise ValueError(f"the teacher of {recipe.name}: {stop}")
    if stop:
        raise UnfinishedError(stop)
    return training.result()
