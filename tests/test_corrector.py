"""The corrector: the direction in which it moves samples, its second network, and its place after another method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import pidlearn as pid
from pidlearn import recipes
from pidlearn.methods import METHODS, PD, Corrector
from pidlearn.methods.corrector import corrector_loss, denoising_loss
from tests.counting import Counting
from tests.tiny import teacher as image_teacher

TEACHER, STUDENT = (pid.GaussianMixture([[mean, 0.0]], 0.3**2) for mean in (0.0, 0.2))
"""Densities of which the student's is the teacher's, shifted."""


def brief(**options: Any) -> pid.Result:
    return pid.distill(pid.toy("ring"), **{"method": "corrector", "batch_size": 8, "progress": False, **options})


def test_samples_move_along_the_difference_of_the_scores() -> None:
    x = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    y, t = x.detach() + 0.5 * torch.randn(6, 2, dtype=torch.float64), torch.full((6,), 0.5, dtype=torch.float64)
    difference = STUDENT(y, t) - TEACHER(y, t)
    corrector_loss(x, difference, pid.l2).sum().backward()
    # Mean of two squares: the gradient is the difference itself, and a step against it is t^2 times that of the scores.
    scores = [(density(y, t) - y) / 0.5**2 for density in (TEACHER, STUDENT)]
    torch.testing.assert_close(-x.grad, 0.5**2 * (scores[0] - scores[1]), rtol=1e-10, atol=1e-12)
    # Of two Gaussians that are the same but for a shift, it is that shift, s^2 / (s^2 + t^2) of it at noise t.
    shrunk = t**2 / (0.3**2 + t**2)
    torch.testing.assert_close(-x.grad[:, 0], -0.2 * shrunk, rtol=1e-10, atol=1e-12)


def test_a_student_with_the_teachers_density_is_left_alone() -> None:
    x = torch.randn(6, 2, requires_grad=True)
    loss = corrector_loss(x, torch.zeros(6, 2), pid.pseudo_huber)
    loss.sum().backward()
    assert loss.abs().max() == 0
    assert x.grad.abs().max() == 0


def test_the_second_network_is_fitted_where_it_denoises_the_students_samples() -> None:
    generator = torch.Generator().manual_seed(0)
    x = STUDENT.sample(20000, generator).double()
    t = torch.full((20000,), 0.4, dtype=torch.float64)
    y = x + 0.4 * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    D, exact = TEACHER(y, t), STUDENT(y, t)
    shift = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    denoising_loss(exact + shift - D, D, x, torch.ones_like(t)).mean().backward()
    assert shift.grad.abs().max() < 0.01  # of Monte Carlo; 0.2 for the teacher's own denoiser, which is off by 0.1
    other = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    denoising_loss(other + 0 * D, D, x, torch.ones_like(t)).mean().backward()
    assert other.grad[0] < -0.1


def test_rates_of_its_stages() -> None:
    run = pid.steps(pid.toy("ring"), method="corrector", steps=10, share=0.5, slow=0.01, lr=1e-3, constant=True)
    rates = []
    for _ in run:
        rates.append([group["lr"] for group in run.trainer.optimizer.param_groups])
    assert rates[4] == pytest.approx([1e-3, 5e-3])  # of Adam's weights, and of Muon's matrices
    assert rates[9] == pytest.approx([1e-5, 5e-5, 1e-3, 5e-3])


def test_it_follows_any_method() -> None:
    brief_settings: dict[str, Any] = {
        "pd": METHODS["pd"](calls=2),
        **{name: METHODS[name](pairs=20) for name in ("endpoint", "reflow", "dsno")},
    }
    for name in METHODS.keys() - {"corrector"}:
        result = brief(first=brief_settings.get(name, name), steps=4, share=0.5)
        assert result.sample(3).isfinite().all(), name


@pytest.mark.parametrize("stop", [2, 4, 6])
def test_a_first_method_with_state_is_resumed(stop: int, tmp_path: Path) -> None:
    """Stopped in its own stage, at the border, and in the corrector's."""
    options = {"first": Counting(), "steps": 8, "share": 0.5, "ema": (0.9,)}
    whole = brief(**options)
    brief(**options, checkpoints=tmp_path, callbacks=[lambda step: step.number == stop])
    resumed = brief(**options, checkpoints=tmp_path)
    weights = (result.student.state_dict().values() for result in (whole, resumed))
    assert all(torch.equal(one, two) for one, two in zip(*weights, strict=True))


def test_the_first_method_has_its_own_settings() -> None:
    run = pid.steps(pid.toy("ring"), method="corrector", first=METHODS["pid"](derivative="central"), steps=4)
    assert run.trainer.method.before.derivative == "central"
    assert run.trainer.method.before.stop_gradient is True


