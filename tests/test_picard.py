"""Picard's sweeps: their fixed point is Euler's path, reached state by state, and sooner from a student."""

from __future__ import annotations

from itertools import islice, pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

import pidlearn as pid
from tests import tiny
from tests.strategies import mixtures


def sweep(count: int, *args: Any) -> Tensor:
    """The path after some sweeps."""
    return next(islice(pid.picard(*args), count - 1, None))


@given(mixtures(2))
@settings(max_examples=5)
def test_sweep_k_makes_the_first_k_states_right(mixture: Any) -> None:
    ode, grid = pid.DenoiserODE(mixture), pid.karras_grid(8)
    z = 80 * torch.randn(5, *mixture.event_shape, dtype=torch.float64)
    euler = pid.solve(ode, z, grid)
    path = torch.cat([z[None], torch.randn(7, *z.shape, dtype=torch.float64)])
    for k, swept in zip(range(1, 8), pid.picard(ode, path, grid), strict=False):
        torch.testing.assert_close(swept[: k + 1], euler[: k + 1], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(sweep(1, ode, euler, grid), euler, rtol=1e-10, atol=1e-10)


def test_any_ode() -> None:
    ode, grid = pid.VelocityODE(lambda x, t: -x * t.reshape(-1, 1)), torch.linspace(0.0, 1.0, 9)
    z = torch.randn(4, 3, dtype=torch.float64)
    euler = pid.solve(ode, z, grid)
    torch.testing.assert_close(sweep(8, ode, z.expand(9, 4, 3), grid), euler)
    errors = [(path - euler).abs().max().item() for path in islice(pid.picard(ode, z.expand(9, 4, 3), grid), 6)]
    assert all(after < before / 2 for before, after in pairwise(errors))


def test_from_a_student_fewer_sweeps_suffice() -> None:
    result: Any = pid.distill(pid.toy("ring"), steps=400, seed=0, progress=False)
    ode, grid = result.problem.ode, pid.karras_grid(100)
    z = result.problem.sample_prior(64)
    euler = pid.solve(ode, z, grid)

    def sweeps(path: Tensor) -> int:
        errors = ((swept[-1] - euler[-1]).square().mean().sqrt() for swept in pid.picard(ode, path, grid))
        return next(k for k, error in enumerate(errors, 1) if error < 2e-3)

    line = (grid / 80).to(z)[:, None, None] * z  # from z to the origin
    assert sweeps(result.student.trajectory(z, grid)) < sweeps(line)


def test_images_with_classes_are_swept_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    ode, grid, labels = pid.DenoiserODE(tiny.teacher(label_dim=3)), pid.karras_grid(4), torch.tensor([0, 2])
    z = 80 * torch.randn(2, 1, 8, 8)
    path = (grid / 80).to(z).reshape(-1, 1, 1, 1, 1) * z
    whole = sweep(3, ode, path, grid, labels)
    torch.testing.assert_close(whole, pid.solve(ode, z, grid, class_labels=labels), rtol=1e-4, atol=1e-4)
    monkeypatch.setattr("pidlearn.utils.batching.CPU_NUMBERS", 64)
    torch.testing.assert_close(sweep(3, ode, path, grid, labels), whole, rtol=1e-4, atol=1e-5)


def test_a_path_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"got a path of 3 states for 5 times: pass one state per time, such as"):
        pid.picard(pid.DenoiserODE(pid.toy("ring")), torch.zeros(3, 2, 2), pid.karras_grid(5))
