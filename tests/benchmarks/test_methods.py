"""The benchmark of all methods: nothing is left out, all have the same search, and what is counted is what is done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.methods import measure, subjects
from benchmarks.methods.claims import claims
from benchmarks.methods.contenders import CONTENDERS, SOLVERS, Contender
from benchmarks.methods.measure import budgeted_steps, cost, distilled, row
from benchmarks.methods.search import at_edge, best, candidate, search
from benchmarks.methods.search import lines as search_lines
from benchmarks.methods.tables import figure, lines, looks
from pidlearn.equations.solvers import solve_end
from pidlearn.methods import METHODS, settings_of


@pytest.fixture(autouse=True, scope="module")
def _few_samples() -> Iterator[None]:
    """Errors of 64 samples: the paths of 8,192 take SciPy 20 seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subjects, "subject", lambda name: replace(measure.subject(name), samples=64))
        subjects.truth.cache_clear()
        yield
    subjects.truth.cache_clear()


def test_ends_of_digits_are_solved_once_per_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ring = subjects.subject("ring")  # takes less time than digits
    monkeypatch.setattr(subjects, "subject", lambda name: ring)
    monkeypatch.setitem(subjects.TEACHERS, "digits", tmp_path / "teacher.safetensors")
    solved: list[int] = []

    def solve(ode: Any, z: torch.Tensor, *rest: Any) -> torch.Tensor:
        solved.append(len(z))
        return solve_end(ode, z, *rest)

    monkeypatch.setattr(subjects, "solve_end", solve)
    kept = []
    for weights in (b"one", b"one", b"other"):
        subjects.TEACHERS["digits"].write_bytes(weights)
        kept.append(subjects._solved("digits"))
    assert solved == [64, 64]
    assert kept[0].keys() == kept[1].keys()
    assert all(torch.equal(kept[0][key], kept[1][key]) for key in ("z", "euler", "exact", "others"))


def test_every_method_takes_part() -> None:
    assert {contender.method for contender in CONTENDERS.values()} == METHODS.keys()


