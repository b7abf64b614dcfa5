"""The benchmark of several calls: solvers spend what they are said to, and tables show what was measured."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import pidlearn as pid
from benchmarks import calls
from benchmarks.calls import CALLS, EXTRA, REFINED, call_lines, estimate_lines, figure, plain, refined_lines
from pidlearn.teachers import save_teacher


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
    """Rows of two seeds of two toys, whose errors fall with the root of the calls."""
    rows: dict[str, Any] = {}
    for toy in ("ring", "moons"):
        rows[f"{toy}/solvers"] = {str(k): {"euler": 1.0, "dpm++": 0.5} for k in (1, *CALLS)}
        for seed, one in enumerate((0.01, 0.03)):
            estimates = {str(m): {"rank": m / 20, "within": 0.9, "wrong": 0.5} for m in EXTRA}
            errors = {str(k): one / k**0.5 for k in (1, *CALLS)}
            refined = {str(mean): 0.7 * one for mean in REFINED}
            rows[f"{toy}/seed {seed}"] = {
                "errors": errors,
                "estimates": estimates,
                "refined": refined,
                "wrong": 8 + seed,
                "wrong, by true errors": 0.6 + seed / 10,
            }
    return rows


def test_tables_and_figure(tmp_path: Path) -> None:
    ring, _, mean = call_lines(made_up())
    assert (ring["one call"], ring["9 calls"], mean["9 calls"]) == ("0.0200 ± 0.0100", "0.33 ± 0.00 (25)", "0.33")
    line, _ = estimate_lines(made_up())
    assert (line["rank, 12 calls"], line["within twice, 12"]) == ("0.60 ± 0.00", "90.0 ± 0.0 %")
    assert (line["wrong modes, 12"], line["of samples"]) == ("50 ± 0 % (65)", "8 9")
    ring, _, mean = refined_lines(made_up())
    assert ring["9 calls on average"] == "0.70 ± 0.00 (0.33)"
    assert mean["9 calls on average"] == "0.70"
    figure(made_up()).savefig(tmp_path / "calls.png")
    assert (tmp_path / "calls.png").stat().st_size > 10_000


@pytest.mark.slow
def test_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    short = pid.distill(pid.toy("ring"), steps=300, progress=False)
    monkeypatch.setattr(pid, "distill", lambda *args, **options: short)
    row = calls.row(calls.toy, "ring", 0)
    assert row["errors"]["20"] < 0.5 * row["errors"]["1"]
    assert row["estimates"]["12"]["rank"] > 0.7
    assert row["refined"]["13"] < row["refined"]["9"] < row["refined"]["3"] < row["errors"]["1"]
    assert {"20 calls", "10 calls of the worst 0.1"} < row["plans"].keys()
    assert calls.solver_row("ring")["20"]["dpm++"] < 0.1


def test_a_student_of_images_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = {"model_channels": 4, "channel_mult": [1], "num_blocks": 1, "attn_resolutions": []}
    teacher = pid.nets.EDMPrecond(8, 1, 10, sigma_data=0.5, **network)
    save_teacher(teacher, tmp_path / "teacher.safetensors")
    pid.distill(teacher, steps=2, batch_size=4, n=10, progress=False).save(tmp_path / "student.safetensors")
    few = {"FEW": 40, "SHOWN": (2, 3), "EXTRA": (2,), "REFINED": {3: (0.5, 6)}}
    for name, value in few.items():
        monkeypatch.setattr(calls, name, value)
    monkeypatch.setattr("pidlearn.refinement.calibration.IMAGES", 24)
    monkeypatch.setattr("pidlearn.refinement.calibration.SPLITS", (2,))
    monkeypatch.setattr("pidlearn.refinement.calibration.TRIES", 2)
    monkeypatch.setattr("pidlearn.equations.diffusion.EXACT_STEPS", 8)
    judged: list[int] = []

    def train_classifier(train: Tensor, *rest: Any, epochs: int) -> Any:
        judged.extend((len(train), epochs))
        return SimpleNamespace(classify=lambda x: x.flatten(1)[:, :10])

    monkeypatch.setattr(calls, "train_classifier", train_classifier)
    rows = {
        "digits/solvers": calls.solver_row_of_images("digits", tmp_path),
        "digits/seed 0": calls.row(calls.images, "digits", tmp_path),
    }
    assert judged == [1498, 60] * 2
    assert rows["digits/solvers"].keys() == {"1", "2", "3"}
    (line,) = call_lines(rows)
    assert line.keys() == {"teacher", "one call", "2 calls", "3 calls"}
    (line,) = refined_lines(rows)
    assert line.keys() == {"teacher", "3 calls on average"}
    errors = rows["digits/seed 0"]["errors"]
    monkeypatch.setattr("pidlearn.equations.diffusion.EXACT_STEPS", None)  # nothing is solved again
    of = calls.images("digits", tmp_path)
    assert {"2 calls", "3 calls"} < of.result.student.calibration.keys()
    assert errors["1"] == pytest.approx(calls.rms(calls.size(of.result.generate(of.z, of.labels) - of.exact)))
    assert 0 < errors["3"] <= 1.1 * errors["1"]
    figure(rows).savefig(tmp_path / "calls.png")
