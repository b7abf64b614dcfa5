"""Beyond one call: more calls help or are not taken, cost what they say, and errors are known before they are seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

import pidlearn as pid
from pidlearn.equations.diffusion import Diffusion
from pidlearn.equations.from_teacher import problem_from_teacher
from pidlearn.refinement import WithTeacher
from pidlearn.refinement.calibration import Calibrator
from pidlearn.refinement.certificate import size
from pidlearn.refinement.handover import Plan, carry, handover, handover_times
from pidlearn.refinement.times import fit
from tests import tiny


class Blurred(nn.Module):
    """A student x(z, t) of the Gaussian N(0, I): the exact path, with an error that grows towards the end."""

    def __init__(self, error: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(error))

    def forward(self, z: Tensor, t: Any, class_labels: Tensor | None = None) -> Tensor:
        t = torch.as_tensor(t, dtype=torch.float64)
        scale = ((1 + t**2) / (1 + 80.0**2)).sqrt() + self.weight / 80 / (1 + t)
        return scale.to(z).reshape(-1, *[1] * (z.ndim - 1)) * z


def gaussian() -> Any:
    return pid.GaussianMixture(torch.zeros(1, 2), 1.0, torch.ones(1))


def result_of(student: nn.Module) -> pid.Result:
    """The result of an untrained student of the Gaussian."""
    return pid.Result(student, {}, {"loss": np.zeros(0)}, pid.Config(), problem_from_teacher(gaussian()))


@pytest.fixture(scope="module", autouse=True)
def fewer_paths() -> Iterator[None]:
    """Measure students on a quarter of the usual paths, which takes a quarter of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pidlearn.refinement.calibration.SAMPLES", 8192)
        patch.setattr("pidlearn.refinement.calibration.CERTIFIED", 2048)
        yield


@pytest.fixture(scope="module")
def ring() -> pid.Result:
    """A short training: an error of about .02, more than half of it of the worst tenth."""
    return pid.distill(pid.toy("ring"), steps=400, seed=0, progress=False)


def fresh(result: pid.Result, n: int = 4096) -> tuple[Tensor, Tensor]:
    """Noise that nothing else has, and its exact samples."""
    problem: Any = result.problem
    z = problem.sample_prior(n, torch.Generator().manual_seed(77))
    return z, problem.exact_samples(z.double())


def error(x: Tensor, exact: Tensor) -> float:
    return size(x - exact).square().mean().sqrt().item()


@contextmanager
def counted(result: pid.Result) -> Iterator[Counter[str]]:
    """Count the samples that pass through the teacher and through the student's network."""
    calls: Counter[str] = Counter()
    ode: Any = result.problem.ode  # type: ignore[union-attr]  # a result of a training has its problem
    denoise = ode.denoise

    def counting(x: Tensor, *args: Any, **options: Any) -> Tensor:
        calls["teacher"] += len(x)
        out: Tensor = denoise(x, *args, **options)
        return out

    network: Any = result.student.network
    handle = network.register_forward_pre_hook(lambda module, args: calls.update(student=len(args[0])))
    ode.denoise = counting
    try:
        yield calls
    finally:
        del ode.denoise
        handle.remove()


