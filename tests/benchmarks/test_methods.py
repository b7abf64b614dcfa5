"""The benchmark of all methods: nothing is left out, all have the same search, and what is counted is what is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.methods import measure
from benchmarks.methods.claims import claims
from benchmarks.methods.contenders import CONTENDERS, SOLVERS, Contender
from benchmarks.methods.measure import best, budgeted_steps, cost, row, search_row
from benchmarks.methods.tables import figure, lines, search_lines
from pidlearn.methods import METHODS


def test_every_method_takes_part() -> None:
    assert {contender.method for contender in CONTENDERS.values()} == METHODS.keys()


@pytest.mark.parametrize(
    ("name", "passes"),
    [
        ("PID", (2, 0, 1)),  # the student at t and at the next time, the teacher once
        ("BOOT", (1, 1, 1)),
        ("CD", (1, 1, 2)),
        ("CT", (1, 1, 0)),
        ("shortcut", (1, 1.5, 2)),  # a quarter of the steps by the teacher, eight calls each
        ("endpoint regression", (1, 0, 0)),
    ],
)
def test_passes_are_counted(name: str, passes: tuple[float, ...]) -> None:
    contender = CONTENDERS[name]
    brief = {"batch_size": 4} | ({"pairs": 8} if contender.also[0] == "pairs" else {})
    measured = cost("ring", contender, brief)
    assert tuple(measured[key] for key in ("with gradient", "without gradient", "teacher")) == passes
    assert measured["per step"] > 0


def test_the_budget_is_shared_by_preparation_and_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "cost", lambda *args: {"per step": 0.005})  # of PID
    assert budgeted_steps("ring", {"preparation": 4.0, "per step": 0.01}, 2000) == 600


def test_the_search_tries_rates_and_then_another_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    def candidate(data: str, contender: Contender, settings: dict[str, Any], *args: Any) -> dict[str, Any]:
        return {"settings": settings, "error": abs(settings["lr"] - 4e-3) + settings["n"]}

    monkeypatch.setattr(measure, "_candidate", candidate)
    row = search_row("ring", Contender("CD", "cd", also=("n", 2, 1)), 0, 10)
    assert [c["settings"]["lr"] for c in row["tried"]] == [1e-3, 2e-3, 4e-3, 8e-3, 4e-3]
    assert best({"CD": row}, "CD") == {"lr": 4e-3, "n": 1}
    assert [line["RMSE"] for line in search_lines({"CD": row})][-2:] == ["2.0040", "1.0000 ←"]


def made_up() -> dict[str, dict[str, Any]]:
    """Rows of two seeds and two methods, one of which can be called twice."""
    found = {"euler": 0.02, "exact": 0.03, "wrong": 0.01, "energy": 2e-4}
    costs = {"with gradient": 2.0, "without gradient": 0.0, "teacher": 1.0, "pairs": 0.0, "megabytes": 0.5}
    rows: dict[str, dict[str, Any]] = {"ring/Euler-250": {"energy floor": 1e-4, "energy": 1.1e-4, "exact": 0.004}}
    rows |= {f"ring/{name}": {"calls": {"2": found, "4": found}} for name in SOLVERS}
    for seed in (0, 1):
        one = {**found, "euler": 0.01 + 0.01 * seed}
        rows[f"ring/PID/seed {seed}"] = {"calls": {"1": one}, "steps": 100, "seconds": 3.0, **costs}
        both = {"1": {**one, "euler": 0.005}, "2": found}
        rows[f"ring/Eulerian map/seed {seed}"] = {"calls": both, "steps": 100, "seconds": 3.0, **costs}
    return rows


def test_the_table_orders_by_error_and_tells_calls(tmp_path: Path) -> None:
    table = lines(made_up(), "ring")
    assert [line["method"] for line in table] == ["Euler-250 itself", *SOLVERS, "Eulerian map", "PID"]
    eulerian, pid = table[-2:]
    assert eulerian["RMSE to Euler-250"] == "0.0050 ± 0.0000; 0.0200"
    assert pid["RMSE to Euler-250"] == "0.0150 ± 0.0050"
    assert pid["passes"] == "7.0"
    assert (pid["needs"], eulerian["needs"]) == ("noise", "data")
    assert table[1]["RMSE to Euler-250"] == "(2 calls) 0.0200; 0.0200"
    figure(made_up(), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_claims_are_answered_by_ratios() -> None:
    row = {"with gradient": 2.0, "without gradient": 0.0, "teacher": 1.0}
    errors = dict.fromkeys(CONTENDERS, 0.01) | {"BOOT": 0.02, "endpoint regression": 0.005}
    rows: dict[str, Any] = {}
    for name, error in errors.items():
        rows[f"ring/{name}/seed 0"] = {**row, "calls": {"1": {"euler": error}, "4": {"euler": error / 2}}}
    figures = {line["claim"]: line["metrics"] for line in claims(rows, ["ring"])}
    assert figures["paper: PID is better than BOOT, since its boundary is hard"].startswith("BOOT / PID: ring 2.00;")
    assert figures["paper: PID costs less per step than CD and PD"] == "PID 7.0, CD 7.0, PD 7.0"
    assert "4 calls / 1: ring 0.50" in figures["reviews: more calls do not help PID"]


@pytest.mark.slow
@pytest.mark.parametrize("name", CONTENDERS)
def test_each_is_measured(name: str) -> None:
    contender: Contender = CONTENDERS[name]
    brief = {"batch_size": 4} | ({"pairs": 8} if "pairs" in contender.also else {})
    measured = row("ring", contender, brief, 0, None, 20)
    assert measured["steps"] == 20
    assert measured["calls"]["1"]["euler"] > 0
