"""Checkpoints: whole or not at all, damage named, the one before at hand."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from pidlearn.training import checkpoints
from pidlearn.utils.fingerprint import digest, identity


def numbers(folder: Path) -> list[int]:
    return sorted(int(path.name.split("-")[1]) for path in folder.glob("step-*.pt"))


def state(number: int) -> dict[str, object]:
    return {"number": number, "weights": torch.full((50,), float(number)), "history": [[0.5, 0.25], ["a"]]}


def test_round_trip_and_pruning(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there" / "yet"
    assert checkpoints.load_newest(folder) is None
    for number in (9, 10, 100):
        checkpoints.save(folder, number, state(number))
    assert numbers(folder) == [10, 100]
    found = checkpoints.load_newest(folder)
    assert found is not None
    assert found["number"] == 100
    assert torch.equal(found["weights"], torch.full((50,), 100.0))
    assert found["history"] == [[0.5, 0.25], ["a"]]


def damage(path: Path, how: str) -> None:
    contents = bytearray(path.read_bytes())
    if how == "truncated":
        del contents[len(contents) // 2 :]
    elif how == "empty":
        contents.clear()
    else:
        contents[len(contents) // 2] ^= 1
    path.write_bytes(contents)


@pytest.mark.parametrize("how", ["truncated", "empty", "one bit"])
def test_damage_is_named_and_the_one_before_used(tmp_path: Path, how: str) -> None:
    older = checkpoints.save(tmp_path, 10, state(10))
    newest = checkpoints.save(tmp_path, 20, state(20))
    damage(newest, how)
    with pytest.warns(UserWarning, match=f"{newest.name} is damaged"):
        found = checkpoints.load_newest(tmp_path)
    assert found is not None
    assert found["number"] == 10
    damage(older, how)
    with pytest.warns(UserWarning, match="damaged") as told:
        assert checkpoints.load_newest(tmp_path) is None
    assert [path.name in str(w.message) for path, w in zip((newest, older), told, strict=True)] == [True, True]


def test_a_damaged_one_never_pushes_out_a_whole_one(tmp_path: Path) -> None:
    """The run comes back to 10, writes 20 anew, then 30: what is kept must be whole."""
    checkpoints.save(tmp_path, 10, state(10))
    for k in range(8):  # whichever way the names sort
        damage(checkpoints.save(tmp_path, 20, {**state(20), "seconds": k}), "one bit")
        checkpoints.save(tmp_path, 20, {**state(20), "seconds": -k})
        assert numbers(tmp_path) == [10, 20]
    newest = checkpoints.save(tmp_path, 30, state(30))
    assert numbers(tmp_path) == [20, 30]
    damage(newest, "truncated")
    with pytest.warns(UserWarning, match="step-000000030"):
        found = checkpoints.load_newest(tmp_path)
    assert found is not None
    assert found["number"] == 20


def test_a_crash_while_writing_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints.save(tmp_path, 10, state(10))

    def crash(*args: object) -> None:
        raise KeyboardInterrupt

    for moment in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, moment, crash)
            with pytest.raises(KeyboardInterrupt):
                checkpoints.save(tmp_path, 20, state(20))
    assert [path.name[:14] for path in tmp_path.iterdir()] == ["step-000000010"]
    found = checkpoints.load_newest(tmp_path)
    assert found is not None
    assert found["number"] == 10


def test_what_a_kill_left_half_written_is_cleared(tmp_path: Path) -> None:
    left = tmp_path / ".step-000000001-0123.pt.42.part"
    left.write_text("half")
    path = checkpoints.save(tmp_path, 2, {"a": 1})
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints.save(tmp_path, 10, state(10))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=rf"No space left on device: '{tmp_path}/step-000000020-"):
        checkpoints.save(tmp_path, 20, state(20))
    assert [path.name[:14] for path in tmp_path.iterdir()] == ["step-000000010"]


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_folder_is_for_one_run_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    with checkpoints.claimed(folder):
        with pytest.raises(ValueError, match="new: wait for its end"), checkpoints.claimed(folder):
            pass
        with checkpoints.claimed(folder, first=False), checkpoints.claimed(None), checkpoints.claimed(tmp_path):
            pass
    with checkpoints.claimed(folder):  # it was given back
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file is a file"), checkpoints.claimed(tmp_path / "file"):
        pass


def test_other_peoples_files_stay(tmp_path: Path) -> None:
    theirs = [tmp_path / name for name in ("step-final.pt", "step-5000.pt", "step-000000003-mine.pt")]
    for path in theirs:
        path.write_text("mine")
    assert checkpoints.load_newest(tmp_path) is None
    for number in range(5):
        checkpoints.save(tmp_path, number, {"a": 1})
    assert all(path.read_text() == "mine" for path in theirs)


def test_a_whole_file_that_cannot_be_read_is_not_passed_over(tmp_path: Path) -> None:
    """As one of another torch might be: to begin anew would throw the run away."""
    checkpoints.save(tmp_path, 10, state(10))
    (tmp_path / f"step-{20:09d}-{digest(b'hello')}.pt").write_bytes(b"hello")
    with pytest.raises(ValueError, match=r"step-000000020.*is whole but cannot be read"):
        checkpoints.load_newest(tmp_path)


def test_what_a_gpu_wrote_is_read_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(torch.serialization, "location_tag", lambda storage: "cuda:7")
        checkpoints.save(tmp_path, 3, state(3))
    found = checkpoints.load_newest(tmp_path)
    assert found is not None
    assert torch.equal(found["weights"], torch.full((50,), 3.0))


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("not a folder")
    with pytest.raises(ValueError, match="is a file"):
        checkpoints.load_newest(tmp_path / "run")


def around(factor: float) -> Callable[[float], float]:
    return lambda x: factor * x


def defaulted(factor: float) -> Callable[[float], float]:
    def scaled(x: float, factor: float = factor) -> float:
        return factor * x

    return scaled


class Holder:
    def __init__(self, factor: Any) -> None:
        self.factor = factor

    def method(self, x: float) -> float:
        return self.factor * x


@pytest.mark.parametrize(
    "make",
    [
        around,
        defaulted,
        Holder,
        lambda c: Holder(c).method,
        lambda c: partial(Holder.method, Holder(c)),
        lambda c: partial(max, key=around(c)),
        lambda c: Holder(torch.tensor([c, 1.0], dtype=torch.bfloat16)),
        lambda c: (c, {"a": [c]}, {str(c), "b"}),
    ],
)
def test_identities_are_of_what_a_choice_does(make: Callable[[float], Any]) -> None:
    one, same, other = (identity(make(c)) for c in (1.0, 1.0, 2.0))
    assert one == same != other
    assert " at 0x" not in one


def test_identities_are_the_same_in_another_process() -> None:
    code = (
        "from pidlearn.utils.fingerprint import identity; from functools import partial; import pidlearn as pid\n"
        "f = lambda a: a in {'x', 'y', 'z'}\n"
        "print(identity((f, partial(pid.pseudo_huber, c=0.1), pid.nets.MLP, max)))"
    )
    said = {
        subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True,
                       check=True).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(said) == 1
