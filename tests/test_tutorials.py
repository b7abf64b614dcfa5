"""The site's pages: what they show as Python is run when they are built (`make docs`), which takes minutes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

HERE = Path(__file__).parents[1]
PAGES = sorted((HERE / "tutorials").rglob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_of_python_is_run_and_is_python(page: Path) -> None:
    blocks = re.findall(r"^```(python.*?)\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    for options, code in blocks:
        assert 'exec="on"' in options
        compile(code, page.name, "exec")


def test_every_page_has_its_place() -> None:
    nav = (HERE / "mkdocs.yml").read_text().partition("\nnav:")[2]
    for page in PAGES:
        assert page.relative_to(HERE / "tutorials").as_posix() in nav
