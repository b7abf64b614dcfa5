"""The solvers, against SciPy by measured order, and against the diffusers library step for step."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings

import pidlearn as pid
from pidlearn.equations import adaptive, solvers
from pidlearn.equations.solvers import SOLVERS, walk
from pidlearn.utils.validation import NotFiniteError
from tests.strategies import mixtures

# Wide modes: f is smooth, and the asymptotic order shows at moderate N.
SMOOTH = pid.GaussianMixture([[0.6, 0.0], [-0.5, 0.4]], [[0.5, 0.3], [0.4, 0.6]], [0.4, 0.6])
ORDER = {"euler": 1, "heun": 2, "dpm": 2, "dpm++": 2}


@pytest.mark.parametrize("method", SOLVERS)
def test_order_of_convergence(method: str) -> None:
    ode, x = pid.DenoiserODE(SMOOTH), 5 * torch.randn(16, 2, dtype=torch.float64)
    ends = pid.karras_grid(2, 0.05, 5.0)
    exact = pid.solve(ode, x, ends, "scipy", rtol=1e-12, atol=1e-12)[-1]
    counts = [64, 128, 256, 512]
    errors = [
        (pid.solve(ode, x, pid.karras_grid(n + 1, 0.05, 5.0), method)[-1] - exact).abs().max().item() for n in counts
    ]
    measured = -np.diff(np.log(errors)) / np.diff(np.log(counts))
    assert measured[-1] == pytest.approx(ORDER[method], abs=0.15)


@given(mixtures(3))
@settings(max_examples=3)
def test_all_methods_agree_with_scipy(mixture) -> None:
    ode, grid = pid.DenoiserODE(mixture), pid.karras_grid(400, 0.05, 20.0)
    x = 20 * torch.randn(4, *mixture.event_shape, dtype=torch.float64)
    exact = pid.solve(ode, x, grid[[0, -1]], "scipy", rtol=1e-7, atol=1e-7)[-1]
    for method, tolerance in {"euler": 0.1, "heun": 0.01, "dpm": 0.01, "dpm++": 0.01}.items():
        assert (pid.solve(ode, x, grid, method)[-1] - exact).abs().max() < tolerance, method


def test_scipy_against_a_known_solution() -> None:
    # One Gaussian: x(t) = x(T) sqrt((s^2 + t^2) / (s^2 + T^2)).
    ode, s = pid.DenoiserODE(pid.GaussianMixture([[0.0, 0.0]], 0.3**2)), 0.3
    x, grid = torch.randn(5, 2, dtype=torch.float64), pid.karras_grid(9)
    known = ((s**2 + grid**2) / (s**2 + 80.0**2)).sqrt()[:, None, None] * x
    for integrator in ("DOP853", "Radau"):
        path = pid.solve(ode, x, grid, "scipy", integrator=integrator)
        assert (path - known).abs().max() < 1e-8
        assert torch.equal(path[0], x)


def swing(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """A driven pendulum."""
    return torch.stack([x[:, 1], -x[:, 0].sin() - 0.1 * x[:, 1] + t.cos()], 1)


@pytest.mark.parametrize("ends", [(0.0, 6.0), (6.0, 0.0)])
@pytest.mark.parametrize("tolerance", [1e-5, 1e-8, 1e-11])
def test_dopri5_agrees_with_scipy_to_its_tolerance(ends: tuple[float, float], tolerance: float) -> None:
    x, grid = torch.randn(20, 2, dtype=torch.float64), torch.linspace(*ends, 13, dtype=torch.float64)
    exact = pid.solve(pid.VelocityODE(swing), x, grid, "scipy", rtol=1e-12, atol=1e-12)
    path = pid.solve(pid.VelocityODE(swing), x, grid, "dopri5", rtol=tolerance, atol=tolerance)
    error = (path - exact).abs().max()
    assert 1e-3 * tolerance < error < 1e3 * tolerance  # a tolerance of a step, which the path may amplify


def test_each_start_has_steps_of_its_own() -> None:
    """Its path is the same, alone or among others: SciPy's is not."""
    x, grid = torch.randn(30, 2, dtype=torch.float64), torch.linspace(0, 5, 4, dtype=torch.float64)
    among = pid.solve(pid.VelocityODE(swing), x, grid, "dopri5", rtol=1e-6, atol=1e-6)
    alone = pid.solve(pid.VelocityODE(swing), x[7:8], grid, "dopri5", rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(among[:, 7:8], alone, rtol=1e-14, atol=1e-14)
    # Images and labels stay with their rows.
    ode = pid.VelocityODE(lambda x, t, labels: -labels.double()[:, None, None, None] * x)
    image, labels = torch.randn(30, 1, 2, 2, dtype=torch.float64), torch.arange(30) % 3
    end = pid.solve(ode, image, [0.0, 4.0], "dopri5", labels)[-1]
    exact = image * (-4.0 * labels).double().exp()[:, None, None, None]
    torch.testing.assert_close(end, exact, rtol=1e-6, atol=1e-9)


def test_dopri5_crosses_jumps() -> None:
    """Dry friction, x'' = -x - sign(x) / 2: between two crossings the path is a circle about -sign(x) / 2."""
    calls = 0

    def f(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return torch.stack([x[:, 1], -x[:, 0] - 0.5 * x[:, 0].sign()], 1)

    start = torch.linspace(0.5, 2.0, 200, dtype=torch.float64)
    x = torch.stack([start, torch.zeros_like(start)], 1)
    path = pid.solve(pid.VelocityODE(f), x, [0.0, 10.0], "dopri5", rtol=1e-8, atol=1e-8)[-1]
    # The quarter of a swing from rest at a: cos(q) = 0.5 / (a + 0.5). There and back, the amplitude stays a.
    quarter = torch.arccos(0.5 / (start + 0.5))
    share = (10.0 / quarter) % 4
    left = torch.minimum(share % 2, 2 - share % 2) * quarter  # time from the last rest, or to the next one
    exact = ((start + 0.5) * left.cos() - 0.5) * torch.where((share > 1) & (share < 3), -1.0, 1.0)
    assert (path[:, 0] - exact).abs().max() < 1e-4
    assert calls < 5000


def test_dopri5_slides_along_jumps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dry friction, x'' = -x - sign(x') / 2: half circles about -/+ 1/2 between rests, and rest for |x| <= 1/2."""
    monkeypatch.setattr(adaptive, "SLIDING_STEPS", 400)
    field = pid.VelocityODE(lambda x, t: torch.stack([x[:, 1], -x[:, 0] - 0.5 * x[:, 1].sign()], 1))
    start = torch.tensor([0.2, -0.4, 0.8, 1.3, -1.8, 2.1], dtype=torch.float64)
    with pytest.warns(
        UserWarning, match=r"paths slide along the jump.* in steps of 0\.02, with an error of about 0\.0"
    ):
        end = pid.solve(field, torch.stack([start, 0 * start], 1), [0.0, 8.0], "dopri5", rtol=1e-8, atol=1e-8)[-1]
    # Each half circle takes pi, and the next rest is on the other side, nearer by 1: 2.1, -1.1, 0.1.
    rest = torch.tensor([0.2, -0.4, 0.2, -0.3, 0.2, 0.1], dtype=torch.float64)
    assert (end[:, 0] - rest).abs().max() < 0.04  # twice a step
    assert end[:, 1].abs().max() < 0.02


def test_a_slide_is_named_by_where_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """x' = (1 - t) sign(x), backwards from 1.5 and 0.1, stays at 0 from t = -1 and -0.0954 on, while the jump grows."""
    monkeypatch.setattr(adaptive, "SLIDING_STEPS", 60)
    monkeypatch.setattr(adaptive, "MAX_STEPS", 600)
    field = pid.VelocityODE(lambda x, t: (1 - t)[:, None] * x.sign())
    start = torch.tensor([[1.5], [0.1]], dtype=torch.float64)
    with pytest.warns(UserWarning, match="the vector field jumps") as told:
        pid.solve(field, start, [0.0, -2.0], "dopri5", rtol=1e-7, atol=1e-7)
    found = re.search(r"at t = (\S+), .* about ([\d.]+);", str(told[0].message))
    assert found is not None
    assert float(found[1]) == pytest.approx(1 - 1.2**0.5, abs=0.03)  # a step of 2 / 60
    assert float(found[2]) == pytest.approx(2 / 60 * 2 * 3, rel=0.1)  # the jump from 3 to -3, at the end


def test_stiff_fields_do_not_slide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their steps are as short, but they are solved to the tolerance, or refused as before."""
    stiff = pid.VelocityODE(lambda x, t: -3e3 * (x - t.cos()[:, None]))
    x = torch.tensor([[1.0], [0.3]], dtype=torch.float64)
    monkeypatch.setattr(adaptive, "SLIDING_STEPS", 100)
    end = pid.solve(stiff, x, [0.0, 1.0], "dopri5", rtol=1e-6, atol=1e-6)[-1]
    exact = (9e6 * math.cos(1) + 3e3 * math.sin(1)) / (9e6 + 1)  # of x = A cos t + B sin t
    assert (end - exact).abs().max() < 1e-5


@pytest.mark.parametrize("tolerance", [3e-6, 1e-5, 2e-5, 4e-5])
def test_no_slide_is_between_too_short_and_too_long(monkeypatch: pytest.MonkeyPatch, tolerance: float) -> None:
    """Steps at the tolerance are about as long, in every slide, and one that MAX_STEPS of them would not end is taken
    in longer ones: x' = cos(3 t) / 2 - sign(x) stays at 0."""
    monkeypatch.setattr(adaptive, "SLIDING_STEPS", 60)
    monkeypatch.setattr(adaptive, "MAX_STEPS", 600)  # of the same ratio as in earnest
    field = pid.VelocityODE(lambda x, t: 0.5 * torch.cos(3 * t)[:, None] - x.sign())
    start = torch.tensor([[0.013], [-0.007]], dtype=torch.float64)
    with pytest.warns(UserWarning, match=r"the vector field jumps .* in steps of 0\.0"):
        end = pid.solve(field, start, [0.0, 0.3], "dopri5", rtol=1e-12, atol=tolerance / 3)[-1]
    assert end.abs().max() < 0.3 / 60  # a step


def test_a_relaxation_oscillation_does_not_jump(monkeypatch: pytest.MonkeyPatch) -> None:
    """Van der Pol's equation with mu = 50 is smooth, but switches fast: its steps are short there."""
    monkeypatch.setattr(adaptive, "SLIDING_STEPS", 60)
    monkeypatch.setattr(adaptive, "MAX_STEPS", 600)
    field = pid.VelocityODE(lambda x, t: torch.stack([x[:, 1], 50 * (1 - x[:, 0] ** 2) * x[:, 1] - x[:, 0]], 1))
    start = torch.tensor([[1.01, -1.0]], dtype=torch.float64)
    end = pid.solve(field, start, [0.0, 2.0], "dopri5", rtol=1e-8, atol=1e-8)[-1]  # a warning is an error
    assert end[0].tolist() == pytest.approx([-1.9842, 0.0135], abs=1e-4)  # SciPy's Radau


def test_times_may_rise_and_reach_zero() -> None:
    grid = torch.linspace(0, 2, 200).double()
    x = torch.ones(1, 1).double()
    path = pid.solve(pid.VelocityODE(lambda x, t: -x), x, grid, "heun")
    assert (path[:, 0, 0] - (-grid).exp()).abs().max() < 1e-4
    # EDM's last step goes to t = 0 itself.
    to_zero = torch.cat([pid.karras_grid(18), torch.zeros(1).double()])
    assert pid.solve(pid.DenoiserODE(SMOOTH), 80 * torch.randn(3, 2).double(), to_zero, "heun").isfinite().all()


@pytest.mark.parametrize(
    ("method", "algorithm"),
    [("dpm++", {"algorithm_type": "dpmsolver++"}), ("euler", {"solver_order": 1, "algorithm_type": "dpmsolver++"})],
)
def test_against_diffusers(method: str, algorithm: dict) -> None:
    from diffusers import EDMDPMSolverMultistepScheduler

    mixture, n = pid.toy("ring"), 20
    scheduler = EDMDPMSolverMultistepScheduler(
        sigma_min=0.002,
        sigma_max=80.0,
        sigma_data=0.5,
        final_sigmas_type="sigma_min",
        lower_order_final=False,
        **algorithm,
    )
    scheduler.set_timesteps(n)
    sigmas = scheduler.sigmas[:n].double()
    x = start = 80 * torch.randn(6, 2, dtype=torch.float64)
    for i, t in enumerate(scheduler.timesteps[:-1]):
        # The scheduler expects a network's raw F and undoes EDM's preconditioning itself.
        s = sigmas[i]
        c_skip, c_out = 0.25 / (s**2 + 0.25), s * 0.5 / (s**2 + 0.25).sqrt()
        raw = (mixture.denoise(x, s) - c_skip * x) / c_out
        x = scheduler.step(raw, t, x).prev_sample
    ours = pid.solve(pid.DenoiserODE(mixture), start, sigmas, method)[-1]
    torch.testing.assert_close(ours, x.double(), rtol=1e-4, atol=1e-4)


def test_a_new_solver_is_one_class() -> None:
    class Midpoint:
        nfe = 2

        def step(self, f, x, t, t_next):
            middle = (t + t_next) / 2
            return x + (t_next - t) * f(x + (middle - t) * f(x, t), middle)

    grid = pid.linear_grid(50, 0.0, 1.0)
    path = pid.solve(pid.VelocityODE(lambda x, t: x), torch.ones(1, 1).double(), grid, Midpoint)
    assert path[-1].item() == pytest.approx(np.exp(-1), rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"method": "rk45"}, "method must be one of"),
        ({"grid": torch.tensor([1.0])}, "N >= 2"),
        ({"grid": torch.tensor([1.0, 2.0, 1.5])}, "monotone"),
        ({"x": torch.ones(0, 2)}, "B >= 1"),
        ({"x": torch.ones(2, 2, dtype=torch.int64)}, "floating"),
        ({"method": "dpm", "grid": torch.tensor([1.0, 0.0])}, "positive"),
        ({"method": "euler", "rtol": 1e-3}, "take options"),
        ({"x": [[1.0, 2.0]]}, "got list for"),
        ({"x": torch.ones(2, 2, device="meta")}, "x is on the meta device"),
        ({"method": "scipy", "rtol": -1.0}, "tolerances are positive"),
        ({"method": "dopri5", "atol": torch.ones(3)}, "tolerances are positive"),
        ({"method": "dopri5", "integrator": "Radau"}, "unknown options .'integrator'."),
        ({"x": torch.tensor([[1.0, np.nan]])}, "x holds NaN"),
        ({"x": torch.tensor([[1.0, np.nan]]), "method": "scipy"}, "x holds NaN"),
        ({"class_labels": torch.tensor([1])}, r"class_labels must be an int64 tensor of shape \(2,\)"),
        ({"class_labels": [0, 1]}, "got list for"),
        ({"x": torch.ones(2, 3)}, r"x must be \(B, 2\)"),
    ],
)
def test_bad_input(changes: dict, says: str) -> None:
    arguments = {"ode": pid.DenoiserODE(SMOOTH), "x": torch.ones(2, 2), "grid": pid.karras_grid(5), **changes}
    with pytest.raises(ValueError, match=says):
        pid.solve(**arguments)


