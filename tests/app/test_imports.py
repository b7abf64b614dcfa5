"""Opening pages imports no torch: it would take seconds and hundreds of megabytes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PAGES = Path(__file__).parents[2] / "app" / "views"
MODELS = sorted(f"app.views.{path.parent.name}.{path.stem}" for path in PAGES.glob("*/*.py") if path.stem != "page")


def imported(code: str, names: tuple[str, ...]) -> str:
    """The names that are in sys.modules once the code has run in a fresh process."""
    text = f"import sys\n{code}\nprint([name for name in {names} if name in sys.modules])"
    return subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True).stdout.strip()


def test_models_and_snippets_import_neither_torch_nor_streamlit() -> None:
    assert len([name for name in MODELS if name.endswith(".model")]) == 8
    assert imported(f"import {', '.join(MODELS)}", ("torch", "streamlit", "altair", "benchmarks")) == "[]"


def test_pages_import_no_torch() -> None:
    files = sorted(map(str, PAGES.glob("*/page.py")))
    assert len(files) == 8
    # Streamlit would read the metadata of all installed packages at each of eight starts.
    code = f"""
from functools import cache
from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1 import AppTest
manifest_scanner.scan_component_manifests = cache(manifest_scanner.scan_component_manifests)
for file in {files}:
    app = AppTest.from_file(file, default_timeout=60).run()
    assert app.markdown and not app.exception"""
    assert imported(code, ("torch", "scipy", "benchmarks")) == "[]"
