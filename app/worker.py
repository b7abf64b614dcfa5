"""Trains one student in a process of its own, and tells its parent how it goes: `python -m app.worker`.

A `Job` comes in by pickle on stdin, then a line for every wish: pause, resume, stop. Out go pairs of a kind and what
is told, pickled one after another on stdout. The parent is the only one who writes and reads these pipes. When its
end closes, however it died, this process ends.
"""

from __future__ import annotations

import os
import pickle
import sys
import threading
import time
from dataclasses import replace
from typing import Any, BinaryIO

from app.models.jobs import Job, build
from pidlearn.viewer import View

__all__ = ["main"]

FIGURES, PICTURES = 0.25, 1.0
"""Seconds between two words on the loss, and between two pictures of the student."""
SHARE = 4
"""Of the time: at least so many times as long is trained as pictures took."""
JUDGED = 256
"""Samples whose error is followed."""
FAR = 1e12
"""Beyond this the squares of an error leave single precision."""


class Wishes:
    """What the parent wants, as it comes."""

    def __init__(self, lines: BinaryIO) -> None:
        self.stopped, self.going = threading.Event(), threading.Event()
        self.going.set()
        threading.Thread(target=self._listen, args=(lines,), daemon=True).start()

    def _listen(self, lines: BinaryIO) -> None:
        for line in lines:
            wish = line.strip()
            if wish == b"pause":
                self.going.clear()
            else:
                if wish == b"stop":
                    self.stopped.set()
                self.going.set()
        os._exit(0)  # nobody is left to train for


def main() -> None:
    """Serve one job."""
    if hasattr(os, "nice"):
        os.nice(10)  # pages come first
    out, sys.stdout = sys.stdout.buffer, sys.stderr  # what a library prints must not fall among the messages

    def tell(kind: str, told: Any) -> None:
        pickle.dump((kind, told), out)
        out.flush()

    job: Job = pickle.load(sys.stdin.buffer)
    wishes = Wishes(sys.stdin.buffer)
    try:
        train(job, wishes, tell)
    except Exception as error:
        tell("failed", str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}")
    os._exit(0)  # at once, though a thread still reads


def train(job: Job, wishes: Wishes, tell: Any) -> None:
    """Train, and tell: scene, then progress, file and student again and again, then done."""
    import numpy as np
    import torch

    import pidlearn as pid
    from pidlearn.result import config_to_json
    from pidlearn.students import files
    from pidlearn.viewer.build import drawn, scene_of

    torch.set_num_threads(1)
    run = pid.steps(build(job), steps=job.steps, **job.choices)
    problem = run.problem
    z = problem.draw(400 if problem.sigma_data is not None else 40, torch.Generator().manual_seed(7))
    scene = scene_of(problem, run.student, starts=z, title=f"{job.title}: a student in training")
    # Of points the Gaussians are a blur. Where paths end, a student that learns is seen to learn.
    scene = replace(
        scene, modes=scene.modes and job.kind == "preset", view=View(frame=len(scene.times) - 1, play=False)
    )
    times = torch.from_numpy(scene.times)
    assert scene.exact is not None
    if scene.sigma_data is None and not np.abs(scene.exact).max() < FAR:
        raise ValueError(f"solutions reach {np.abs(scene.exact).max():.0e}, more than a student can learn: shorten t")
    tell("scene", scene)
    follow, stopped = run.follow(JUDGED), None
    losses: list[float] = []
    told = time.monotonic()
    due = told + PICTURES

    def show(stopped: str | None = None) -> None:
        result = run.result(stopped)
        # The file first: it takes a moment, and a visitor who cancels waits for no picture.
        tell("file", files.packed(result.student, result.history, config_to_json(result.config), stopped))
        tell("student", drawn(problem, result.student, z, times))

    try:
        for step in run:
            losses.append(step.loss)
            before = len(run.errors)
            follow(step)
            if len(run.errors) > before:
                tell("error", run.errors[-1])
            if time.monotonic() - told > FIGURES:
                tell("progress", (step.number, losses))
                losses, told = [], time.monotonic()
            if time.monotonic() > due:
                begun = time.monotonic()
                show()
                due = time.monotonic() + max(PICTURES, SHARE * (time.monotonic() - begun))
            wishes.going.wait()
            if wishes.stopped.is_set():
                stopped = f"stopped at step {step.number} of {step.steps}"
                break
    except pid.train.DivergedError as error:
        stopped = str(error)
    if losses:
        tell("progress", (step.number, losses))
    show(stopped)
    figures = {} if stopped else run.result().evaluate(512)
    tell("done", (stopped, figures))


if __name__ == "__main__":
    main()
