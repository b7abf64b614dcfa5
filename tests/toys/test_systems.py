"""The zoo, each field against the equation written once more for SciPy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

import pidlearn as pid
from pidlearn.equations.systems import SYSTEMS

EQUATIONS: dict[str, Callable[[float, np.ndarray], list[float]]] = {
    "pendulum": lambda t, x: [x[1], -9.81 * np.sin(x[0]) - 0.2 * x[1]],
    "lotka_volterra": lambda t, x: [x[0] * (1.5 - x[1]), x[1] * (x[0] - 3)],
    "van_der_pol": lambda t, x: [x[1], 2 * (1 - x[0] ** 2) * x[1] - x[0]],
    "lorenz": lambda t, x: [10 * (x[1] - x[0]), x[0] * (28 - x[2]) - x[1], x[0] * x[1] - 8 / 3 * x[2]],
    "logistic": lambda t, x: [x[0] * (1 - x[0])],
    "stiff": lambda t, x: [-1000 * (x[0] - np.cos(t)) - np.sin(t)],
}


def test_every_system_is_tested() -> None:
    assert EQUATIONS.keys() == SYSTEMS.keys()


@pytest.mark.parametrize("name", SYSTEMS)
def test_field(name: str) -> None:
    system = pid.system(name)
    x, t = system.prior(9).double(), torch.linspace(system.t_start, system.t_end, 9).double()
    expected = np.array([EQUATIONS[name](s.item(), y.numpy()) for s, y in zip(t, x, strict=True)])
    np.testing.assert_allclose(system.ode.velocity(x, t), expected, rtol=1e-12)


@pytest.mark.parametrize("name", SYSTEMS)
def test_reference(name: str) -> None:
    system = pid.system(name)
    grid = system.t_start + torch.tensor([0.0, 0.02, 0.3], dtype=torch.float64)
    x = system.prior(3, torch.Generator().manual_seed(1))
    path = system.reference(x, grid)
    assert path.dtype == torch.float64
    assert torch.equal(path[0], x.double())
    for b in range(3):
        exact = solve_ivp(
            EQUATIONS[name], (0.0, 0.3), x[b].double(), method="LSODA", t_eval=grid, rtol=1e-12, atol=1e-12
        )
        np.testing.assert_allclose(path[:, b], exact.y.T, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", SYSTEMS)
def test_prior_fills_its_box(name: str) -> None:
    system = pid.system(name)
    x = system.prior(4000, torch.Generator().manual_seed(0))
    low, high = torch.tensor(system.low), torch.tensor(system.high)
    assert x.shape == (4000, len(system.names))
    assert ((x >= low) & (x <= high)).all()
    assert torch.allclose(x.mean(0), (low + high) / 2, atol=0.03 * (high - low).max().item())
    assert torch.allclose(x.std(0), (high - low) / 12**0.5, rtol=0.05)
    assert torch.equal(x, system.prior(4000, torch.Generator().manual_seed(0)))


def test_the_stiff_one_becomes_a_cosine() -> None:
    system = pid.system("stiff")
    path = system.reference(system.prior(2), torch.tensor([0.0, 0.1, 1.0]))
    assert torch.allclose(path[1:, :, 0], torch.tensor([0.1, 1.0]).double().cos()[:, None].expand(2, 2), atol=1e-8)


def test_unknown_name() -> None:
    with pytest.raises(ValueError, match=r"one of \['logistic'"):
        pid.system("pendulums")
