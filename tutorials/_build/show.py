"""Figures and viewers as HTML, and commands with their output, for code blocks to print into their page."""

from __future__ import annotations

import base64
import io
import os
import shlex
import textwrap
from contextlib import redirect_stderr, redirect_stdout
from html import escape
from pathlib import Path

from matplotlib.figure import Figure

from pidlearn.cli.main import main
from pidlearn.viewer import Scene


def figure(drawing: Figure, alt: str) -> str:
    """A figure, with its alternative text."""
    file = io.BytesIO()
    drawing.savefig(file, dpi=110, bbox_inches="tight")
    return _image(file.getvalue(), alt)


def picture(path: str, alt: str) -> str:
    """A PNG file of the repository, with its alternative text."""
    return _image(Path(path).read_bytes(), alt)


def scene(viewer: Scene) -> str:
    """An interactive viewer."""
    return viewer._repr_html_()


def _image(png: bytes, alt: str) -> str:
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def command(line: str, folder: str | Path) -> str:
    """A command line of ``pidlearn``, run in this process and in a folder, with all that it prints."""
    output, before = io.StringIO(), Path.cwd()
    os.chdir(folder)
    try:
        with redirect_stdout(output), redirect_stderr(output):
            status = main(shlex.split(line))
    finally:
        os.chdir(before)
    if status:
        raise RuntimeError(f"pidlearn {line} ended with status {status}: {output.getvalue()}")
    typed = " \\\n".join(textwrap.wrap(f"$ pidlearn {line}", 74, subsequent_indent="    ", break_on_hyphens=False))
    return f"{typed}\n{wrapped(output.getvalue())}"


def wrapped(text: str, width: int = 76) -> str:
    """Text with its long lines broken at spaces, the rest of each indented."""
    lines = [textwrap.wrap(line, width, subsequent_indent="    ") or [""] for line in text.rstrip().splitlines()]
    return "\n".join(part for parts in lines for part in parts)
