"""A progress bar for training: steps, time left, a smoothed loss, and what else there is to tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm.auto import tqdm

from pidlearn.training.history import Step

__all__ = ["bar"]


@contextmanager
def bar(steps: int, name: str, shown: bool, done: int = 0) -> Iterator[Callable[..., None]]:
    """Yields a function of a `Step` and further figures, which moves the bar."""
    smoothed: float | None = None
    with tqdm(total=steps, initial=done, desc=name, disable=not shown, mininterval=0.2, dynamic_ncols=True) as line:
        metrics: dict[str, float] = {}

        def show(step: Step) -> None:
            nonlocal smoothed
            metrics.update(step.metrics)
            smoothed = step.loss if smoothed is None else 0.98 * smoothed + 0.02 * step.loss
            line.update(step.number - line.n)
            told = {"loss": f"{smoothed:.3g}", **{key: f"{value:.3g}" for key, value in metrics.items()}}
            line.set_postfix(told, refresh=False)

        yield show