def test_settings_of_the_first_method_are_set_beside_its_own(tmp_path: Path) -> None:
    run = pid.steps(pid.toy("ring"), method="corrector", first="pd", calls=4, share=0.5, steps=20)
    assert run.config.method == Corrector(first=PD(calls=4), share=0.5)
    assert run.student.numbers == [4, 2, 1]
    assert pid.steps(pid.toy("ring"), config=run.config, calls=2).student.numbers == [2, 1]
    exact = pid.steps(pid.toy("ring"), method="corrector", derivative="exact", steps=4)
    assert exact.trainer.method.before.derivative == "exact"
    path = tmp_path / "own.toml"
    own = 'method = "corrector"\nfirst = "flow_map"\npoints = "data"\nslow = 0.01\n'
    path.write_text(f'teacher = "edm-cifar10-uncond-vp"\n[config]\n{own}')
    assert recipes.read(path).config.method == Corrector(METHODS["flow_map"](points="data"), slow=0.01)
    with pytest.raises(ValueError, match=r"unknown setting call \(did you mean calls\?\).*Corrector \(first, .*calls"):
        brief(first="pd", call=4)
    with pytest.raises(ValueError, match="unknown setting calls"):
        brief(calls=4)
    with pytest.raises(ValueError, match="got calls = 3, but calls must be a power of 2"):
        brief(first=PD(calls=3))


@pytest.mark.parametrize("first", ["pid", "boot", "pd", PD(calls=2), METHODS["pid"](derivative="central"), "flow_map"])
def test_files_hold_the_settings_of_the_first_method(first: Any, tmp_path: Path) -> None:
    result = brief(first=first, steps=12, share=0.9)
    loaded = pid.load(result.save(tmp_path / "student"), pid.toy("ring"))
    assert loaded.config == result.config
    assert loaded.config.method == Corrector(first, 0.9)


def test_a_run_is_resumed_with_the_same_settings_of_the_first_method_only(tmp_path: Path) -> None:
    options: dict[str, Any] = {"first": "pd", "steps": 8, "share": 0.5, "checkpoints": tmp_path}
    brief(**options, calls=2, callbacks=[lambda step: step.number == 6])
    numbers: list[int] = []
    brief(**options, calls=2, callbacks=[lambda step: numbers.append(step.number)])
    assert numbers == [7, 8]
    with pytest.raises(ValueError, match=r"other settings.*method"):
        brief(**options, calls=2, teacher_steps=4)


def test_a_trained_student_is_corrected_without_the_data_of_its_method() -> None:
    teacher, options = (lambda x, sigma, labels=None: 0.2 * x), {"event_shape": (2,), "progress": False, "steps": 2}
    trained = pid.distill(teacher, method="cd", data=torch.randn(32, 2), **options)
    alone = {"method": "corrector", "share": 0.0, **options}
    assert pid.distill(teacher, trained.student, **alone).stopped is None
    with pytest.raises(ValueError, match="weight"):  # of a stage that does not take place
        pid.distill(teacher, trained.student, weight="karras", **alone)
    elsewhere = pid.ConsistencyFunction(trained.student.network, 40.0)
    with pytest.raises(ValueError, match="starts at t_max = 40"):
        pid.distill(teacher, elsewhere, **alone)
    with pytest.raises(ValueError, match="got no data"):
        pid.distill(teacher, trained.student, method="corrector", first="cd", **options)


@pytest.mark.filterwarnings("ignore:the teacher states no standard deviation")
def test_the_second_network_is_the_teachers_at_first() -> None:
    run = pid.steps(image_teacher(), method="corrector", steps=2, share=0.0, batch_size=4, n=5)
    next(run)
    method, context = run.trainer.method, run.trainer.context
    fresh: Any = Corrector()
    fresh.stages(context, 10)
    y, t = torch.randn(2, 1, 8, 8), torch.tensor([0.3, 2.0])
    D = run.problem.ode.rhs(y, t)
    assert fresh._difference(y, t, D, None).abs().max() < 1e-6
    assert method._difference(y, t, D, None).abs().max() > 1e-5  # after one update


def test_it_corrects_a_student_of_another_density() -> None:
    options: dict[str, Any] = {"n": 9, "batch_size": 64, "progress": False}
    shifted = pid.distill(STUDENT, steps=150, **options)
    z = 80 * torch.randn(2000, 2)
    assert shifted.generate(z).mean(0)[0] == pytest.approx(0.2, abs=0.03)
    corrected = pid.distill(TEACHER, shifted.student, method="corrector", share=0.0, slow=0.05, steps=250, **options)
    after = corrected.generate(z)
    assert after.mean(0).abs().max() < 0.04
    assert (after.std(0) - 0.3).abs().max() < 0.04


def test_what_it_refuses() -> None:
    with pytest.raises(ValueError, match="got first = 'nothing', but first must be one of"):
        brief(first="nothing", steps=4)
    with pytest.raises(ValueError, match="but first must be one of"):
        brief(first="corrector", steps=4)


def test_the_fake_score_of_a_teacher_with_dropout_has_none() -> None:
    run: Any = pid.steps(image_teacher(dropout=0.5), method="corrector", share=0.5, steps=4, batch_size=4, n=9)
    assert not any(module.training for module in run.trainer.method.auxiliary.modules())
