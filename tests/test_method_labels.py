"""Every method, with class labels: each sample's loss is that of its class, in the teacher and in the student."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pidlearn as pid
from pidlearn.equations.solvers import solve_end

RING = pid.toy("ring")
CLASSES = 3


class Classes(nn.Module):
    """The ring, of another size for each class."""

    event_shape, label_dim, std = (2,), CLASSES, RING.std

    def forward(self, x: Tensor, sigma: Tensor, class_labels: Tensor) -> Tensor:
        size = (1 + class_labels / 2).to(x)[:, None]
        return size * RING.denoise(x / size, sigma / size[:, 0])


def data(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return RING.sample(n, generator), torch.randint(CLASSES, (n,), generator=generator)


PLACE = {"pid": 2, "boot": 3, "freeflow": 2, "cd": 4, "ct": 4, "scm": 4, "pd": 2, "endpoint": 2, "dsno": 2, "reflow": 2}
"""Where a method's batch has its labels; those of flow maps and of the corrector have them second."""
METHODS: list[dict[str, Any]] = [
    *({"method": name} for name in PLACE),
    {"method": "pid", "derivative": "exact"},
    {"method": "pid", "boundary_weight": 1.0},
    {"method": "boot", "boundary_weight": 1.0},
    *(
        {"method": "flow_map", "identity": identity, "points": points}
        for identity in ("lagrangian", "eulerian", "semigroup", "meanflow")
        for points in ("own", "data")
    ),
    {"method": "corrector", "share": 0.0},
]


def started(settings: dict[str, Any], steps: int = 20) -> Any:
    """A run that is under way, whose networks tell the classes apart."""
    torch.manual_seed(0)
    student = None
    if "boundary_weight" in settings:
        boundary = "soft" if settings["method"] == "pid" else "signal"
        student = pid.Trajectory(pid.nets.MLP(2, label_dim=CLASSES), sigma_data=RING.std, boundary=boundary)
    if settings.get("share") == 0:
        student = pid.FlowMap(pid.nets.MLP(2, label_dim=CLASSES), sigma_data=RING.std)
    smaller = {"pairs": 30} if settings["method"] in ("endpoint", "dsno", "reflow") else {}
    run: Any = pid.steps(
        Classes(),
        student,
        data=data if needs_data(settings) else None,
        batch_size=8,
        steps=steps,
        **settings,
        **smaller,
    )
    next(run)
    for network in networks(run):
        for p in network.parameters():
            nn.init.normal_(p, std=0.3)
    return run


def needs_data(settings: dict[str, Any]) -> bool:
    return settings["method"] in ("cd", "ct", "scm", "pd") or settings.get("points") == "data"


def networks(run: Any) -> list[pid.nets.MLP]:
    parts = [run.student, getattr(run.trainer.method, "auxiliary", None)]
    return [m for part in parts if part is not None for m in part.modules() if isinstance(m, pid.nets.MLP)]


@contextmanager
def everything_of_class(run: Any, label: int) -> Iterator[None]:
    """Teacher and networks take all samples for those of one class, whatever labels they get."""

    def of_class(module: nn.Module, args: tuple[Tensor, ...], options: dict[str, Any]) -> tuple[Any, Any]:
        x, time, *labels = args
        assert labels or "class_labels" in options
        return (x, time), {**options, "class_labels": torch.full((len(x),), label)}

    modules = (*networks(run), run.problem.teacher)
    handles = [module.register_forward_pre_hook(of_class, with_kwargs=True) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("settings", METHODS, ids=lambda v: "-".join(map(str, v.values())))
def test_the_loss_of_a_sample_is_that_of_its_class(settings: dict[str, Any]) -> None:
    run = started(settings)
    method, context = run.trainer.method, run.trainer.context
    batch = method.draw(context, 24, torch.Generator().manual_seed(3))
    labels = batch[PLACE.get(settings["method"], 1)]
    assert set(labels.tolist()) == set(range(CLASSES))
    ours, apart = method.loss(context, batch), []
    for label in range(CLASSES):
        with everything_of_class(run, label):
            apart.append(method.loss(context, batch))
    rows = labels.repeat(len(ours) // len(labels))  # of an operator: every time of every sample
    expected = torch.stack(apart).gather(0, rows[None])[0]
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(ours, apart[0], rtol=1e-2)


@pytest.mark.parametrize("method", ["endpoint", "reflow", "dsno"])
def test_solved_paths_belong_to_their_noise_and_class(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pidlearn.methods.supervised.BLOCK", 8)
    run = started({"method": method})
    for seed in range(4):  # the pairs are solved block by block
        z, solved, labels, *_ = run.trainer.method.draw(run.trainer.context, 8, torch.Generator().manual_seed(seed))
        x0 = solved[:, -1] if method == "dsno" else solved
        end = solve_end(run.problem.ode, z, pid.karras_grid(run.config.n), "euler", labels)
        off = 0.02 if method == "dsno" else 1e-5  # which takes its steps along another grid
        torch.testing.assert_close(x0, end, rtol=off, atol=off)
