"""Files of the official PID repository: options from names and shapes, teachers and students."""

from __future__ import annotations

import argparse
import math
import os
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import pidlearn as pid
from pidlearn.cli import main
from pidlearn.teachers.files import official_pid
from pidlearn.utils import torch_archive
from tests.teachers import edm_files

CIFAR = {"img_resolution": 32, "channel_mult": [2, 2, 2]}
NETWORKS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "cifar": (pid.nets.SongUNet, CIFAR),
    "cifar conditional": (pid.nets.SongUNet, CIFAR | {"label_dim": 10, "augment_dim": 9}),
    "ffhq ve": (
        pid.nets.SongUNet,
        {"img_resolution": 64, "augment_dim": 9, "embedding_type": "fourier", "encoder_type": "residual"}
        | {"channel_mult_noise": 2, "resample_filter": [1, 3, 3, 1]},
    ),
    "skip": (
        pid.nets.SongUNet,
        {"img_resolution": 16, "encoder_type": "skip", "decoder_type": "skip", "num_blocks": 2, "channel_mult_emb": 2},
    ),
    "one level": (pid.nets.SongUNet, {"img_resolution": 8, "channel_mult": [2], "attn_resolutions": []}),
    "imagenet": (pid.nets.DhariwalUNet, {"img_resolution": 64, "label_dim": 1000}),
    "adm": (
        pid.nets.DhariwalUNet,
        {"img_resolution": 32, "model_channels": 64, "channel_mult": [2, 3], "augment_dim": 9, "num_blocks": 1}
        | {"attn_resolutions": [16], "channel_mult_emb": 3},
    ),
}

SMALLEST: dict[str, Any] = {"model_channels": 4, "channel_mult": [1], "num_blocks": 1, "attn_resolutions": []}


@pytest.mark.parametrize(("cls", "options"), NETWORKS.values(), ids=NETWORKS)
def test_options_follow_from_names_and_shapes(cls: type[Any], options: dict[str, Any]) -> None:
    given = {"in_channels": 3, "out_channels": 3, "dropout": 0.0} | options
    with torch.device("meta"):
        network = cls(**given)
    tensors = {
        name: network_filter(options) if name.endswith("resample_filter") else value
        for name, value in network.state_dict().items()
    }
    kind, found = official_pid.infer(tensors)
    assert kind == cls.__name__
    expected = {key: list(v) if isinstance(v, tuple) else v for key, v in network.options.items()}
    # The first leaves no trace in the weights, and no teacher has the others.
    for name in ("label_dropout", "end_time"):
        expected.pop(name)
    expected["attn_resolutions"] = [r for r in network.resolutions if r in expected["attn_resolutions"]]
    assert found == expected


def network_filter(options: dict[str, Any]) -> Tensor:
    taps = torch.tensor(options.get("resample_filter", [1, 1]), dtype=torch.float32)
    return torch.outer(taps, taps)[None, None] / taps.sum() ** 2


def state(kind: str) -> dict[str, Tensor]:
    return edm_files.denoiser(kind).state_dict()


def bare(kind: str, augment: bool = True) -> dict[str, Tensor]:
    tensors = {name.removeprefix("model."): value for name, value in state(kind).items()}
    return {name: value for name, value in tensors.items() if augment or "map_augment" not in name}


@pytest.mark.parametrize("kind", ["vp", "ve", "skip", "adm"])
@torch.no_grad()
def test_teachers(kind: str, tmp_path: Path) -> None:
    written = edm_files.denoiser(kind)
    x, sigma = torch.randn(2, 3, 16, 16), torch.tensor([0.5, 20.0])
    labels = torch.tensor([3, 9]) if written.label_dim else None
    for zipped in (True, False):
        torch.save(written.state_dict(), tmp_path / "teacher.ckpt", _use_new_zipfile_serialization=zipped)
        teacher: Any = pid.load_teacher(tmp_path / "teacher.ckpt", precond="EDMPrecond")
        assert torch.equal(teacher(x, sigma, labels), written(x, sigma, labels))
    assert not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())


