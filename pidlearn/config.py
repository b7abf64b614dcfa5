"""All the choices of a distillation in one place."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pidlearn import grid
from pidlearn.derivative import SCHEMES, Scheme
from pidlearn.distance import DISTANCES, Distance
from pidlearn.errors import choose
from pidlearn.loss import Weight, weights
from pidlearn.sampling import DENSITIES, Density
from pidlearn.train import Optimisation

__all__ = ["GRIDS", "Config"]

GRIDS = {"karras": grid.karras_grid, "linear": grid.linear_grid, "log": grid.log_grid}


@dataclass(frozen=True)
class Config(Optimisation):
    """What `distill` minimises, and how; the fields of `Optimisation` come first.

    Attributes:
        n: grid points, of each window where there are several.
        t_max: the prior end of a diffusion.
        t_min: its sample end.
        spacing: karras | linear | log.
        rho: of the karras spacing.
        derivative: as in `pid_loss`, like the next four.
        distance: l2 | l1 | pseudo_huber or a function.
        weight: uniform | snr | karras | truncated_snr or a function.
        stop_gradient: hold the teacher's side constant.
        last: drop | backward.
        index: how often each grid point is visited: uniform | lognormal, or a function as `pidlearn.sampling` says.
            A network that reads a start once for all times (`ChebyshevMLP`) visits all of them.
        boundary_weight: factor of `boundary_loss`, for a student with a soft boundary.
        windows: sub-intervals that the span of an ODE is cut into; a diffusion has one.
    """

    n: int = 250
    t_max: float = 80.0
    t_min: float = 0.002
    spacing: str = "karras"
    rho: float = 7.0
    derivative: str | Scheme = "forward"
    distance: str | Distance = "pseudo_huber"
    weight: str | Weight = "uniform"
    stop_gradient: bool = True
    last: str = "drop"
    index: str | Density = "lognormal"
    boundary_weight: float = 0.0
    windows: int = 40

    def __post_init__(self) -> None:
        super().__post_init__()
        choose("derivative", self.derivative, SCHEMES)
        choose("distance", self.distance, DISTANCES)
        choose("weight", self.weight, weights(1.0))
        choose("index", self.index, DENSITIES)
        choose("spacing", self.spacing, GRIDS)
        if self.windows < 1:
            raise ValueError(f"windows must be at least 1, got {self.windows}")
        if self.n < 2:
            raise ValueError(f"n counts grid points and must be at least 2, got {self.n}")

    def grid(self) -> Tensor:
        """The time grid of a diffusion, (n,) float64."""
        rho = {"rho": self.rho} if self.spacing == "karras" else {}
        return GRIDS[self.spacing](self.n, self.t_min, self.t_max, **rho)
