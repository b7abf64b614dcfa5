"""The worker of a training, with its commands and messages, that counts steps: for tests of processes and turns.

It starts in a moment, since nothing imports torch.
"""

from __future__ import annotations

import time

from app.training import worker
from app.training.job import TrainingJob


def count(job: TrainingJob, commands: worker.Commands, send: worker.Send, checkpoints: str) -> None:
    send("scene", job.title)
    step = 0
    while not commands.stopped.is_set() and not commands.paused.is_set():
        step += 1
        send("progress", (step, [1.0]))
        send("file", b"a student")
        time.sleep(0.02)
    send(*(("done", (f"stopped at step {step}", {})) if commands.stopped.is_set() else ("paused", None)))


if __name__ == "__main__":
    worker.train = count
    worker.main()
