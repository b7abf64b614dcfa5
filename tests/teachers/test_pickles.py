"""EDM's pickles: the same tensors and options out, and never anything executed."""

from __future__ import annotations

import builtins
import functools
import importlib
import io
import math
import operator
import os
import pickle
import pickletools
import struct
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import pidlearn as pid
from pidlearn.teachers.files import edm_pickle
from pidlearn.teachers.files.build import complete
from pidlearn.utils import pickle_machine
from tests.teachers import edm_files

TOUCHED: list[str] = []


def touch(*_: Any) -> None:
    """What a hostile pickle would run."""
    TOUCHED.append("executed")


class Call:
    """An object that unpickles by calling a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def load(contents: bytes) -> edm_pickle.Pickled:
    return edm_pickle.unpickle(io.BytesIO(contents), len(contents))


@functools.cache
def micro() -> bytes:
    """A file with a network of one layer: all that a large one has, in 2 kB."""
    return edm_files.edm_pickle(nn.ModuleDict({"a": nn.Linear(3, 2)})["a"], "Linear", {"n": 3, "f": [1.5, 2]})


# Files of EDM's


@pytest.mark.parametrize("kind", edm_files.KINDS)
def test_the_same_tensors_and_options(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "network.pkl"
    written = edm_files.write(path, kind)
    state = torch.random.get_rng_state()
    teacher: Any = pid.load_teacher(path)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert type(teacher) is type(written)
    assert teacher.options == teacher.options | edm_files.KINDS[kind][1]
    assert list(teacher.state_dict()) == list(written.state_dict())
    for name, tensor in written.state_dict().items():
        assert torch.equal(teacher.state_dict()[name], tensor)
    assert not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())


@pytest.mark.parametrize("kind", ["vp", "adm"])
@torch.no_grad()
def test_a_loaded_teacher_computes(kind: str, tmp_path: Path) -> None:
    written = edm_files.write(tmp_path / "network.pkl", kind)
    teacher = pid.load_teacher(str(tmp_path / "network.pkl"))
    x, sigma, labels = torch.randn(2, 3, 16, 16), torch.tensor([0.5, 20.0]), torch.tensor([3, 9])
    assert torch.equal(teacher(x, sigma, labels), written(x, sigma, labels))


def test_defaults_are_edms() -> None:
    options = complete(pid.nets.EDMPrecond, {"img_resolution": 64, "img_channels": 3})
    assert (options["model_type"], options["model_channels"], options["num_blocks"]) == ("DhariwalUNet", 192, 3)


def test_views_are_honoured() -> None:
    module = nn.Module()
    whole = torch.arange(12.0).reshape(3, 4)
    module.weight = nn.Parameter(whole[1:, ::2].T)
    contents = edm_files.edm_pickle(module, "Module", {})
    assert torch.equal(load(contents).tensors["weight"], whole[1:, ::2].T)


def test_buffers_that_belong_in_no_state_dict_are_left_out() -> None:
    module = nn.Module()
    module.register_buffer("kept", torch.ones(2))
    module.register_buffer("table", torch.ones(2), persistent=False)
    edm = edm_files.as_edm(module, "Module", {})
    edm._non_persistent_buffers_set.add("table")
    with edm_files.edm_modules():
        assert list(load(pickle.dumps({"ema": edm}, 4)).tensors) == ["kept"]


# Pickles that try something else


def test_the_sentinel_works() -> None:
    pickle.loads(pickle.dumps(Call(touch)))
    assert TOUCHED.pop() == "executed"


GLOBALS: list[tuple[str, Callable[..., Any], tuple[Any, ...]]] = [
    ("posix.system" if os.name == "posix" else "nt.system", os.system, ("exit 1",)),
    ("tests.teachers.test_pickles.touch", touch, ()),
    ("builtins.eval", builtins.eval, ("__import__('tests').teachers.test_pickles.touch()",)),
    ("builtins.exec", builtins.exec, ("import tests.teachers.test_pickles as t; t.touch()",)),
    ("builtins.getattr", builtins.getattr, (OrderedDict, "fromkeys")),
    ("builtins.__import__", builtins.__import__, ("this",)),
    ("importlib.import_module", importlib.import_module, ("this",)),
    ("subprocess.Popen", subprocess.Popen, (["true"],)),
    ("operator.attrgetter", operator.attrgetter, ("system",)),
    ("functools.partial", functools.partial, (touch,)),
    ("torch.serialization.load", torch.load, ("file",)),
    ("torch._utils._rebuild_qtensor", torch._utils._rebuild_qtensor, ()),
    ("torch.nn.modules.linear.Linear", nn.Linear, (3, 2)),
]


def places(payload: Any) -> dict[str, bytes]:
    """The same payload where a pickle can have one."""
    layer = nn.Linear(3, 2)
    with edm_files.edm_modules():
        inside = edm_files.as_edm(layer, "Linear", {"n": payload})
        as_ema = pickle.dumps({"ema": payload}, 4)
        in_options = pickle.dumps({"ema": inside}, 4)
        alone = {protocol: pickle.dumps(payload, protocol) for protocol in (0, 2, 4)}
    beside = edm_files.edm_pickle(layer, "Linear", {}, augment_pipe=payload)
    return {
        "protocol 0": alone[0],
        "protocol 2": alone[2],
        "alone": alone[4],
        "as the network": as_ema,
        "in its options": in_options,
        "beside it": beside,
    }


@pytest.mark.parametrize(("name", "function", "arguments"), GLOBALS, ids=[name for name, *_ in GLOBALS])
def test_other_globals_are_refused_by_name(
    name: str, function: Callable[..., Any], arguments: tuple[Any, ...], tmp_path: Path
) -> None:
    imported = set(sys.modules)
    for place, contents in places(Call(function, *arguments)).items():
        path = tmp_path / "hostile.pkl"
        path.write_bytes(contents)
        with pytest.raises(ValueError, match="can be read safely") as refusal:
            pid.load_teacher(path)
        told = str(refusal.value).replace(" ", ".")
        assert name.rpartition(".")[2] in told, place
        assert "Nothing.in.it.was.executed" in told
    assert not TOUCHED
    assert "this" not in set(sys.modules) - imported


def storage(
    length: int = 6,
    count: int | None = None,
    data: bytes = struct.pack("<6f", *range(6)),
    global_: bytes = b"torch\nFloatStorage",
    before: bytes = b"",
) -> bytes:
    """A storage in torch's old format, of whatever it claims."""
    magic = pickle.dumps(119547037146038801333356, 2)
    system = pickle.dumps({"protocol_version": 1001, "little_endian": True, "type_sizes": {}}, 2)
    key = b"X\x01\x00\x00\x00k"
    number = b"J" + struct.pack("<i", length)
    reference = (
        b"\x80\x02(X\x07\x00\x00\x00storagec" + global_ + b"\n" + key + b"X\x03\x00\x00\x00cpu" + number + b"NtQ."
    )
    keys = b"\x80\x02](" + key + b"e."
    raw = struct.pack("<Q", length if count is None else count) + data
    return before + magic + pickle.dumps(1001, 2) + system + reference + keys + raw