@pytest.mark.parametrize("method", ["euler", "heun", "dpm", "dpm++", "dopri5", "scipy"])
def test_a_field_that_is_not_finite_ends_it(method: str) -> None:
    field = pid.VelocityODE(lambda x, t: x / torch.where(t > 1.0, 1.0, 0.0)[:, None])
    with pytest.raises(NotFiniteError, match=r"NaN or infinite (at t = (0\.9|1)|between t = [12])"):
        pid.solve(field, torch.ones(2, 2).double(), [3.0, 2.0, 1.0, 0.5, 0.2], method)


def test_a_field_that_ends_at_infinity_is_not_called_stiff() -> None:
    field = pid.VelocityODE(lambda x, t: torch.where(t < 1.0, 1.0, torch.inf)[:, None].expand_as(x).double())
    with pytest.raises(NotFiniteError, match=r"NaN or infinite at t = 1: check it there"):
        pid.solve(field, torch.ones(2, 1).double(), [0.0, 3.0], "dopri5")


def test_steps_that_are_too_long_end_it_too() -> None:
    stiff, x = pid.VelocityODE(lambda x, t: -1e3 * x), torch.ones(1, 1)
    with pytest.raises(NotFiniteError, match="too long"):
        pid.solve(stiff, x, pid.linear_grid(60, 0.0, 60.0).flip(0))
    assert pid.solve(stiff, x, [0.0, 60.0], "scipy", integrator="Radau")[-1].abs() < 1e-3


