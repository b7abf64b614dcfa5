"""Files of torch.save in both formats: every tensor comes back, and nothing else of a file has any effect."""

from __future__ import annotations

import os
import pickle
import struct
import tracemalloc
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pidlearn.utils import torch_archive
from pidlearn.utils.torch_archive import LEGACY, MAGIC

ZIPPED = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
KINDS = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64)


def save(content: Any, path: Path, zipped: bool = False) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


@ZIPPED
def test_every_kind_of_number_and_view(zipped: bool, tmp_path: Path) -> None:
    content: OrderedDict[str, Tensor] = OrderedDict((str(k), torch.arange(6).reshape(2, 3).to(k).T) for k in KINDS)
    whole = torch.arange(24.0)
    content |= {"part": whole[3:9], "strided": whole.reshape(4, 6)[1:, ::2], "number": torch.tensor(2.5)}
    content["weight"] = nn.Parameter(torch.ones(2))
    found = torch_archive.read(save(content, tmp_path / "a.pth", zipped))
    assert list(found) == list(content)
    for name, value in content.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value.detach())
    found["number"].add_(1)  # so it may be written to


@ZIPPED
def test_state_dicts_of_modules(zipped: bool, tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    for keep_vars in (False, True):
        state = module.state_dict(keep_vars=keep_vars)
        assert state._metadata  # type: ignore[attr-defined]  # not in torch's annotations
        found = torch_archive.read(save(state, tmp_path / "a.pth", zipped))
        assert list(found) == list(state)
        assert all(torch.equal(found[name], value.detach()) for name, value in state.items())


@ZIPPED
def test_a_trunk_of_full_size_takes_no_more_memory_than_it_needs(zipped: bool, tmp_path: Path) -> None:
    """The layers of VGG-16 with the largest of its classifier, 138 MB."""
    shapes = [(64, 3, 3, 3), *[(512, 512, 3, 3)] * 6, (4096, 4096 + 1024)]
    state = {f"features.{i}.weight": torch.rand(shape) for i, shape in enumerate(shapes)}
    path = save(state, tmp_path / "vgg.pth", zipped)
    tracemalloc.start()
    found = torch_archive.read(path)
    _, peak = tracemalloc.get_traced_memory()  # of Python, which is not where tensors are
    tracemalloc.stop()
    assert peak < 2**26
    assert all(torch.equal(found[name], value) for name, value in state.items())


# Files as other versions of torch and Python wrote them


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def python2(value: str) -> bytes:
    return b"U" + bytes([len(value)]) + value.encode()


def persistent(key: str = "1", length: int = 2, kind: str = "FloatStorage", string: Any = text) -> bytes:
    name = b"ctorch\n" + kind.encode() + b"\n"
    return b"(" + string("storage") + name + string(key) + string("cpu") + b"J" + struct.pack("<i", length) + b"NtQ"


def tensor(storage: bytes = b"", function: str = "_rebuild_tensor", size: int = 2) -> bytes:
    view = (storage or persistent()) + b"K\x00K" + bytes([size]) + b"\x85K\x01\x85"
    return b"ctorch._utils\n" + function.encode() + b"\n(" + view + b"tR"


def legacy(
    program: bytes, keys: Any = ("1",), count: int = 2, numbers: bytes = struct.pack("<2f", 1.5, -2.5), **system: Any
) -> bytes:
    """A file in the old format with that program."""
    told = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}, **system}
    pickles = [pickle.dumps(MAGIC, 2), pickle.dumps(1001, 2), pickle.dumps(told, 2), b"\x80\x02" + program + b"."]
    return b"".join([*pickles, pickle.dumps(list(keys), 2), struct.pack("<q", count), numbers])


def named(value: bytes) -> bytes:
    return b"}" + text("w") + value + b"s"


