"""What `benchmarks.gpu` measures: network sizes, and variants of a training step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks.steps import CIFAR10, IMAGENET64, PAPER, LibraryStep, OfficialStyleStep, TrainingStep
from pidlearn.nets import EDMPrecond


@dataclass(frozen=True)
class Size:
    """A network and how it is trained.

    Attributes:
        network: options of `EDMPrecond`.
        batch: images per step.
        micro_batch: images in memory at a time.
        images: images of the paper's whole training.
        largest: batch sizes to try without micro-batches, in descending order.
        resize: LPIPS resizes images to this many pixels per side.
        matrix: side of the matrices whose product gives the device's peak rate.
    """

    network: dict[str, Any]
    batch: int
    micro_batch: int
    images: int
    largest: tuple[int, ...]
    resize: int = 224
    matrix: int = 8192


SIZES = {
    "cifar10": Size(CIFAR10, 512, 128, 800_000 * 512, (512, 384, 256, 192, 128, 96, 64, 32)),
    "imagenet64": Size(IMAGENET64, 128, 16, 400_000 * 2048, (256, 192, 128, 96, 64, 48, 32, 16, 8)),
}
SMALL = {"img_resolution": 8, "model_channels": 16, "channel_mult": [1], "num_blocks": 1, "attn_resolutions": [8]}
DRY = {
    "toy": Size({**CIFAR10, **SMALL}, 4, 2, 1000, (2, 1), resize=16, matrix=64),
    "toy, adm": Size({**IMAGENET64, **SMALL, "label_dim": 3}, 4, 2, 1000, (2, 1), resize=16, matrix=64),
}

OFFICIAL, BASELINE, BOUND = "official style, ", "official style, TF32", "official style, float16"
VARIANTS: dict[str, dict[str, Any]] = {
    BASELINE: {},
    BOUND: {"half": True},
    "ours, TF32": {},
    "ours, TF32, recomputed": {"recompute": True},
    "ours, TF32, Muon": {"optimizer": "muon"},
    "ours, bfloat16, differences": {"precision": "bfloat16"},
    "ours, bfloat16, exact": {"precision": "bfloat16", "derivative": "exact"},
}
"""Settings by name; the precision is TF32 unless it is lower. Bfloat16 differences only serve to show their rounding
error.
"""
COMPILED = ("ours, TF32", BASELINE, "ours, bfloat16, exact", BOUND, "ours, bfloat16, differences")
"""The variants to compile, most important first, since each takes minutes. Recomputation is not among them: the
compiler chooses itself what to recompute. Nor is Muon: an optimiser's step is not compiled.
"""


def step_of(variant: str, teacher: EDMPrecond, backend: str | None, **settings: Any) -> TrainingStep:
    """Build the training step of a variant; ``backend`` compiles it."""
    settings = {**PAPER, "precision": "tf32", **settings, **VARIANTS[variant], "compile": backend}
    step = OfficialStyleStep if variant.startswith(OFFICIAL) else LibraryStep
    return step(teacher, **settings)
