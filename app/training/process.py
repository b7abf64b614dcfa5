"""Trainings in progress, each in a process of its own, so that pages stay responsive and a training can be stopped."""

from __future__ import annotations

import math
import os
import pickle
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from app.training.job import TrainingJob
from pidlearn.viewer import Plane, Scene

__all__ = ["Progress", "Training"]

WORKER = "app.training.worker"
"""The module that trains, run as a process of its own."""
MAX_TRAININGS = max(3, os.cpu_count() or 1)
"""Trainings that run at the same time, at low priority; others, and resumed ones, wait for a free slot.

A worker exists only while it has a slot, so this also limits the memory that trainings take."""
GRACE = 0.8
"""Seconds that a worker has to stop by itself."""
MAX_ABSENCE, MAX_SECONDS = 10.0, 600.0
"""Seconds after which a training ends when its visitor is disconnected, and in any case."""
MAX_POINTS = 400
"""Points of the loss curve."""

SLOTS = threading.BoundedSemaphore(MAX_TRAININGS)


@dataclass(frozen=True)
class Progress:
    """The progress of a training.

    Attributes:
        state: waiting (for a slot, at first or after a pause) | starting | training | paused | ended.
        step: number of steps done.
        losses: (step, mean loss since the point before).
        errors: (step, RMSE to the teacher's own solver).
        scene: teacher and current student.
        file: the student in the format of `pidlearn.load`.
        metrics: of `Result.evaluate`, at the end.
        reason: why the training ended before its last step; empty if it did not.
    """

    state: str = "waiting"
    step: int = 0
    losses: tuple[tuple[int, float], ...] = ()
    errors: tuple[tuple[int, float], ...] = ()
    scene: Scene | None = None
    file: bytes | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    reason: str = ""


class Training:
    """One training job. All its methods except `wait` return immediately.

    Args:
        job: what to train.
        is_connected: returns whether the visitor's tab is still open.
    """

    def __init__(self, job: TrainingJob, is_connected: Callable[[], bool] = lambda: True) -> None:
        self.job, self._is_connected = job, is_connected
        self.progress = Progress()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._stop_reason, self._outcome = "", ""
        self._last_seen, self._started = time.monotonic(), math.inf
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def active(self) -> bool:
        """Whether the training has not ended."""
        return self.progress.state != "ended"

    def pause(self) -> None:
        """Suspend the training: its worker saves a checkpoint and ends, which releases its memory and its slot."""
        if self.progress.state == "training":
            self._update(state="paused")
            self._send("pause")

    def resume(self) -> None:
        """Continue from the checkpoint as soon as a slot is free."""
        if self.progress.state == "paused":
            self._update(state="waiting")

    def stop(self, reason: str = "cancelled") -> None:
        """End the training; the student as trained so far is kept."""
        with self._lock:
            if self._stop_reason or not self.active:
                return
            self._stop_reason = reason
        self._send("stop")
        if self._process is not None:
            # Without a scene the worker has not taken a step, so there is no student to wait for.
            timer = threading.Timer(GRACE if self.progress.scene else 0, self._process.kill)
            timer.daemon = True
            timer.start()

    def wait(self, seconds: float) -> None:
        """Block until the training has ended, at most for ``seconds``."""
        self._thread.join(seconds)

    def _send(self, command: str) -> None:
        process = self._process
        if process is None or process.stdin is None:
            return
        try:
            process.stdin.write(f"{command}\n".encode())
            process.stdin.flush()
        except (OSError, ValueError):  # the process has ended, and its pipe is broken or closed
            pass

    def _update(self, **changes: Any) -> None:
        with self._lock:
            if self.active:
                self.progress = replace(self.progress, **changes)

    def _enforce_limits(self) -> None:
        """Stop the training if its visitor has gone, or if it takes too long."""
        now = time.monotonic()
        if self._is_connected():
            self._last_seen = now
        if now - self._last_seen > MAX_ABSENCE:
            self.stop("the page was closed")
        elif now - self._started > MAX_SECONDS:
            self.stop(f"the time limit of {MAX_SECONDS / 60:g} minutes was reached")

    def _acquire_slot(self) -> bool:
        """Wait until the training is not paused and there is a free slot; return False if it is stopped before."""
        while not self._stop_reason:
            if self.progress.state == "paused":
                time.sleep(0.1)
            elif SLOTS.acquire(timeout=0.1):
                return True
            self._enforce_limits()
        return False

    def _run(self) -> None:
        """Run workers until one ends without being paused, each while it has a slot; set the final state."""
        try:
            with tempfile.TemporaryDirectory(prefix="pidlearn-", ignore_cleanup_errors=True) as checkpoints:
                while self._acquire_slot():
                    try:
                        self._outcome = ""
                        self._update(state="starting")
                        self._run_worker(checkpoints)
                    finally:
                        SLOTS.release()
                    if self._outcome != "paused":
                        break
        except OSError as error:
            self._update(reason=f"the training process could not start ({error})")
        finally:
            self._update(state="ended", reason=self.progress.reason or self._stop_reason)

    def _run_worker(self, checkpoints: str) -> None:
        """Start a worker, send it the job, and watch over it until it ends."""
        root = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        self._process = process = subprocess.Popen(
            [sys.executable, "-m", WORKER, checkpoints],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=root,  # so that `app` is this package, whatever the server's working directory contains
            env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        )
        assert process.stdin is not None
        with process:
            pickle.dump(self.job, process.stdin)
            process.stdin.flush()
            if self._stop_reason:  # stopped while the process was being created
                process.kill()
            listener = threading.Thread(target=self._listen, args=(process,), daemon=True)
            listener.start()
            self._started = min(self._started, time.monotonic())
            while listener.is_alive():
                listener.join(0.1)
                self._enforce_limits()
            process.kill()

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        while True:
            try:
                kind, content = pickle.load(process.stdout)  # safe: only our own child process writes here
            except (EOFError, pickle.UnpicklingError):  # it has ended, or was killed in the middle of a message
                if not self._stop_reason and not self._outcome:
                    self._update(reason="the training process ended unexpectedly")
                return
            except Exception as error:  # a damaged message can raise anything, and must not look like a normal end
                self._update(reason=f"a message of the training process could not be read ({type(error).__name__})")
                return
            self._receive(kind, content)

    def _receive(self, kind: str, content: Any) -> None:
        progress = self.progress
        if kind == "scene":
            self._update(scene=content, state="training")
        elif kind == "progress":
            step, losses = content
            self._update(step=step, losses=thin_out((*progress.losses, (step, sum(losses) / len(losses)))))
        elif kind == "error":
            self._update(errors=(*progress.errors, content))
        elif kind == "file":
            self._update(file=content)
        elif kind == "student" and progress.scene is not None:
            self._update(scene=replace(progress.scene, panels=[Plane("", content)]))
        elif kind == "paused":
            self._outcome = kind
        elif kind == "failed":
            self._outcome = kind
            self._update(reason=content)
        elif kind == "done":
            self._outcome = kind
            stopped, metrics = content
            self._update(reason=": ".join(filter(None, [self._stop_reason, stopped])), metrics=metrics)


def thin_out(points: tuple[tuple[int, float], ...]) -> tuple[tuple[int, float], ...]:
    """Drop every second point once there are more than `MAX_POINTS`."""
    return points if len(points) <= MAX_POINTS else points[::2]