PROGRAMS: dict[str, bytes] = {
    "a tensor of torch before 0.4": named(tensor()),
    "a memo that starts at 1, as Python 2 counts": named(tensor() + b"q\x01") + b"q\x02",
    "a memo with long numbers": named(tensor() + b"r\x00\x00\x00\x7f") + b"r\x01\x00\x00\x7f",
    "an ordered dict of pairs, as Python 2 wrote it": (
        b"ccollections\nOrderedDict\n](](" + python2("w") + tensor(persistent(string=python2)) + b"ee\x85R"
    ),
    "versions of modules": (
        b"ccollections\nOrderedDict\n)R" + text("w") + tensor() + b"s}" + text("_metadata") + b"}sb"
    ),
    "a parameter of torch before 0.4": named(b"ctorch.nn.parameter\nParameter\n" + tensor() + b"\x85\x81"),
    "a parameter and its state": named(
        b"ctorch.nn.parameter\nParameter\n" + tensor() + b"\x85\x81(\x88\x89ccollections\nOrderedDict\n)Rtb"
    ),
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_programs_of_older_versions(program: bytes, tmp_path: Path) -> None:
    (tmp_path / "old.pth").write_bytes(legacy(program))
    found = torch_archive.read(tmp_path / "old.pth")
    assert {name: value.tolist() for name, value in found.items()} == {"w": [1.5, -2.5]}


def test_the_first_bytes_are_those_of_torch(tmp_path: Path) -> None:
    assert save({"w": torch.ones(1)}, tmp_path / "a.pth").read_bytes().startswith(LEGACY)
    assert legacy(b"}").startswith(LEGACY)


# Files that are damaged or mean harm

HOSTILE: dict[str, tuple[bytes, str]] = {
    "a call of something else": (legacy(b"cposix\nmkdir\nX\x01\x00\x00\x00a\x85R"), "refers to 'posix.mkdir'"),
    "a call before the content": (pickle.dumps(MAGIC, 2) + b"\x80\x02cposix\nmkdir\n.", "opcode GLOBAL"),
    "another magic number": (
        pickle.dumps(MAGIC + 2**60, 2) + pickle.dumps(1001, 2) + pickle.dumps({}, 2),
        "format 1001",
    ),
    "big-endian numbers": (legacy(named(tensor()), little_endian=False), "little-endian format 1001"),
    "far more numbers than the file has": (legacy(named(tensor(persistent(length=2**31 - 1)))), "announces 2147483647"),
    "many storages that are too large together": (
        legacy(b"](" + b"".join(tensor(persistent(str(i), 50)) for i in range(9)) + b"e"),
        "announces 50 numbers",
    ),
    "no numbers": (legacy(named(tensor(persistent(length=0)))), "announces 0 numbers"),
    "fewer than none": (legacy(named(tensor(persistent(length=-1)))), "announces -1 numbers"),
    "another count": (legacy(named(tensor()), count=3), "announces 2 numbers for a storage and then 3"),
    "a negative count": (legacy(named(tensor()), count=-2), "and then -2"),
    "too few numbers": (legacy(named(tensor()), numbers=bytes(7)), "2 numbers in 7 bytes, which are 1.75"),
    "too many numbers": (legacy(named(tensor()), numbers=bytes(12)), "goes on after its last number"),
    "a storage without numbers": (legacy(named(tensor()), keys=(), count=0, numbers=b""), "lacks the numbers of 1"),
    "a storage twice": (legacy(named(tensor()), keys=("1", "1"), numbers=bytes(24)), "'1' that no tensor uses"),
    "a storage of no tensor": (legacy(named(tensor()), keys=("2",)), "'2' that no tensor uses"),
    "keys that are no text": (legacy(named(tensor()), keys=(1,)), "int where a str"),
    "a view outside": (legacy(named(tensor(size=3))), "reach outside its 2 numbers"),
    "a storage that is a view": (
        legacy(named(tensor(persistent().replace(b"NtQ", b"(" + text("1") + b"K\x00K\x02ttQ")))),
        "does not name a storage",
    ),
    "a class that is no storage": (legacy(named(tensor(persistent(kind="load")))), "refers to 'torch.load'"),
    "a tensor as a storage": (
        legacy(b"ctorch._utils\n_rebuild_tensor\n(" + tensor() + b"K\x00K\x02\x85K\x01\x85tR"),
        "Tensor where a Storage",
    ),
    "a list": (legacy(b"](" + tensor() + b"e"), "dict of tensors by name"),
    "a tensor": (legacy(tensor()), "dict of tensors by name"),
    "the state of a storage": (legacy(persistent() + b"}b"), "state of a Storage"),
}


@pytest.mark.parametrize(("contents", "says"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_files(contents: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "hostile.pth"
    path.write_bytes(contents)
    assert contents.startswith(LEGACY)
    with pytest.raises(ValueError, match=rf"hostile.pth .*{says}"):
        torch_archive.read(path)
    assert list(tmp_path.iterdir()) == [path]


@ZIPPED
def test_calls_are_refused(zipped: bool, tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(tmp_path / "executed"),))

    for content in (Hostile(), {"w": Hostile()}, {"w": torch.ones(2), "more": [Hostile()]}):
        path = save(content, tmp_path / "a.pth", zipped)
        with pytest.raises(ValueError, match=r"refers to 'posix.mkdir'.*Nothing in it was executed"):
            torch_archive.read(path)
    assert not (tmp_path / "executed").exists()


@ZIPPED
@pytest.mark.parametrize(
    "make",
    [lambda: {"w": torch.ones(1).expand(10**9)}, lambda: {str(i): SHARED for i in range(50)}],
    ids=["a view of one number", "many names for one tensor"],
)
def test_files_that_claim_more_than_they_hold(make: Callable[[], Any], zipped: bool, tmp_path: Path) -> None:
    path = save(make(), tmp_path / "a.pth", zipped)
    with pytest.raises(ValueError, match=r"reach outside its 1 numbers|claims more numbers than it has room for"):
        torch_archive.read(path)


SHARED = torch.ones(10_000)


def whole() -> bytes:
    return legacy(named(tensor()))


def test_every_truncation_is_an_error(tmp_path: Path) -> None:
    path, contents = tmp_path / "a.pth", whole()
    for length in range(len(contents)):
        path.write_bytes(contents[:length])
        with pytest.raises(ValueError, match=r"a\.pth"):
            torch_archive.read(path)


@settings(max_examples=300)
@given(st.data())
def test_changed_bytes(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    contents = bytearray(whole())
    for _ in range(data.draw(st.integers(1, 4))):
        contents[data.draw(st.integers(0, len(contents) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "changed.pth"
    path.write_bytes(contents)
    try:
        found = torch_archive.read(path)
    except ValueError:
        return
    assert all(value.nbytes <= len(contents) for value in found.values())
