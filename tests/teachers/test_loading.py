"""Our own files, what a file is told by, names, and the command line."""

from __future__ import annotations

import hashlib
import io
import json
import os
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request

import pytest
import safetensors.torch
import torch
from torch import nn

import pidlearn as pid
from pidlearn.cli import main
from pidlearn.teachers.files import published, safetensors_file
from tests.strategies import random_network
from tests.teachers import edm_files

# Our own files


@pytest.mark.parametrize("kind", edm_files.KINDS)
@torch.no_grad()
def test_round_trip(kind: str, tmp_path: Path) -> None:
    written = edm_files.denoiser(kind).double()
    path = pid.save_teacher(written, tmp_path / "new" / "teacher.safetensors")
    teacher: Any = pid.load_teacher(path)
    assert type(teacher) is type(written)
    assert teacher.options == teacher.options | json.loads(json.dumps(written.options))
    x, sigma = torch.randn(2, 3, 16, 16, dtype=torch.float64), torch.tensor([0.5, 20.0], dtype=torch.float64)
    assert torch.equal(teacher(x, sigma), written(x, sigma))
    assert not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())


def test_headers_of_a_teacher_trained_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = pid.nets.Preconditioned(random_network(2))
    as_is = safetensors_file._describe(written)
    for change, says in (
        ({"sigma_data": -1.0}, "sigma_data"),
        ({"sigma_data": None}, "got sigma_data = None, but sigma_data must be a positive, finite number"),
        ({"options": {**as_is["options"], "depth": 60_000}}, "60000 blocks"),
        ({"options": {**as_is["options"], "activation": "exec"}}, "options that MLP does not: activation"),
    ):
        monkeypatch.setattr(safetensors_file, "_describe", lambda _, change=change: {**as_is, **change})
        path = pid.save_teacher(written, tmp_path / "teacher.safetensors")
        with pytest.raises(ValueError, match=says):
            pid.load_teacher(path)


@torch.no_grad()
def test_teachers_trained_here(tmp_path: Path) -> None:
    written = pid.nets.Preconditioned(random_network(2, label_dim=3), sigma_data=0.7)
    teacher: Any = pid.load_teacher(pid.save_teacher(written, tmp_path / "teacher.safetensors"))
    x, sigma, labels = torch.randn(4, 2), torch.ones(4), torch.tensor([0, 1, 2, 2])
    assert torch.equal(teacher(x, sigma, labels), written(x, sigma, labels))
    assert (teacher.sigma_data, teacher.event_shape, teacher.label_dim) == (0.7, (2,), 3)
    assert not any(p.requires_grad for p in teacher.parameters())


