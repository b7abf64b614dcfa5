"""What an import costs, and what it brings."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

import pidlearn as pid

LATER = (
    "torch",
    "streamlit",
    "matplotlib",
    "accelerate",
    "scipy",
    "sklearn",
    "diffusers",
    "pandas",
    "torchvision",
    "lpips",
    "PIL",
)


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_heavy_parts_wait_until_they_are_used() -> None:
    loaded = f"print([name for name in {LATER} if name in sys.modules])"
    lines = python(f"import sys, pidlearn; {loaded}; pidlearn.distill; {loaded}").splitlines()
    assert lines == ["[]", "['torch']"]


@pytest.mark.parametrize(
    "first",
    ["distillation", *(pytest.param(name, marks=pytest.mark.slow) for name in ("equations.solvers", "result"))],
)
def test_names_do_not_depend_on_what_was_imported_before(first: str) -> None:
    out = python(f"import pidlearn.{first}, pidlearn; print(pidlearn.solve.__name__, pidlearn.distill.__name__)")
    assert out == "solve distill"


def test_what_is_no_public_name() -> None:
    with pytest.raises(AttributeError, match="'pidlearn' has no attribute 'pids'"):
        pid.pids  # noqa: B018 - asking is the test
    names: dict[str, Any] = {}
    exec("from pidlearn import *", names)
    assert names["solve"].__name__ == "solve"


@pytest.mark.parametrize("name", pid.__all__)
def test_public_names(name: str) -> None:
    assert getattr(pid, name) is not None
    assert name in dir(pid)
