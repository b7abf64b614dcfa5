"""Seeds: reproducible random numbers that leave the caller's generators untouched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["mixed", "seeded"]


@contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """torch's own random numbers as after a seed made of these, of the CPU and of CUDA; they are then as they were."""
    cuda = torch.cuda.is_initialized()
    seed = numbers[0] if len(numbers) == 1 else mixed(*numbers)
    with torch.random.fork_rng(range(torch.cuda.device_count()) if cuda else ()):
        # torch.manual_seed would keep a stack trace each time for a CUDA that may never be used.
        torch.default_generator.manual_seed(seed)
        if cuda:
            torch.cuda.manual_seed_all(seed)
        yield


def mixed(*numbers: int) -> int:
    """A seed made of several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