def test_parts_of_ones_own_cannot_be_saved(tmp_path: Path) -> None:
    for denoiser in (nn.Linear(2, 2), pid.nets.Preconditioned(nn.Linear(2, 2))):
        with pytest.raises(ValueError, match=f"got {type(denoiser).__name__} over"):
            pid.save_teacher(denoiser, tmp_path / "teacher.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return pid.save_teacher(edm_files.denoiser(), tmp_path / "teacher.safetensors")


def test_damage_to_our_files(saved: Path) -> None:
    contents = saved.read_bytes()
    header = int.from_bytes(contents[:8], "little")
    for length in (0, 5, 8, 9, 20, header, header + 8, len(contents) // 2, len(contents) - 1):
        saved.write_bytes(contents[:length])
        with pytest.raises(ValueError, match=r"teacher.safetensors"):
            pid.load_teacher(saved)
    for position in (8, 9, 20, header // 2, header + 8, len(contents) // 2, len(contents) - 1):
        changed = bytearray(contents)
        changed[position] ^= 1
        saved.write_bytes(changed)
        with pytest.raises(ValueError, match=r"teacher.safetensors"):
            pid.load_teacher(saved)


def test_headers_that_are_not_ours(saved: Path) -> None:
    tensors = {"weight": torch.ones(2)}
    safetensors.torch.save_file(tensors, saved, {"format": "pidlearn student 1"})
    with pytest.raises(ValueError, match=r"pidlearn.load reads students"):
        pid.load_teacher(saved)
    safetensors.torch.save_file(tensors, saved)
    with pytest.raises(ValueError, match="is not a pidlearn teacher 2 file"):
        pid.load_teacher(saved)
    for teacher in ("{", "[]", "{}", '{"class": "os.system", "options": {}}', "[" * 100_000):
        digest = hashlib.sha256(b"weight" + tensors["weight"].numpy().tobytes()).hexdigest()
        safetensors.torch.save_file(
            tensors, saved, {"format": "pidlearn teacher 1", "teacher": teacher, "digest": digest}
        )
        with pytest.raises(ValueError, match=r"teacher.safetensors is damaged"):
            pid.load_teacher(saved)


# What a file is


def test_contents_decide_not_suffixes(tmp_path: Path, saved: Path) -> None:
    edm_files.write(tmp_path / "a.pt")
    torch.save(edm_files.denoiser().state_dict(), tmp_path / "b.safetensors")
    saved.rename(tmp_path / "c.pkl")
    for name in ("a.pt", "b.safetensors", "c.pkl"):
        precond = "EDMPrecond" if name == "b.safetensors" else None
        assert (
            pid.load_teacher(tmp_path / name, precond=precond).state_dict().keys()
            == edm_files.denoiser().state_dict().keys()
        )


def test_what_is_no_teacher(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no file .*none.pkl.*edm-cifar10-uncond-vp"):
        pid.load_teacher(tmp_path / "none.pkl")
    with pytest.raises(ValueError, match=r"is not a file: load_teacher reads an EDM .pkl"):
        pid.load_teacher(tmp_path)
    for content in (b"", b"<html>no such page</html>", b"cos\nsystem\n(S'exit'\ntR."):
        path = tmp_path / "page.html"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"is not a file that load_teacher reads, which is an EDM .pkl"):
            pid.load_teacher(path)
        path = path.rename(tmp_path / "page.pkl")
        with pytest.raises(ValueError, match=r"is empty|cannot|not an EDM network"):
            pid.load_teacher(path)


# Names


def test_names() -> None:
    for one in published.NAMED:
        assert published.find(one.name) is published.find(one.short) is one
    assert published.find("edm-cifar10-uncond-vp") is published.NAMED[0]
    assert published.find("edm-cifar10") is None
    assert len({one.short for one in published.NAMED}) == len(published.NAMED) == 9
    assert all(len(bytes.fromhex(one.file.sha256)) in (0, 32) for one in published.NAMED)


def test_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PIDLEARN_CACHE", raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert published.NAMED[0].file.path == tmp_path / "pidlearn" / "edm-cifar10-32x32-uncond-vp.pkl"
    monkeypatch.setenv("PIDLEARN_CACHE", str(tmp_path / "mine"))
    assert published.NAMED[0].file.path == tmp_path / "mine" / "edm-cifar10-32x32-uncond-vp.pkl"
    monkeypatch.setenv("PIDLEARN_CACHE", "~/mine")
    assert published.folder() == Path.home() / "mine"


class Server:
    """Stands in for the network: what it sends, and what it was asked for."""

    def __init__(self, contents: bytes | Exception) -> None:
        self.contents = contents
        self.asked: list[str] = []

    def __call__(self, request: Request, timeout: float) -> Any:
        self.asked.append(request.full_url)
        if isinstance(self.contents, Exception):
            raise self.contents
        answer: Any = io.BytesIO(self.contents)
        answer.headers = {}
        return answer


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Any, Server]:
    """The last of the published networks, made tiny, on a server of its own."""
    network = edm_files.denoiser("adm")
    one = replace(published.NAMED[-1], parameters=sum(p.numel() for p in network.parameters()))
    server = Server(edm_files.edm_pickle(network, *edm_files.KINDS["adm"]))
    monkeypatch.setenv("PIDLEARN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(urllib.request, "urlopen", server)
    monkeypatch.setattr(published, "NAMED", (one,))
    return one, server


def test_a_name_downloads_once(tiny: tuple[Any, Server]) -> None:
    known, server = tiny
    for _ in range(2):
        teacher = pid.load_teacher("edm-imagenet-cond-adm")
    assert server.asked == ["https://nvlabs-fi-cdn.nvidia.com/edm/pretrained/edm-imagenet-64x64-cond-adm.pkl"]
    assert teacher.state_dict().keys() == edm_files.denoiser("adm").state_dict().keys()
    assert known.file.note.read_text().startswith(hashlib.sha256(server.contents).hexdigest())


def test_damage_since_the_download_is_seen(tiny: tuple[Any, Server]) -> None:
    known, _ = tiny
    pid.load_teacher(known.name)
    contents = bytearray(known.file.path.read_bytes())
    contents[-1000] ^= 1
    known.file.path.write_bytes(contents)
    with pytest.raises(ValueError, match=r"damaged or not the published file.*Delete it"):
        pid.load_teacher(known.name)


@pytest.mark.parametrize("note", [b"", b"\xff\xfe\x00"])
def test_damage_to_a_checksum(note: bytes, tiny: tuple[Any, Server]) -> None:
    known, _ = tiny
    pid.load_teacher(known.name)
    known.file.note.write_bytes(note)
    with pytest.raises(ValueError, match=rf"damaged or not.*not '.*' as {known.file.note.name} says.*Delete it"):
        pid.load_teacher(known.name)
    known.file.path.unlink()
    pid.load_teacher(known.name)


def test_another_network_under_the_name(tiny: tuple[Any, Server], monkeypatch: pytest.MonkeyPatch) -> None:
    known, server = tiny
    server.contents = edm_files.edm_pickle(edm_files.denoiser("vp"), *edm_files.KINDS["vp"])
    with pytest.raises(ValueError, match=r"over SongUNet with 189,667 parameters and is not edm-imagenet.*Delete it"):
        pid.load_teacher(known.name)
    assert not known.file.note.exists()
    known.file.path.unlink()
    server.contents = b"<html>try again later</html>"
    with pytest.raises(ValueError, match=r"not an EDM network.*Delete it"):
        pid.load_teacher(known.name)


def with_sha256(known: Any, sha256: str) -> Any:
    return replace(known, file=replace(known.file, sha256=sha256))


def test_known_checksums(tiny: tuple[Any, Server], monkeypatch: pytest.MonkeyPatch) -> None:
    known, server = tiny
    monkeypatch.setattr(published, "NAMED", (with_sha256(known, "0" * 64),))
    with pytest.raises(ValueError, match="sent a file that is not edm-imagenet"):
        pid.load_teacher(known.name)
    assert not known.file.path.exists()
    known.file.path.write_bytes(server.contents)
    with pytest.raises(ValueError, match=f"not '{'0' * 64}'\\. Delete"):
        pid.load_teacher(known.name)
    sha256 = hashlib.sha256(server.contents).hexdigest()
    monkeypatch.setattr(published, "NAMED", (with_sha256(known, sha256),))
    pid.load_teacher(known.name)
    assert not known.file.note.exists()


def test_without_a_network(tiny: tuple[Any, Server]) -> None:
    known, server = tiny
    server.contents = URLError("no route to host")
    with pytest.raises(FileNotFoundError, match=r"no route to host.*Download https://.*PIDLEARN_CACHE") as error:
        pid.load_teacher(known.name)
    assert str(error.value).startswith(f"{known.file.path} (edm-imagenet-64x64-cond-adm) is missing")


def test_a_folder_that_cannot_be_written_to(
    tiny: tuple[Any, Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, server = tiny
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("PIDLEARN_CACHE", str(tmp_path / "file"))
    with pytest.raises(FileNotFoundError, match=r"could not be downloaded.*set PIDLEARN_CACHE"):
        pid.load_teacher(known.name)
    monkeypatch.setenv("PIDLEARN_CACHE", str(tmp_path))
    known.file.path.write_bytes(server.contents)
    known.file.note.with_name(f".{known.file.note.name}.{os.getpid()}.part").mkdir()
    pid.load_teacher(known.name)
    assert not known.file.note.exists()


# The command line


def test_import_teacher(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = edm_files.write(tmp_path / "network.pkl")
    out = tmp_path / "teacher.safetensors"
    assert main.main(["import-teacher", str(tmp_path / "network.pkl"), "-o", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    imported = pid.load_teacher(out).state_dict()
    assert all(torch.equal(imported[name], tensor) for name, tensor in written.state_dict().items())
    assert main.main(["import-teacher", str(tmp_path / "none.pkl"), "-o", str(out)]) == 1
    assert "there is no file" in capsys.readouterr().err


def test_list_of_teachers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PIDLEARN_CACHE", str(tmp_path))
    (tmp_path / "edm-ffhq-64x64-uncond-ve.pkl").touch()
    assert main.main(["import-teacher", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["edm-cifar10-uncond-vp", "55.7", "M", "parameters", "to", "download"]
    assert str(tmp_path / "edm-ffhq-64x64-uncond-ve.pkl") in lines[5]
    assert main.main(["import-teacher"]) == 1
    assert main.main(["import-teacher", "network.pkl"]) == 1
    assert "expected a source and -o OUTPUT" in capsys.readouterr().err
