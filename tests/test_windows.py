"""Chains of trajectories, and trajectories from starts that are read once."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

import pidlearn as pid
from pidlearn.nets.chebyshev import ChebyshevMLP
from pidlearn.students.piecewise import PiecewiseTrajectory
from tests.strategies import random_network

EDGES = {"up": [0.0, 0.7, 1.3, 3.0], "down": [2.0, 1.9, 0.4, -1.0]}


def window(one: float, two: float, dtype: torch.dtype = torch.float64, labels: int = 0) -> pid.Trajectory:
    network = random_network(2, label_dim=labels)
    return pid.Trajectory(network, one, t_min=two, boundary="increment", time="linear", c_in=1.0).to(dtype)


def chain(way: str, **options) -> PiecewiseTrajectory:
    edges = EDGES[way]
    return PiecewiseTrajectory([window(one, two, **options) for one, two in pairwise(edges)])


def by_hand(student: PiecewiseTrajectory, z: Tensor, t: float) -> Tensor:
    """x(z, t) as the definition says: through whole windows, then part of one."""
    for w in student.windows:
        if min(w.t_max, w.t_min) <= t <= max(w.t_max, w.t_min):
            return w(z, t)
        z = w(z, w.t_min)
    raise AssertionError(t)


@pytest.mark.parametrize("way", EDGES)
class TestWindows:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_starts_at_z_to_the_last_bit(self, way: str, dtype: torch.dtype) -> None:
        student, z = chain(way, dtype=dtype), torch.randn(6, 2, dtype=dtype)
        start = EDGES[way][0]
        for t in (start, torch.tensor(start), torch.full((6,), start, dtype=torch.float64), torch.full((6,), start)):
            out = student(z, t)
            assert torch.equal(out, z)
            assert out.dtype == dtype

    def test_continuous_across_edges(self, way: str) -> None:
        student, z = chain(way), torch.randn(6, 2).double()
        for edge in EDGES[way][1:-1]:
            at, before, after = (student(z, edge + h) for h in (0.0, -1e-9, 1e-9))
            assert torch.allclose(at, before, atol=1e-7)
            assert torch.allclose(at, after, atol=1e-7)
            assert not torch.allclose(at, student(z, edge + 0.05), atol=1e-4)

    def test_is_the_chain_written_out(self, way: str) -> None:
        student, z = chain(way), torch.randn(6, 2).double()
        for t in torch.linspace(EDGES[way][0], EDGES[way][-1], 23).double().tolist():
            torch.testing.assert_close(student(z, t), by_hand(student, z, t))

    def test_a_time_for_each_sample(self, way: str) -> None:
        student, z = chain(way), torch.randn(40, 2).double()
        t = torch.linspace(EDGES[way][0], EDGES[way][-1], 40).double()[torch.randperm(40)]
        together = student(z, t)
        for i in range(40):
            torch.testing.assert_close(together[i], student(z, t[i])[i])
        assert torch.equal(student(z, t[3]), student(z, t[3].expand(40)))

    def test_path_and_span(self, way: str) -> None:
        student, z = chain(way), torch.randn(5, 2).double()
        edges = EDGES[way]
        assert (student.t_max, student.t_min) == (edges[0], edges[-1])
        grid = torch.linspace(edges[0], edges[-1], 11).double()
        path = student.trajectory(z, grid)
        assert path.shape == (11, 5, 2)
        assert not path.requires_grad
        assert torch.equal(path[0], z)
        assert torch.equal(path[7], student(z, grid[7]))

    def test_times_outside_the_span_are_refused(self, way: str) -> None:
        student, z = chain(way), torch.randn(5, 2).double()
        for t in (
            student.t_min + 0.1 * (student.t_min - student.t_max),
            student.t_max - 1e-3 * student.t_min,
            math.nan,
        ):
            with pytest.raises(ValueError, match=f"defined for t from {student.t_max:g} to {student.t_min:g}"):
                student(z, t)

    def test_gradients_reach_every_window_up_to_t(self, way: str) -> None:
        student, z = chain(way), torch.randn(5, 2).double()
        student(z, sum(EDGES[way][1:3]) / 2).sum().backward()  # in the second of three
        moved = [any(p.grad is not None and p.grad.any() for p in w.parameters()) for w in student.windows]
        assert moved == [True, True, False]

    def test_labels(self, way: str) -> None:
        student, z = chain(way, labels=3), torch.randn(6, 2).double()
        t = torch.linspace(EDGES[way][0], EDGES[way][-1], 6).double()
        labels = torch.tensor([0, 1, 2, 0, 1, 2])
        mixed = student(z, t, labels)
        for k in range(3):
            torch.testing.assert_close(mixed[labels == k], student(z, t, torch.full((6,), k))[labels == k])


def test_chains_that_are_none() -> None:
    with pytest.raises(ValueError, match="ends at 1 and a next one that starts at 2"):
        PiecewiseTrajectory([window(0.0, 1.0), window(2.0, 3.0)])
    with pytest.raises(ValueError, match="change direction at 1"):
        PiecewiseTrajectory([window(0.0, 1.0), window(1.0, 0.5)])
    with pytest.raises(ValueError, match="at least one"):
        PiecewiseTrajectory([])


@pytest.mark.parametrize("span", [(0.0, 2.0), (1.0, -1.0)])
def test_started_is_the_ordinary_call(span: tuple[float, float]) -> None:
    network = pid.nets.ChebyshevMLP(2, width=8, depth=2)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    start, end = span
    student = pid.Trajectory(network, start, t_min=end, boundary="increment", time="linear", c_in=0.7).double()
    z, t = torch.randn(4, 2).double(), torch.linspace(start, end, 12).double()
    copies = z.repeat(3, 1)
    started = student.at_start(z)
    torch.testing.assert_close(started(copies, t), student(copies, t))
    for one, two in zip(
        started.learned_term(copies, t, t.flip(0)), student.learned_term(copies, t, t.flip(0)), strict=True
    ):
        torch.testing.assert_close(one, two)
    assert torch.equal(started(copies, start), copies)
    # The gradient goes through what was read.
    grads = [torch.autograd.grad(s(copies, t).square().sum(), list(student.parameters())) for s in (started, student)]
    for one, two in zip(*grads, strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_path_costs_one_encoding_per_window(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    student = pid.steps(pid.system("pendulum"), steps=60, windows=4, n=5).student
    z = torch.randn(6, 2)
    grid = torch.cat([torch.linspace(10, 0, 37), torch.tensor([2.5, 7.5, 2.5])]).to(dtype)  # in any order, and edges
    with torch.no_grad():
        expected = torch.stack([student(z, t) for t in grid])
        alone = torch.stack([student.windows[0](z, t) for t in grid[30:37]])
    calls = []
    encode = ChebyshevMLP.encode
    monkeypatch.setattr(ChebyshevMLP, "encode", lambda self, x: calls.append(self) or encode(self, x))
    assert torch.equal(student.trajectory(z, grid), expected)
    assert torch.equal(student.trajectory(z, grid.tolist()), expected)
    assert calls == 2 * [window.network for window in student.windows]
    assert torch.equal(student.windows[0].trajectory(z, grid[30:37]), alone)
    assert len(calls) == 2 * len(student.windows) + 1
