"""Seeds: reproducible random numbers that leave the caller's generators untouched."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["PROCESS_STATE", "mixed", "seeded"]

PROCESS_STATE = threading.RLock()
"""Held while something is changed that all threads share, such as torch's generators: two runs then take turns."""


@contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """Seed torch's global generators (CPU and CUDA) from these numbers, and restore their states afterwards."""
    cuda = torch.cuda.is_initialized()
    seed = numbers[0] if len(numbers) == 1 else mixed(*numbers)
    with PROCESS_STATE, torch.random.fork_rng(range(torch.cuda.device_count()) if cuda else ()):
        # torch.manual_seed would record a stack trace at each call, for a CUDA that may never be initialised.
        torch.default_generator.manual_seed(seed)
        if cuda:
            torch.cuda.manual_seed_all(seed)
        yield


def mixed(*numbers: int) -> int:
    """Combine several numbers into one seed."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
