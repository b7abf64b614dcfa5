"""Exponential moving averages of the weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pidlearn.utils.wrappers import renamed_for

__all__ = ["Averages"]


class Averages:
    """Averaged copies of a module, one per decay rate, that lag behind by one update.

    A step's loss is computed before its update, so it shows whether the update *before* was good. An update is noted,
    and enters the averages only once the next loss is finite: diverged weights stay out of them, and they double as the
    last good weights of a run. Who reads them earlier calls `flush` first.

    An update enters only the averages of the part in training: those of a finished stage stay as they are.

    Args:
        module: the module in training.
        rates: decay rates.
    """

    def __init__(self, module: nn.Module, rates: Sequence[float]) -> None:
        self._module = module
        # w_avg <- rate w_avg + (1 - rate) w: a mean over about 1 / (1 - rate) updates, 1,000 at a rate of 0.999.
        self._averages = [AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(rate)) for rate in rates]
        self._pending, self._part = False, module

    def __len__(self) -> int:
        return len(self._averages)

    def note_update(self, part: nn.Module, restart: bool) -> None:
        """Note that a part of the module was updated; with ``restart`` its averages begin anew from this update."""
        self._pending, self._part = True, part
        if restart:
            for average in self._averages:
                average.n_averaged.zero_()  # the next update is copied

    def confirm_update(self) -> None:
        """Average the noted update, if there is one."""
        if self._pending:
            for average in self._averages:
                self._update(average)
        self._pending = False

    @torch.no_grad()
    def _update(self, average: AveragedModel) -> None:
        """`AveragedModel.update_parameters`, for the part in training."""
        trained = set(map(id, self._part.parameters()))
        both = zip(average.module.parameters(), self._module.parameters(), strict=True)
        pairs = [(mean, weight) for mean, weight in both if id(weight) in trained]
        if not average.n_averaged:
            for mean, weight in pairs:
                mean.copy_(weight)
        elif pairs:
            means, weights = map(list, zip(*pairs, strict=True))
            assert average.multi_avg_fn is not None
            average.multi_avg_fn(means, weights, average.n_averaged)
        for own, buffer in zip(average.module.buffers(), self._module.buffers(), strict=True):
            own.copy_(buffer)
        average.n_averaged += 1

    def drop_update(self) -> None:
        """Forget the noted update: its weights turned out to be bad, or were replaced."""
        self._pending = False

    def flush(self) -> None:
        """Average the noted update now, before any loss confirms it, if its weights are finite."""
        if self._pending and all(p.isfinite().all() for p in self._module.parameters()):
            self.confirm_update()

    @property
    def modules(self) -> list[nn.Module]:
        """The averaged copies, one per rate."""
        return [average.module for average in self._averages]

    def state_dict(self) -> list[dict[str, Any]]:
        """One state per rate; a noted update that was not flushed is lost."""
        return [average.state_dict() for average in self._averages]

    def load_state_dict(self, states: Sequence[dict[str, Any]]) -> None:
        """Restore what `state_dict` returned."""
        for average, state in zip(self._averages, states, strict=True):
            average.load_state_dict(renamed_for(average, state))
        self._pending = False
