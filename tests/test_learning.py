"""The promised accuracy of the default recipes, trained in full: `make slow`, more than an hour of one core."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch

import pidlearn as pid
from pidlearn import data
from pidlearn.equations.from_teacher import problem_from_teacher
from pidlearn.evaluation import metrics

pytestmark = pytest.mark.slow


@cache
def solved(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise and the ends of Euler-250: many, since few samples, between two modes, make most of the smallest errors."""
    problem = problem_from_teacher(pid.toy(name))
    z = problem.sample_prior(40_960, torch.Generator().manual_seed(1))
    return z, problem.reference_samples(z, pid.karras_grid())


def one_step_error(name: str, seed: int) -> tuple[float, float]:
    """RMSE to Euler-250 and wrong-mode share on 8,192 fresh noises, the reference in float64."""
    mixture = pid.toy(name)
    student = pid.distill(mixture, seed=seed, progress=False).student
    z = 80 * torch.randn(8192, 2, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    target = pid.solve(pid.DenoiserODE(mixture), z, pid.karras_grid())[-1]
    with torch.no_grad():
        ours = student(z.float(), 0.002).double()
    return metrics.rmse(ours, target), metrics.wrong_mode_share(ours, target, mixture)


@pytest.mark.parametrize("name", ["ring", "checkerboard"])
def test_two_dimensions(name: str) -> None:
    errors, wrong = zip(*(one_step_error(name, seed) for seed in (0, 1, 2)), strict=True)
    assert sum(errors) / 3 <= 0.016
    assert max(errors) <= 0.018
    assert max(wrong) <= 0.006


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("settings", "on_ring", "on_checkerboard"),
    [
        ({"method": "endpoint", "pairs": 32768}, 0.004, 0.008),
        ({"method": "pid"}, 0.0075, 0.0125),
        ({"method": "flow_map", "identity": "lagrangian"}, 0.012, 0.022),
        ({"method": "flow_map", "identity": "lagrangian", "points": "data"}, 0.012, 0.022),
        ({"method": "reflow", "pairs": 32768}, 0.009, 0.010),
        ({"method": "boot"}, 0.028, 0.040),
        ({"method": "pd"}, 0.018, 0.035),
        ({"method": "cd"}, 0.045, 0.070),
        ({"method": "ct"}, 0.08, 0.10),
        ({"method": "flow_map", "identity": "eulerian", "points": "data"}, 0.05, 0.08),
        ({"method": "flow_map", "identity": "meanflow", "points": "data", "steps": 1300}, 0.05, 0.08),
        ({"method": "flow_map", "identity": "semigroup", "points": "data"}, 0.06, 0.06),
        ({"method": "scm", "steps": 1300}, 0.06, 0.06),
        ({"method": "dsno", "pairs": 32768, "steps": 600}, 0.04, 0.04),
    ],
    ids=lambda value: "-".join(str(v) for v in value.values()) if isinstance(value, dict) else "",
)
def test_one_call_of_each_method(settings: dict[str, Any], on_ring: float, on_checkerboard: float, seed: int) -> None:
    settings = {"steps": 2000, **settings}  # fewer where a step is dear: each run takes half a minute of a core
    for name, bound in (("ring", on_ring), ("checkerboard", on_checkerboard)):
        result = pid.distill(pid.toy(name), seed=seed, progress=False, **settings)
        z, ends = solved(name)
        assert metrics.rmse(result.generate(z), ends) <= bound


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", ["ring", "checkerboard"])
def test_a_corrector_halves_the_error_of_a_coarse_grid(name: str, seed: int) -> None:
    settings = {"n": 10, "seed": seed, "progress": False}
    coarse = pid.distill(pid.toy(name), steps=2000, **settings)
    corrected = pid.distill(pid.toy(name), method="corrector", share=0.3, slow=0.01, steps=2500, **settings)
    # `evaluate` would compare the first with Euler-10.
    z, others = (coarse.problem.sample_prior(8192, torch.Generator().manual_seed(seed)) for seed in (7, 8))
    fine, others = (coarse.problem.reference_samples(noise, pid.karras_grid()) for noise in (z, others))
    before, after = coarse.generate(z), corrected.generate(z)
    assert metrics.rmse(after, fine) <= metrics.rmse(before, fine) / 2
    assert metrics.energy_distance(after, others) <= metrics.energy_distance(before, others) / 10


