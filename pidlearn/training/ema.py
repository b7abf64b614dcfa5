"""Exponential moving averages of the weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

__all__ = ["Averages"]


class Averages:
    """Averaged copies of a module, one per decay rate, that lag behind by one update.

    An update enters the averages only after the next batch has shown that its weights give a finite loss. So no
    diverged weights ever enter them, and they double as the last good weights of a run.

    Args:
        module: the module in training.
        rates: decay rates.
    """

    def __init__(self, module: nn.Module, rates: Sequence[float]) -> None:
        self._module = module
        self._averages = [AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(rate)) for rate in rates]
        self._pending = False

    def __len__(self) -> int:
        return len(self._averages)

    def note_update(self, restart: bool) -> None:
        """Note that the weights have been updated; with ``restart`` the averages begin anew from this update."""
        self._pending = True
        if restart:
            for average in self._averages:
                average.n_averaged.zero_()  # the next call of update_parameters copies

    def include_update(self) -> None:
        """Take in the noted update, if there is one."""
        if self._pending:
            for average in self._averages:
                average.update_parameters(self._module)
        self._pending = False

    def drop_update(self) -> None:
        """Forget the noted update: its weights turned out to be bad, or were replaced."""
        self._pending = False

    @property
    def modules(self) -> list[nn.Module]:
        """The averaged copies, with the last update included if its weights are finite."""
        if self._pending and all(p.isfinite().all() for p in self._module.parameters()):
            self.include_update()
        return [average.module for average in self._averages]

    def state_dict(self) -> list[dict[str, Any]]:
        """One state per rate; read `modules` first, or a noted update is lost."""
        return [average.state_dict() for average in self._averages]

    def load_state_dict(self, states: Sequence[dict[str, Any]]) -> None:
        """Restore what `state_dict` returned."""
        for average, state in zip(self._averages, states, strict=True):
            average.load_state_dict(state)
        self._pending = False
