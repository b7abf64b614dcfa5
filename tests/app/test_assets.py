"""What ships is what its command made, and as good as it says."""

from __future__ import annotations

import hashlib
import json

import pytest

import pidlearn as pid
from app.shared.assets import ASSETS, PRESETS, student_path
from benchmarks.app_assets.__main__ import tasks

MANIFEST = json.loads((ASSETS / "manifest.json").read_text())
pytestmark = pytest.mark.filterwarnings("ignore:.*is a file of the first release:UserWarning")  # the assets are


def test_every_file_is_the_one_that_was_made() -> None:
    files = {str(path.relative_to(ASSETS)) for path in ASSETS.rglob("*") if path.is_file()} - {"manifest.json"}
    assert files == set(MANIFEST) == {str(name) for _, name, _ in tasks()}
    for name, entry in MANIFEST.items():
        assert hashlib.sha256((ASSETS / name).read_bytes()).hexdigest() == entry["sha256"], name


def test_five_megabytes_at_most() -> None:
    assert sum(path.stat().st_size for path in ASSETS.rglob("*") if path.is_file()) <= 5_000_000


@pytest.mark.parametrize(
    "preset", [p if p in ("ring", "checkerboard") else pytest.param(p, marks=pytest.mark.slow) for p in PRESETS]
)
def test_students_are_as_good_as_the_manifest_says(preset: str) -> None:
    said = MANIFEST[f"watch/{preset}.safetensors"]["figures"]
    found = pid.load(student_path(preset), pid.toy(preset)).evaluate()
    assert found["rmse"] == pytest.approx(said["rmse"], rel=1e-3)
    assert found["rmse"] < 0.03


def test_half_precision_does_not_show() -> None:
    rounding = [e["figures"]["rounding"] for name, e in MANIFEST.items() if "rounding" in e["figures"]]
    assert len(rounding) == 40
    assert max(rounding) < 5e-3


@pytest.mark.slow
def test_the_ring_student_can_be_made_again() -> None:
    said = MANIFEST["watch/ring.safetensors"]["figures"]
    assert pid.distill(pid.toy("ring"), seed=0, progress=False).evaluate()["rmse"] == pytest.approx(
        said["rmse"], rel=0.3
    )