@pytest.mark.parametrize("name", ["ring", "checkerboard"])
@pytest.mark.parametrize("points", ["own", "data"])
def test_a_flow_map_gains_from_four_calls(name: str, points: str) -> None:
    settings = {"identity": "lagrangian", "points": points, "at_end": 0.1, "steps": 2000, "progress": False}
    ratios = []
    for seed in (0, 1, 2):
        result = pid.distill(pid.toy(name), method="flow_map", seed=seed, **settings)
        one, four = (result.evaluate(8192, calls=calls)["rmse"] for calls in (1, 4))
        assert one <= (0.012 if name == "ring" else 0.022)
        ratios.append(four / one)
    assert sum(ratios) / 3 <= 0.7


@pytest.mark.parametrize("name", ["ring", "checkerboard"])
def test_a_rectified_flow_gains_from_four_calls(name: str) -> None:
    settings = {"method": "reflow", "pairs": 32768, "steps": 2000, "progress": False}
    z, ends = solved(name)
    for seed in (0, 1, 2):
        result = pid.distill(pid.toy(name), seed=seed, **settings)
        one, four = (metrics.rmse(result.generate(z, calls=calls), ends) for calls in (1, 4))
        assert four < one


@pytest.mark.parametrize(
    ("name", "bound"), [("pendulum", 0.02), ("lotka_volterra", 0.02), ("van_der_pol", 0.02), ("lorenz", 0.1)]
)
def test_zoo_of_odes(name: str, bound: float) -> None:
    assert pid.distill(pid.system(name), progress=False).evaluate(256)["relative_rmse"] <= bound


def test_an_ode_of_ones_own() -> None:
    def fitzhugh_nagumo(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        v, w = x.unbind(1)
        return torch.stack([v - v**3 / 3 - w + 0.5, 0.08 * (v + 0.7 - 0.8 * w)], 1)

    def prior(n: int, generator: torch.Generator | None = None) -> torch.Tensor:
        return torch.tensor([4.0, 2.0]) * torch.rand(n, 2, generator=generator) - torch.tensor([2.0, 0.5])

    result = pid.distill(pid.VelocityODE(fitzhugh_nagumo), prior=prior, t_start=0.0, t_end=20.0, progress=False)
    assert result.evaluate(256)["relative_rmse"] <= 0.05


def test_a_fast_ode_of_ones_own() -> None:
    """Sixteen turns, which the mesh of the pendulum would not follow."""

    def turn(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return 10 * torch.stack([x[:, 1], -x[:, 0]], 1)

    def prior(n: int, generator: torch.Generator | None = None) -> torch.Tensor:
        return 2 * torch.rand(n, 2, generator=generator) - 1

    result = pid.distill(pid.VelocityODE(turn), prior=prior, t_start=0.0, t_end=10.0, progress=False)
    assert result.evaluate(256)["relative_rmse"] <= 0.05


def test_digits() -> None:
    images, labels = data.digits()
    result = pid.distill(pid.train_denoiser(images[:1500], progress=False), seed=1, progress=False)
    z = result.problem.sample_prior(2000, torch.Generator().manual_seed(5))
    ours = result.generate(z)
    theirs = result.problem.reference_samples(z, pid.karras_grid())
    from sklearn.linear_model import LogisticRegression  # which takes two seconds

    judge = LogisticRegression(max_iter=2000).fit(images.flatten(1), labels)
    assert metrics.relative_rmse(ours, theirs) <= 0.19
    assert metrics.agreement(ours, theirs, lambda x: torch.tensor(judge.decision_function(x.flatten(1)))) >= 0.90


@cache
def digits_teacher() -> tuple[torch.Tensor, Any]:
    """Digits, and an MLP trained on them."""
    images = data.digits()[0][:1500]
    return images, pid.train_denoiser(images, progress=False)


@pytest.mark.parametrize(
    "settings",
    [
        *({"method": name} for name in ("boot", "freeflow", "cd", "ct", "scm", "pd")),
        *({"method": name, "pairs": 8192} for name in ("endpoint", "reflow")),
        *(
            {"method": "flow_map", "identity": name, "points": "data"}
            for name in ("lagrangian", "eulerian", "meanflow")
        ),
    ],
    ids=lambda settings: str(settings.get("identity", settings["method"])),
)
def test_each_method_learns_images_with_its_own_settings(settings: dict[str, Any]) -> None:
    images, teacher = digits_teacher()
    needs = {"data": images} if "data" in settings.values() or settings["method"] in ("cd", "ct", "scm", "pd") else {}
    result = pid.distill(teacher, steps=1500, batch_size=64, progress=False, **settings, **needs)
    z = result.problem.sample_prior(1000, torch.Generator().manual_seed(5))
    theirs = result.problem.reference_samples(z, pid.karras_grid())
    assert metrics.relative_rmse(result.generate(z), theirs) <= 0.7
