"""Exact resumption: a run that was killed and continued ends with the bits of one that was not."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import pidlearn as pid
from pidlearn.training.history import Step
from tests.runs import CASES, network, rotation


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what kill -9 left of every case."""
    folder = tmp_path_factory.mktemp("killed")
    command = [sys.executable, "-m", "tests.runs", str(folder)]
    root = Path(__file__).parents[1]
    out = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    expected = [f"{name} {at} {int(signal.SIGKILL)}" for name, case in CASES.items() for at in case.killed_at]
    assert out.stdout.splitlines() == expected, out.stderr
    return folder


@cache
def whole(name: str) -> pid.Result:
    """What a case ends with if nothing stops it."""
    return CASES[name].run()


def weights(module: nn.Module) -> list[torch.Tensor]:
    return list(module.state_dict().values())


def assert_same(one: pid.Result, two: pid.Result) -> None:
    assert all(torch.equal(a, b) for a, b in zip(weights(one.student), weights(two.student), strict=True))
    assert one.averages.keys() == two.averages.keys()
    for rate in one.averages:
        pairs = zip(weights(one.averages[rate]), weights(two.averages[rate]), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    assert one.history.keys() == two.history.keys()
    for name in one.history.keys() - {"seconds"}:
        assert np.array_equal(one.history[name], two.history[name])
    assert one.stopped == two.stopped


@pytest.mark.parametrize("name", CASES)
def test_killed_and_continued(killed: Path, tmp_path: Path, name: str) -> None:
    case = CASES[name]
    folder = shutil.copytree(killed / name, tmp_path / "run") if (killed / name).exists() else tmp_path / "run"
    numbers: list[int] = []
    continued = case.run(folder, [lambda step: numbers.append(step.number)])
    newest = (
        (case.killed_at[-1] - 1) // case.save_every * case.save_every
    )  # a step's callbacks come before its checkpoint
    assert numbers == list(range(newest + 1, 61))
    assert_same(continued, whole(name))
    assert (np.diff(continued.history["seconds"]) >= 0).all()


@pytest.mark.parametrize("name", ["mixture", "every window in turn"])
@pytest.mark.parametrize("how", ["truncated", "a byte flipped"])
def test_damaged_newest_checkpoint(killed: Path, tmp_path: Path, name: str, how: str) -> None:
    case, folder = CASES[name], shutil.copytree(killed / name, tmp_path / "run")
    newest = max(folder.iterdir())
    contents = bytearray(newest.read_bytes())
    if how == "truncated":
        del contents[-100:]
    else:
        contents[len(contents) // 3] ^= 0xFF
    newest.write_bytes(contents)
    numbers: list[int] = []
    with pytest.warns(UserWarning, match=f"{newest.name} is damaged"):
        continued = case.run(folder, [lambda step: numbers.append(step.number)])
    assert numbers[0] == case.killed_at[-1] // case.save_every * case.save_every - case.save_every + 1
    assert_same(continued, whole(name))


def test_a_run_that_is_done_is_only_read(tmp_path: Path) -> None:
    case, numbers = CASES["mixture"], []
    done = case.run(tmp_path)
    again = case.run(tmp_path, [lambda step: numbers.append(step.number)])
    assert numbers == []
    assert_same(done, again)


@pytest.mark.parametrize("how", ["callback", "interrupt"])
@pytest.mark.parametrize("name", ["averages", "second window"])
def test_stopped_and_continued(tmp_path: Path, name: str, how: str) -> None:
    case = CASES[name]

    def stop(step: Step) -> bool:
        if step.number == 55 and how == "interrupt":
            raise KeyboardInterrupt
        return step.number == 55

    stopped = case.run(tmp_path, [stop])
    assert stopped.stopped is not None
    numbers: list[int] = []
    continued = case.run(tmp_path, [lambda step: numbers.append(step.number)])
    # A callback stops between two steps, and nothing is lost; an interrupt comes whenever it comes.
    assert numbers[0] == (56 if how == "callback" else 55 // case.save_every * case.save_every + 1)
    assert_same(continued, whole(name))


@pytest.mark.parametrize("limit", [{"max_images": 8 * 55}, {"max_time": 1e-9}])
@pytest.mark.parametrize("name", ["averages", "second window", "random numbers of the process"])
def test_limits_save_where_they_stop(tmp_path: Path, name: str, limit: dict[str, float]) -> None:
    case, numbers = CASES[name], []
    case.run(tmp_path, **limit)
    assert_same(case.run(tmp_path, [lambda step: numbers.append(step.number)]), whole(name))
    assert numbers[0] == (56 if "max_images" in limit else 2)


def test_sigterm_saves_and_a_later_call_goes_on(tmp_path: Path) -> None:
    case, numbers = CASES["averages"], []

    def tell(step: Step) -> None:
        if step.number == 21:
            signal.raise_signal(signal.SIGTERM)

    assert case.run(tmp_path, [tell]).stopped == "the process received SIGTERM at step 21"
    assert_same(case.run(tmp_path, [lambda step: numbers.append(step.number)]), case.run())
    assert numbers[0] == 22


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"lr": 0.5}, "other settings.*lr = "),
        ({"seed": 1}, "other settings.*seed = 0, here 1"),
        ({"steps": 61}, "other settings.*steps = 60, here 61"),
        ({"distance": pid.l1}, "other settings.*distance"),
        ({"t_start": 40.0}, "other settings.*t_max"),
        ({"ema": (0.9,)}, "other settings.*ema"),
        ({"student": pid.nets.MLP(2, width=9)}, "other settings.*student = Trajectory"),
        ({"student": pid.Trajectory(network(), sigma_data=pid.toy("ring").std, time="linear")}, "student = Traj"),
    ],
)
def test_a_folder_of_another_run(tmp_path: Path, changes: dict, says: str) -> None:
    case = CASES["mixture"]
    case.run(tmp_path)
    with pytest.raises(ValueError, match=says):
        case.run(tmp_path, **changes)