@torch.no_grad()
def test_teachers_without_the_prefix(tmp_path: Path) -> None:
    path, x, sigma = tmp_path / "teacher.ckpt", torch.randn(2, 3, 16, 16), torch.tensor([0.5, 20.0])
    expected = edm_files.denoiser("ve")(x, sigma)
    torch.save(bare("ve"), path)
    with pytest.warns(
        UserWarning, match=r"does not say its preconditioning.*teacher of EDM's.*takes it\. Pass precond= to load"
    ):
        assert torch.equal(pid.load_teacher(path)(x, sigma), expected)
    torch.save(bare("ve", augment=False), path)
    with pytest.warns(UserWarning, match=r"loaded as a teacher of EDM's.*may also be a student"):
        teacher = pid.load_teacher(path)
    assert torch.equal(teacher(x, sigma), expected)


@pytest.mark.parametrize("kind", ["vp", "score-sde vp", "score-sde ve", "iddpm"])
@torch.no_grad()
def test_a_state_dict_of_another_preconditioning(kind: str, tmp_path: Path) -> None:
    """The same names and shapes make another denoiser: it is said, or taken from iDDPM's table of levels."""
    name = edm_files.KINDS[kind][0]
    options = {key: value for key, value in edm_files.KINDS[kind][1].items() if key not in ("beta_d", "sigma_max")}
    written = getattr(pid.nets, name)(**options).eval()
    path, x, sigma = tmp_path / "weights.pt", torch.randn(2, 3, 16, 16), torch.tensor([0.5, 20.0])
    torch.save(written.state_dict(), path)
    labels = torch.tensor([3, 9]) if written.label_dim else None
    assert torch.equal(pid.load_teacher(path, precond=name)(x, sigma, labels), written(x, sigma, labels))
    if name == "iDDPMPrecond":
        assert torch.equal(pid.load_teacher(path)(x, sigma, labels), written(x, sigma, labels))
    else:
        with pytest.warns(UserWarning, match=f"Pass precond= .*pidlearn import-teacher .*--precond.*{name}"):
            pid.load_teacher(path)


def test_a_state_dict_is_converted(tmp_path: Path) -> None:
    """The converted file says the preconditioning itself."""
    path, stored = tmp_path / "weights.pt", tmp_path / "teacher.safetensors"
    torch.save(state("vp"), path)
    pid.teachers.import_teacher(path, stored, precond="VPPrecond")
    assert type(pid.load_teacher(stored)) is pid.nets.VPPrecond
    assert main.main(["import-teacher", str(path), "-o", str(stored), "--precond", "VEPrecond"]) == 0
    assert type(pid.load_teacher(stored)) is pid.nets.VEPrecond


def test_a_preconditioning_where_it_is_known(tmp_path: Path) -> None:
    edm_files.write(tmp_path / "a.pkl")
    for source in (tmp_path / "a.pkl", "edm-cifar10-uncond-vp"):
        with pytest.raises(ValueError, match=r"precond = 'VPPrecond' for .*says its preconditioning itself: leave it"):
            pid.load_teacher(source, precond="VPPrecond")
    with pytest.raises(ValueError, match=r"got precond = 'vp', but precond must be one of EDMPrecond, VPPrecond"):
        pid.load_teacher(tmp_path / "a.pkl", precond="vp")
    torch.save(state("iddpm") | {"u": torch.linspace(9, 0, 51)}, tmp_path / "levels.pt")
    with pytest.raises(ValueError, match="levels 'u' are not those of iDDPM's schedule"):
        pid.load_teacher(tmp_path / "levels.pt")
    torch.save(state("iddpm") | {"u": torch.tensor(9.0)}, tmp_path / "levels.pt")
    with pytest.raises(ValueError, match="levels 'u' are not those of iDDPM's schedule"):
        pid.load_teacher(tmp_path / "levels.pt")
    torch.save(state("iddpm"), tmp_path / "levels.pt")
    with pytest.raises(ValueError, match=r"levels.pt, whose table 'u' .* iDDPMPrecond: leave precond out"):
        pid.load_teacher(tmp_path / "levels.pt", precond="EDMPrecond")
    save_file(state("vp"), tmp_path / "a.safetensors")
    for precond in (None, "VPPrecond"):
        with pytest.raises(ValueError, match=r"not a pidlearn teacher 2 file.*EDM.*precond=, that torch\.save\(safe"):
            pid.load_teacher(tmp_path / "a.safetensors", precond=precond)


