"""The benchmark of what learns faster: every change changes something, at the reference's CPU time."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import islice
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import pidlearn as pid
from benchmarks import learning
from benchmarks.faster import runs, tables
from benchmarks.faster.changes import CHANGES, DIGITS, DIGITS_MLP, RECIPES, STEPS, TOYS, WINDOWS, Change
from benchmarks.faster.optimizers import ScheduleFree, Soap
from benchmarks.faster.polish import gauss_newton, lbfgs
from benchmarks.faster.runs import row, scheduled, started
from benchmarks.faster.tables import lines
from pidlearn.equations.from_teacher import problem_from_teacher
from pidlearn.methods import Stage


@pytest.mark.parametrize("name", [name for name in CHANGES if not CHANGES[name].polish])
def test_every_change_changes_what_is_learned(name: str) -> None:
    after = []
    for one in (CHANGES[name], CHANGES["RAdam"]):
        with scheduled(one):
            run = started("ring", one, 12, 0)
            losses = [step.loss for step in islice(run, 12)]
        after.append(losses)
    assert all(torch.tensor(losses).isfinite().all() for losses in after)
    assert (after[0] == after[1]) == (name == "RAdam")


@cache
def of_pendulum(name: str) -> torch.Tensor:
    """Ends of paths after a few steps with one change, in a tenth of the windows."""
    settings = WINDOWS[name].settings
    run = started("pendulum", Change({**settings, "windows": 4}), 20, 0)
    list(run)
    return run.result().generate(pid.system("pendulum").prior(4, torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("name", [name for name in WINDOWS if name != "reference"])
def test_every_change_of_an_ode_changes_what_is_learned(name: str) -> None:
    assert of_pendulum(name).isfinite().all()
    assert not torch.equal(of_pendulum(name), of_pendulum("reference"))


def test_pairs_have_one_time_and_eight_times_differ() -> None:
    run = started("ring", CHANGES["antithetic noise"], 4, 0)
    next(run)
    z, index, _ = run.trainer.method.draw(run.trainer.context, 256, torch.Generator().manual_seed(0))
    assert torch.equal(z[::2], -z[1::2])
    assert torch.equal(index[::2], index[1::2])
    run = started("ring", CHANGES["eight times per z"], 4, 0)
    next(run)
    z, index, _ = run.trainer.method.draw(run.trainer.context, 256, torch.Generator().manual_seed(0))
    assert (z.reshape(32, 8, 2) == z[::8, None]).all()
    of_each = index.reshape(32, 8).sort(1).values
    assert (of_each[:, -1] - of_each[:, 0]).median() > 80  # of 249; not eight neighbours


def test_schedule_free_steps_are_those_of_the_paper() -> None:
    """On a quadratic with SGD, whose rate warms up over the first steps."""
    scales, b = torch.tensor([1.0, 3.0]), 0.9
    p = torch.nn.Parameter(torch.tensor([2.0, -1.0]))
    optimizer = ScheduleFree(torch.optim.SGD([p], 0.1), 8, b)
    (group,) = optimizer.param_groups
    group["initial_lr"] = 0.1
    x = z = p.detach().clone()
    total = 0.0
    for rate in (0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0):
        group["lr"] = 0.1 * rate
        p.grad = scales * p.detach()
        optimizer.step()
        y = (1 - b) * z + b * x
        z = z - 0.1 * rate * scales * y
        total += rate**2
        x = x + rate**2 / total * (z - x)
    torch.testing.assert_close(p.detach(), x)


def test_soap_turns_with_its_matrix() -> None:
    """Adam would not: its steps depend on the directions of the entries."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64))[0] for _ in range(2))
    pulls = torch.randn(25, 4, 4, generator=generator, dtype=torch.float64)

    def end(turn: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        w = torch.nn.Parameter(torch.zeros(4, 4, dtype=torch.float64))
        optimizer = Soap([w], 0.1, (0.9, 0.99))
        for pull in pulls:
            w.grad = turn(pull)
            optimizer.step()
        return w.detach()

    torch.testing.assert_close(end(lambda g: left @ g @ right), left @ end(lambda g: g) @ right)


def test_soap_is_adam_on_biases() -> None:
    gradients = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    ours, adams = (torch.nn.Parameter(torch.zeros(3)) for _ in range(2))
    soap, adam = Soap([ours], 0.1, (0.9, 0.99)), torch.optim.Adam([adams], 0.1, (0.9, 0.99))
    for step, gradient in enumerate(gradients):
        ours.grad = adams.grad = gradient
        soap.step()
        if step:  # the first gradient serves to start the preconditioners
            adam.step()
    torch.testing.assert_close(ours, adams)


def test_windows_together_have_each_its_own_starts() -> None:
    """The loss of the last window is that from the states where the windows before it end."""
    run = started("pendulum", WINDOWS["windows together"], 4, 0)
    losses = [step.loss for step in run]
    method, context = run.trainer.method, run.trainer.context
    z, *_ = method.draw(context, 8, torch.Generator().manual_seed(0))
    of_all = method.loss(context, (z, None, None))
    last = context.student.windows[-1]
    x = context.student(z, last.t_max)
    assert losses[0] != losses[-1]
    assert len(of_all) == 40 * len(method.density) * 8
    alone = type(method).__mro__[1].loss
    method.grid, context.stage = method.grids[-1], Stage(last, 4)
    torch.testing.assert_close(of_all[-8 * len(method.density) :], alone(method, context, (x, None, None)))


@pytest.mark.parametrize(("data", "table"), [("digits", DIGITS), ("digits-mlp", DIGITS_MLP)])
def test_every_change_of_a_recipe_for_digits_does(
    data: str, table: dict[str, Change], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = {"model_channels": 4, "channel_mult": [1, 1], "num_blocks": 1, "attn_resolutions": []}
    teacher: torch.nn.Module = pid.nets.EDMPrecond(4, 1, 2, sigma_data=0.5, **network)
    if data == "digits-mlp":
        teacher = pid.nets.Preconditioned(pid.nets.MLP((1, 8, 8), width=8, depth=2), sigma_data=0.5)
    problem = problem_from_teacher(teacher)
    monkeypatch.setattr(runs, "subject", lambda data: SimpleNamespace(problem=problem))
    z = problem.sample_prior(3, torch.Generator().manual_seed(0))
    labels = problem.sample_labels(3, torch.Generator().manual_seed(0))

    def samples(change: Change, steps: int) -> torch.Tensor:
        with scheduled(change):
            run = started(data, change, steps, 0)
            list(run)
        return run.result().generate(z, labels)

    changed = []
    for name, change in table.items():
        steps = 51 if name == "times follow the residual" else 4  # it changes the times after 50 steps
        x = samples(change, steps)
        assert x.isfinite().all()
        if not torch.equal(x, samples(table["reference"], steps)):
            changed.append(name)
    assert changed == [name for name in table if name != "reference"]


@pytest.mark.parametrize("data", ["unseen-1", "forced_duffing"])
def test_recipes_of_unseen_problems_are_those_of_both_releases(data: str) -> None:
    old, new = (started(data, change, 60, 0) for change in RECIPES.values())
    assert (old.config.optimizer, new.config.optimizer) == ("adam", "muon")
    assert old.config.lr == (6e-3 if data == "unseen-1" else 1e-2)
    default = pid.steps(**learning.problem(data), steps=60, seed=0)
    assert [step.loss for step in islice(new, 3)] == [step.loss for step in islice(default, 3)]


def test_errors_of_unseen_problems_are_those_of_the_accuracy_table() -> None:
    result = pid.distill(**learning.problem("unseen-1"), seed=0, steps=20, progress=False)
    assert runs.error("unseen-1", result) == learning.row("unseen-1", 0, 20)["error"]


def test_the_table_of_unseen_problems_compares_seed_by_seed() -> None:
    errors = {"reference": (0.02, 0.04), "today's recipe": (0.01, 0.01)}
    rows = {
        f"unseen-1/{name}/seed {seed}": {"error": error, "steps": 10, "seconds": 1.0}
        for name, both in errors.items()
        for seed, error in enumerate(both)
    }
    (line,) = tables.unseen_lines(rows)
    assert (line["problem"], line["today's"], line["ratio"]) == ("unseen-1", "0.0100 ± 0.0000", "0.35")


@pytest.mark.parametrize("polish", [lbfgs, gauss_newton])
def test_second_order_steps_lower_the_loss_of_a_trained_student(polish: Callable[[Any, float], None]) -> None:
    run = started("ring", CHANGES["Muon"], 20, 0)
    list(run)
    method, context = run.trainer.method, run.trainer.context
    batch = method.draw(context, 1024, torch.Generator().manual_seed(0))
    before = method.loss(context, batch).mean()
    polish(run, 0.5)
    assert method.loss(context, batch).mean() < before


def test_time_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    z = 80 * torch.randn(4, 2)
    monkeypatch.setattr(runs, "truth", lambda data: SimpleNamespace(z=z, labels=None, euler=z.double(), unit=1.0))
    monkeypatch.setitem(STEPS, "ring", 30)
    # The paths of a regression take as long as four steps.
    monkeypatch.setattr(runs, "cost", lambda data, change: (0.5, 4.0) if "method" in change.settings else (1.25, 0.1))
    assert row("ring", "Muon", 0)["steps"] == 24
    assert row("ring", "regression first, a third", 0)["steps"] == 26  # a third at 0.5, the rest at 1.25
    assert row("ring", "reference", 0)["steps"] == 30
    assert row("ring", "LBFGS in the last tenth", 0)["steps"] == 22


def test_the_table_has_ratios_to_muon() -> None:
    errors = {"Muon": (0.01, 0.04), "c = 0.1": (0.02, 0.08), "reference": (0.03, 0.03)}
    rows = {
        f"{data}/{name}/seed 0": {"error": error, "steps": 10, "seconds": 1.0}
        for name, both in errors.items()
        for data, error in zip(TOYS, both, strict=True)
    }
    table = {line["change"]: line for line in lines(rows, TOYS)}
    assert {name: line["to Muon"] for name, line in table.items()} == {
        "reference": "1.50",
        "Muon": "1.00",
        "c = 0.1": "2.00",
    }
    assert (table["Muon"]["ring"], table["Muon"]["checkerboard, steps"]) == ("0.0100", "10")


def test_a_change_that_diverges_is_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STEPS, "ring", 30)
    monkeypatch.setattr(runs, "cost", lambda data, change: (1.0, 0.0))
    monkeypatch.setitem(CHANGES, "c = 0.1", Change({"optimizer": "adam", "lr": 1e30}))
    failed = row("ring", "c = 0.1", 0)
    assert (failed["error"], failed["steps"]) == (None, 30)
    rows = {"ring/Muon/seed 0": {"error": 0.01, "steps": 10, "seconds": 1.0}, "ring/c = 0.1/seed 0": failed}
    line = lines(rows, TOYS)[-1]
    assert (line["ring"], line["to Muon"]) == ("diverged", "")
