"""What ends a training before its last step, and the signals that announce it."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from types import FrameType

from pidlearn.utils.settings import COUNT, is_number

__all__ = ["Limits", "Stop", "StopReason", "catch_signals"]


class StopReason(Enum):
    """Why not all steps were done."""

    CALLBACK = "a callback stopped the run"
    MAX_TIME = "max_time is over"
    MAX_IMAGES = "max_images are done"
    TERMINATED = "the process received SIGTERM"
    INTERRUPTED = "interrupted"
    UNSAVED = "a checkpoint could not be written"
    DIVERGED = "the loss is not finite"
    OTHER_PROCESS = "another process stopped the run"
    UNFINISHED = "the run is not finished"


@dataclass(frozen=True)
class Stop:
    """The end of a training before its last step.

    Attributes:
        reason: why, for programs.
        message: why and when, for people.
    """

    reason: StopReason
    message: str

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class Limits:
    """What may be spent on a training.

    Attributes:
        max_time: seconds, counted from ``since``.
        max_images: samples.
        since: a time of `time.monotonic`.

    Raises:
        ValueError: limits that are not positive numbers.
    """

    max_time: float | None
    max_images: int | None
    since: float

    def __post_init__(self) -> None:
        if self.max_images is not None and not COUNT[0](self.max_images):
            raise ValueError(f"got max_images = {self.max_images!r}, but max_images must be {COUNT[1]}")
        if self.max_time is not None and not (is_number(self.max_time) and self.max_time > 0):
            raise ValueError(f"got max_time = {self.max_time!r}, but max_time must be a positive number of seconds")

    def images_are_done(self, samples: int) -> bool:
        """Whether ``max_images`` samples have been used."""
        return self.max_images is not None and samples >= self.max_images

    def reached(self, samples: int, signals: list[int], by_callback: bool = False) -> Stop | None:
        """The first reason to stop now, its message without the step; or None."""
        late = self.max_time is not None and time.monotonic() - self.since >= self.max_time
        reasons = {
            StopReason.CALLBACK: (by_callback, "a callback stopped the run"),
            StopReason.MAX_TIME: (late, f"max_time, {self.max_time} s, was over"),
            StopReason.MAX_IMAGES: (self.images_are_done(samples), f"max_images, {self.max_images}, were done"),
            StopReason.TERMINATED: (signal.SIGTERM in signals, "the process received SIGTERM"),
            StopReason.INTERRUPTED: (signal.SIGINT in signals, "interrupted"),
        }
        return next((Stop(reason, text) for reason, (holds, text) in reasons.items() if holds), None)


@contextmanager
def catch_signals() -> Iterator[list[int]]:
    """Yield a list that collects SIGTERM, which clusters send before they take a machine away, and Ctrl-C.

    The training saves and ends at the next step; a second Ctrl-C interrupts at once. Only the main thread can receive
    signals: in others the list stays empty. Handlers that the user has installed are kept.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and number in received:
            raise KeyboardInterrupt
        received.append(number)

    usual = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    before = {n: signal.signal(n, handle) for n, handler in usual.items() if signal.getsignal(n) is handler}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