WRAPPED: dict[str, Any] = {
    "DataParallel": lambda tensors: {f"module.{name}": value for name, value in tensors.items()},
    "torch.compile": lambda tensors: {f"_orig_mod.{name}": value for name, value in tensors.items()},
    "a compiled part": lambda tensors: {name.replace("model.", "model._orig_mod."): v for name, v in tensors.items()},
    "an average": lambda tensors: {f"module.{k}": v for k, v in tensors.items()} | {"n_averaged": torch.tensor(7)},
    "nested": lambda tensors: {"step": 3, "lr": [1e-4], "state_dict": tensors},
    "nested and wrapped": lambda tensors: {"ema": {f"module.{name}": value for name, value in tensors.items()}},
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_state_dicts_of_wrappers_and_trainings(wrap: Any, tmp_path: Path) -> None:
    tensors = state("vp")
    for zipped in (True, False):
        torch.save(wrap(tensors), tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
        read = pid.load_teacher(tmp_path / "a.pt", precond="EDMPrecond").state_dict()
        assert read.keys() == tensors.keys()
        assert all(torch.equal(read[name], value) for name, value in tensors.items())


def test_a_whole_training(tmp_path: Path) -> None:
    """With an optimizer's state and random numbers: the averaged weights are read, and the others named."""
    network = edm_files.denoiser("vp")
    optimizer = torch.optim.Adam(network.parameters())
    network.model.out_conv = None
    sum(p.sum() for p in network.parameters()).backward()
    optimizer.step()
    averaged = state("vp")
    content = {
        "model": network.state_dict(),
        "model_ema": averaged,
        "optimizer": optimizer.state_dict(),
        "epoch": 3,
        "rng": torch.get_rng_state(),
        "mask": torch.ones(2, dtype=torch.bool),
        0: None,
    }
    torch.save(content, tmp_path / "a.pt")
    with pytest.warns(UserWarning, match="holds the state dicts model, model_ema: 'model_ema' is loaded"):
        read = pid.load_teacher(tmp_path / "a.pt", precond="EDMPrecond").state_dict()
    assert all(torch.equal(read[name], value) for name, value in averaged.items())
    torch.save({"model": averaged, "teacher": averaged, "step": 3}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"but the state dicts model, teacher: save the one .*torch\.save\("):
        pid.load_teacher(tmp_path / "a.pt")
    torch.save(optimizer.state_dict(), tmp_path / "opt001.pt")
    with pytest.raises(ValueError, match=r"opt001.pt is an optimizer's state.*load the file of the network's weights"):
        pid.load_teacher(tmp_path / "opt001.pt")


def test_averages_of_a_training(tmp_path: Path) -> None:
    """They are read wherever they have the network's names, and named in a warning where they have none."""
    path, raw = tmp_path / "a.pt", state("vp")
    averaged = {name: value / 2 for name, value in raw.items()}

    def read() -> dict[str, Tensor]:
        return pid.load_teacher(path, precond="EDMPrecond").state_dict()

    def is_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
        return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)

    wrapped = {f"module.{name}": value for name, value in averaged.items()}
    for ema in ({"step": 3, "model": averaged}, {"decay": 0.9, "state": {"module": wrapped}}):
        torch.save({"model": raw, "ema": ema, "metrics": {"train": {"loss": torch.ones(2)}}}, path)
        with pytest.warns(UserWarning, match=r"holds the state dicts model, ema/\w+(/module)?: 'ema/.*' is loaded"):
            assert is_same(read(), averaged)
    torch.save({"state": {"model": raw, "model_ema": averaged}}, path)
    with pytest.warns(UserWarning, match="holds the state dicts state/model, state/model_ema: 'state/model_ema' is"):
        assert is_same(read(), averaged)
    shadow = {"decay": 0.9, "shadow_params": [*averaged.values()]}
    for ema in (shadow, {"model": {"another": torch.ones(2)}}):
        torch.save({"model": raw, "ema": ema}, path)
        with pytest.warns(
            UserWarning, match=r"holds averaged weights under ema/\w+, but not .* 'model', which is load"
        ):
            assert is_same(read(), raw)
    torch.save({"model": raw, "ema": {"0.9": averaged, "0.99": averaged}}, path)
    with pytest.raises(ValueError, match=r"but the state dicts model, ema/0\.9, ema/0\.99: save"):
        read()
    torch.save({"state": {"weights": [torch.ones(2)]}}, path)
    with pytest.raises(ValueError, match="but state, state/weights, none a state dict"):
        read()
    # None of these is an average of weights.
    others = {"ema_decay": 0.9, "ema_step": torch.tensor(3), "semantic": {"step": {"loss": torch.ones(2)}}}
    torch.save({"model": raw, **others}, path)
    assert is_same(read(), raw)
    torch.save({"model": raw, "dataset_schema": {"mean": torch.ones(3)}}, path)
    with pytest.raises(ValueError, match="but the state dicts model, dataset_schema: save the one of the network"):
        read()


def test_a_checkpoint_that_holds_itself(tmp_path: Path) -> None:
    content: dict[str, Any] = {"model": [torch.ones(2)]}
    content["self"] = content["again"] = content
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="but model, self, again, none a state dict"):
        pid.load_teacher(tmp_path / "a.pt")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_levels_in_half_precision(dtype: torch.dtype, tmp_path: Path) -> None:
    """Of iDDPM: the table is the exact one again, so that each level is nearest to itself."""
    whole = edm_files.denoiser("iddpm")
    torch.save({name: value.to(dtype) for name, value in whole.state_dict().items()}, tmp_path / "a.pt")
    read: Any = pid.load_teacher(tmp_path / "a.pt")
    assert torch.equal(read.u, whole.u)
    assert next(read.parameters()).dtype is dtype


