"""All the choices of a distillation in one place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from pidlearn.equations import grids
from pidlearn.losses.distances import DISTANCES, Distance
from pidlearn.losses.time_sampling import DENSITIES, Density
from pidlearn.methods.pid.derivatives import SCHEMES, Scheme
from pidlearn.methods.pid.loss import Weight, weights
from pidlearn.training.loop import COUNT, FLAG, Optimisation, is_number
from pidlearn.utils.validation import choose

__all__ = ["GRIDS", "Config"]

RECIPE: Any = None
"""The value of a field that is left to the recipe for the problem."""

INITS = ("teacher", "official", "random")
PRECISIONS = ("float32", "tf32", "bfloat16")
GRIDS = {"karras": grids.karras_grid, "linear": grids.linear_grid, "log": grids.log_grid}


@dataclass(frozen=True)
class Config(Optimisation):
    """What `distill` minimises, and how; the fields of `Optimisation` come first.

    What fits depends on the problem, so the fields marked * are `RECIPE` (None) until the run fills them in from
    `pidlearn.students.build`; ``result.config`` holds them all. Of `Optimisation` these are steps, batch_size, lr
    and warmup.

    Attributes:
        n: * grid points, of each window where there are several.
        t_max: * where the paths start: the prior end of a diffusion, 80.
        t_min: * where they end: the sample end of a diffusion, 0.002.
        spacing: karras | linear | log, or a function of n, t_min and t_max that returns a grid.
        rho: of the karras spacing.
        derivative: * as in `pid_loss`, like the next four.
        distance: l2 | l1 | pseudo_huber, of images also those of `pidlearn.losses.distances.lpips`, or a function.
        weight: uniform | snr | karras | truncated_snr or a function.
        stop_gradient: * hold the teacher's side constant.
        last: drop | backward.
        index: * how often each grid point is visited: uniform | lognormal, or a function as
            `pidlearn.losses.time_sampling` says.
            A network that reads a start once for all times (`ChebyshevMLP`) visits all of them.
        boundary_weight: factor of `boundary_loss`, for a student with a soft boundary.
        windows: * sub-intervals that the span of an ODE is cut into; a diffusion has one.
        init: how a copy of a teacher's U-Net starts: "teacher", as the image D(z, t_max), or that over t_max where the
            network predicts noise; "official", as the network's raw output; "random", from new weights.
        precision: float32 | tf32 | bfloat16: of the networks, student's and teacher's; all around them is float32.
            tf32 is a GPU's fast float32. bfloat16 goes with derivative="exact": differences multiply its rounding.
        recompute: compute a U-Net's activations again for the backward pass rather than keep them.
        compile: a backend of `torch.compile` for both networks, such as "inductor"; None runs them as they are. Of the
            exact and coupled derivatives the student is compiled where its network is a U-Net of ours.
    """

    steps: int = RECIPE
    batch_size: int = RECIPE
    lr: float = RECIPE
    warmup: float = RECIPE
    n: int = RECIPE
    t_max: float = RECIPE
    t_min: float = RECIPE
    spacing: str | Callable[..., Tensor] = "karras"
    rho: float = 7.0
    derivative: str | Scheme = RECIPE
    distance: str | Distance = "pseudo_huber"
    weight: str | Weight = "uniform"
    stop_gradient: bool = RECIPE
    last: str = "drop"
    index: str | Density = RECIPE
    boundary_weight: float = 0.0
    windows: int = RECIPE
    init: str = "teacher"
    precision: str = "float32"
    recompute: bool = False
    compile: str | None = None

    MACHINE = ("micro_batch", "recompute", "compile")
    """Fields that change how a run is computed and not what: a run may be resumed with others."""

    def __post_init__(self) -> None:
        super().__post_init__()
        parts: dict[str, dict[str, Any]] = {
            "derivative": SCHEMES,
            "distance": DISTANCES,
            "weight": weights(1.0),
            "index": DENSITIES,
            "spacing": GRIDS,
        }
        for name in parts.keys() - self._left():
            choose(name, getattr(self, name), parts[name])

    def _rules(self) -> dict[str, tuple[Callable[[Any], bool], str]]:
        rules = {
            **super()._rules(),
            "n": (lambda v: isinstance(v, int) and v >= 2, "a whole number of at least 2 grid points"),
            "t_max": (is_number, "a number"),
            "t_min": (is_number, "a number"),
            "rho": (lambda v: is_number(v) and v > 0, "a positive number"),
            "stop_gradient": FLAG,
            "last": (lambda v: v in ("drop", "backward"), '"drop" or "backward"'),
            "boundary_weight": (lambda v: is_number(v) and v >= 0, "a number of at least 0"),
            "windows": COUNT,
            "init": (lambda v: v in INITS, f"one of {', '.join(INITS)}"),
            "precision": (lambda v: v in PRECISIONS, f"one of {', '.join(PRECISIONS)}"),
            "recompute": FLAG,
            "compile": (
                lambda v: v is None or v in torch.compiler.list_backends(exclude_tags=()),
                "None or a backend that torch.compiler.list_backends() knows, such as inductor",
            ),
        }
        return {name: rules[name] for name in rules.keys() - self._left()}

    def _left(self) -> set[str]:
        """The fields that are left to the recipe."""
        return {spec.name for spec in fields(self) if spec.default is RECIPE and getattr(self, spec.name) is RECIPE}

    def grid(self) -> Tensor:
        """The time grid of a diffusion, (n,) float64; what is left to the recipe is the grid function's own default."""
        span = {name: getattr(self, name) for name in ("n", "t_min", "t_max") if getattr(self, name) is not RECIPE}
        rho = {"rho": self.rho} if self.spacing == "karras" else {}
        make: Callable[..., Tensor] = choose("spacing", self.spacing, GRIDS)
        return make(**span, **rho)
