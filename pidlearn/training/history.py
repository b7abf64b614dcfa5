"""What a run records of every step."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

__all__ = ["History", "Step"]


@dataclass(frozen=True)
class Step:
    """One finished step of a training.

    Attributes:
        number: steps done so far, from 1.
        steps: steps in total.
        loss: mean loss of the batch, before the update.
        lr: learning rate of the update.
        samples: samples seen so far.
        seconds: wall-clock time since training began, callbacks included, over all resumptions.
        metrics: what callbacks measured at this step, such as ``{"error": 0.012}``; mostly empty.
    """

    number: int
    steps: int
    loss: float
    lr: float
    samples: int
    seconds: float
    metrics: dict[str, float] = field(default_factory=dict)


class History:
    """Losses and times of all steps done; eight bytes per number, for runs of millions of steps.

    Args:
        rate: the learning rate of a step; it need not be stored.
    """

    def __init__(self, rate: Callable[[int], float]) -> None:
        self._rate = rate
        self._losses, self._seconds = array("d"), array("d")

    def __len__(self) -> int:
        return len(self._losses)

    @property
    def seconds(self) -> float:
        """Wall-clock time since training began, callbacks included, over all resumptions."""
        return self._seconds[-1] if self._seconds else 0.0

    def append(self, loss: float, seconds: float) -> None:
        """Record a step."""
        self._losses.append(loss)
        self._seconds.append(seconds)

    def skip_to(self, step: int) -> None:
        """Leave out the steps before ``step``, of which nothing is known."""
        missing = step - len(self)
        self._seconds.extend(array("d", [self.seconds]) * missing)
        self._losses.extend(array("d", [float("nan")]) * missing)

    def arrays(self) -> dict[str, np.ndarray]:
        """Arrays (steps,) float64 by name: loss, lr, seconds."""
        lr = np.fromiter(map(self._rate, range(len(self))), np.float64, len(self))
        return {"loss": np.array(self._losses), "lr": lr, "seconds": np.array(self._seconds)}

    def state_dict(self) -> dict[str, Tensor]:
        """Losses and seconds as tensors (steps,) float64."""
        columns = {"loss": self._losses, "seconds": self._seconds}
        return {name: torch.tensor(column, dtype=torch.float64) for name, column in columns.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError: columns of different lengths.
        """
        if state["loss"].shape != state["seconds"].shape:
            raise ValueError(f"it has {len(state['loss'])} losses and {len(state['seconds'])} times")
        self._losses, self._seconds = (array("d", state[name].tolist()) for name in ("loss", "seconds"))