@pytest.mark.parametrize("calls", [2, 3, 6, 9, 14, 20])
def test_more_calls_help(ring: pid.Result, calls: int) -> None:
    z, exact = fresh(ring)
    alone = error(ring.generate(z), exact)
    several = error(ring.generate(z, calls=calls), exact)
    assert several <= 1.02 * alone
    for solver, nfe in (("euler", 1), ("dpm++", 1), ("heun", 2), ("dpm", 2)):
        grid = pid.karras_grid(calls // nfe + 1)
        assert several <= error(pid.solve(ring.problem.ode, z, grid, solver)[-1], exact)  # type: ignore[union-attr]
    if calls >= 9:
        assert several < 0.7 * alone


@pytest.mark.parametrize("calls", [2, 5, 6])
@pytest.mark.parametrize(("t_star", "of_student"), [(0.5, 1), (80.0, 0)])
def test_calls_are_what_they_cost(ring: pid.Result, calls: int, t_star: float, of_student: int) -> None:
    problem: Any = ring.problem
    z, student = problem.sample_prior(8), ring.student
    plan = handover(problem, calls, t_star)
    with counted(ring) as passed:
        x = carry(plan, student, problem, z, None)  # type: ignore[arg-type]  # a Trajectory
    assert x.shape == z.shape
    assert (passed["student"], passed["teacher"]) == (8 * of_student, 8 * (calls - of_student))
    with counted(ring) as passed:
        carry(Plan([]), student, problem, z, None)  # type: ignore[arg-type]  # a Trajectory
    assert (passed["student"], passed["teacher"]) == (8, 0)


@pytest.mark.parametrize("calls", [2, 4, 9, 17])
def test_times_are_fitted(ring: pid.Result, calls: int) -> None:
    """From a poor start to a lower error, which the plan has on other noise, too, from within the span to its end."""
    problem: Any = ring.problem
    student: Any = ring.student
    z, exact = fresh(ring, 512)
    start = handover(problem, calls, 2.8 * problem.data_scale)
    half_square, plan = fit(start, problem, lambda plan: carry(plan, student, problem, z, None) - exact, 6)
    relative = (carry(plan, student, problem, z, None) - exact) / problem.data_scale
    assert half_square == pytest.approx(relative.square().sum().item() / 2, rel=1e-3)
    assert len(plan.times) == calls
    assert plan.times[-1] == problem.t_end
    assert plan.times[0] <= problem.t_start
    assert all(t > t_next for t, t_next in pairwise(plan.times))
    others = problem.sample_prior(4096, torch.Generator().manual_seed(78))
    exact = problem.exact_samples(others.double())
    after, before = (error(carry(p, student, problem, others, None), exact) for p in (plan, start))
    assert after < 0.8 * before


def test_plans_are_fitted_to_some_samples_and_chosen_and_judged_on_others(
    ring: pid.Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[tuple[int, ...], list[Plan]] = {}
    both: Any = ring._student()
    calibrator = Calibrator(both.student, both.problem)
    misses = calibrator._misses

    def watched(plan: Plan, rows: Tensor) -> Tensor:
        seen.setdefault(tuple(rows.tolist()), []).append(plan)
        return misses(plan, rows)

    monkeypatch.setattr(calibrator, "_misses", watched)
    plan = calibrator.plan(9)
    usual = [handover(both.problem, 9, t) for t in (*handover_times(both.problem), 80.0)]
    assert plan not in usual
    fitted, chosen, decided = sorted(seen, key=len)
    assert len({*fitted, *chosen, *decided}) == len(fitted + chosen + decided) == 512 + 1536 + 6144
    assert all(plan in seen[chosen] for plan in (*usual, plan))
    assert plan in seen[decided]
    assert len(seen[decided]) == 3


def test_a_plan_that_is_better_by_chance_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some plan may be better on the samples that choose it; on those that decide, none is."""
    result = result_of(Blurred(0.3))
    both: Any = result._student()
    calibrator = Calibrator(both.student, both.problem)
    misses = calibrator._misses

    def lucky(plan: Plan, rows: Tensor) -> Tensor:
        decides = len(rows) == 6144
        return 2 * (calibrator.own - calibrator.exact)[rows] if decides else misses(plan, rows)

    assert calibrator.plan(9).times
    monkeypatch.setattr(calibrator, "_misses", lucky)
    assert not calibrator.plan(9).times


def test_a_fit_ends_within_the_span() -> None:
    """A student that is right at the prior only: the earlier the teacher takes over, the better."""
    result = result_of(Blurred(0.0))
    problem: Any = replace(result.problem, t_start=3.0)  # type: ignore[type-var]  # a problem
    z = problem.sample_prior(256)
    exact = problem.exact_samples(z.double())

    def misses(plan: Plan) -> Tensor:
        wrong = plan.times[0] < 3.0
        return pid.solve(problem.ode, z.double() * (1 + wrong), plan.times, "dpm++")[-1] - exact

    _, plan = fit(handover(problem, 6, 2.9), problem, misses, 10)
    assert 0.002 < plan.times[-2] < plan.times[0] == 3.0  # where the student has no part


def test_exact_samples_are_far_nearer_than_eulers(ring: pid.Result) -> None:
    problem: Any = ring.problem
    z = problem.sample_prior(64).double()
    exact = pid.solve(problem.ode, z, [80.0, 0.002], "dopri5", rtol=1e-9, atol=1e-9)[-1]
    euler = pid.solve(problem.ode, z, pid.karras_grid(251))[-1]
    assert error(problem.exact_samples(z), exact) < 0.1 * error(euler, exact)


def test_a_handover_is_the_students_state_followed_by_the_solver(ring: pid.Result) -> None:
    problem: Any = ring.problem
    z = problem.sample_prior(8)
    student: Any = ring.student
    grid = pid.karras_grid(6, problem.t_end, 0.5, 3.0)
    x = carry(Plan(grid.tolist()), student, problem, z, None)
    with torch.no_grad():
        state = student(z, 0.5)
    by_hand = pid.solve(problem.ode, state, grid, "dpm++")
    torch.testing.assert_close(x, by_hand[-1])
    torch.testing.assert_close(pid.solve(problem.ode, z, grid, "dpm++", start=student), by_hand)


def test_a_student_without_error_is_left_alone() -> None:
    result = result_of(Blurred(0.0))
    z, exact = fresh(result, 512)
    assert error(result.generate(z, calls=9), exact) < 1e-4  # of what is taken for exact


def test_an_error_of_the_whole_path_is_removed() -> None:
    result = result_of(Blurred(0.3))
    z, exact = fresh(result, 512)
    errors = [error(result.generate(z, calls=k), exact) for k in (1, 3, 5, 9, 13)]
    assert errors[0] == pytest.approx(0.3, rel=0.1)
    assert max(errors[1:]) < 0.3 * errors[0]
    assert errors[-1] < 0.2 * errors[0]


def test_a_student_of_the_end_alone_hands_over_to_the_teacher_or_not_at_all() -> None:
    """Trained at its end only, its states on the way are wrong."""
    result = pid.distill(pid.toy("ring"), method="endpoint", pairs=512, steps=150, n=20, seed=0, progress=False)
    z, exact = fresh(result, 2048)
    alone = error(result.generate(z), exact)
    for calls in (4, 30):
        assert error(result.generate(z, calls=calls), exact) <= 1.02 * alone


def test_the_estimate_knows_good_samples_from_bad_ones(ring: pid.Result) -> None:
    z, exact = fresh(ring)
    true = size(ring.generate(z) - exact)
    ranks = {calls: spearmanr(ring.error_estimate(z, calls=calls), true)[0] for calls in (1, 2, 3, 12)}
    assert ranks[1] > 0.2
    assert ranks[12] > max(0.7, ranks[3])
    for calls in ranks:
        within = (true <= 2 * ring.error_estimate(z, calls=calls)).double().mean().item()
        assert 0.87 < within < 0.94


def test_estimates_do_not_depend_on_the_batch(ring: pid.Result) -> None:
    z, _ = fresh(ring, 16)
    together = ring.error_estimate(z, calls=6)
    assert together.shape == (16,)
    torch.testing.assert_close(ring.error_estimate(z[3:5], calls=6), together[3:5], rtol=1e-3, atol=0)


@pytest.mark.parametrize(("calls", "spent"), [(1, (2, 0)), (2, (3, 0)), (3, (3, 1)), (4, (3, 1)), (9, (4, 6))])
def test_an_estimate_costs_its_calls(ring: pid.Result, calls: int, spent: tuple[int, int]) -> None:
    z, _ = fresh(ring, 8)
    ring.error_estimate(z, calls=calls)  # which measures the student, if nothing has
    with counted(ring) as passed:
        ring.error_estimate(z, calls=calls)
    assert (passed["student"], passed["teacher"]) == (8 * spent[0], 8 * spent[1])  # with the sample itself
    assert sum(spent) <= calls + 1


def test_calls_for_the_worst_samples_only(ring: pid.Result) -> None:
    z, exact = fresh(ring)
    alone, refined = ring.generate(z), ring.generate(z, calls=10, refine=0.1)
    changed = (refined != alone).any(1)
    assert changed.sum() <= 410  # ceil(.1 * 4096)
    assert error(refined, exact) < 0.85 * error(alone, exact)
    assert torch.equal(ring.generate(z, calls=10, refine=0.0), alone)
    with counted(ring) as spent:
        ring.generate(z, calls=10, refine=0.1)
    assert spent.total() <= 3.001 * len(z)


@pytest.mark.parametrize("n", [1, 7, 39])
def test_a_small_batch_costs_no_more(ring: pid.Result, n: int) -> None:
    z, _ = fresh(ring, n)
    ring.generate(z, calls=10, refine=0.1)  # which measures the student, if nothing has
    with counted(ring) as spent:
        ring.generate(z, calls=10, refine=0.1)
    assert n <= spent.total() <= 3 * n


def test_refinement_that_does_not_pay_costs_nothing(ring: pid.Result, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Calibrator, "plan", lambda self, calls, *args: Plan([]))
    z, _ = fresh(ring, 64)
    ring.generate(z, calls=4, refine=0.29)  # which ranks the samples on which plans are measured
    with counted(ring) as spent:
        assert torch.equal(ring.generate(z, calls=4, refine=0.29), ring.generate(z))
    assert (spent["student"], spent["teacher"]) == (2 * 64, 0)
    del ring.student.calibration["4 calls of the worst 0.29"]  # type: ignore[union-attr, operator]  # a Student


def test_what_was_measured_is_kept_with_the_student(ring: pid.Result, tmp_path: Path) -> None:
    z, _ = fresh(ring, 8)
    several, estimate = ring.generate(z, calls=5), ring.error_estimate(z, calls=3)
    loaded = pid.load(ring.save(tmp_path / "ring.safetensors"), teacher=pid.toy("ring"))
    assert loaded.student.calibration == ring.student.calibration
    with counted(loaded) as spent:
        assert torch.equal(loaded.generate(z, calls=5), several)
        assert torch.equal(loaded.error_estimate(z, calls=3), estimate)
    assert spent["teacher"] == 8 * (4 + 1)  # nothing is measured anew
    student: Any = loaded.student
    pid.distill(pid.toy("ring"), student, steps=1, progress=False)
    assert student.calibration == {}


@pytest.mark.parametrize("how", ["distilled", "loaded"])
def test_what_was_measured_of_other_weights_is_forgotten(how: str) -> None:
    """Paths that were solved before are of no use, either: nine tenths of new samples are within twice the estimate."""
    result = pid.distill(pid.toy("ring"), steps=60, seed=0, progress=False)
    z, exact = fresh(result, 4096)
    before = result.error_estimate(z, calls=1)
    if how == "distilled":
        pid.distill(pid.toy("ring"), result.student, steps=600, seed=1, progress=False)
    else:
        better = pid.distill(pid.toy("ring"), steps=600, seed=1, progress=False).student
        result.student.load_state_dict(better.state_dict())
        assert result.student.calibration == {}
    after = result.error_estimate(z, calls=1)
    assert after.mean() < 0.7 * before.mean()
    true = size(result.generate(z) - exact)
    assert 0.86 < (true <= 2 * after).double().mean() < 0.94


def test_one_label_for_all_serves_the_worst_samples_too() -> None:
    teacher = tiny.teacher(label_dim=3)
    result = pid.distill(teacher, steps=2, batch_size=4, progress=False)
    both: Any = result._student()
    both._calibrator.noise = both.problem.sample_prior(4), both.problem.sample_labels(4)
    both.student.calibration["3 calls of the worst 0.5"] = asdict(Plan([1.0, 0.1, 0.002], share=0.5))
    z = both.problem.sample_prior(4)
    one, each = torch.tensor([1]), torch.tensor([1, 1, 1, 1])
    samples = [result.generate(z, labels, calls=3, refine=0.5) for labels in (one, each)]
    torch.testing.assert_close(*samples)
    assert not torch.equal(samples[0], result.generate(z, one))
    # Where the teacher does everything, too, classes have to be said.
    both.student.calibration["3 calls"] = asdict(Plan([both.problem.t_start, 0.002]))
    with pytest.raises(ValueError, match="got no class_labels, but this student was trained for 3 classes"):
        result.generate(z, calls=3)


def test_float64_students_are_measured_in_float64() -> None:
    result = pid.distill(pid.toy("ring"), steps=60, seed=0, progress=False)
    result.student.double()
    z, exact = fresh(result, 256)
    assert error(result.generate(z.double(), calls=20), exact) < error(result.generate(z.double()), exact)


def test_what_a_file_holds_otherwise_is_measured_anew() -> None:
    result = result_of(Blurred(0.3))
    both: Any = result._student()
    kept = both.student.calibration
    former = {"calls": 3, "t_star": 1.0, "solver": "heun", "rho": 7.0, "share": 1.0}
    bad_times = (
        [0.002, 0.5, 1.0],  # they rise
        [1.0, 1.0, 0.002],
        [1.0, 0.5, 0.1],  # not to the end
        [90.0, 0.5, 0.002],  # from above the prior
        [2.0, 1.0, 0.5, 0.002],  # more calls
        [1.0, "0.5", 0.002],
        1.0,
        None,
        "",
    )
    bad_plans = [{"times": times, "share": 1.0} for times in bad_times]
    bad_plans += [{"times": [1.0, 0.5, 0.002], "share": share} for share in (0.0, 0.5, 2.0, "1", None)]
    bad_plans += [{"times": [2.0, 1.0, 0.5, 0.2, 0.1, 0.002], "share": 0.5}]  # six calls, all of which all samples get
    for bad in (former, {"calls": 3}, "heun", *bad_plans):
        kept["3 calls"] = bad
        assert not both.has_plan(3)
    assert both.plan(3).times[0] > 0.002
    assert both.has_plan(3)
    kept["3 calls"] = {"times": [80.0, 1.0, 0.002], "share": 1.0}  # two calls, since the student has no part
    assert both.has_plan(3)
    kept["3 calls of the worst 0.5"] = {"times": [1.0, 0.1, 0.002], "share": 0.5}
    assert both.has_plan(3, 0.5)
    kept["3 calls of the worst 0.5"] = {"times": [1.0, 0.5, 0.2, 0.1, 0.05, 0.002], "share": 0.25}
    assert both.has_plan(3, 0.5)
    kept["3 calls of the worst 0.5"] = {"times": [1.0, 0.5, 0.2, 0.1, 0.05, 0.002], "share": 0.5}  # twice the calls
    assert not both.has_plan(3, 0.5)


@pytest.mark.parametrize(
    "bad",
    [
        {"calls": 4},
        {"calls": 3.0},
        {"t_star": 90.0},
        {"t_star": "1"},
        {"coefficients": [0.0] * 9},
        {"coefficients": 1.0},
        {"coefficients": [float("nan")] * 10},
        {"coefficients": [None] * 10},
        {"coefficients": [10**400] * 10},
        {"scale": -1.0},
        {"across": True},
        {"across": None},
        {"other": 0.0},
    ],
)
def test_an_estimate_that_a_file_holds_otherwise_is_measured_anew(ring: pid.Result, bad: dict[str, Any]) -> None:
    both: Any = ring._student()
    measured = both.certificate(3)
    both.student.calibration["error by 3 calls"] = asdict(measured) | bad
    anew = both.certificate(3)
    assert anew.coefficients == pytest.approx(measured.coefficients, rel=1e-6)
    assert (anew.calls, anew.t_star, anew.scale) == pytest.approx((3, measured.t_star, measured.scale), rel=1e-6)


def test_a_student_that_diverged_cannot_be_measured() -> None:
    result = result_of(Blurred(float("nan")))
    for measure in (lambda: result.sample(2, calls=3), lambda: result.error_estimate(torch.ones(2, 2))):
        with pytest.raises(ValueError, match="the student's samples hold NaN or infinity"):
            measure()


class Gap(Blurred):
    """Right, but not a number in the middle of its paths."""

    def forward(self, z: Tensor, t: Any, class_labels: Tensor | None = None) -> Tensor:
        x = super().forward(z, t)
        return torch.where((torch.as_tensor(t) - 2).abs().reshape(-1, *[1] * (z.ndim - 1)) < 1, torch.nan, x)


def test_a_student_that_is_not_finite_in_between_cannot_be_measured() -> None:
    result = result_of(Gap(0.3))
    assert result.sample(2).isfinite().all()
    with pytest.raises(ValueError, match=r"the student returned NaN or infinity at t = 1\.4"):
        result.sample(2, calls=3)


def test_a_fit_that_leaves_the_student_no_part_is_kept() -> None:
    """Right at the prior and wrong everywhere else, so that the teacher alone is best."""
    result = result_of(Blurred(400.0))
    plan = result._with_teacher().plan(9)
    assert (plan.times[0], len(plan.times)) == (80.0, 9)  # eight steps, where nine would have been possible
    assert result._with_teacher().has_plan(9)


def test_an_estimate_needs_few_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    result, solved = result_of(Blurred(0.3)), []
    exact_samples = Diffusion.exact_samples

    def counted(problem: Any, z: Tensor, labels: Tensor | None = None) -> Tensor:
        solved.append(len(z))
        return exact_samples(problem, z, labels)

    monkeypatch.setattr(Diffusion, "exact_samples", counted)
    result.error_estimate(torch.ones(2, 2), calls=3)
    assert sum(solved) == 2048
    result.generate(torch.ones(2, 2), calls=3)
    assert sum(solved) == 8192


class Spanned(Blurred):
    """The same with a span, which a file is compared with."""

    t_max, t_min = 80.0, 0.002


def test_measurements_of_a_module_that_is_no_student_are_kept_too(tmp_path: Path) -> None:
    result = result_of(Spanned(0.3))
    z, _ = fresh(result, 16)
    x = result.generate(z, calls=5)
    again = pid.load(result.save(tmp_path / "student"), gaussian(), Spanned(0.0))
    assert again._with_teacher().has_plan(5)
    torch.testing.assert_close(again.generate(z, calls=5), x)
    again.student.load_state_dict(Spanned(0.1).state_dict())
    assert not again._with_teacher().has_plan(5)
    again.generate(z, calls=5)
    trained = pid.distill(gaussian(), again.student, steps=1, progress=False)
    assert trained.student is again.student
    assert not trained._with_teacher().has_plan(5)


def test_images_with_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pidlearn.refinement.calibration.SPLITS", (2,))
    monkeypatch.setattr("pidlearn.refinement.calibration.TRIES", 2)
    teacher = tiny.teacher(label_dim=3)
    result = pid.distill(teacher, steps=2, batch_size=4, progress=False)
    problem: Any = result.problem
    assert isinstance(problem, Diffusion)
    both: Any = result._student()
    both._calibrator.noise = problem.sample_prior(4), problem.sample_labels(4)
    generator = torch.Generator().manual_seed(0)
    assert result.sample(3, calls=3, generator=generator).shape == (3, 1, 8, 8)
    assert result.sample(4, torch.tensor([0, 1, 2, 0]), calls=3, refine=0.5).shape == (4, 1, 8, 8)
    z = problem.sample_prior(2)
    assert result.error_estimate(z, torch.tensor([0, 2]), calls=3).shape == (2,)


def test_more_calls_are_compared_with_the_exact_path(ring: pid.Result) -> None:
    assert ring.evaluate(1024, calls=20)["rmse"] < 0.3 * ring.evaluate(1024)["rmse"]


def test_times_of_handover_lie_within_the_span() -> None:
    problem: Any = replace(problem_from_teacher(gaussian()), t_start=3.0, t_end=0.25)
    assert handover_times(problem) == [0.3, 0.45, 0.7, 1.0, 1.4, 2.0, 2.8]
    nearly = replace(problem, t_end=0.3 - 1e-15)
    assert handover_times(nearly)[0] == 0.45


def test_a_span_without_times_of_handover() -> None:
    problem = replace(problem_from_teacher(gaussian()), t_start=1.35, t_end=1.05)  # type: ignore[type-var]  # as above
    result = replace(result_of(Blurred(0.3)), problem=problem)
    z = 1.35 * torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    assert result.error_estimate(z, calls=12).shape == (64,)
    assert result.generate(z, calls=4).shape == (64, 2)


def test_bad_requests_are_refused(ring: pid.Result, tmp_path: Path) -> None:
    z = torch.zeros(2, 2)
    alone = pid.load(ring.save(tmp_path / "ring.safetensors"))
    with pytest.raises(ValueError, match=r"loaded without its teacher: pidlearn.load\(path, teacher"):
        alone.sample(2, calls=3)
    with pytest.raises(ValueError, match="loaded without its teacher"):
        alone.error_estimate(z)
    with pytest.raises(ValueError, match="calls = 1, but refine spends more on some samples"):
        ring.sample(2, refine=0.5)
    for refine in (-0.1, 1.1):
        with pytest.raises(ValueError, match=f"refine = {refine}, but refine must be"):
            ring.sample(2, calls=3, refine=refine)
    for calls in (0, -1):
        with pytest.raises(ValueError, match="calls must be a whole number of at least 1"):
            ring.generate(z, calls=calls)
        with pytest.raises(ValueError, match="calls must be a whole number of at least 1"):
            ring.error_estimate(z, calls=calls)
    flow_map = pid.distill(pid.toy("ring"), method="flow_map", steps=1, progress=False)
    for bad in (lambda: flow_map.error_estimate(z), lambda: flow_map.sample(2, calls=2, refine=0.5)):
        with pytest.raises(ValueError, match=r"got a FlowMap, but errors are estimated for paths x\(z, t\)"):
            bad()
    operator = pid.distill(pid.toy("ring"), method="dsno", pairs=8, n=9, steps=1, batch_size=4, progress=False)
    with pytest.raises(ValueError, match=r"a NeuralOperator has no multi-step sampler: leave calls out$"):
        operator.sample(2, calls=2)
    assert isinstance(ring._student(), WithTeacher)
    assert not isinstance(flow_map._student(), WithTeacher)


def test_a_wrapped_student_shares_its_calibration() -> None:
    student = pid.Trajectory(pid.nets.MLP((2,), width=8), event_shape=(2,))
    result = result_of(nn.DataParallel(student))
    z, _ = fresh(result, 8)
    result.generate(z, calls=2)
    assert student.calibration.keys() == {"2 calls"}