def tensor(contents: bytes, offset: Any = 0, size: Any = (2, 3), stride: Any = (3, 1), *more: Any) -> bytes:
    """A file whose network has one tensor, made as these arguments say."""
    loader = Call(torch.storage._load_from_bytes, contents)
    values = Call(torch._utils._rebuild_tensor_v2, loader, offset, size, stride, False, OrderedDict(), *more)
    with edm_files.edm_modules():
        edm = edm_files.persistent("Module", _init_args=(), _init_kwargs={}, training=False)
        edm.__dict__["_parameters"] = {"weight": values}
        return pickle.dumps({"ema": edm}, 4)


def test_a_storage_that_is_whole() -> None:
    expected = torch.arange(6.0).reshape(2, 3)
    assert torch.equal(load(tensor(storage())).tensors["weight"], expected)
    assert torch.equal(load(tensor(storage(), 1, (2,), (2,))).tensors["weight"], torch.tensor([1.0, 3.0]))


HOSTILE = pickle.dumps(Call(touch), 2)
STORAGES: dict[str, tuple[bytes, str]] = {
    "a pickle that calls": (HOSTILE, "touch"),
    "a pickle that calls, before the storage": (storage(before=HOSTILE), "touch"),
    "a pickle that calls, protocol 4": (pickle.dumps(Call(touch), 4), "STACK_GLOBAL|REDUCE"),
    "another global": (storage(global_=b"os\nsystem"), "os.system"),
    "another dtype": (storage(global_=b"torch\nDoubleStorage"), "torch.DoubleStorage"),
    "too long a claim": (storage(length=2**31 - 1), "2147483647"),
    "no numbers": (storage(length=0, data=b""), "announces 0"),
    "a negative length": (storage(length=-6, count=6), "announces -6"),
    "another count": (storage(count=2**63), str(2**63)),
    "too little data": (storage(data=b"1234"), "which are 1"),
    "too much data": (storage(data=bytes(28)), "goes on after its last number"),
    "a zip archive": (b"PK\x03\x04" + bytes(30), "damaged or cut short"),
    "nothing": (b"", "STOP"),
}


