"""Short runs that are killed in the middle, for the tests of exact resumption.

As a script, ``python -m tests.runs FOLDER``: start every run in a folder of its own, kill it, and report how it ended.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pidlearn as pid
from pidlearn.training.history import Step


def ring() -> pid.GaussianMixture:
    return pid.toy("ring")


def labelled() -> pid.nets.Preconditioned:
    torch.manual_seed(1)
    return pid.nets.Preconditioned(network(label_dim=3))


def rotation() -> pid.VelocityODE:
    return pid.VelocityODE(lambda x, t: torch.stack([x[:, 1], -x[:, 0]], 1) * t.cos()[:, None])


def network(label_dim: int = 0) -> pid.nets.MLP:
    torch.manual_seed(2)
    return pid.nets.MLP(2, width=16, depth=2, fourier=4, label_dim=label_dim)  # 16: the least for Muon's matrices


def box(n: int, generator: torch.Generator | None = None) -> Tensor:
    return torch.rand(n, 2, generator=generator)


def box_of_the_process(n: int, generator: torch.Generator | None = None) -> Tensor:
    """A prior that draws from the process's random numbers, not the run's."""
    return torch.rand(n, 2)


@dataclass(frozen=True)
class Case:
    """A run, how often it is saved, and after which steps it is killed."""

    teacher: Callable[[], Any]
    save_every: int
    killed_at: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)
    built: bool = True

    def run(
        self, folder: Path | None = None, callbacks: Sequence[Callable[..., Any]] = (), **changes: Any
    ) -> pid.Result:
        """Run it, saved in ``folder`` if there is one."""
        options = {"steps": 60, "batch_size": 8, "n": 8, "progress": False, **self.options, **changes}
        if not self.built:
            options.setdefault("student", network())
        return pid.distill(
            self.teacher(), checkpoints=folder, save_every=self.save_every, callbacks=callbacks, **options
        )


ODE = {"prior": box, "t_start": 0.0, "t_end": 1.5, "windows": 3}
"""Of 60 steps, the first window takes 52 and the others four each."""

CASES = {
    "mixture": Case(ring, 8, (30,), {"track_error": 16}, built=False),
    "averages": Case(ring, 8, (30,), {"ema": (0.9, 0.5)}, built=False),
    "radam": Case(ring, 8, (30,), {"optimizer": "radam"}, built=False),
    "muon": Case(ring, 8, (30,), {"optimizer": "muon"}, built=False),
    "muon, second window": Case(rotation, 9, (55,), {**ODE, "optimizer": "muon", "ema": (0.9,)}),
    "killed three times": Case(ring, 8, (20, 30, 53), built=False),
    "killed before the first checkpoint": Case(ring, 8, (5,), built=False),
    "killed before it saves": Case(ring, 8, (24,), built=False),
    "labels": Case(labelled, 8, (30,)),
    "first window": Case(rotation, 9, (30,), ODE),
    "second window": Case(rotation, 9, (55,), {**ODE, "ema": (0.9,), "track_error": 16}),
    "start of the second window": Case(rotation, 13, (54,), ODE),
    "start of the third window": Case(rotation, 8, (58,), ODE),
    "every window in turn": Case(rotation, 3, (20, 53, 58), ODE),
    "random numbers of the process": Case(rotation, 9, (30, 55), {**ODE, "prior": box_of_the_process}),
}


def main(folder: Path) -> None:
    """Run and kill every case. A fork each, so that torch is imported once."""
    torch.set_num_threads(1)
    parameter = torch.nn.Parameter(torch.ones(1))
    parameter.grad = torch.ones(1)
    torch.optim.Adam([parameter], fused=True).step()  # imports the rest of torch, and no fork has to
    for name, case in CASES.items():
        for at in case.killed_at:

            def kill(step: Step, at: int = at) -> None:
                if step.number == at:
                    os.kill(os.getpid(), signal.SIGKILL)

            child = os.fork()
            if not child:
                case.run(folder / name, [kill])
                os._exit(0)  # it should have been killed
            _, status = os.waitpid(child, 0)
            print(name, at, os.WTERMSIG(status) if os.WIFSIGNALED(status) else "ended")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