@torch.no_grad()
def test_half_precision(tmp_path: Path) -> None:
    """EDM's pickles and state dicts in float16 are evaluated in float32, as the whole ones of the same numbers."""
    written, x, labels = edm_files.denoiser("vp").half(), torch.randn(2, 3, 16, 16), torch.tensor([1, 2])
    (tmp_path / "a.pkl").write_bytes(edm_files.edm_pickle(written, *edm_files.KINDS["vp"]))
    torch.save(written.state_dict(), tmp_path / "a.pt")
    expected = written.float()(x, 2.0, labels)
    for name, precond in (("a.pkl", None), ("a.pt", "EDMPrecond")):
        assert torch.equal(pid.load_teacher(tmp_path / name, precond=precond)(x, 2.0, labels), expected)


def test_objects_instead_of_weights(tmp_path: Path) -> None:
    """EDM's training-state-*.pt, EDM2's pickles, and settings that are objects."""
    network = edm_files.denoiser("vp")
    with edm_files.edm_modules():
        torch.save({"net": edm_files.as_edm(network, *edm_files.KINDS["vp"])}, tmp_path / "training-state-1.pt")
    with pytest.raises(ValueError, match=r"of EDM's training, load the network-snapshot-\*\.pkl of the same run"):
        pid.load_teacher(tmp_path / "training-state-1.pt")
    (tmp_path / "edm2.pkl").write_bytes(edm_files.edm_pickle(network, "Precond", {"img_resolution": 16}))
    with pytest.raises(ValueError, match=r"of class 'Precond'.*with its own code.*from_network.*'Bring a teacher'"):
        pid.load_teacher(tmp_path / "edm2.pkl")
    torch.save({"ema": network.state_dict(), "args": argparse.Namespace(lr=1e-4)}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"refers to 'argparse.Namespace'.*save the network's state_dict alone"):
        pid.load_teacher(tmp_path / "a.pt")


@pytest.mark.parametrize("name", ["time_embed.0.weight", "model.diffusion_model.out.0.bias", "all_modules.0.W"])
def test_networks_of_other_code(name: str, tmp_path: Path) -> None:
    """guided-diffusion and OpenAI's, latent diffusion, Score-SDE."""
    torch.save({name: torch.ones(2)}, tmp_path / "a.pt")
    with pytest.raises(
        ValueError, match=r"(?s)not those of a SongUNet.* with its own code.*from_network.*Bring a teach"
    ):
        pid.load_teacher(tmp_path / "a.pt")


@pytest.mark.parametrize("kind", ["vp", "adm"])
@torch.no_grad()
def test_students(kind: str, tmp_path: Path) -> None:
    torch.save(bare(kind, augment=False), tmp_path / "model001.pt")
    student = pid.load_official_student(tmp_path / "model001.pt")
    assert (student.t_max, student.t_min, student.sigma_data, student.label_dim) == (80.0, 0.002, 0.5, 10)
    assert not any(p.requires_grad for p in student.parameters())
    z, t, labels = 80 * torch.randn(2, 3, 16, 16), torch.tensor([0.002, 3.0], dtype=torch.float64), torch.tensor([1, 8])
    raw = edm_files.denoiser(kind).model(z / math.hypot(0.5, 80), t.float().log() / 4, labels)
    weight = (t.float() / 80)[:, None, None, None]
    torch.testing.assert_close(student(z, t, labels), weight * z + (1 - weight) * raw, rtol=1e-5, atol=1e-5)
    assert torch.equal(student(z, 80.0, labels), z)
    assert student.sample(2, generator=torch.Generator().manual_seed(0)).shape == (2, 3, 16, 16)