@pytest.mark.parametrize(("contents", "message"), STORAGES.values(), ids=STORAGES)
def test_hostile_storages(contents: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(tensor(contents))
    assert not TOUCHED


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (1, (2, 3), (3, 1)),
        (-1, (2, 3), (3, 1)),
        (0, (2, 4), (3, 1)),
        (0, (2, 3), (4, 1)),
        (0, (2, 3), (-3, 1)),
        (0, (2**40,), (0,)),
        (0, (0,), (1,)),
        (0, (2, 3), (1,)),
        (0, (1,) * 5, (1,) * 5),
        (0, (2.0, 3), (3, 1)),
        (0, [2, 3], (3, 1)),
        (None, (2, 3), (3, 1)),
        (2**70, (2, 3), (3, 1)),
    ],
)
def test_views_that_leave_their_storage(offset: Any, size: Any, stride: Any) -> None:
    with pytest.raises(ValueError, match=r"reach outside its 6 numbers|a list where a tuple"):
        load(tensor(storage(), offset, size, stride))


def proto4(*opcodes: bytes) -> bytes:
    return b"\x80\x04" + b"".join(opcodes) + b"."


def short(text: str) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text.encode()


def named(module: str, name: str) -> bytes:
    return short(module) + short(name) + b"\x93"


ORDERED_DICT = named("collections", "OrderedDict")
LOADER = named("torch.storage", "_load_from_bytes")
PARAMETER = named("torch._utils", "_rebuild_parameter")
MODULE_DICT = named("torch.nn.modules.container", "ModuleDict")
RECORD = named("torch_utils.persistence", "_reconstruct_persistent_obj")
TOUCH = "tests.teachers.test_pickles\ntouch\n"
OPCODES: dict[str, tuple[bytes, str]] = {
    "INST": (b"(i" + TOUCH.encode() + b".", "INST.*touch"),
    "OBJ": (b"(c" + TOUCH.encode() + b"o.", "GLOBAL.*touch"),
    "GLOBAL": (proto4(b"c" + TOUCH.encode() + b")R"), "GLOBAL.*touch"),
    "EXT1": (proto4(b"\x82\x01"), "EXT1"),
    "EXT4": (proto4(b"\x84\x01\x00\x00\x00"), "EXT4"),
    "PERSID": (proto4(b"Pkey\n"), "PERSID.*key"),
    "BINPERSID": (proto4(short("key"), b"Q"), "BINPERSID"),
    "NEWOBJ_EX": (proto4(MODULE_DICT, b")}\x92"), "NEWOBJ_EX"),
    "NEXT_BUFFER": (b"\x80\x05\x97.", "NEXT_BUFFER"),
    "DUP": (proto4(b"}2"), "DUP"),
    "a class as a function": (proto4(MODULE_DICT, b")R"), "REDUCE"),
    "a function as a class": (proto4(ORDERED_DICT, b")\x81"), "NEWOBJ"),
    "a class with arguments": (proto4(MODULE_DICT, b"N\x85\x81"), "1 values where 0"),
    "a dict with arguments": (proto4(ORDERED_DICT, b"]\x85R"), "REDUCE"),
    "a string as a function": (proto4(short("print"), b")R"), "a str where a Global"),
    "a global's attribute": (proto4(named("collections", "OrderedDict.fromkeys"), b")R"), "OrderedDict.fromkeys"),
    "the state of a global": (proto4(ORDERED_DICT, b"N}", short("__code__"), b"Ns\x86b"), "state of a Global"),
    "the state of a function": (proto4(RECORD, b"}b"), "state of a Global"),
    "the state of a list": (proto4(b"]}b"), "state of a list"),
    "the state of a module, twice": (proto4(MODULE_DICT, b")\x81}b}b"), "state of a Record"),
    "a state that is no dict": (proto4(MODULE_DICT, b")\x81]b"), "list where a dict"),
    "items of a global": (proto4(ORDERED_DICT, short("a"), b"Ns"), "Global where a dict"),
    "a record of nothing": (proto4(RECORD, b"}\x85R"), "KeyError"),
    "too many arguments": (proto4(PARAMETER, b"(" + b"N" * 9 + b"tR"), "9 arguments"),
    "a memo bomb": (proto4(b"N", b"r\xff\xff\xff\x7f"), "LONG_BINPUT"),
    "a memo that is not there": (proto4(b"j\xff\xff\xff\x7f"), "LONG_BINGET"),
    "bytes that are not there": (proto4(b"B\xff\xff\xff\xff"), "4294967295"),
    "8-byte lengths": (proto4(b"\x8e" + struct.pack("<Q", 2**62)), "4611686018427387904|9223372036854775807|BINBYTES8"),
    "a bytearray": (b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".", "1099511627776|BYTEARRAY8"),
    "a long number": (b"I" + b"9" * 100_000 + b"\n.", "digits"),
    "an empty stack": (proto4(), "IndexError|damaged"),
    "a mark that is not there": (proto4(b"t"), "TUPLE"),
    "what lies under a mark": (proto4(short("a"), short("b"), b"(\x93"), "STACK_GLOBAL"),
    "half an item": (proto4(b"}(", short("a"), b"u"), "SETITEMS"),
    "a tuple nested deep as a key": (proto4(b"})" + b"\x85" * 200_000, b"Ns"), "tuple where a str"),
    "an opcode that is none": (proto4(b"\xff"), "unknown"),
    "no network": (proto4(b"}"), "no network under the name 'ema'"),
    "a network that is none": (proto4(b"}", short("ema"), b"]s"), "no network under the name 'ema'"),
    "nothing": (b"", "STOP"),
    "no end": (b"\x80\x04}", "STOP"),
}