class Scaled:
    """A distance that is an object, as a perceptual network is."""

    def __init__(self, factor: float = 2.0) -> None:
        self.factor = factor

    def __call__(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return pid.l2(self.factor * a, self.factor * b)


@pytest.mark.parametrize(
    "make", [lambda: partial(pid.pseudo_huber, c=0.1), Scaled, lambda: lambda a, b: pid.l1(a, b) + pid.l2(a, b)]
)
def test_functions_are_known_by_what_they_do(tmp_path: Path, make: Callable[[], Any]) -> None:
    case = CASES["mixture"]
    case.run(tmp_path, [lambda step: step.number == 20], distance=make())
    assert_same(case.run(tmp_path, distance=make()), case.run(distance=make()))
    for other in (partial(pid.pseudo_huber, c=0.2), lambda a, b: pid.l1(a, b) + 2 * pid.l2(a, b), Scaled(3.0)):
        with pytest.raises(ValueError, match=r"other settings.*distance"):
            case.run(tmp_path, distance=other)


def test_a_folder_of_another_teacher(tmp_path: Path) -> None:
    config = CASES["mixture"].run(tmp_path).config
    for teacher in (pid.toy("moons"), pid.EmpiricalDenoiser(pid.toy("ring").sample(9))):
        with pytest.raises(ValueError, match=r"other settings.*teacher = GaussianMixture"):
            pid.distill(teacher, network(), config=config, checkpoints=tmp_path, progress=False)


def test_a_folder_of_another_teacher_of_the_same_kind(tmp_path: Path) -> None:
    torch.manual_seed(0)
    teachers = [pid.nets.Preconditioned(pid.nets.MLP(2, width=8)) for _ in range(2)]
    for teacher in teachers:
        torch.nn.init.normal_(teacher.model.body.out.weight)
    options = {"steps": 4, "batch_size": 8, "n": 8, "progress": False, "checkpoints": tmp_path}
    pid.distill(teachers[0], network(), **options)
    with pytest.raises(ValueError, match="another teacher of the same kind"):
        pid.distill(teachers[1], network(), **options)


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        CASES["mixture"].run(tmp_path / "run")


def test_rotation_turns() -> None:
    """The cases' own equation is one that a student can follow, or bits that agree would say little."""
    case = CASES["first window"]
    result = case.run(steps=300)
    assert result.evaluate(32)["relative_rmse"] < 0.3
    assert rotation().velocity(torch.ones(1, 2), 0.0).tolist() == [[1.0, -1.0]]