def test_a_teacher_is_no_student(tmp_path: Path) -> None:
    for tensors in (state("vp"), bare("vp")):
        torch.save(tensors, tmp_path / "teacher.pt")
        with pytest.raises(ValueError, match="teacher, not a student"):
            pid.load_official_student(tmp_path / "teacher.pt")
    torch.save(pid.nets.SongUNet(4, 1, 2, **SMALLEST).state_dict(), tmp_path / "both.pt")
    with pytest.raises(ValueError, match="maps 1 channels to 2"):
        pid.load_official_student(tmp_path / "both.pt")
    with pytest.raises(FileNotFoundError, match="no file"):
        pid.load_official_student(tmp_path / "none.pt")


def changed(kind: str, **shapes: Tensor | None) -> dict[str, Tensor]:
    tensors = {**state(kind), **{name.replace("__", "."): value for name, value in shapes.items()}}
    return {name: value for name, value in tensors.items() if value is not None}


BROKEN: dict[str, tuple[Any, str]] = {
    "not tensors": ({"step": 3}, "does not hold a dict of tensors by name"),
    "no dict": ([torch.ones(2)], "does not hold a dict of tensors by name"),
    "another network": ({"weight": torch.ones(2)}, "not those of a SongUNet"),
    "another prefix": ({"net.enc.4x4_conv.weight": torch.ones(2)}, "such as 'net.enc"),
    "two of one name": ({"module.enc": torch.ones(2), "enc": torch.ones(2)}, "same name with and without 'module"),
    "nothing": ({}, "does not hold a dict of tensors by name, but nothing"),
    "mixed": (state("vp") | {"bias": torch.ones(2)}, "names with and without"),
    "a missing tensor": (changed("vp", model__map_layer1__bias=None), r"Missing key.*map_layer1\.bias"),
    "a foreign tensor": (changed("vp", model__more=torch.ones(2)), r"Unexpected key.*more"),
    "another shape": (changed("vp", model__map_layer1__bias=torch.ones(3)), "size mismatch"),
    "a width that does not divide": (changed("vp", model__map_layer0__weight=torch.ones(63, 16)), "not a multiple of"),
    "whole numbers": (changed("vp", model__map_layer1__bias=torch.ones(64, dtype=torch.int64)), "weights are floating"),
    "a filter of zeros": (
        changed("vp", **{"model.enc.8x8_down.conv0.resample_filter": torch.zeros(1, 1, 2, 2)}),
        "do not|not those|resample_filter|cannot convert",
    ),
}


@pytest.mark.parametrize(("content", "message"), BROKEN.values(), ids=BROKEN)
def test_other_contents(content: Any, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "teacher.ckpt")
    with pytest.raises(ValueError, match=message):
        pid.load_teacher(tmp_path / "teacher.ckpt")


def test_archives_that_call(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(tmp_path / "executed"),))

    path = tmp_path / "teacher.pt"
    for zipped in (True, False):
        torch.save({"weight": Hostile()}, path, _use_new_zipfile_serialization=zipped)
        for load in (pid.load_teacher, pid.load_official_student):
            with pytest.raises(ValueError, match=r"refers to 'posix.mkdir'.*Nothing in it was executed"):
                load(path)
    assert not (tmp_path / "executed").exists()


