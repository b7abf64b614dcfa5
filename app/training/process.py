"""Trainings in progress, each in a process of its own, so that pages stay responsive and a training can be stopped."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from app.training.job import TrainingJob
from pidlearn.viewer import Plane, Scene

__all__ = ["Progress", "Training"]

MAX_TRAININGS = max(3, os.cpu_count() or 1)
"""Trainings that run at the same time, at low priority; others, and resumed ones, wait for a free slot."""
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
        self._stop_reason, self._reported_end, self._has_slot = "", False, False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def active(self) -> bool:
        """Whether the training has not ended."""
        return self.progress.state != "ended"

    def pause(self) -> None:
        """Suspend the training: its worker stays, its slot is released."""
        if self.progress.state == "training":
            self._send("pause")
            self._update(state="paused")
            self._release_slot()

    def resume(self) -> None:
        """Continue as soon as a slot is free."""
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

    def _acquire_slot(self, seconds: float) -> bool:
        self._has_slot = SLOTS.acquire(timeout=seconds)
        return self._has_slot

    def _release_slot(self) -> None:
        # Called by the page (pause) and by the own thread (end): only the first of them may release.
        with self._lock:
            had_slot, self._has_slot = self._has_slot, False
        if had_slot:
            SLOTS.release()

    def _run(self) -> None:
        """Wait for a slot, run the worker, and set the final state."""
        last_seen = time.monotonic()
        while not self._acquire_slot(0.1):
            last_seen = time.monotonic() if self._is_connected() else last_seen
            if self._stop_reason or time.monotonic() - last_seen > MAX_ABSENCE:
                self._update(state="ended", reason=self._stop_reason or "cancelled")
                return
        try:
            if not self._stop_reason:
                self._update(state="starting")
                self._run_worker()
        except OSError as error:
            self._update(reason=f"the training process could not start ({error})")
        finally:
            self._release_slot()
            self._update(state="ended", reason=self.progress.reason or self._stop_reason)

    def _run_worker(self) -> None:
        """Start the worker, send it the job, and watch over it until it ends."""
        root = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        self._process = process = subprocess.Popen(
            [sys.executable, "-m", "app.training.worker"],
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
            started = last_seen = time.monotonic()
            while listener.is_alive():
                listener.join(0.1)
                if self.progress.state == "waiting" and self._acquire_slot(0.1):
                    self._send("resume")
                    self._update(state="training")
                now = time.monotonic()
                last_seen = now if self._is_connected() else last_seen
                if now - last_seen > MAX_ABSENCE:
                    self.stop("the page was closed")
                elif now - started > MAX_SECONDS:
                    self.stop(f"the time limit of {MAX_SECONDS / 60:g} minutes was reached")
            process.kill()

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        while True:
            try:
                kind, content = pickle.load(process.stdout)  # safe: only our own child process writes here
            except (EOFError, pickle.UnpicklingError):  # it has ended, or was killed in the middle of a message
                if not self._stop_reason and not self._reported_end:
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
        elif kind == "failed":
            self._reported_end = True
            self._update(reason=content)
        elif kind == "done":
            self._reported_end = True
            stopped, metrics = content
            self._update(reason=": ".join(filter(None, [self._stop_reason, stopped])), metrics=metrics)


def thin_out(points: tuple[tuple[int, float], ...]) -> tuple[tuple[int, float], ...]:
    """Drop every second point once there are more than `MAX_POINTS`."""
    return points if len(points) <= MAX_POINTS else points[::2]
