"""The processes that train one student together; mostly there is one.

`torchrun` and `accelerate launch` start several, on one machine or many, each with a device of its own. All of them
draw the same random numbers for the whole batch and work on their own rows of it, so their number changes nothing but
rounding, and every device gets the same update. What they must agree on is summed between the backward pass and the
update: the gradients in one piece, for nothing is hooked into the backward pass, so that whatever differentiates the
student, forward mode included, and whichever weights take part, cannot slip past it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Team", "assembled"]


class Team:
    """One process, by itself."""

    rank = 0
    size = 1
    device: torch.device | None = None
    """Where this process works; None leaves everything where it is."""

    def rows(self, n: int) -> slice:
        """This process's share of n rows."""
        return slice(self.rank * n // self.size, (self.rank + 1) * n // self.size)

    def sums(self, *values: float) -> list[float]:
        """The sum of each number over the processes.

        Raises:
            ConnectionError: if one of them has ended; so does `add`.
        """
        return list(values)

    def any(self, said: bool) -> bool:
        """Whether any process says so."""
        return self.sums(float(said))[0] > 0

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Put the sum over the processes into each tensor."""

    def align(self, module: nn.Module) -> None:
        """Give every process the weights and buffers of the first."""

    def wait(self) -> None:
        """Until all processes are here."""


class Processes(Team):
    """Several processes, by Accelerate."""

    def __init__(self) -> None:
        try:
            from accelerate import Accelerator
        except ImportError as error:
            raise ImportError("several processes need Accelerate: pip install 'pidlearn[images]'") from error
        self._accelerator: Any = Accelerator(cpu=not torch.cuda.is_available())
        self.rank, self.size = self._accelerator.process_index, self._accelerator.num_processes
        self.device = self._accelerator.device

    def sums(self, *values: float) -> list[float]:
        return self._sum(torch.tensor(values, dtype=torch.float64, device=self.device)).tolist()

    def _sum(self, mine: Tensor) -> Tensor:
        try:
            found: Tensor = self._accelerator.reduce(mine, "sum")
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise ConnectionError(f"another process of this run has ended, and may have said why ({error})") from error
        return found

    def add(self, tensors: Sequence[Tensor]) -> None:
        parts = self._sum(torch.cat([t.reshape(-1) for t in tensors])).split([t.numel() for t in tensors])
        torch._foreach_copy_(list(tensors), [p.view_as(t) for p, t in zip(parts, tensors, strict=True)])

    @torch.no_grad()
    def align(self, module: nn.Module) -> None:
        from accelerate.utils import broadcast

        for tensor in module.state_dict().values():
            tensor.copy_(broadcast(tensor.detach().clone(memory_format=torch.contiguous_format)))

    def wait(self) -> None:
        self._accelerator.wait_for_everyone()


def assembled() -> Team:
    """The processes that this one was started with."""
    return Processes() if int(os.environ.get("WORLD_SIZE", "1")) > 1 else Team()
