"""Train one student in a process of its own and report to the parent: `python -m app.training.worker CHECKPOINTS`.

On stdin comes a pickled `TrainingJob`, then one command per line: pause or stop. On stdout go pickled pairs of a
message's kind and its content. Only the parent reads and writes these pipes. When its end closes, for whatever reason,
this process ends. A paused training is saved in the folder CHECKPOINTS, from which the next worker resumes it. The
environment variable PIDLEARN_NICE is the process's niceness, 10 by default.
"""

from __future__ import annotations

import os
import pickle
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, BinaryIO

from app.training.job import TrainingJob, build_teacher
from pidlearn.viewer import Scene, View

__all__ = ["main"]

LOSS_INTERVAL, SCENE_INTERVAL = 0.25, 1.0
"""Seconds between two messages with losses, and at least between two with the student."""
TRAINING_SHARE = 4
"""Training gets at least this many times the time that evaluating the student takes."""
TRACKED = 256
"""Samples whose error is tracked."""
STARTS, ODE_STARTS = 400, 40
"""Trajectories shown of a diffusion, and of any other ODE."""
MAX_VALUE = 1e12
"""Solutions beyond this are refused: their squared errors would overflow single precision."""

Send = Callable[[str, Any], None]


class Commands:
    """The parent's commands, read in a thread.

    Attributes:
        stopped: set once the parent has sent "stop".
        paused: set once the parent has sent "pause".
    """

    def __init__(self, lines: BinaryIO) -> None:
        self.stopped, self.paused = threading.Event(), threading.Event()
        threading.Thread(target=self._listen, args=(lines,), daemon=True).start()

    def _listen(self, lines: BinaryIO) -> None:
        events = {b"stop": self.stopped, b"pause": self.paused}
        for line in lines:
            events[line.strip()].set()
        os._exit(0)  # the parent is gone


def main() -> None:
    """Run one job."""
    if hasattr(os, "nice"):
        os.nice(int(os.environ.get("PIDLEARN_NICE", "10")))  # pages have priority
    out, sys.stdout = sys.stdout.buffer, sys.stderr  # what a library prints must not mix with the messages

    def send(kind: str, content: Any) -> None:
        pickle.dump((kind, content), out)
        out.flush()

    job: TrainingJob = pickle.load(sys.stdin.buffer)
    commands = Commands(sys.stdin.buffer)
    try:
        train(job, commands, send, sys.argv[1])
    except Exception as error:
        send("failed", str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}")
    os._exit(0)  # immediately: the command thread is still reading


def train(job: TrainingJob, commands: Commands, send: Send, checkpoints: str) -> None:
    """Train, and send a scene, then losses, errors, files and students repeatedly; at the end "done" or "paused"."""
    import torch

    import pidlearn as pid
    from pidlearn.equations.diffusion import Diffusion
    from pidlearn.students import files
    from pidlearn.training import DivergedError, Stop, StopReason
    from pidlearn.viewer.build import as_drawn

    torch.set_num_threads(1)
    run = pid.steps(build_teacher(job), steps=job.steps, **job.settings)
    run.resume(checkpoints)
    problem = run.problem
    count = STARTS if isinstance(problem, Diffusion) else ODE_STARTS
    z = problem.sample_prior(count, torch.Generator().manual_seed(7))
    scene = first_scene(job, run, z)
    send("scene", scene)
    times, identity = torch.from_numpy(scene.times), problem.identity()
    trackers, stop = run.track_error(TRACKED), None
    losses: list[float] = []
    last_sent = time.monotonic()
    due = last_sent + SCENE_INTERVAL

    def send_student(stop: Stop | None = None) -> None:
        result = run.result(stop)
        # The file first: it takes a moment, and a visitor who cancels does not wait for the picture.
        reason = stop.message if stop else None
        send("file", files.packed(result.student, result.history, result.config.to_dict(), reason, identity))
        send("student", as_drawn(problem, result.student, z, times))

    try:
        for step in run:
            losses.append(step.loss)
            for track in trackers:
                track(step)
            if "error" in step.metrics:
                send("error", (step.number, step.metrics["error"]))
            if time.monotonic() - last_sent > LOSS_INTERVAL:
                send("progress", (step.number, losses))
                losses, last_sent = [], time.monotonic()
            if time.monotonic() > due:
                started = time.monotonic()
                send_student()
                due = time.monotonic() + max(SCENE_INTERVAL, TRAINING_SHARE * (time.monotonic() - started))
            if commands.stopped.is_set() or commands.paused.is_set():
                stop = Stop(StopReason.CALLBACK, f"stopped at step {step.number} of {step.steps}")
                break
    except DivergedError as error:
        stop = Stop(StopReason.DIVERGED, str(error))
    if losses:
        send("progress", (step.number, losses))
    send_student(stop)
    if stop and stop.reason is StopReason.CALLBACK and not commands.stopped.is_set():
        run.save(checkpoints)
        send("paused", None)
        return
    metrics = {} if stop else dict(run.result().evaluate(512))
    send("done", (stop and stop.message, metrics))


def first_scene(job: TrainingJob, run: Any, z: Any) -> Scene:
    """Return teacher and student before the first step, from the starts z.

    Raises:
        ValueError: the solutions of the ODE are too large to be learned.
    """
    import numpy as np

    from pidlearn.viewer.build import scene_of

    scene = scene_of(run.problem, run.student, starts=z, title=f"{job.title}: a student in training")
    # The Gaussians around a visitor's points overlap: they are not modes. The first frame shown is the last in time,
    # where the student's progress is visible.
    scene = replace(
        scene, modes=scene.modes and job.kind == "preset", view=View(frame=len(scene.times) - 1, play=False)
    )
    assert scene.exact is not None
    largest = np.abs(scene.exact).max()
    if not scene.is_diffusion and not largest < MAX_VALUE:
        raise ValueError(f"solutions reach {largest:.0e}, more than a student can learn: shorten the time span")
    return scene


if __name__ == "__main__":
    main()
