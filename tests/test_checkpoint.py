"""Checkpoints: whole or not at all, damage named, the one before at hand."""

from __future__ import annotations

import errno
import math
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import pidlearn as pid
from pidlearn.training import checkpoints
from pidlearn.utils import safetensors
from pidlearn.utils.fingerprint import digest, identity


def numbers(folder: Path) -> list[int]:
    return sorted(int(path.name.split("-")[1]) for path in folder.glob("step-*.safetensors"))


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


def bits(value: float) -> bytes:
    return struct.pack(">d", value)


def same(a: Any, b: Any) -> bool:
    """Whether two states are the same to the bit and of the same types."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(raw(a), raw(b))
    if isinstance(a, float):
        return type(b) is float and bits(a) == bits(b)
    if isinstance(a, dict):
        keys = list(a) == list(b) and [type(key) for key in a] == [type(key) for key in b]
        return isinstance(b, dict) and keys and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def raw(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8)


def round_trip(folder: Path, content: Any) -> Any:
    checkpoints.save(folder, 1, {"content": content})
    found = checkpoints.load_newest(folder)
    assert found is not None
    return found["content"]


SHARED = torch.arange(6.0).reshape(2, 3)
NEGATIVE_NAN = struct.unpack(">d", bytes.fromhex("fff8000000000123"))[0]
CONTENTS: dict[str, Any] = {
    "plain": [None, True, False, 0, 1, -1, "", "text", "\udc80 \x00 ü"],
    "large ints": [2**53 + 1, -(2**64), 10**300],
    "floats": [0.1, -0.0, 1e-320, math.pi, 1.7976931348623157e308, 1e22, 5e-324],
    "not finite": [math.inf, -math.inf, math.nan, NEGATIVE_NAN],
    "keys": {0: "a", "0": torch.ones(1), 1: torch.zeros(2), "1": {2: [torch.ones(3)]}, "a/b": {"c": 1}},
    "names that read the same": {1: torch.ones(1), "1": torch.zeros(1), "a/b": torch.ones(2), "a": {"b": SHARED}},
    "names of JSON's own": {"tensor": "a", "dict": [1], "tuple": [], "float": {"float": "x"}, "__metadata__": SHARED},
    "containers": [(), [], {}, (1, (2.5, [3])), [[], ((),)], {"a": ({},)}],
    "shapes": [torch.empty(0), torch.empty(0, 3), torch.tensor(2.5), torch.ones(1, 1, 1), torch.empty(2, 0).T],
    "strides": [SHARED.T, SHARED[:, 1:], SHARED[::2], torch.ones(1).expand(4), torch._neg_view(SHARED)],
    "complex conjugates": torch.tensor([1 + 2j, 3 - 4j]).conj(),
    "channels last": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "shared memory": [SHARED, SHARED, SHARED[0], SHARED.view(-1)],
    "dtypes": [
        torch.arange(8).to(dtype)
        for kinds in ("bool uint8 int8 int16 int32 int64", "float16 bfloat16 float32 float64 complex64 complex128")
        for dtype in (getattr(torch, kind) for kind in kinds.split())
    ],
    "special values": torch.tensor([math.nan, -0.0, math.inf, 1e-45]),
    "random numbers": torch.Generator().manual_seed(3).get_state(),
    "parameters": nn.Linear(2, 3).state_dict(keep_vars=True),
    "long": {"loss": torch.rand(10_000, dtype=torch.float64), "texts": ["a" * 1000] * 100},
}


@pytest.mark.parametrize("name", CONTENTS)
def test_states_come_back_to_the_bit(name: str, tmp_path: Path) -> None:
    assert same(CONTENTS[name], round_trip(tmp_path, CONTENTS[name]))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text() | st.integers(), inner),
        max_leaves=20,
    )
)
@settings(max_examples=100)
def test_any_state_comes_back(content: Any) -> None:
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(checkpoints._to_bytes(content))
        assert same(content, checkpoints._from_file(Path(file.name)))


def test_tensors_have_memory_of_their_own(tmp_path: Path) -> None:
    found = round_trip(tmp_path, [SHARED, SHARED])
    found[0] += 1
    assert torch.equal(found[1], SHARED)
    (file,) = tmp_path.iterdir()
    file.write_bytes(bytes(len(file.read_bytes())))
    assert torch.equal(found[1], SHARED)


def test_versions_of_modules_come_back(tmp_path: Path) -> None:
    module = nn.BatchNorm1d(2)
    assert round_trip(tmp_path, module.state_dict())._metadata == module.state_dict()._metadata == {"": {"version": 2}}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"a": [1, {"b": {1}}]}, "state/content/a/1/b is a set"),
        ({"a": b"bytes"}, "state/content/a is a bytes"),
        ({(1, 2): 3}, "state/content is a dict"),
        ({True: 3}, "state/content is a dict"),
        ([np.float32(1)], "state/content/0 is a float32"),
        (torch.eye(2).to_sparse(), "state/content is a torch.sparse_coo tensor of torch.float32"),
    ],
)
def test_what_a_checkpoint_cannot_hold_is_named(content: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=says):
        checkpoints.save(tmp_path, 1, {"content": content})
    assert not list(tmp_path.iterdir())


def test_a_header_too_long_to_be_read_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safetensors, "HEADER_LIMIT", 10_000)
    with pytest.raises(ValueError, match=r"header would take \d+ bytes, .* room for 10000: keep long lists"):
        checkpoints.save(tmp_path, 1, {"history": [0.1] * 5000})
    assert not list(tmp_path.iterdir())


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
    left = tmp_path / ".step-000000001-0123.safetensors.42.part"
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
    theirs = [tmp_path / name for name in ("step-final.pt", "step-5000.safetensors", "step-000000003-mine.pt")]
    for path in theirs:
        path.write_text("mine")
    assert checkpoints.load_newest(tmp_path) is None
    for number in range(5):
        checkpoints.save(tmp_path, number, {"a": 1})
    assert all(path.read_text() == "mine" for path in theirs)


def test_a_whole_file_that_cannot_be_read_is_not_passed_over(tmp_path: Path) -> None:
    """As one of a later version might be: to begin anew would throw the run away."""
    checkpoints.save(tmp_path, 10, state(10))
    (tmp_path / f"step-{20:09d}-{digest(b'hello')}.safetensors").write_bytes(b"hello")
    with pytest.raises(ValueError, match=r"step-000000020.*is whole but cannot be read"):
        checkpoints.load_newest(tmp_path)


NEWEST = f"step-{20:09d}-{digest(b'')}.safetensors"


def test_folders_and_links_to_nothing_are_passed_over(tmp_path: Path) -> None:
    checkpoints.save(tmp_path, 10, state(10))
    for make in (Path.mkdir, lambda path: path.symlink_to(tmp_path / "nowhere"), lambda path: path.symlink_to(path)):
        make(tmp_path / NEWEST)
        with pytest.warns(UserWarning, match=f"{NEWEST} is damaged and was passed over"):
            found = checkpoints.load_newest(tmp_path)
        assert found is not None
        assert found["number"] == 10
        checkpoints.save(tmp_path, 30, state(30))
        assert {10, 30} <= set(numbers(tmp_path))  # the one that is no file does not count as the one before
        if (tmp_path / NEWEST).is_dir():
            (tmp_path / NEWEST).rmdir()
        for path in tmp_path.glob("step-000000030-*"):
            path.unlink()


def test_what_was_passed_over_does_not_count_as_the_one_before(tmp_path: Path) -> None:
    """The run comes back to 10 from a damaged 15, and writes 20 next: 10 must stay."""
    checkpoints.save(tmp_path, 10, state(10))
    damage(checkpoints.save(tmp_path, 15, state(15)), "one bit")
    checkpoints.save(tmp_path, 20, state(20), since=10)
    assert numbers(tmp_path) == [10, 20]


def run_of_ten(folder: Path) -> pid.Result:
    torch.manual_seed(5)
    network = pid.nets.MLP(2, width=8, depth=1, fourier=4)
    options = {"steps": 10, "batch_size": 8, "n": 10, "progress": False, "save_every": 4}
    return pid.distill(pid.toy("ring"), network, checkpoints=folder, **options)


def other_shapes(value: Any, where: str) -> Any:
    """The state with other shapes in one part of it."""
    if isinstance(value, dict):
        return {key: other_shapes(item, where if key != where else "") for key, item in value.items()}
    if isinstance(value, list):
        return [other_shapes(item, where) for item in value]
    return torch.zeros(1, 1, 3) if isinstance(value, torch.Tensor) and not where and value.ndim else value


@pytest.mark.parametrize(
    "part", ["module", "optimizer", "snapshot", "history", "teacher", "trainer", "settings", "all"]
)
def test_records_that_do_not_fit_are_passed_over(part: str, tmp_path: Path) -> None:
    expected = run_of_ten(tmp_path / "whole")
    run_of_ten(tmp_path / "run")
    newest = checkpoints.load_newest(tmp_path / "run")
    assert newest is not None
    if part in ("trainer", "settings"):
        del newest[part]
    else:
        newest = {} if part == "all" else other_shapes(newest, part)
    checkpoints.save(tmp_path / "run", 10, newest)
    assert numbers(tmp_path / "run") == [8, 10]
    with pytest.warns(UserWarning, match="step-000000010.* was passed over"):
        again = run_of_ten(tmp_path / "run")
    assert torch.equal(again.student(torch.ones(3, 2), 1.0), expected.student(torch.ones(3, 2), 1.0))
    assert numbers(tmp_path / "run") == [8, 10]


def test_records_of_which_none_fits_are_refused(tmp_path: Path) -> None:
    """To begin anew would throw them away."""
    checkpoints.save(tmp_path, 10, {"settings": {}, "trainer": {}})
    with pytest.raises(ValueError, match=r"or no run that can be continued \(step-000000010.*: use another folder"):
        run_of_ten(tmp_path)
    assert numbers(tmp_path) == [10]


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
