"""Short distillations of a small U-Net, by one process or several: `python -m tests.team_run FOLDER CASES`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

import pidlearn as pid
from pidlearn.training.distributed import current_processes
from tests.tiny import teacher


def run(
    folder: Path, stop: int | None = None, resumable: bool = False, images: bool = False, **choices: Any
) -> dict[str, Any]:
    """Losses and student of a distillation; with ``images`` of a method that needs some."""
    # A student that differs from process to process, as one that was drawn without a seed does.
    torch.manual_seed(current_processes().rank)
    student = None
    if "method" not in choices:
        student = pid.Trajectory(pid.nets.SongUNet(**teacher().model.options), sigma_data=0.5)
    result = pid.distill(
        teacher(),
        student,
        data=torch.linspace(-1, 1, 9 * 64).reshape(9, 1, 8, 8) if images else None,
        progress=False,
        checkpoints=folder / "checkpoints" if resumable else None,
        callbacks=[lambda step: step.number == stop],
        **choices,
    )
    return {"loss": result.history["loss"].tolist(), "student": result.student.state_dict()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, cases = Path(sys.argv[1]), json.loads(sys.argv[2])
    torch.save([run(folder, **case) for case in cases], folder / f"{current_processes().rank}.pt")
