"""Where published weights are looked for, and what is said where they are not."""

from __future__ import annotations

import io
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import torch

from pidlearn import weights
from pidlearn.weights import Published

SOME = Published("https://example.org/models/some-0123abcd.pth", "some weights")


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """torch's cache, empty, on a machine without a network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def refuse(request: urllib.request.Request, timeout: float) -> None:
        assert timeout <= weights.PATIENCE
        assert request.get_method() == "HEAD"
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return tmp_path / "hub" / "checkpoints"


def test_the_given_file_then_the_cache(cache: Path, tmp_path) -> None:
    cache.mkdir(parents=True)
    for path, value in ((cache / SOME.file, 1.0), (tmp_path / "mine.pth", 2.0)):
        torch.save({"w": torch.tensor(value)}, path)
    assert SOME.load()["w"].item() == 1.0
    assert SOME.load(tmp_path / "mine.pth")["w"].item() == 2.0


def test_missing_weights_are_named_at_once(cache: Path, tmp_path) -> None:
    started = time.perf_counter()
    with pytest.raises(
        ValueError, match=r"some weights are not in .*no network.*Download https://example.org"
    ) as error:
        SOME.find()
    assert time.perf_counter() - started < 1
    assert str(cache) in str(error.value)
    assert "put it there as some-0123abcd.pth" in str(error.value)
    with pytest.raises(ValueError, match="no such file"):
        SOME.find(tmp_path / "mine.pth")


def test_weights_are_fetched_once_and_checked(cache: Path, monkeypatch) -> None:
    asked = []

    def fetch(url: str, path: str, digits: str) -> None:
        asked.append((url, digits))
        torch.save({"w": torch.ones(1)}, path)

    monkeypatch.setattr(urllib.request, "urlopen", lambda request, timeout: io.BytesIO())
    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    assert SOME.load()["w"].item() == 1
    assert SOME.find() == cache / SOME.file
    assert asked == [(SOME.url, "0123abcd")]


@pytest.mark.parametrize("contents", [b"", b"no weights", b"PK\x03\x04", b"cos\nsystem\n(S'exit 1'\ntR."])
def test_damaged_files(tmp_path, contents: bytes) -> None:
    (tmp_path / "bad.pth").write_bytes(contents)
    with pytest.raises(ValueError, match=r"bad.pth is damaged, or not some weights"):
        SOME.load(tmp_path / "bad.pth")


@pytest.mark.parametrize("contents", [torch.ones(2), {"w": "text"}])
def test_files_of_something_else(tmp_path, contents: object) -> None:
    torch.save(contents, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="does not hold some weights"):
        SOME.load(tmp_path / "other.pth")
