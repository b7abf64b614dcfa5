"""Muon: a matrix moves by the orthogonal matrix nearest to its momentum, every other weight by Adam."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

__all__ = ["Muon", "orthogonalized"]

MIN_SIDE = 16
"""Inputs and outputs that a matrix has at least; a first or last layer of fewer is left to Adam."""


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) for matrices, Adam for all else.

        M <- m M + (1 - m) g                    the momentum of a weight W with gradient g
        W <- W - r max(1, a/b)^(1/2) O(m M + (1 - m) g)          W is (a, b), O as in `orthogonalized`

    A gradient is dominated by a few directions; O gives all the same length, so that the rare ones are learned, too.
    Matrices are weights with two dimensions or more, such as those of linear layers and of convolutions, (outputs,
    inputs x kernel), of which the first two are at least `MIN_SIDE`. Those of one shape are orthogonalised together,
    which `torch.optim.Muon` does not do.

    Args:
        params: weights, or groups of them; a group with an ``lr`` of its own has the matrix rate in proportion.
        lr: of Adam.
        betas: of Adam.
        matrix_lr: r, the largest singular value of an update of a square matrix.
        momentum: m.
        ns_steps: as in `orthogonalized`.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.99),
        *,
        matrix_lr: float = 0.02,
        momentum: float = 0.95,
        ns_steps: int = 5,
    ) -> None:
        params = list(params)
        given: list[dict[str, Any]] = params if params and isinstance(params[0], dict) else [{"params": params}]
        groups: list[dict[str, Any]] = []
        for group in given:
            group_lr = group.get("lr", lr)
            weights = [group["params"]] if isinstance(group["params"], Tensor) else list(group["params"])
            matrices = [p for p in weights if _is_matrix(p)]
            others = [p for p in weights if not _is_matrix(p)]
            groups.append({**group, "params": others, "lr": group_lr})
            groups.append({**group, "params": matrices, "lr": matrix_lr * group_lr / lr, "momentum": momentum})
        self.ns_steps = ns_steps
        super().__init__([group for group in groups if group["params"]], {"lr": lr})
        # Its groups are ours: it fills in its own settings, and `step` gives it the state.
        self._adam = torch.optim.Adam(adam, lr, betas, fused=True) if (adam := self._groups(matrices=False)) else None

    def _groups(self, matrices: bool) -> list[dict[str, Any]]:
        """The groups of matrices, or those of all other weights; new objects once a state has been loaded."""
        return [group for group in self.param_groups if ("momentum" in group) == matrices]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all weights that have a gradient; returns the loss of ``closure``, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self._adam is not None:
            self._adam.state, self._adam.param_groups = self.state, self._groups(matrices=False)
            self._adam.step()
        for group in self._groups(matrices=True):
            self._step_matrices(group)
        return loss

    def _step_matrices(self, group: dict[str, Any]) -> None:
        weights = [p for p in group["params"] if p.grad is not None]
        if not weights:
            return
        for p in weights:
            if not self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
        gradients, moments = [p.grad for p in weights], [self.state[p]["momentum"] for p in weights]
        torch._foreach_lerp_(moments, gradients, 1 - group["momentum"])
        ahead = torch._foreach_lerp(gradients, moments, group["momentum"])  # Nesterov's
        same = defaultdict(list)
        for p, m in zip(weights, ahead, strict=True):
            same[len(p), p[0].numel(), p.device, p.dtype].append((p, m.flatten(1)))
        for (a, b, *_), pairs in same.items():
            updates = orthogonalized(torch.stack([m for _, m in pairs]), self.ns_steps)
            matrices = [p for p, _ in pairs]
            shaped = [u.view_as(p) for p, u in zip(matrices, updates, strict=True)]
            torch._foreach_add_(matrices, shaped, alpha=-group["lr"] * math.sqrt(max(1, a / b)))


def orthogonalized(M: Tensor, ns_steps: int = 5) -> Tensor:
    """O(M), (n, a, b): the matrices M = U S V^T with their singular values S brought near 1.

    Newton-Schulz: steps X <- p(X X^T) X with an odd polynomial whose slope at 0 is 3.4. Five of them take singular
    values from 0.01 of the norm upwards to about 0.7 to 1.2, which is near enough. On a GPU in bfloat16.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = M.shape[-2] > M.shape[-1]
    X = M.mT if tall else M  # X X^T is the smaller of the two products
    X = X.bfloat16() if X.is_cuda else X
    X = X / (X.norm(dim=(-2, -1), keepdim=True) + 1e-7)  # singular values of at most 1
    for _ in range(ns_steps):
        A = X @ X.mT
        X = torch.baddbmm(X, torch.baddbmm(A, A, A, beta=b, alpha=c), X, beta=a)  # a X + (b A + c A^2) X
    return (X.mT if tall else X).to(M.dtype)


def _is_matrix(p: Tensor) -> bool:
    return p.ndim >= 2 and min(p.shape[:2]) >= MIN_SIDE
