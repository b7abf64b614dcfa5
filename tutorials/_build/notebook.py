"""A page as a Jupyter notebook: its text, and its code blocks as cells, which run as they do in the build."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path
from typing import Any

__all__ = ["notebook"]

BLOCK = re.compile(r"^( *)```python ([^\n]*exec=\"on\"[^\n]*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
FOLD = re.compile(r"^(?:\?\?\?|!!!)\+? \w+ \"(.*)\"$", re.MULTILINE)
INCLUDED = re.compile(r'^--8<-- "([^":]*)(?::(\d*):?(\d*))?"$', re.MULTILINE)
SETUP = '''\
# Keep this file in the project's folder, or below it; it needs pidlearn and Jupyter.
import os
import sys
from pathlib import Path

from IPython import get_ipython
from IPython.core.magic import register_cell_magic
from IPython.display import HTML, Markdown, display
from IPython.utils.capture import capture_output

here = Path.cwd()  # Jupyter starts in the notebook's folder; files are read from the project's
os.chdir(next((p for p in (here, *here.parents) if (p / "tutorials/_build").is_dir()), here))
sys.path[:0] = [".", "tutorials/_build/blocks"]


@register_cell_magic
def shown(kind, cell):
    """Run a cell, and show what it prints as HTML or Markdown."""
    with capture_output() as printed:
        result = get_ipython().run_cell(cell)
    result.raise_error()
    display({"HTML": HTML, "Markdown": Markdown}[kind](printed.stdout))
'''


def notebook(page: str) -> str:
    """Return the JSON of a notebook (nbformat 4.5) made from the Markdown of a page."""
    cells, at, folded = [_cell("code", SETUP)], 0, False
    for block in BLOCK.finditer(page):
        cells.append(_cell("markdown", _plain(page[at : block.start()], folded)))
        code, options, at, folded = textwrap.dedent(block[3]), block[2], block.end(), bool(block[1])
        if 'result="text"' not in options:
            kind = "HTML" if 'html="on"' in options else "Markdown"
            code = f"%%shown {kind}\n{code}"
        cells.append(_cell("code", code))
    cells.append(_cell("markdown", _plain(page[at:], folded)))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    kept = [cell | {"id": f"cell-{i}"} for i, cell in enumerate(cells) if cell["source"]]
    return json.dumps({"cells": kept, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}, indent=1)


def _cell(kind: str, text: str) -> dict[str, Any]:
    code = {"execution_count": None, "outputs": []} if kind == "code" else {}
    return {"cell_type": kind, "metadata": {}, **code, "source": text.strip("\n").splitlines(keepends=True)}


def _included(match: re.Match[str]) -> str:
    """The lines of a file that a page includes."""
    lines = Path(match[1]).read_text(encoding="utf-8").splitlines()
    return "\n".join(lines[int(match[2] or 1) - 1 : int(match[3] or len(lines))])


def _plain(text: str, folded: bool) -> str:
    """Markdown without what only the site knows: folded parts become paragraphs with a title, files are included.

    ``folded`` says whether the text begins in such a part.
    """
    text = INCLUDED.sub(_included, text)
    lines = []
    for line in text.splitlines():
        if title := FOLD.match(line):
            lines.append(f"**{title[1]}**")
            folded = True
            continue
        folded = folded and (not line or line.startswith("    "))
        lines.append(line.removeprefix("    ") if folded else line)
    return "\n".join(lines)
