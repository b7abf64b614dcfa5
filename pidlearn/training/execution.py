"""How networks are computed during training: precision, activation checkpointing and compilation.

None of these changes what is minimised. They are set for each training step and restored after it, so the teacher and
whatever else the user passed come back unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from pidlearn.nets.unets import UNet
from pidlearn.students.flow_map import FlowMap
from pidlearn.students.trajectory import Trajectory
from pidlearn.utils.arguments import one_of
from pidlearn.utils.overrides import Override, tf32
from pidlearn.utils.settings import FLAG, Rule, Settings

__all__ = ["ExecutionConfig", "overrides", "use_channels_last"]

PRECISIONS = ("float32", "tf32", "bfloat16")
FORWARD_MODE = {Trajectory: "learned_term_jvp", FlowMap: "denoised_jvp"}
"""What differentiates a student by forward-mode automatic differentiation, by its kind."""


@dataclass(frozen=True)
class ExecutionConfig(Settings):
    """How networks are computed.

    Attributes:
        precision: float32 | tf32 | bfloat16, of student's and teacher's networks; everything around them stays float32.
            tf32 is a GPU's fast float32, with ten bits of mantissa in its products. It and bfloat16 should go with
            derivative="exact": finite differences amplify their rounding.
        recompute: activation checkpointing: recompute a U-Net's activations in the backward pass rather than keep them.
        compile: a backend of `torch.compile` for both networks, such as "inductor"; None does not compile. With the
            exact and can derivatives the student is compiled only if its network is a `SongUNet` or `DhariwalUNet`.
    """

    precision: str = "float32"
    recompute: bool = False
    compile: str | None = None

    def rules(self) -> dict[str, Rule]:
        """The rule for each field, by name."""
        return {
            **super().rules(),
            "precision": one_of(*PRECISIONS),
            "recompute": FLAG,
            "compile": (
                lambda v: v is None or (isinstance(v, str) and v in torch.compiler.list_backends(exclude_tags=())),
                "None or a backend that torch.compiler.list_backends() lists, such as inductor",
            ),
        }


def overrides(
    config: ExecutionConfig,
    forward_mode: bool,
    students: Sequence[nn.Module],
    teachers: Sequence[nn.Module],
    auxiliaries: Sequence[nn.Module] = (),
) -> list[Override]:
    """The attributes of these modules, and of torch, that realise the configuration during a step.

    Args:
        config: what is wanted.
        forward_mode: whether students are differentiated by forward-mode automatic differentiation.
        students: the parts of the student that are trained.
        teachers: the networks of the teacher.
        auxiliaries: what else is trained; one without a U-Net is computed as ever.

    Raises:
        ValueError: settings that do not fit these modules, or forward mode.
    """
    students = [*students, *filter(_has_unet, auxiliaries)]
    unets = [[part for part in student.modules() if isinstance(part, UNet)] for student in students]
    for name, wanted in (("recompute", config.recompute), ("precision='bfloat16'", config.precision == "bfloat16")):
        if wanted and not all(unets):
            raise ValueError(f"{name} needs a student with a SongUNet or DhariwalUNet: leave it out")
    if config.recompute and forward_mode:
        raise ValueError(
            "recompute does not work with a derivative by forward-mode automatic differentiation, whose tangents are "
            "lost in what is recomputed: leave recompute out and set micro_batch"
        )
    result: list[Override] = []
    if any(p.is_cuda for student in students for p in student.parameters()):
        result += tf32(config.precision != "float32")
        result += [(torch.backends.cudnn, "benchmark", True)]  # shapes stay the same: search the fastest kernels once
    if config.precision == "bfloat16":
        result += [
            (part, "compute_dtype", torch.bfloat16) for part in (*students, *teachers) if hasattr(part, "compute_dtype")
        ]
    if config.recompute:
        result += [(unet, "recompute", True) for of_student in unets for unet in of_student]
    if config.compile:
        result += _compiled(config.compile, forward_mode, students, teachers)
    return result


def _compiled(
    backend: str, forward_mode: bool, students: Sequence[nn.Module], teachers: Sequence[nn.Module]
) -> list[Override]:
    compiled = partial(torch.compile, backend=backend)
    networks = [getattr(student, "network", None) for student in students]
    if not forward_mode:
        parts = [part for part in (*networks, *teachers) if isinstance(part, nn.Module)]
        return [(part, "forward", compiled(part.forward)) for part in parts]
    # A compiled network has no forward-mode derivative: value and derivative are compiled together instead.
    unets = [
        (student, name)
        for student in students
        for kind, name in FORWARD_MODE.items()
        if isinstance(student, kind) and isinstance(student.network, UNet)
    ]
    return [
        *((student, name, compiled(getattr(student, name))) for student, name in unets),
        *((part, "forward", compiled(part.forward)) for part in teachers),
    ]


def use_channels_last(modules: Sequence[nn.Module]) -> None:
    """Lay out the U-Nets among these modules as a GPU's tensor cores like them."""
    for module in modules:
        if _has_unet(module):
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # no stub


def _has_unet(module: nn.Module) -> bool:
    return any(isinstance(part, UNet) for part in module.modules())
