"""Several processes train as one does: the same numbers, the same update, the same end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pidlearn.training.distributed import AccelerateProcesses, current_processes
from tests.team_run import run

ROOT = Path(__file__).parents[1]


def test_a_process_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    def reduce(*_: object) -> None:
        raise RuntimeError("Connection closed by peer")

    team = object.__new__(AccelerateProcesses)
    team._accelerator = SimpleNamespace(reduce=reduce)
    for told in (team.any, lambda said: team.all_reduce_([torch.ones(2)])):
        with pytest.raises(ConnectionError, match="another process of this run has ended"):
            told(True)


def by_two_processes(folder: Path, *cases: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """What each of two processes ends each case with."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *launcher, "-m", "tests.team_run", str(folder), json.dumps(cases)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def assert_alike(one: dict[str, Any], two: dict[str, Any], tolerance: float) -> None:
    np.testing.assert_allclose(one["loss"], two["loss"], rtol=tolerance, atol=0)
    for name, value in one["student"].items():
        torch.testing.assert_close(value, two["student"][name], rtol=0, atol=tolerance, msg=name)


STAGES: dict[str, Any] = {"steps": 4, "batch_size": 6, "ema": [0.9], "n": 5}
METHODS = [
    {**STAGES, "method": "pd", "calls": 2, "teacher_steps": 2, "images": True},
    {**STAGES, "method": "corrector", "share": 0.5},
    {**STAGES, "method": "flow_map", "identity": "semigroup"},
    {**STAGES, "method": "reflow", "pairs": 16},
]
"""Of each kind: networks in stages, an auxiliary one, steps of many lengths, solved paths."""


def test_two_processes_train_as_one_stop_together_and_go_on(tmp_path: Path) -> None:
    usual = {"steps": 6, "batch_size": 6, "ema": [0.9]}
    uneven = {**usual, "steps": 3, "derivative": "exact", "batch_size": 3, "micro_batch": 1}
    resumable = {**usual, "resumable": True}
    cases = [usual, uneven, {**resumable, "stop": 3}, resumable, {**usual, "optimizer": "muon"}]
    one, two = by_two_processes(tmp_path, *cases, *METHODS)
    for mine, theirs in zip(one, two, strict=True):
        assert_alike(mine, theirs, 0)
    whole, by_parts, half, resumed, muon, *methods = one
    for settings, theirs in zip(METHODS, methods, strict=True):
        assert_alike(run(tmp_path, **settings, micro_batch=3), theirs, 0)
    # Of one process that takes its batch in the same parts, and sums them up in the same order, bit for bit. In another
    # order sums round differently, which Adam's division by gradients multiplies step by step.
    assert_alike(run(tmp_path, **usual, micro_batch=3), whole, 0)
    assert_alike(run(tmp_path, **usual, micro_batch=3, optimizer="muon"), muon, 0)
    assert_alike(run(tmp_path, **uneven), by_parts, 1e-5)
    assert len(half["loss"]) == 3
    assert_alike(whole, resumed, 0)


def test_the_number_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("", " ", "1", "0"):
        monkeypatch.setenv("WORLD_SIZE", text)
        assert current_processes().size == 1
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(ValueError, match="WORLD_SIZE is 'two', but must be the number of processes: unset it"):
        current_processes()
