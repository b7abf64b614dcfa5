"""FID's Inception features, with untrained weights of the right names."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pidlearn.evaluation import metrics
from pidlearn.evaluation.images import to_uint8
from pidlearn.evaluation.inception import WEIGHTS, Inception
from pidlearn.utils.optional_imports import package


@pytest.fixture(scope="module")
def untrained(tmp_path_factory) -> Path:
    """A file of random weights that torch-fidelity's network takes."""
    theirs = package("torch_fidelity", "FID").feature_extractor_inceptionv3
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(theirs, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(theirs.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        torch.manual_seed(0)
        torch.save(theirs.FeatureExtractorInceptionV3("x", ["2048"]).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def inception(untrained: Path) -> Inception:
    return Inception(untrained)


def images(n: int, channels: int = 3) -> Tensor:
    return 2 * torch.rand(n, channels, 8, 8, generator=torch.Generator().manual_seed(0)) - 1


def test_features_are_those_of_the_bytes(inception: Inception) -> None:
    x = images(2).requires_grad_()
    features = inception(x)
    assert features.shape == (2, 2048)
    assert features.dtype == torch.float32
    assert not features.requires_grad
    assert not torch.equal(features[0], features[1])
    assert torch.equal(features, inception.network(to_uint8(x))[0])
    assert torch.equal(features, inception(to_uint8(x) / 127.5 - 1))
    assert torch.equal(inception(x + 100), inception(torch.ones_like(x)))


def test_grey_is_three_equal_channels(inception: Inception) -> None:
    x = images(1, channels=1)
    assert torch.equal(inception(x), inception(x.expand(-1, 3, -1, -1)))


def test_statistics_of_batches(inception: Inception) -> None:
    x = images(4)
    found = metrics.statistics(x.split(2), inception)
    torch.testing.assert_close(found.cov, inception(x).double().T.cov(), rtol=1e-4, atol=1e-7)
    with pytest.raises(ValueError, match="4 samples are too few for a covariance of 2048 features"):
        metrics.frechet_distance(found, found)


def test_weights_that_are_missing_or_others(tmp_path, monkeypatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.raises(ValueError, match=rf"{tmp_path}.*{WEIGHTS.name} \(the Inception weights of FID\) is missing"):
        Inception()
    torch.save({"w": torch.ones(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="does not hold the Inception weights of FID"):
        Inception(tmp_path / "other.pth")


def test_weights_of_the_old_format(inception: Inception, untrained: Path, tmp_path: Path) -> None:
    state = torch.load(untrained, weights_only=True)
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    x = images(1)
    assert torch.equal(Inception(tmp_path / "old.pth")(x), inception(x))


def test_nothing_in_the_weights_is_executed(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(tmp_path / "executed"),))

    for zipped in (True, False):
        torch.save({"w": Hostile()}, tmp_path / "bad.pth", _use_new_zipfile_serialization=zipped)
        with pytest.raises(ValueError, match=r"does not hold the Inception weights.*refers to 'posix.mkdir'"):
            Inception(tmp_path / "bad.pth")
    assert not (tmp_path / "executed").exists()


def test_what_are_not_images(inception: Inception) -> None:
    with pytest.raises(ValueError, match="C = 1 or 3"):
        inception(images(1)[:, :2])
