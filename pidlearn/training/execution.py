"""How a run's networks are computed: precision, recomputation, compilation. They are switched for each step alone.

None of them changes what is minimised. What a run was lent, its teacher above all, goes back as it came.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from pidlearn.config import Config
from pidlearn.nets.unets import UNet
from pidlearn.students.trajectory import Trajectory

__all__ = ["Switch", "switched", "switches", "tf32"]

Switch = tuple[Any, str, Any]
"""An object, an attribute of it, and the value that it has while a step lasts."""

AUTOMATIC = ("exact", "can")
"""Derivatives by forward mode."""


def switches(config: Config, students: Sequence[nn.Module], teachers: Sequence[nn.Module]) -> list[Switch]:
    """What the configuration asks of these modules.

    Raises:
        ValueError: for what does not go with them, or with the derivative.
    """
    automatic = config.derivative in AUTOMATIC
    nets = [[part for part in student.modules() if isinstance(part, UNet)] for student in students]
    for name, asked in (("recompute", config.recompute), ("precision='bfloat16'", config.precision == "bfloat16")):
        if asked and not all(nets):
            raise ValueError(f"{name} needs a student with a SongUNet or DhariwalUNet: leave it out")
    if config.recompute and automatic:
        raise ValueError(
            f"recompute does not go with derivative={config.derivative!r}, whose tangents pass through what is "
            f"recomputed: leave it out and set micro_batch"
        )
    found: list[Switch] = []
    if any(p.is_cuda for student in students for p in student.parameters()):
        found += tf32(config.precision != "float32")
        found += [(torch.backends.cudnn, "benchmark", True)]  # a run's shapes stay: its fastest kernels are sought once
    if config.precision == "bfloat16":
        for name in ("body", "compute_dtype"):
            found += [(part, name, torch.bfloat16) for part in (*students, *teachers) if hasattr(part, name)]
    if config.recompute:
        found += [(net, "recompute", True) for of_student in nets for net in of_student]
    if config.compile:
        compiled = partial(torch.compile, backend=config.compile)
        if automatic:  # what is compiled has no forward-mode derivative: that is compiled with it
            ours = [s for s in students if isinstance(s, Trajectory) and isinstance(s.network, UNet)]
            found += [(student, "bend_and_slope", compiled(student.bend_and_slope)) for student in ours]
        trained = [] if automatic else [getattr(student, "network", None) for student in students]
        parts = [part for part in (*trained, *teachers) if isinstance(part, nn.Module)]
        found += [(part, "forward", compiled(part.forward)) for part in parts]
    return found


def tf32(allowed: bool) -> list[Switch]:
    """Whether a GPU may round float32 to TF32 in products and convolutions."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    if hasattr(matmul, "fp32_precision"):  # since torch 2.9, where the older flags cannot be read once this one is set
        conv: Any = cudnn.conv  # type: ignore[attr-defined]  # made when it is imported
        return [(kernels, "fp32_precision", "tf32" if allowed else "ieee") for kernels in (matmul, conv)]
    return [(kernels, "allow_tf32", allowed) for kernels in (matmul, cudnn)]


ABSENT = object()


@contextmanager
def switched(given: Sequence[Switch]) -> Iterator[None]:
    """Attributes of objects at other values for as long as a step lasts: nothing of a run stays on what it was lent."""
    # What a module has of its class, or as a method, shows again once its own attribute is gone.
    before = [
        (part, name, vars(part).get(name, ABSENT) if isinstance(part, nn.Module) else getattr(part, name))
        for part, name, _ in given
    ]
    try:
        for part, name, value in given:
            setattr(part, name, value)
        yield
    finally:
        for part, name, value in before:
            if value is ABSENT:
                delattr(part, name)
            else:
                setattr(part, name, value)
