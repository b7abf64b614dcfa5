"""A method whose state decides what it learns, for tests of resumption."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

import pidlearn as pid


@dataclass
class Counting(pid.methods.PID):
    """PID whose loss depends on how often the weights were updated: a tensor that is changed in place."""

    def stages(self, context: Any, steps: int) -> Any:
        self.updates = torch.zeros(())
        return super().stages(context, steps)

    def loss(self, context: Any, batch: Any) -> torch.Tensor:
        return (1 + self.updates) * super().loss(context, batch)

    def after_update(self, context: Any) -> None:
        self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates}

    def load_state_dict(self, state: Any) -> None:
        self.updates = state["updates"]
