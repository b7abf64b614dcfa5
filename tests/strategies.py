"""What the properties are tested on: random mixtures, grids and tabulated paths, in float64."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor

import pidlearn as pid


class Table:
    """A trajectory that is nothing but its grid values: (N, B, *event), sample b of the batch in column b."""

    def __init__(self, values: Tensor, grid: Tensor) -> None:
        self.values, self.grid, self.t_max = values, grid, grid[0].item()

    def __call__(self, z: Tensor, t: Tensor, class_labels: Tensor | None = None) -> Tensor:
        row = (t[:, None] == self.grid).nonzero()[:, 1]
        assert len(row) == len(z), "called off the grid"
        return self.values[row, torch.arange(len(z)) % self.values.shape[1]]

    def every_index(self, ode: pid.DenoiserODE, **options: object) -> Tensor:
        """The loss at every sample and index, (N - 1, B)."""
        n, size = len(self.grid) - 1, self.values.shape[1]
        z = self.values[0].repeat(n, *[1] * (self.values.ndim - 2))  # (n B, *event), all samples index by index
        index = torch.arange(n).repeat_interleave(size)
        return pid.pid_loss(self, ode, z, self.grid, index, **options).reshape(n, size)


@st.composite
def grids(draw: st.DrawFn, n_max: int = 64) -> Tensor:
    t_max = draw(st.floats(5.0, 150.0))
    t_min = draw(st.floats(1e-3, 0.1))
    kind = draw(st.sampled_from([pid.karras_grid, pid.linear_grid, pid.log_grid]))
    rho = {"rho": draw(st.floats(1.0, 12.0))} if kind is pid.karras_grid else {}
    return kind(draw(st.integers(2, n_max)), t_min, t_max, **rho)


@st.composite
def mixtures(draw: st.DrawFn, d_max: int = 5) -> pid.GaussianMixture:
    k, d = draw(st.integers(1, 6)), draw(st.integers(1, d_max))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    half = normal(k, d, d)
    covs = {
        "full": 0.1 * half @ half.mT + 0.01 * torch.eye(d, dtype=torch.float64),
        "diagonal": 0.01 + normal(k, d).square() / 4,
        "scalar": torch.tensor(0.05, dtype=torch.float64),
    }[draw(st.sampled_from(["full", "diagonal", "scalar"]))]
    return pid.GaussianMixture(normal(k, d), covs, 0.1 + normal(k).abs())


def noise(mixture: pid.GaussianMixture, t_max: float, n: int = 4, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return t_max * torch.randn(n, *mixture.event_shape, generator=generator, dtype=torch.float64)


def random_network(d: int, **options: int) -> pid.nets.MLP:
    """A network whose output, which starts at zero, has been given weights."""
    network = pid.nets.MLP(d, width=32, depth=2, **options)
    torch.nn.init.normal_(network.body.out.weight, std=0.3)
    return network
