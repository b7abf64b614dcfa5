"""Optimisers that `benchmarks.faster` tries, and that the library has not."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pidlearn.training.muon import Muon
from pidlearn.training.optim import MATRIX_LR, OptimizerConfig

__all__ = ["ScheduleFree", "Soap", "muon", "schedule_free_adam", "schedule_free_muon", "soap"]


def muon(parameters: Any, config: OptimizerConfig, **options: Any) -> Muon:
    """Muon with options that `pidlearn.Config` has not."""
    return Muon(parameters, config.lr, (0.9, config.beta2), matrix_lr=MATRIX_LR * config.lr, **options)


class ScheduleFree(torch.optim.Optimizer):
    """Another optimiser's steps at a constant rate, and a running mean of its weights in place of a schedule.

        y = (1 - b) z + b x            the weights during training, where gradients are taken
        z <- z - update(gradient)      the other optimiser's
        x <- (1 - c) x + c z           c = r^2 over the sum of r^2 so far, for the rate r, which only warms up

    (Defazio et al. 2024, arXiv 2405.15682.) After the last step the weights are x.

    Args:
        base: the other optimiser.
        steps: how many there will be.
        b: between z and their mean.
    """

    def __init__(self, base: torch.optim.Optimizer, steps: int, b: float) -> None:
        super().__init__(base.param_groups, {})
        self.base, self.b, self.left, self.total = base, b, steps, 0.0

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Update z, x and y."""
        weights = [p for group in self.param_groups for p in group["params"]]
        group = self.param_groups[0]
        rate = group["lr"] / group["initial_lr"]
        self.total += rate**2
        self.left -= 1
        for p in weights:
            if p not in self.state:
                self.state[p] = {"z": p.clone()}
        means = [p.lerp(self.state[p]["z"], 1 - 1 / self.b) for p in weights]  # x = z + (y - z) / b
        for p in weights:
            p.copy_(self.state[p]["z"])
        self.base.step()
        for p, x in zip(weights, means, strict=True):
            self.state[p]["z"].copy_(p)
            x.lerp_(p, rate**2 / self.total)
            p.lerp_(x, self.b if self.left else 1.0)


def schedule_free_adam(parameters: Any, config: OptimizerConfig) -> ScheduleFree:
    """Adam without momentum, of which the mean takes the place."""
    adam = torch.optim.Adam(parameters, config.lr, (0.0, config.beta2), fused=True)
    return ScheduleFree(adam, config.steps, b=0.98)


def schedule_free_muon(parameters: Any, config: OptimizerConfig) -> ScheduleFree:
    """Muon with a shorter momentum."""
    return ScheduleFree(muon(parameters, config, momentum=0.9), config.steps, b=0.9)


class Soap(torch.optim.Optimizer):
    """SOAP (Vyas et al. 2024, arXiv 2409.11321): Adam for matrices in the eigenbasis of Shampoo's preconditioners.

        L <- s L + (1 - s) G G^T,   R <- s R + (1 - s) G^T G        for a gradient G (a, b)
        Adam's second moment and step are those of Q_L^T G Q_R      Q the eigenvectors, by one QR step every ten steps

    A side longer than `LONGEST` has Q = I. Biases have it on both sides, which is Adam. The first gradient serves to
    start L and R only.
    """

    LONGEST, EVERY = 640, 10

    def __init__(self, params: Any, lr: float, betas: tuple[float, float], s: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "s": s})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Update all weights."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._update(p, p.grad.flatten(1) if p.ndim > 1 else p.grad.reshape(1, -1), group)

    def _update(self, p: Tensor, g: Tensor, group: dict[str, Any]) -> None:
        state = self.state[p]
        if not state:
            sides = [p.ndim > 1 and side <= self.LONGEST for side in g.shape]
            factors = [g @ g.mT if sides[0] else None, g.mT @ g if sides[1] else None]
            bases = [None if f is None else torch.linalg.eigh(f)[1] for f in factors]
            state.update(step=0, m=torch.zeros_like(g), v=torch.zeros_like(g), factors=factors, bases=bases)
            return
        beta1, beta2 = group["betas"]
        state["step"] += 1
        state["m"].lerp_(g, 1 - beta1)
        turned = _turn(g, state["bases"])
        state["v"].lerp_(turned.square(), 1 - beta2)
        m = _turn(state["m"], state["bases"]) / (1 - beta1 ** state["step"])
        v = state["v"] / (1 - beta2 ** state["step"])
        inverse = [None if q is None else q.mT for q in state["bases"]]
        p.add_(_turn(m / (v.sqrt() + 1e-8), inverse).view_as(p), alpha=-group["lr"])
        for side, factor in enumerate(state["factors"]):
            if factor is not None:
                factor.lerp_(g @ g.mT if side == 0 else g.mT @ g, 1 - group["s"])
                if state["step"] % self.EVERY == 0:
                    self._refresh(state, side, factor)

    def _refresh(self, state: dict[str, Any], side: int, factor: Tensor) -> None:
        """One step of the QR algorithm, the largest eigenvalues first."""
        q = state["bases"][side]
        order = (q * (factor @ q)).sum(0).argsort(descending=True)
        state["v"] = state["v"].index_select(side, order)
        state["bases"][side] = torch.linalg.qr(factor @ q[:, order])[0]


def _turn(g: Tensor, bases: list[Tensor | None]) -> Tensor:
    """Q_L^T g Q_R."""
    left, right = bases
    g = g if left is None else left.mT @ g
    return g if right is None else g @ right


def soap(parameters: Any, config: OptimizerConfig) -> Soap:
    """SOAP with Adam's settings."""
    return Soap(parameters, config.lr, (0.9, config.beta2))
