"""Muon: matrices by the orthogonal matrix next to their momentum, everything else exactly as Adam does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import pidlearn as pid
from pidlearn.methods import Stage
from pidlearn.training.muon import Muon, orthogonalized
from pidlearn.training.optim import OptimizerConfig, build_optimizer


def gradients_of(weights: list[Tensor], steps: int, seed: int = 0) -> list[list[Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [[torch.randn(w.shape, generator=generator).to(w) for w in weights] for _ in range(steps)]


def moved(optimizer: torch.optim.Optimizer, weights: list[Tensor], steps: int = 5) -> list[Tensor]:
    for gradients in gradients_of(weights, steps):
        for w, g in zip(weights, gradients, strict=True):
            w.grad = g
        optimizer.step()
    return [w.detach().clone() for w in weights]


def weights(*shapes: tuple[int, ...]) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(1)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


@given(st.integers(1, 3), st.integers(16, 70), st.integers(16, 70), st.floats(1e-6, 1e6), st.integers(0, 9))
def test_singular_values_become_about_one_and_directions_stay(n: int, a: int, b: int, scale: float, seed: int) -> None:
    M = scale * torch.randn(n, a, b, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    U, S, Vh = torch.linalg.svd(M, full_matrices=False)
    inside = U.mT @ orthogonalized(M) @ Vh.mT  # diagonal, in the basis of M's directions
    values = inside.diagonal(dim1=-2, dim2=-1)
    assert values.max() < 1.25
    assert values[0.02 * S.square().sum(-1, keepdim=True).sqrt() < S].min() > 0.65  # not the least of them
    assert (inside - torch.diag_embed(values)).abs().max() < 1e-9


def test_no_gradient_is_no_movement() -> None:
    assert not orthogonalized(torch.zeros(1, 20, 30)).any()


@pytest.mark.parametrize("shape", [(24, 24), (48, 16), (16, 48)])
def test_a_matrix_moves_as_with_torchs(shape: tuple[int, int]) -> None:
    """Torch's computes in bfloat16."""
    ours, theirs = weights(shape), weights(shape)
    start = ours[0].detach().clone()
    a = moved(Muon(ours, 1e-3, matrix_lr=0.02), [*ours])[0]
    b = moved(torch.optim.Muon(theirs, 0.02, weight_decay=0.0, momentum=0.95), [*theirs])[0]
    assert (a - b).norm() < 0.02 * (b - start).norm()


def test_all_else_moves_as_with_adam() -> None:
    shapes = ((64,), (64, 2), (2, 64), (32, 3, 3, 3), ())
    ours, theirs = weights(*shapes), weights(*shapes)
    a = moved(Muon(ours, 1e-2, (0.9, 0.95)), [*ours])
    b = moved(torch.optim.Adam(theirs, 1e-2, (0.9, 0.95), fused=True), [*theirs])
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_a_kernel_is_a_matrix_and_shapes_do_not_matter_to_one_another() -> None:
    shapes = ((32, 16, 3, 3), (20, 30), (32, 144), (20, 30), (7,))
    together = weights(*shapes)
    kernel, *_, matrix, _ = moved(Muon(together, 1e-3), [*together])
    flat, alone = weights(*shapes)[0].detach().flatten(1), weights(*shapes)[3].detach()
    gradients = [(g[0], g[3]) for g in gradients_of([*weights(*shapes)], 5)]
    for i, (w, after) in enumerate(((flat, kernel.flatten(1)), (alone, matrix))):
        p = nn.Parameter(w.clone())
        optimizer = Muon([p], 1e-3)
        for pair in gradients:
            p.grad = pair[i].reshape(p.shape)
            optimizer.step()
        torch.testing.assert_close(p.detach(), after, rtol=1e-5, atol=1e-6)


def test_the_order_in_memory_does_not_matter() -> None:
    one, other = weights((32, 16, 3, 3)), weights((32, 16, 3, 3))
    other = [nn.Parameter(other[0].detach().to(memory_format=torch.channels_last))]
    torch.testing.assert_close(moved(Muon(one, 1e-3), [*one]), moved(Muon(other, 1e-3), [*other]))


def test_weights_of_a_group_may_come_as_adam_takes_them() -> None:
    network = nn.Sequential(nn.Linear(20, 20), nn.Linear(20, 2))
    one = Muon([{"params": network.parameters()}, {"params": nn.Parameter(torch.ones(3))}], 1e-3)
    assert sum(len(group["params"]) for group in one.param_groups) == 5


def test_rates_of_groups() -> None:
    for scale in (1.0, 0.25):
        ours = weights((20, 20), (5,))
        start = [w.detach().clone() for w in ours]
        optimizer = Muon([{"params": ours, "lr": scale * 1e-3}], 1e-3, matrix_lr=0.04)
        assert sorted(group["lr"] for group in optimizer.param_groups) == [scale * 1e-3, scale * 0.04]
        matrix, bias = moved(optimizer, [*ours], steps=1)
        assert (matrix - start[0]).norm(2, (0, 1)) == pytest.approx(scale * 0.04 * 20**0.5, rel=0.25)
        torch.testing.assert_close((bias - start[1]).abs(), torch.full((5,), scale * 1e-3), rtol=1e-3, atol=0)


def test_the_rate_of_matrices_follows_the_other_rate_unless_it_is_set() -> None:
    stage = Stage(nn.Linear(16, 16), 1)
    for config, matrices in (({}, 0.05), ({"matrix_lr": 0.3}, 0.3)):
        optimizer = build_optimizer(stage, OptimizerConfig(lr=0.01, optimizer="muon", **config))
        assert sorted(group["initial_lr"] for group in optimizer.param_groups) == [0.01, matrices]


def test_a_loss_may_be_computed_by_the_step() -> None:
    (w,) = weights((20, 20))

    def closure() -> Any:
        loss = w.square().sum()
        loss.backward()
        return loss

    optimizer = Muon([w], 1e-3)
    first = optimizer.step(closure)
    optimizer.zero_grad()
    assert optimizer.step(closure) < first


def test_it_learns_more_than_adam_in_the_same_steps() -> None:
    errors = {}
    for optimizer in ("adam", "muon"):
        result = pid.distill(pid.toy("ring"), optimizer=optimizer, steps=250, seed=0, progress=False)
        errors[optimizer] = result.evaluate(1024)["rmse"]
    assert errors["muon"] < 0.75 * errors["adam"]
