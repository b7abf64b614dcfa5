"""The benchmark of several calls: solvers spend what they are said to, and tables show what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import pidlearn as pid
from benchmarks import calls
from benchmarks.calls import CALLS, EXTRA, REFINED, call_lines, estimate_lines, figure, plain, refined_lines


class Counted(pid.DenoiserODE):
    """An ODE that counts its evaluations."""

    spent = 0

    def velocity(self, x: Tensor, t: Any, class_labels: Tensor | None = None) -> Tensor:
        self.spent += 1
        return super().velocity(x, t, class_labels)


@pytest.mark.parametrize("k", [1, 2, 3, 8, 9])
def test_each_solver_spends_its_calls(k: int) -> None:
    ode = Counted(pid.toy("ring"))
    samples = plain(ode, 80 * torch.randn(4, 2, dtype=torch.float64), k)
    assert ode.spent == k * len(samples)
    names = {"euler", "dpm++"} | ({"heun", "dpm"} if k % 2 == 0 else {"edm"} if k > 1 else set())
    assert {name for name, _ in samples} == names


def made_up() -> dict[str, Any]:
    """Rows of two seeds of one toy, whose errors fall with the root of the calls."""
    rows: dict[str, Any] = {"ring/solvers": {str(k): {"euler": 1.0, "dpm++": 0.5} for k in (1, *CALLS)}}
    for seed, one in enumerate((0.01, 0.03)):
        estimates = {str(m): {"rank": m / 20, "within": 0.9, "wrong": 0.5} for m in EXTRA}
        errors = {str(k): one / k**0.5 for k in (1, *CALLS)}
        refined = {str(mean): 0.7 * one for mean in REFINED}
        rows[f"ring/seed {seed}"] = {"errors": errors, "estimates": estimates, "refined": refined, "wrong": 8 + seed}
    return rows


def test_tables_and_figure(tmp_path: Path) -> None:
    ring, mean = call_lines(made_up())
    assert (ring["one call"], ring["9 calls"], mean["9 calls"]) == ("0.0200 ± 0.0100", "0.33 ± 0.00 (25)", "0.33")
    (line,) = estimate_lines(made_up())
    assert (line["rank, 12 calls"], line["within twice, 12"], line["of samples"]) == (
        "0.60 ± 0.00",
        "90.0 ± 0.0 %",
        "8 9",
    )
    ring, mean = refined_lines(made_up())
    assert ring["9 calls on average"] == "0.70 ± 0.00 (0.33)"
    assert mean["9 calls on average"] == "0.70"
    figure(made_up(), tmp_path / "calls.png")
    assert (tmp_path / "calls.png").stat().st_size > 10_000


@pytest.mark.slow
def test_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    short = pid.distill(pid.toy("ring"), steps=300, progress=False)
    monkeypatch.setattr(pid, "distill", lambda *args, **options: short)
    row = calls.row("ring", 0)
    assert row["errors"]["20"] < 0.5 * row["errors"]["1"]
    assert row["estimates"]["12"]["rank"] > 0.7
    assert row["refined"]["13"] < row["refined"]["9"] < row["refined"]["3"] < row["errors"]["1"]
    assert {"20 calls", "10 calls of the worst 0.1"} < row["plans"].keys()
    assert calls.solver_row("ring")["20"]["dpm++"] < 0.1
