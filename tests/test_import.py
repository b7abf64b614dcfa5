"""What an import costs, and what it brings."""

from __future__ import annotations

import subprocess
import sys

import pytest

import pidlearn as pid

LATER = ("streamlit", "matplotlib", "accelerate", "scipy", "sklearn", "diffusers", "pandas")


def test_heavy_parts_wait_until_they_are_used() -> None:
    code = f"import sys, pidlearn; print([name for name in {LATER} if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("name", pid.__all__)
def test_public_names(name: str) -> None:
    assert getattr(pid, name) is not None
    assert name in dir(pid)
