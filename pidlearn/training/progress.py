"""Progress of a training: a bar where it can be redrawn, elsewhere a plain line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from tqdm.auto import tqdm

from pidlearn.training.history import Step

__all__ = ["bar"]

FIRST_LINES = (10.0, 30.0, 60.0)
"""Seconds after the first step at which the first lines are printed."""

MIN_GAP, MAX_GAP = 300.0, 3600.0
"""Seconds between later lines, which also wait until another tenth of all steps is done; but no longer than MAX_GAP."""


@contextmanager
def bar(
    steps: int, name: str, shown: bool, done: int = 0, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[..., None]]:
    """Show on stderr the progress of a training of ``steps`` steps, of which ``done`` are done already.

    Yields:
        A function of a `Step` and further metrics, to be called after every step.
    """
    # In a file, a bar would leave every one of its redrawn states.
    display = _Lines(steps, name, clock) if shown and not _can_redraw() else _Bar(steps, name, shown, done)
    smoothed: float | None = None
    metrics: dict[str, float] = {}

    def show(step: Step) -> None:
        nonlocal smoothed
        smoothed = step.loss if smoothed is None else 0.98 * smoothed + 0.02 * step.loss
        metrics.update(step.metrics)  # a metric stays until it is measured again
        display.update(step, {"loss": smoothed, **metrics})

    try:
        yield show
    finally:
        display.close()


def _can_redraw() -> bool:
    """Whether stderr is a terminal, or this process the kernel of a notebook."""
    return "ipykernel" in sys.modules or getattr(sys.stderr, "isatty", lambda: False)()


class _Bar:
    """One line, which tqdm redraws."""

    def __init__(self, steps: int, name: str, shown: bool, done: int) -> None:
        self.tqdm = tqdm(total=steps, initial=done, desc=name, disable=not shown, mininterval=0.2, dynamic_ncols=True)

    def update(self, step: Step, metrics: dict[str, float]) -> None:
        self.tqdm.update(step.number - self.tqdm.n)
        self.tqdm.set_postfix({key: f"{value:.3g}" for key, value in metrics.items()}, refresh=False)

    def close(self) -> None:
        self.tqdm.close()


class _Lines:
    """A line after the first step, at growing intervals and at the end."""

    def __init__(self, steps: int, name: str, clock: Callable[[], float]) -> None:
        self.steps, self.name, self.clock = steps, name, clock
        self.start: tuple[float, Step] | None = None  # time and Step of the first step that this process does
        self.latest: tuple[float, Step, dict[str, float]] | None = None  # seconds since then, Step and metrics
        self.printed: tuple[float, int] | None = None  # seconds and number of the step of the last line

    def update(self, step: Step, metrics: dict[str, float]) -> None:
        now = self.clock()
        self.start = self.start or (now, step)
        elapsed = now - self.start[0]
        self.latest = elapsed, step, metrics
        if self._is_due(elapsed, step.number):
            self._print(self.start[1], *self.latest)

    def close(self) -> None:
        if self.start and self.latest and self.printed and self.printed[1] < self.latest[1].number:
            self._print(self.start[1], *self.latest)

    def _is_due(self, elapsed: float, number: int) -> bool:
        if self.printed is None:
            return True
        previous, previous_number = self.printed
        for seconds in FIRST_LINES:
            if previous < seconds:
                return elapsed >= seconds
        gap, enough_steps = elapsed - previous, 10 * (number - previous_number) >= self.steps
        return gap >= MAX_GAP or (gap >= MIN_GAP and enough_steps)

    def _print(self, first: Step, elapsed: float, step: Step, metrics: dict[str, float]) -> None:
        parts = [f"{self.name}: step {step.number:,} of {step.steps:,}"]
        parts += [f"{key} {value:.3g}" for key, value in metrics.items()]
        if step.number > first.number and elapsed > 0:
            # The first step does not count: it includes compilation and the first allocations.
            rate = (step.samples - first.samples) / elapsed
            parts.append(f"{rate:,.0f} samples/s" if rate >= 10 else f"{rate:.2g} samples/s")
            left = (step.steps - step.number) * elapsed / (step.number - first.number)
            parts.append(f"{timedelta(seconds=round(left))} left")
        print(", ".join(parts), file=sys.stderr, flush=True)
        self.printed = elapsed, step.number
