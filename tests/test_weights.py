"""Where published weights are looked for, and what is said where they are not."""

from __future__ import annotations

import hashlib
import io
import socket
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import torch

from pidlearn.utils import downloads
from pidlearn.utils.downloads import Published

SOME = Published("https://example.org/models/some-0123abcd.pth", "some weights")


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """torch's cache, empty, on a machine without a network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def refuse(request: urllib.request.Request, timeout: float) -> None:
        assert timeout <= downloads.PATIENCE
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return tmp_path / "hub" / "checkpoints"


def test_the_given_file_then_the_cache(cache: Path, tmp_path) -> None:
    cache.mkdir(parents=True)
    for path, value in ((cache / SOME.name, 1.0), (tmp_path / "mine.pth", 2.0)):
        torch.save({"w": torch.tensor(value)}, path)
    assert SOME.load()["w"].item() == 1.0
    assert SOME.load(tmp_path / "mine.pth")["w"].item() == 2.0


def test_missing_weights_are_named_at_once(cache: Path, tmp_path) -> None:
    with pytest.raises(
        ValueError, match=r"\(some weights\) is missing .*no network.*Download https://example.org"
    ) as error:
        SOME.find()
    assert str(error.value).startswith(str(cache / "some-0123abcd.pth"))
    assert str(error.value).endswith("save it there, or pass the path of the file")
    assert isinstance(error.value, FileNotFoundError)
    with pytest.raises(ValueError, match=r"there is no file .*mine.pth, which should hold some weights"):
        SOME.find(tmp_path / "mine.pth")


class Answer(io.BytesIO):
    """What a server sends, with the length that it announced."""

    def __init__(self, contents: bytes, length: int | None = None) -> None:
        super().__init__(contents)
        self.headers = {"Content-Length": str(len(contents) if length is None else length)}


def test_weights_are_fetched_once_and_checked(cache: Path, monkeypatch) -> None:
    asked: list[str] = []
    torch.save({"w": torch.ones(1)}, file := io.BytesIO())
    sent = [Answer(file.getvalue()[:-1], len(file.getvalue())), Answer(b"<html>"), Answer(file.getvalue())]

    def serve(request: urllib.request.Request, timeout: float) -> Answer:
        asked.append(request.full_url)
        return sent[len(asked) - 1]

    monkeypatch.setattr(urllib.request, "urlopen", serve)
    some = Published(f"https://example.org/some-{hashlib.sha256(file.getvalue()).hexdigest()[:8]}.pth", "some weights")
    for said in (r"ended after \d+ of \d+ bytes", "its SHA-256 is"):
        with pytest.raises(ValueError, match=said):
            some.find()
        assert not list(cache.iterdir())
    assert some.load()["w"].item() == 1
    assert some.find() == cache / some.name
    assert asked == 3 * [some.url]


@pytest.mark.parametrize("begins", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", b"no HTTP\r\n\r\n"])
def test_a_server_that_falls_silent(begins: bytes, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(downloads, "PATIENCE", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/some.pth"

        def answer(request: urllib.request.Request, timeout: float, opened=urllib.request.urlopen):
            threads.append(threading.Thread(target=lambda: kept.append(server.accept()[0]) or kept[-1].sendall(begins)))
            threads[-1].start()
            return opened(request, timeout=timeout)

        kept: list[socket.socket] = []
        threads: list[threading.Thread] = []
        monkeypatch.setattr(urllib.request, "urlopen", answer)
        with pytest.raises(OSError, match=r"timed out|is not HTTP"):
            downloads.download(url, tmp_path / "some.pth")
        for thread in threads:  # there is one for each time that it was tried
            thread.join()
        for connection in kept:
            connection.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("contents", [b"", b"hello", b"no weights", b"PK\x03\x04", b"cos\nsystem\n(S'exit 1'\ntR."])
def test_damaged_files(tmp_path, contents: bytes) -> None:
    (tmp_path / "bad.pth").write_bytes(contents)
    with pytest.raises(ValueError, match=r"bad.pth is damaged or does not hold some weights"):
        SOME.load(tmp_path / "bad.pth")


@pytest.mark.parametrize("contents", [torch.ones(2), {"w": "text"}])
def test_files_of_something_else(tmp_path, contents: object) -> None:
    torch.save(contents, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"does not hold some weights .*: .*does not hold a dict of tensors"):
        SOME.load(tmp_path / "other.pth")
