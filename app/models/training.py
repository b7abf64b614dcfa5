"""Trainings under way, each in a process of its own, so that pages stay quick and a training can be cut off."""

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

from app.models.jobs import Job
from pidlearn.viewer import Plane, Scene

__all__ = ["AT_ONCE", "Progress", "Training"]

AT_ONCE = max(3, os.cpu_count() or 1)
"""Trainings at one time; more wait for their turn, and so does who resumes. They run at a low priority."""
PATIENCE = 0.8
"""Seconds that a worker has to stop by itself."""
ABSENT, LONGEST = 10.0, 600.0
"""Seconds without the visitor after which a training ends, and that it lasts at most."""
KEPT = 400
"""Points of the loss curve."""

SLOTS = threading.BoundedSemaphore(AT_ONCE)


@dataclass(frozen=True)
class Progress:
    """How a training stands.

    Attributes:
        state: waiting (for a turn, first or after a pause) | starting | training | paused | ended.
        step: steps done.
        losses: (step, mean loss since the one before).
        errors: (step, rmse to the teacher's own solver).
        scene: teacher and student as they are now.
        file: the student as `pidlearn.load` reads it.
        figures: what `Result.evaluate` says at the end.
        said: why it ended before its last step; empty if it did not.
    """

    state: str = "waiting"
    step: int = 0
    losses: tuple[tuple[int, float], ...] = ()
    errors: tuple[tuple[int, float], ...] = ()
    scene: Scene | None = None
    file: bytes | None = None
    figures: dict[str, float] = field(default_factory=dict)
    said: str = ""


class Training:
    """A training that has been asked for. All its methods but `wait` return at once.

    Args:
        job: what is trained.
        present: whether its visitor is still there.
    """

    def __init__(self, job: Job, present: Callable[[], bool] = lambda: True) -> None:
        self.job, self._present = job, present
        self.progress = Progress()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._asked_to_stop, self._complete, self._seated = "", False, False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def under_way(self) -> bool:
        """Whether it has not ended."""
        return self.progress.state != "ended"

    def pause(self) -> None:
        """Hold it; its worker stays, but not its turn."""
        if self.progress.state == "training":
            self._wish("pause")
            self._note(state="paused")
            self._leave_turn()

    def resume(self) -> None:
        """Go on, once there is a turn."""
        if self.progress.state == "paused":
            self._note(state="waiting")

    def stop(self, why: str = "cancelled") -> None:
        """End it; what the student has learned by now is kept."""
        with self._lock:
            if self._asked_to_stop or not self.under_way:
                return
            self._asked_to_stop = why
        self._wish("stop")
        if self._process is not None:
            # Before the first step there is nothing to wait for.
            clock = threading.Timer(PATIENCE if self.progress.scene else 0, self._process.kill)
            clock.daemon = True
            clock.start()

    def wait(self, seconds: float) -> None:
        """Until it has ended, or for so long."""
        self._thread.join(seconds)

    def _wish(self, wish: str) -> None:
        process = self._process
        if process is None or process.stdin is None:
            return
        try:
            process.stdin.write(f"{wish}\n".encode())
            process.stdin.flush()
        except (OSError, ValueError):  # it has ended meanwhile, and its pipe is broken or closed
            pass

    def _note(self, **changes: Any) -> None:
        with self._lock:
            if self.under_way:
                self.progress = replace(self.progress, **changes)

    def _take_turn(self, seconds: float) -> bool:
        self._seated = SLOTS.acquire(timeout=seconds)
        return self._seated

    def _leave_turn(self) -> None:
        with self._lock:
            seated, self._seated = self._seated, False
        if seated:
            SLOTS.release()

    def _run(self) -> None:
        away = time.monotonic()
        while not self._take_turn(0.1):
            away = time.monotonic() if self._present() else away
            if self._asked_to_stop or time.monotonic() - away > ABSENT:
                self._note(state="ended", said=self._asked_to_stop or "cancelled")
                return
        try:
            if not self._asked_to_stop:
                self._note(state="starting")
                self._serve()
        except OSError as error:
            self._note(said=f"the training process could not start ({error})")
        finally:
            self._leave_turn()
            said = self.progress.said or self._asked_to_stop
            self._note(state="ended", said=said)

    def _serve(self) -> None:
        root = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        self._process = process = subprocess.Popen(
            [sys.executable, "-m", "app.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=root,  # where `app` is this one, whatever else lies in the folder of the server
            env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        )
        assert process.stdin is not None
        with process:
            pickle.dump(self.job, process.stdin)
            process.stdin.flush()
            if self._asked_to_stop:  # while the process was made
                process.kill()
            listener = threading.Thread(target=self._listen, args=(process,), daemon=True)
            listener.start()
            begun = here = time.monotonic()
            while listener.is_alive():
                listener.join(0.1)
                if self.progress.state == "waiting" and self._take_turn(0.1):
                    self._wish("resume")
                    self._note(state="training")
                now = time.monotonic()
                here = now if self._present() else here
                if now - here > ABSENT:
                    self.stop("its page was closed")
                elif now - begun > LONGEST:
                    self.stop(f"{LONGEST / 60:g} minutes are over, which is the limit")
            process.kill()

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        while True:
            try:
                kind, told = pickle.load(process.stdout)  # of our own child alone
            except (EOFError, pickle.UnpicklingError):  # it has ended, or was cut off within a word
                if not self._asked_to_stop and not self._complete:
                    self._note(said="the training process ended without a word")
                return
            except Exception as error:  # whatever a broken word unpickles to must not pass for an end
                self._note(said=f"the training process cannot be understood ({type(error).__name__})")
                return
            self._hear(kind, told)

    def _hear(self, kind: str, told: Any) -> None:
        now = self.progress
        if kind == "scene":
            self._note(scene=told, state="training")
        elif kind == "progress":
            step, losses = told
            self._note(step=step, losses=thinned((*now.losses, (step, sum(losses) / len(losses)))))
        elif kind == "error":
            self._note(errors=(*now.errors, told))
        elif kind == "file":
            self._note(file=told)
        elif kind == "student" and now.scene is not None:
            self._note(scene=replace(now.scene, panels=[Plane("", told)]))
        elif kind == "failed":
            self._complete = True
            self._note(said=told)
        elif kind == "done":
            self._complete = True
            stopped, figures = told
            self._note(said=": ".join(filter(None, [self._asked_to_stop, stopped])), figures=figures)


def thinned(points: tuple[tuple[int, float], ...]) -> tuple[tuple[int, float], ...]:
    """Every second of them once there are too many."""
    return points if len(points) <= KEPT else points[::2]