def archive_of(program: bytes, path: Path, numbers: bytes = bytes(4)) -> Path:
    """An archive with that pickle and one storage."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/data/0", numbers)
    return path


def tensor(storage: bytes = b"FloatStorage", key: bytes = b"0", count: int = 1) -> bytes:
    """The opcodes of a tensor of no dimensions."""
    name, where = b"X" + struct.pack("<I", len(key)) + key, b"X\x03\x00\x00\x00cpu"
    kind = b"X\x07\x00\x00\x00storage" + b"ctorch\n" + storage + b"\n"
    persistent = b"(" + kind + name + where + b"J" + struct.pack("<i", count) + b"tQ"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + persistent + b"K\x00))tR"


def named(value: bytes) -> bytes:
    return b"\x80\x02}X\x01\x00\x00\x00w" + value + b"s."


ODD: dict[str, tuple[bytes, str]] = {
    "what torch's own reader would allocate": (
        named(b"cbuiltins\nbytearray\n\x8a\x05\xff\xff\xff\xff\x7f\x85R"),
        "bytearray",
    ),
    "a tensor called": (named(tensor() + b")R"), "Tensor where a Global"),
    "a storage called": (named(b"ctorch\nFloatStorage\n)R"), "makes no sense"),
    "a storage that is not there": (named(tensor(key=b"1")), "data/1"),
    "a storage outside": (named(tensor(key=b"../data.pkl")), r"data/\.\./data\.pkl"),
    "more numbers than there are": (named(tensor(count=2)), "announces 2 numbers"),
    "numbers of another size": (named(tensor(storage=b"DoubleStorage")), "announces 1 numbers"),
    "a kind that is no storage": (named(tensor(storage=b"load")), "refers to 'torch.load'"),
    "a class made": (named(b"ccollections\nOrderedDict\n)\x81"), "makes an object of collections.OrderedDict"),
    "a parameter of nothing": (named(b"ctorch.nn.parameter\nParameter\n)\x81"), "0 values where 1"),
    "a parameter of text": (
        named(b"ctorch.nn.parameter\nParameter\nX\x01\x00\x00\x00a\x85\x81"),
        "a str where a Tensor",
    ),
    "a parameter called": (named(b"ctorch.nn.parameter\nParameter\n" + tensor() + b"\x85R"), "makes no sense"),
    "the state of a list": (named(b"]}b"), "state of a list"),
    "a dict of what are no pairs": (named(b"ccollections\nOrderedDict\n]]a\x85R"), "0 values where 2"),
    "a dict of a number": (named(b"ccollections\nOrderedDict\nK\x01\x85R"), "int where a list"),
    "a global from the stack": (named(b"X\x05\x00\x00\x00posixX\x06\x00\x00\x00system\x93"), "opcode STACK_GLOBAL"),
}


def test_the_archives_that_odd_ones_are_made_of(tmp_path: Path) -> None:
    found = torch_archive.read(archive_of(named(tensor()), tmp_path / "one.pt", struct.pack("<f", 2.5)))
    assert found.keys() == {"w"}
    assert found["w"].item() == 2.5


def test_a_kind_of_storage_nested_too_deep_to_be_hashed(tmp_path: Path) -> None:
    deep = tensor().replace(b"ctorch\nFloatStorage\n", b")" + b"\x85" * 250_000)
    with pytest.raises(ValueError, match="tuple where a Global"):
        torch_archive.read(archive_of(named(deep), tmp_path / "deep.pt"))


@pytest.mark.parametrize(("program", "message"), ODD.values(), ids=ODD)
def test_odd_archives(program: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        torch_archive.read(archive_of(program, tmp_path / "odd.pt"))


def test_every_kind_of_number(tmp_path: Path) -> None:
    kinds = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64)
    content = OrderedDict((str(kind), torch.arange(6).reshape(2, 3).to(kind).T) for kind in kinds)
    content["weight"] = torch.nn.Parameter(torch.ones(2))
    torch.save(content, tmp_path / "kinds.pt")
    found = torch_archive.read(tmp_path / "kinds.pt")
    assert list(found) == list(content)
    for name, value in content.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value.detach())


def test_tensors_that_are_more_than_a_view(tmp_path: Path) -> None:
    torch.save({"weight": torch._neg_view(torch.ones(2))}, tmp_path / "negative.pt")
    with pytest.raises(ValueError, match="more than a plain view"):
        torch_archive.read(tmp_path / "negative.pt")


def test_archives_that_claim_more_than_they_hold(tmp_path: Path) -> None:
    path = tmp_path / "teacher.pt"
    torch.save({"weight": torch.ones(1).expand(10**9)}, path)
    with pytest.raises(ValueError, match="reach outside its 1 numbers"):
        pid.load_teacher(path)
    shared = torch.ones(10_000)
    torch.save({str(i): shared for i in range(50)}, path)
    with pytest.raises(ValueError, match="more numbers than it has room for"):
        pid.load_teacher(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**6))
    with pytest.raises(ValueError, match="compressed"):
        pid.load_teacher(path)


def test_truncated_archives(tmp_path: Path) -> None:
    torch.save(state("vp"), tmp_path / "whole.ckpt")
    contents = (tmp_path / "whole.ckpt").read_bytes()
    for length in range(0, len(contents), len(contents) // 15):
        (tmp_path / "teacher.ckpt").write_bytes(contents[:length])
        with pytest.raises(ValueError, match=r"teacher.ckpt"):
            pid.load_teacher(tmp_path / "teacher.ckpt")
