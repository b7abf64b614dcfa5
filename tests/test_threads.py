"""Two runs in two threads draw what each would draw alone, although torch's random numbers are one state for all."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import torch
from torch import Tensor, nn

import pidlearn as pid


class Dropping(nn.Module):
    """A field with dropout, whose masks come from torch's global generator."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return -self.rate * nn.functional.dropout(x, 0.2)


def prior(n: int, generator: torch.Generator | None = None) -> Tensor:
    """Draws from the global generator, whatever it is given."""
    return torch.randn(n, 2)


def losses(seed: int, barrier: Barrier | None = None) -> list[float]:
    run = pid.steps(
        pid.VelocityODE(Dropping()), seed=seed, steps=60, windows=2, n=5, prior=prior, t_start=0.0, t_end=1.0
    )
    found = []
    for step in run:
        if barrier:
            barrier.wait()  # so that the steps of both fall together
        found.append(step.loss)
    return found


def test_two_runs_in_two_threads() -> None:
    alone, barrier = [losses(1), losses(2)], Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda seed: losses(seed, barrier), (1, 2)))
    assert together == alone