@pytest.mark.parametrize(("contents", "message"), OPCODES.values(), ids=OPCODES)
def test_hostile_opcodes(contents: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(contents)
    assert not TOUCHED


def module(**attributes: Any) -> edm_files.Persistent:
    edm = edm_files.persistent("Module", _init_args=(), _init_kwargs={})
    edm.__dict__ |= attributes
    return edm


def laughs(depth: int = 60) -> Any:
    """A tuple that is short in a file and endless on paper."""
    value: Any = ()
    for _ in range(depth):
        value = (value, value)
    return value


def tower(depth: int) -> edm_files.Persistent:
    """Modules that each hold the next one twice."""
    edm = module()
    for _ in range(depth):
        edm = module(_modules={"a": edm, "b": edm})
    return edm


SHAPES: dict[str, tuple[Callable[[], Any], str]] = {
    "a module twice, and that again and again": (lambda: tower(40), "twice"),
    "tensors shared by all modules": (
        lambda: module(
            _modules={"a": module(_parameters=(shared := {"w": torch.ones(2)})), "b": module(_parameters=shared)}
        ),
        "twice",
    ),
    "tensors that are none": (lambda: module(_parameters={"w": 3}), "int where a Tensor"),
    "modules that are none": (lambda: module(_modules={"w": laughs()}), "tuple where a Record"),
    "no options": (lambda: module(_init_kwargs=None), "NoneType where a dict"),
    "arguments without names": (lambda: module(_init_args=(3,)), "which options"),
    "no state": (lambda: nn.ModuleDict(), "which options|KeyError"),
    "two tensors of one name": (
        lambda: module(_parameters={"a.w": torch.ones(2)}, _modules={"a": module(_parameters={"w": torch.ones(2)})}),
        "two tensors named",
    ),
    "endless arguments": (lambda: module(_init_args=laughs()), "which options"),
}


@pytest.mark.parametrize(("make", "message"), SHAPES.values(), ids=SHAPES)
def test_networks_that_are_none(make: Callable[[], Any], message: str) -> None:
    with edm_files.edm_modules():
        contents = pickle.dumps({"ema": make()}, 4)
    with pytest.raises(ValueError, match=message):
        load(contents)


def test_a_module_that_contains_itself() -> None:
    # {"ema": record} with record's _modules a dict that is filled after the record is made of it.
    state = b"}(" + b"".join(short(k) + b"}" for k in ("_parameters", "_buffers", "_init_kwargs"))
    state += short("_init_args") + b")" + short("_non_persistent_buffers_set") + b"\x8f"
    state += short("_modules") + b"}\x94" + b"u"
    record = RECORD + b"}(" + short("class_name") + short("EDMPrecond") + short("state") + state + b"u\x85R\x94"
    contents = proto4(b"}", short("ema"), record, b"s")
    assert load(contents).tensors == {}
    itself = b"h\x00" + short("a") + b"h\x01s"  # the dict of modules gets the record
    contents = proto4(b"}", short("ema"), record, b"s", short("more"), itself, b"s")
    with pytest.raises(ValueError, match="twice"):
        load(contents)


def test_modules_nested_deep() -> None:
    fields = (
        b"".join(short(k) + b"}" for k in ("_parameters", "_buffers")) + short("_non_persistent_buffers_set") + b"\x8f"
    )
    fields += short("_init_args") + b")" + short("_init_kwargs") + b"}" + short("_modules") + b"}"
    start = RECORD + b"}(" + short("class_name") + short("EDMPrecond") + short("state") + b"}(" + fields
    end = b"uu\x85R"
    for depth, works in ((10, True), (5000, False)):
        nested = (start + short("a")) * depth + start + end + (b"s" + end) * depth
        contents = proto4(b"}", short("ema"), nested, b"s")
        if works:
            assert load(contents).class_name == "EDMPrecond"
        else:
            with pytest.raises(ValueError, match="RecursionError"):
                load(contents)


def test_a_storage_read_many_times_does_not_multiply() -> None:
    data = storage(length=25_000, data=bytes(100_000))
    once = LOADER + b"\x94" + b"B" + struct.pack("<I", len(data)) + data + b"\x94\x85R"
    again = b"h\x00h\x01\x85R"
    assert len(once + again * 5000) < 2**18
    with pytest.raises(ValueError, match="where a bytes was expected"):  # the memo no longer has it
        load(proto4(b"](", once, again * 5000, b"e"))
    kept = once.replace(data, data + b"\x94\x94")  # under more numbers than are cleared
    with pytest.raises(ValueError, match="room for"):
        load(proto4(b"](", kept, again * 5000, b"e"))


def test_a_tensor_under_many_names_does_not_multiply() -> None:
    shared = torch.ones(25_000)
    with edm_files.edm_modules():
        contents = pickle.dumps({"ema": module(_parameters={str(i): shared for i in range(50)})}, 4)
    with pytest.raises(ValueError, match="room for"):
        load(contents)


def test_too_many_opcodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle_machine, "MAX_OPCODES", 1000)
    with pytest.raises(ValueError, match="more than 1000 opcodes"):
        load(proto4(b"\x8f" * 2000))


OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown option": ({"gammas": 3}, "gammas"),
    "an option that drives a terminal": ({"\x1b[2J\nfine": 3}, r"does not: \\x1b\[2J\\nfine\."),
    "another network": ({"model_type": "UNet"}, "model_type is 'UNet'; known are SongUNet, DhariwalUNet"),
    "a network that is no word": ({"model_type": [1]}, "model_type is a list"),
    "an option of the other network": ({"model_type": "DhariwalUNet"}, "augment|make a"),
    "another width": ({"model_channels": 32}, "size mismatch"),
    "endless blocks": ({"num_blocks": 2**16}, "describe 131072 blocks, which its 149 tensors"),
    "a huge number": ({"model_channels": 2**31 - 1}, "model_channels is 2147483647"),
    "an endless option": ({"attn_resolutions": laughs()}, "attn_resolutions is a tuple"),
    "a nested option": ({"attn_resolutions": [[8]]}, "attn_resolutions is a list"),
    "a number for a list": ({"channel_mult": 2}, r"channel_mult is 2, where EDMPrecond takes Sequence\[int\]"),
    "a word for a number": ({"sigma_min": "0"}, "sigma_min is '0', where EDMPrecond takes float"),
    "a word for yes or no": ({"use_fp16": "no"}, "use_fp16 is 'no', where EDMPrecond takes bool"),
    "yes for a number": ({"num_blocks": True}, "num_blocks is True"),
    "broken numbers": ({"channel_mult": [1.0, 2.0]}, "channel_mult is a list"),
    "no number": ({"dropout": math.nan}, "dropout is nan"),
    "data of no scale": ({"sigma_data": 0.0}, "got sigma_data = 0.0, but sigma_data must be a positive, finite number"),
    "a filter of zeros": ({"resample_filter": [0, 0]}, "taps whose sum is not 0"),
}


