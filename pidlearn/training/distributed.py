"""The processes that train one student together; usually there is one.

`torchrun` and `accelerate launch` start several, on one machine or many, each with a device of its own. All of them
draw the same random numbers for the whole batch and work on their own rows of it, so their number changes nothing but
rounding, and every device applies the same update. Gradients are summed between the backward pass and the update.
Nothing is hooked into the backward pass itself, as `DistributedDataParallel` does, so forward-mode differentiation and
partly trained students are synchronised like everything else.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["AccelerateProcesses", "Processes", "current_processes"]


class Processes:
    """A single process; the base class for several."""

    rank = 0
    size = 1
    device: torch.device | None = None
    """The device that this process works on; None leaves everything where it is."""

    def shard(self, n: int) -> slice:
        """This process's share of n rows."""
        return slice(self.rank * n // self.size, (self.rank + 1) * n // self.size)

    def sum(self, *values: float) -> list[float]:
        """The sum of each number over the processes.

        Raises:
            ConnectionError: if one of them has ended; so does `all_reduce_`.
        """
        return list(values)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return self.sum(float(flag))[0] > 0

    def all_reduce_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the processes."""

    def broadcast_weights(self, module: nn.Module) -> None:
        """Copy the weights and buffers of the first process to all others."""

    def barrier(self) -> None:
        """Wait until all processes have arrived here."""


class AccelerateProcesses(Processes):
    """Several processes, connected by Accelerate."""

    def __init__(self) -> None:
        try:
            from accelerate import Accelerator
        except ImportError as error:
            raise ImportError("several processes need Accelerate: pip install 'pidlearn[images]'") from error
        self._accelerator: Any = Accelerator(cpu=not torch.cuda.is_available())
        self.rank, self.size = self._accelerator.process_index, self._accelerator.num_processes
        self.device = self._accelerator.device

    def sum(self, *values: float) -> list[float]:
        """The sum of each number over the processes."""
        return self._reduce(torch.tensor(values, dtype=torch.float64, device=self.device)).tolist()

    def _reduce(self, tensor: Tensor) -> Tensor:
        try:
            reduced: Tensor = self._accelerator.reduce(tensor, "sum")
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise ConnectionError(
                f"another process of this run has ended and may have reported why ({error})"
            ) from error
        return reduced

    def all_reduce_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the processes."""
        # One message for all gradients: many small ones would wait for the network's latency each.
        flat = self._reduce(torch.cat([t.reshape(-1) for t in tensors]))
        parts = flat.split([t.numel() for t in tensors])
        torch._foreach_copy_(list(tensors), [p.view_as(t) for p, t in zip(parts, tensors, strict=True)])

    @torch.no_grad()
    def broadcast_weights(self, module: nn.Module) -> None:
        """Copy the weights and buffers of the first process to all others."""
        from accelerate.utils import broadcast

        for tensor in module.state_dict().values():
            tensor.copy_(broadcast(tensor.detach().clone(memory_format=torch.contiguous_format)))

    def barrier(self) -> None:
        """Wait until all processes have arrived here."""
        self._accelerator.wait_for_everyone()


def current_processes() -> Processes:
    """The processes that this one was started with.

    Raises:
        ValueError: an environment variable WORLD_SIZE that is not a number.
    """
    size = os.environ.get("WORLD_SIZE", "").strip() or "1"
    if not size.isdecimal():
        raise ValueError(
            f"the environment variable WORLD_SIZE is {size!r:.80}, but must be the number of processes: unset it, or "
            f"start the processes with torchrun"
        )
    return AccelerateProcesses() if int(size) > 1 else Processes()