def test_walk_is_the_path_point_by_point() -> None:
    ode, x, grid = pid.DenoiserODE(SMOOTH), torch.randn(5, 2), pid.karras_grid(7)
    points = list(walk(ode, x, grid, "heun"))
    assert torch.equal(torch.stack(points), pid.solve(ode, x, grid.tolist(), "heun"))
    assert not points[-1].requires_grad
    with pytest.raises(ValueError, match="method must be one of"):
        next(walk(ode, x, grid, "scipy"))


def test_a_reference_that_gets_nowhere_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solvers, "MAX_CALLS", 3000)
    stiff = pid.VelocityODE(lambda x, t: -1e6 * (x - t.cos()[:, None]))
    with pytest.raises(ValueError, match=r"called the vector field 3000 times .* stiff"):
        pid.solve(stiff, torch.ones(1, 1).double(), [0.0, 5.0], "scipy")
    pid.solve(stiff, torch.ones(1, 1).double(), [0.0, 5.0], "scipy", integrator="Radau")


def test_implicit_integrators_factorize_chunks_of_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solvers, "MAX_IMPLICIT", 21)  # 10 starts of 2 numbers, then 5
    calls = []

    def stiff(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        calls.append(len(x))
        return torch.stack([-50 * (x[:, 0] - t.cos()), x[:, 0] - x[:, 1]], 1)

    x, grid = torch.randn(15, 2, generator=torch.Generator().manual_seed(0)).double(), [0.0, 1.0, 2.0]
    path = pid.solve(pid.VelocityODE(stiff), x, grid, "scipy", integrator="Radau", rtol=1e-9, atol=1e-9)
    assert set(calls) - {1} == {10, 5}  # one start is tried for jumps
    expected = pid.solve(pid.VelocityODE(stiff), x, grid, "scipy", rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(path, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("method", [None, SOLVERS["heun"]()])
def test_what_is_no_method(method: object) -> None:
    with pytest.raises(ValueError, match="method must be one of"):
        pid.solve(pid.DenoiserODE(SMOOTH), torch.ones(2, 2), pid.karras_grid(5), method)