@pytest.mark.parametrize(
    ("name", "passes"),
    [
        ("PID", (2, 0, 1)),  # the student at t and at the next time, the teacher once
        ("PID, exact derivative", (2, 0, 1)),  # the student and its tangent
        ("BOOT", (1, 1, 1)),
        ("CD", (1, 1, 2)),
        ("CT", (1, 1, 0)),
        ("shortcut", (1, 14 / 15, 64 / 15)),  # eight steps of fifteen by the teacher, eight calls each
        ("endpoint regression", (1, 0, 0)),
    ],
)
def test_passes_are_counted(name: str, passes: tuple[float, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    ring = replace(measure.subject("ring"), trial=24)
    monkeypatch.setattr(measure, "subject", lambda name: ring)
    contender = CONTENDERS[name]
    brief = {"batch_size": 15} | ({"pairs": 8} if contender.also[0] == "pairs" else {})
    measured = cost("ring", contender, brief)
    assert tuple(measured[key] for key in ("with gradient", "without gradient", "teacher")) == passes
    assert measured["step / PID step"] > 0


def test_the_budget_is_shared_by_preparation_and_steps() -> None:
    assert budgeted_steps("ring", {"preparation / PID step": 800.0, "step / PID step": 2.0}, 2000) == 600
    assert budgeted_steps("ring", {"preparation / PID step": 3000.0, "step / PID step": 2.0}, 2000) == 240  # at least


def test_the_cost_of_a_sample_is_relative_to_pids() -> None:
    row = {"settings": {"batch_size": 64}, "steps": 100, "preparation / PID step": 50.0, "step / PID step": 0.5}
    assert measure.relative_time("ring", CONTENDERS["BOOT"], row) == (0.5 + 50 / 100) * 256 / 64


@pytest.mark.parametrize("name", ["BOOT", "endpoint regression"])
def test_costs_are_measured_in_turns(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 0.0
    turns: list[str] = []

    class Run:
        """A run whose steps take 3 s each, and those of PID 2 s; 600 paths, 256 of which a draw solves in 5 s."""

        def __init__(self, which: str, run: Any) -> None:
            self.which, self.run = which, run
            if hasattr(method := run.trainer.method, "pairs"):
                method.solve = self.solve

        def __getattr__(self, name: str) -> Any:
            return getattr(self.run, name)

        def __iter__(self) -> Any:
            return self

        def __next__(self) -> Any:
            self.takes(3.0 if self.which == "own" else 2.0)
            return next(self.run)

        def solve(self, context: Any, z: torch.Tensor, labels: Any) -> torch.Tensor:
            self.takes(5.0)
            return z

        def takes(self, seconds: float) -> None:
            nonlocal clock
            clock += seconds
            turns.append(self.which)

    made: list[dict[str, Any]] = []

    def counted(data: str, contender: Contender, settings: dict[str, Any], **options: Any) -> Any:
        made.append(settings)
        return Run("PID" if len(made) == 2 else "own", distilled(data, contender, settings, **options))

    monkeypatch.setattr(measure, "distilled", counted)
    monkeypatch.setattr(measure.time, "process_time", lambda: clock)
    paths = name == "endpoint regression"
    settings = {"optimizer": "adam", "batch_size": 8, **({"pairs": 600} if paths else {})}
    costs = cost("ring", CONTENDERS[name], settings)
    assert made == [settings, {"optimizer": "adam"}]
    assert costs["step / PID step"] == pytest.approx(1.5)
    assert costs["preparation / PID step"] == pytest.approx(15 / 2 if paths else 0)
    first = ["own", *["PID"] * 3]  # of the run, and of PID
    begun = ["PID", *(["own"] + 3 * first if paths else first)]  # the first step of a run solves paths, too
    assert turns[: len(begun) + 96] == [*begun, *([*["own"] * 24, *["PID"] * 24] * 2)]


def test_a_candidate_with_a_part_of_the_time_solves_that_part_of_the_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict[str, Any]] = []

    def cost(data: str, contender: Contender, settings: dict[str, Any]) -> dict[str, float]:
        given.append(settings)
        return {}

    monkeypatch.setattr("benchmarks.methods.search.cost", cost)
    monkeypatch.setattr("benchmarks.methods.search.budgeted_steps", lambda *args: 4)
    settings = {"optimizer": "adam", "lr": 1e-3, "pairs": 24}
    row = candidate("endpoint regression", "ring", {**settings, "batch_size": 4}, 2000)
    assert given[-1]["pairs"] == 8
    assert row["settings"]["pairs"] == 24
    assert not row["whole"]
    assert 0 < row["error"] < 10
    diverged = candidate("PID", "ring", {"optimizer": "adam", "lr": 1e30, "batch_size": 4}, 6000)
    assert (diverged["whole"], diverged["error"]) == (True, float("inf"))


class Filled:
    """A store that computes errors by a formula instead of training; the best rate is ``best``."""

    def __init__(self, best: float) -> None:
        self.best = best
        self.rows: dict[str, dict[str, Any]] = {}

    def fill(self, tasks: dict[str, Any], jobs: int) -> None:
        for key, (_, name, data, settings, budget) in tasks.items():
            lr, muon = settings["lr"], settings["optimizer"] == "muon"
            error = abs(lr - self.best) + 1e-4 * settings["n"] + (0 if muon else 1)
            if data == "checkerboard":  # where the winner of the ring is far behind
                error = 1.0 if settings["n"] == 18 else 0.1
            self.rows[key] = {"method": name, "settings": settings, "whole": budget == 6000, "error": error}


def test_the_search_tries_rates_then_another_setting_then_the_best_again() -> None:
    store: Any = Filled(best=3e-3)
    search(store, "ring", ["CD"], 1)
    rows = list(store.rows.values())
    first, second, again = rows[:10], rows[10:11], rows[11:]
    tried = [(row["settings"]["optimizer"], row["settings"]["lr"]) for row in first]
    assert tried == [("adam", lr) for lr in (1e-3, 2e-3, 4e-3, 8e-3, 16e-3)] + [
        ("muon", lr) for lr in (7.5e-4, 1.5e-3, 3e-3, 6e-3, 12e-3)
    ]
    assert [row["settings"] for row in second] == [{"optimizer": "muon", "lr": 3e-3, "n": 40}]
    assert [(row["settings"]["n"], row["settings"]["lr"]) for row in again] == [(18, 3e-3), (18, 1.5e-3), (40, 3e-3)]
    assert all("on checkerboard for 6000" in key for key in [*store.rows][11:])
    assert best(store.rows, "CD") == {"optimizer": "muon", "lr": 3e-3, "n": 40}
    # What an earlier search tried again does not count.
    store.rows["earlier"] = {**first[5], "whole": True, "error": 1e-9}
    assert best(store.rows, "CD") == {"optimizer": "muon", "lr": 3e-3, "n": 40}
    table = search_lines(store.rows)
    assert [line["again"] for line in table if line["again"]] == ["1.0000", "1.0000", "0.1000 ←"]
    begun = {key: row for key, row in store.rows.items() if not row["whole"]}
    assert not any(line["again"] for line in search_lines(begun))  # of a search that was interrupted
    assert table[7]["RMSE"] == "0.0018"


@pytest.mark.parametrize(
    ("best_rate", "beyond", "said"),
    [
        (1e-4, [3.75e-4, 1.875e-4], "CD (0.0001875)"),
        (4e-4, [3.75e-4, 1.875e-4], ""),
        (0.024, [0.024, 0.048], ""),
        (1.0, [0.024, 0.048], "CD (0.048)"),
    ],
)
def test_the_search_goes_on_outside_while_the_best_is_at_the_edge(
    best_rate: float, beyond: list[float], said: str
) -> None:
    store: Any = Filled(best_rate)
    for _ in range(2):  # a search that is repeated goes no further
        search(store, "ring", ["CD"], 1)
        first = [row["settings"] for row in store.rows.values() if not row["whole"]]
        assert [settings["lr"] for settings in first if settings["n"] == 18][10:] == beyond
    assert at_edge(store.rows) == (f"At an edge of the rates that were tried: {said}." if said else "")


@pytest.mark.parametrize(("best_rate", "said"), [(1e-3, "CD (0.001)"), (2e-3, ""), (4e-3, "CD (0.004)")])
def test_the_search_names_a_best_rate_at_an_edge(best_rate: float, said: str) -> None:
    rates = [{"optimizer": "adam", "lr": lr} for lr in (1e-3, 2e-3, 4e-3)] + [{"optimizer": "muon", "lr": 8e-3}]
    rows = {
        f"{settings} {whole}": {"method": "CD", "settings": settings, "whole": whole, "error": error}
        for settings in rates
        for whole, error in ((False, 2.0 - (settings["lr"] == best_rate)), (True, 2.0 - (settings["lr"] == best_rate)))
    }
    assert at_edge(rows) == (f"At an edge of the rates that were tried: {said}." if said else "")


def test_calls_are_the_students_own() -> None:
    run: Any = distilled("ring", CONTENDERS["PID"], {"batch_size": 4}, steps=2)
    for _ in run:
        pass
    assert measure.errors("ring", run.result()).keys() == {"1"}


def test_memory_counts_what_training_keeps() -> None:
    def kept(name: str, **settings: Any) -> float:
        run: Any = distilled("ring", CONTENDERS[name], {"batch_size": 8, **settings}, steps=10)
        for _ in run:
            pass
        return measure._kept(run.trainer) / sum(p.nbytes for p in run.student.parameters())

    assert kept("PID", optimizer="adam") == pytest.approx(4, rel=0.02)  # weights, gradients and two moments
    assert kept("PID", optimizer="muon") == pytest.approx(3, rel=0.05)  # one moment of matrices
    assert kept("PD", optimizer="adam", calls=2) == pytest.approx(2.5, rel=0.02)  # two networks, one in training
    assert kept("PID with N = 10, corrector", optimizer="adam") == pytest.approx(8, rel=0.02)


def made_up() -> dict[str, dict[str, Any]]:
    """Rows of two seeds and two methods, one of which can be called twice."""
    found = {"euler": 0.02, "exact": 0.03, "wrong": 0.01, "energy": 2e-4}
    costs = {"with gradient": 2.0, "without gradient": 0.0, "teacher": 1.0, "pairs": 0.0, "megabytes": 0.5}
    costs |= {"preparation / PID step": 0.0, "step / PID step": 1.25}
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
    assert (pid["passes"], pid["a step"]) == ("7.0", "1.25")
    by_steps = made_up()
    for line in by_steps.values():
        line.pop("step / PID step", None)
    assert "a step" not in lines(by_steps, "ring")[-1]
    assert (pid["needs"], eulerian["needs"]) == ("noise", "data")
    assert table[1]["RMSE to Euler-250"] == "(2 calls) 0.0200; 0.0200"
    figure(made_up()).savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_the_figure_shows_every_method_with_a_look_of_its_own() -> None:
    drawn = {(look["color"], look["marker"]) for look in looks().values()}
    assert len(drawn) == len(CONTENDERS)
    rows = made_up()
    costly = {**rows["ring/PID/seed 0"], "pairs": 1e4, "settings": {}}
    rows["ring/DSNO/seed 0"] = {**costly, "calls": {"1": {**costly["calls"]["1"], "exact": 5e-4}}}
    for ax in figure(rows).axes:
        (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
        points = [point for line in ax.lines if line.get_transform() == ax.transData for point in line.get_xydata()]
        assert len(points) >= 3  # without the horizontal line
        assert all(left < x < right and low < y < high for x, y in points)


def test_claims_are_answered_by_ratios_and_verdicts() -> None:
    costs = {"without gradient": 0.0, "teacher": 1.0, "pairs": 0.0, "settings": {}, "steps": 100}
    others = {"BOOT": 0.02, "PID, soft boundary": 0.011, "PID, exact derivative": 0.012, "endpoint regression": 0.005}
    errors = dict.fromkeys(CONTENDERS, 0.01) | others
    rows: dict[str, Any] = {}
    for name, error in errors.items():
        row = {**costs, "with gradient": {"CD": 1.0, "PD": 3.0}.get(name, 2.0)}
        exact = 0.008 if name == "PID, exact derivative" else error
        calls = {"1": {"euler": error, "exact": exact}, "4": {"euler": error / 2, "exact": exact / 2}}
        rows[f"ring/{name}/seed 0"] = {**row, "calls": calls}
    # 512 paths by 249 calls each, over 100 steps of 256 samples: 4.98 passes more than the 7 of each step
    rows["ring/endpoint regression/seed 0"]["pairs"] = 512.0
    lines = {line["claim"].split(": ")[1]: (line["metrics"], line["verdict"]) for line in claims(rows, ["ring"])}
    better = lines["PID is better than BOOT"]
    assert better == ("BOOT / PID, to Euler-250: ring 2.00; BOOT / PID, to the exact ODE: ring 2.00", "supported")
    assert lines["a hard boundary is better than a soft one"][1] == (
        "partly; against it: BOOT, soft boundary / BOOT, to Euler-250 (ring), "
        "BOOT, soft boundary / BOOT, to the exact ODE (ring)"
    )
    assert lines["PID costs less per step than CD and PD"] == (
        "passes of CD / PID: ring 0.57; passes of PD / PID: ring 1.43; "
        "passes of PD with the paper's two teacher steps / PID: ring 0.71",
        "partly; against it: passes of CD / PID (ring), passes of PD with the paper's two teacher steps / PID (ring)",
    )
    # Better at their own target, and worse at the ODE's.
    differences = lines["finite differences are better than exact derivatives"]
    assert differences[0].endswith("to Euler-250: ring 1.20; PID, exact derivative / PID, to the exact ODE: ring 0.80")
    assert differences[1] == "partly; against it: PID, exact derivative / PID, to the exact ODE (ring)"
    assert lines["without data, PID is as good as methods with data"][1] == "supported"
    operator = lines["learning an operator on solved paths costs more"]
    assert f"passes of endpoint regression / PID: ring {11.98 / 7:.2f}" in operator[0]
    assert operator[1] == (
        "partly; against it: passes of DSNO / PID (ring), passes of endpoint, DPM-Solver++ pairs / PID (ring)"
    )
    as_good = lines["PID is as good as an operator on solved paths"]
    assert as_good[1] == (
        "partly; against it: endpoint regression / PID, to Euler-250 (ring), "
        "endpoint regression / PID, to the exact ODE (ring)"
    )
    assert lines["more calls, which PID cannot use, make samples better"][1] == "supported"
    del rows["ring/CD/seed 0"]
    lines = {line["claim"].split(": ")[1]: (line["metrics"], line["verdict"]) for line in claims(rows, ["ring"])}
    assert lines["PID costs less per step than CD and PD"] == (
        "passes of CD / PID: no rows; passes of PD / PID: ring 1.43; "
        "passes of PD with the paper's two teacher steps / PID: ring 0.71",
        "",
    )


def test_claims_on_images_are_about_the_methods_that_are_trained_on_them() -> None:
    lines = {line["claim"].split(": ")[1]: line for line in claims({}, ["digits"])}
    assert "a hard boundary is better than a soft one" not in lines
    assert "DSNO" in lines["learning an operator on solved paths costs more"]["metrics"]
    assert not any("endpoint regression" in line["metrics"] for line in lines.values())
    assert {line["verdict"] for line in lines.values()} == {""}  # without rows


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("endpoint regression", {"n": 10}),
        ("endpoint, DPM-Solver++ pairs", {"n": 10}),
        ("DSNO", {"n": 10, "times": 4, "batch_size": 3}),
        ("2-rectified flow", {"n": 10, "solver": "heun"}),
        ("PID", {}),
    ],
)
def test_the_solving_of_paths_is_counted(name: str, settings: dict[str, Any]) -> None:
    settings = settings | ({"pairs": 5} if name != "PID" else {})
    run: Any = distilled("ring", CONTENDERS[name], settings, steps=2)
    passes: Counter[str] = Counter()
    with measure._counted(run, passes):
        method = run.trainer.method
        method.begin(run.trainer.context, True)
        while getattr(method, "count", 5) < 5:
            method.draw(run.trainer.context, 8, torch.Generator())
    row = {"pairs": settings.get("pairs", 0), "steps": 2, "settings": settings}
    expected = passes["teacher"] / (2 * run.config.batch_size)
    assert measure.solving("ring", CONTENDERS[name], row) == expected
    assert (expected > 0) == (name != "PID")


@pytest.mark.slow
@pytest.mark.parametrize("name", CONTENDERS)
def test_each_is_measured(name: str) -> None:
    contender: Contender = CONTENDERS[name]
    brief = {"batch_size": 15} | ({"pairs": 8} if "pairs" in settings_of(METHODS[contender.method]) else {})
    measured = row("ring", contender, brief, 0, None, 20)
    assert measured["steps"] == 20
    assert measured["calls"]["1"]["euler"] > 0
