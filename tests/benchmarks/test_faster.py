"""The benchmark of what learns faster: every change changes something, at the reference's CPU time."""

from __future__ import annotations

from itertools import islice
from types import SimpleNamespace

import pytest
import torch

import pidlearn as pid
from benchmarks import faster, learning
from benchmarks.faster import CHANGES, DIGITS, DIGITS_MLP, Change, lines, row, scheduled, started
from pidlearn.equations.from_teacher import problem_from_teacher


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


@pytest.mark.parametrize(("data", "table"), [("digits", DIGITS), ("digits-mlp", DIGITS_MLP)])
def test_every_change_of_a_recipe_for_digits_does(
    data: str, table: dict[str, Change], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = {"model_channels": 4, "channel_mult": [1, 1], "num_blocks": 1, "attn_resolutions": []}
    teacher: torch.nn.Module = pid.nets.EDMPrecond(4, 1, 2, sigma_data=0.5, **network)
    if data == "digits-mlp":
        teacher = pid.nets.Preconditioned(pid.nets.MLP((1, 8, 8), width=8, depth=2), sigma_data=0.5)
    problem = problem_from_teacher(teacher)
    monkeypatch.setattr(faster, "subject", lambda data: SimpleNamespace(problem=problem))
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
    old, new = (started(data, change, 60, 0) for change in faster.RECIPES.values())
    assert (old.config.optimizer, new.config.optimizer) == ("adam", "muon")
    assert old.config.lr == (6e-3 if data == "unseen-1" else 1e-2)
    default = pid.steps(**learning.problem(data), steps=60, seed=0)
    assert [step.loss for step in islice(new, 3)] == [step.loss for step in islice(default, 3)]


def test_errors_of_unseen_problems_are_those_of_the_accuracy_table() -> None:
    result = pid.distill(**learning.problem("unseen-1"), seed=0, steps=20, progress=False)
    assert faster.error("unseen-1", result) == learning.row("unseen-1", 0, 20)["error"]


def test_the_table_of_unseen_problems_compares_seed_by_seed() -> None:
    errors = {"reference": (0.02, 0.04), "today's recipe": (0.01, 0.01)}
    rows = {
        f"unseen-1/{name}/seed {seed}": {"error": error, "steps": 10, "seconds": 1.0}
        for name, both in errors.items()
        for seed, error in enumerate(both)
    }
    (line,) = faster.unseen_lines(rows)
    assert (line["problem"], line["today's"], line["ratio"]) == ("unseen-1", "0.0100 ± 0.0000", "0.35")


def test_lbfgs_lowers_the_loss_of_a_trained_student(monkeypatch: pytest.MonkeyPatch) -> None:
    run = started("ring", CHANGES["Muon"], 20, 0)
    list(run)
    method, context = run.trainer.method, run.trainer.context
    batch = method.draw(context, 1024, torch.Generator().manual_seed(0))
    before = method.loss(context, batch).mean()
    faster.polish(run, 0.5)
    assert method.loss(context, batch).mean() < before


def test_time_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    z = 80 * torch.randn(4, 2)
    monkeypatch.setattr(faster, "truth", lambda data: SimpleNamespace(z=z, labels=None, euler=z.double(), unit=1.0))
    monkeypatch.setitem(faster.STEPS, "ring", 30)
    # The paths of a regression take as long as four steps.
    monkeypatch.setattr(faster, "cost", lambda data, change: (0.5, 4.0) if "method" in change.settings else (1.25, 0.1))
    assert row("ring", "Muon", 0)["steps"] == 24
    assert row("ring", "regression first, a third", 0)["steps"] == 26  # a third at 0.5, the rest at 1.25
    assert row("ring", "reference", 0)["steps"] == 30


def test_the_table_has_ratios_to_muon() -> None:
    errors = {"Muon": (0.01, 0.04), "c = 0.1": (0.02, 0.08), "reference": (0.03, 0.03)}
    rows = {
        f"{data}/{name}/seed 0": {"error": error, "steps": 10, "seconds": 1.0}
        for name, both in errors.items()
        for data, error in zip(faster.TOYS, both, strict=True)
    }
    table = {line["change"]: line for line in lines(rows, faster.TOYS)}
    assert {name: line["to Muon"] for name, line in table.items()} == {
        "reference": "1.50",
        "Muon": "1.00",
        "c = 0.1": "2.00",
    }
    assert (table["Muon"]["ring"], table["Muon"]["checkerboard, steps"]) == ("0.0100", "10")


def test_a_change_that_diverges_is_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(faster.STEPS, "ring", 30)
    monkeypatch.setattr(faster, "cost", lambda data, change: (1.0, 0.0))
    monkeypatch.setitem(CHANGES, "c = 0.1", Change({"optimizer": "adam", "lr": 1e30}))
    failed = row("ring", "c = 0.1", 0)
    assert (failed["error"], failed["steps"]) == (None, 30)
    rows = {"ring/Muon/seed 0": {"error": 0.01, "steps": 10, "seconds": 1.0}, "ring/c = 0.1/seed 0": failed}
    line = lines(rows, faster.TOYS)[-1]
    assert (line["ring"], line["to Muon"]) == ("diverged", "")