@pytest.mark.parametrize(("options", "message"), OPTIONS.values(), ids=OPTIONS)
def test_options_that_do_not_fit(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "network.pkl"
    path.write_bytes(edm_files.edm_pickle(edm_files.denoiser(), "EDMPrecond", edm_files.VP | options))
    with pytest.raises(ValueError, match=message):
        pid.load_teacher(path)


def test_missing_and_foreign_tensors_and_classes(tmp_path: Path) -> None:
    path = tmp_path / "network.pkl"
    diverged = edm_files.denoiser()
    diverged.model.map_layer0.bias.data[1] = math.nan
    path.write_bytes(edm_files.edm_pickle(diverged, "EDMPrecond", edm_files.VP))
    with pytest.raises(ValueError, match=r"map_layer0\.bias holds NaN or infinity"):
        pid.load_teacher(path)
    less = edm_files.denoiser()
    del less.model.map_layer0.bias
    path.write_bytes(edm_files.edm_pickle(less, "EDMPrecond", edm_files.VP))
    with pytest.raises(ValueError, match=r"Missing key.*map_layer0\.bias"):
        pid.load_teacher(path)
    more = edm_files.denoiser()
    more.extra = nn.Linear(2, 2)
    path.write_bytes(edm_files.edm_pickle(more, "EDMPrecond", edm_files.VP))
    with pytest.raises(ValueError, match=r"Unexpected key.*extra\.weight"):
        pid.load_teacher(path)
    path.write_bytes(edm_files.edm_pickle(edm_files.denoiser(), "EDMLoss", edm_files.VP))
    with pytest.raises(ValueError, match="class 'EDMLoss'; known are EDMPrecond"):
        pid.load_teacher(path)


# Damage


def test_every_truncation_is_an_error() -> None:
    contents = micro()
    assert load(contents).options == {"n": 3, "f": [1.5, 2]}
    for length in range(len(contents)):
        with pytest.raises(ValueError, match="damaged or cut short"):
            load(contents[:length])


def fails_cleanly(contents: bytes) -> None:
    """A network or a ValueError, and nothing executed."""
    try:
        tensors: dict[str, Tensor] = load(contents).tensors
    except ValueError:
        tensors = {}
    assert all(4 * value.numel() <= len(contents) for value in tensors.values())
    assert not TOUCHED


@settings(max_examples=300)
@given(st.data())
def test_changed_bytes(data: st.DataObject) -> None:
    contents = bytearray(micro())
    for _ in range(data.draw(st.integers(1, 4))):
        contents[data.draw(st.integers(0, len(contents) - 1))] = data.draw(st.integers(0, 255))
    fails_cleanly(bytes(contents))


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_random_bytes(contents: bytes) -> None:
    fails_cleanly(contents)
    fails_cleanly(b"\x80\x04" + contents)


FRAGMENTS = [ORDERED_DICT, LOADER, PARAMETER, MODULE_DICT, RECORD, short("ema"), short("state"), short("class_name")]
ALL_OPCODES = [opcode.code.encode("latin-1") for opcode in pickletools.opcodes]


@settings(max_examples=300)
@given(st.lists(st.one_of(st.sampled_from(ALL_OPCODES), st.sampled_from(FRAGMENTS), st.binary(max_size=2))))
def test_random_opcodes(opcodes: list[bytes]) -> None:
    fails_cleanly(proto4(*opcodes))


@settings(max_examples=100)
@given(
    st.lists(
        st.sampled_from(
            [*FRAGMENTS, b"}", b"]", b")", b"(", b"t", b"\x85", b"R", b"\x81", b"b", b"s", b"u", b"\x94", b"h\x00"]
        )
    )
)
def test_random_programs_of_permitted_opcodes(opcodes: list[bytes]) -> None:
    fails_cleanly(proto4(*opcodes))


def test_weights_are_in_memory_once(tmp_path: Path) -> None:
    """The memo of the pickle keeps none of the byte strings that the weights came in."""
    edm_files.write(tmp_path / "vp.pkl")
    contents = (tmp_path / "vp.pkl").read_bytes()
    machine = edm_pickle.NetworkMachine(len(contents))
    machine.run(io.BytesIO(contents))
    flat = [part for value in machine.memo.values() for part in (value if isinstance(value, tuple) else (value,))]
    assert max(len(part) for part in flat if isinstance(part, bytes)) == 8  # of a number
