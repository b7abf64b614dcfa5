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

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.text import Text

from pidlearn.cli.main import main
from pidlearn.viewer import Scene

TEACHER, STUDENT, THIRD = "#808080", "#d55e00", "#2f8fd8"
"""Colours that are seen on white and on dark pages."""
INK = "#010203"
"""Stands for the page's own text colour in a chart."""


def chart(drawing: Figure, alt: str) -> str:
    """A figure as inline SVG whose text and axes have the colour of the page's text, in both themes."""
    for axes in drawing.findobj(Axes):
        axes.patch.set_alpha(0)
        axes.tick_params(which="both", colors=INK)
        for spine in axes.spines.values():
            spine.set_edgecolor(INK)
    for legend in drawing.findobj(Legend):
        legend.set_frame_on(False)
    for part in drawing.findobj(lambda artist: isinstance(artist, Text | Line2D)):
        if part.get_color() in ("black", "k"):
            part.set_color(INK)
    file = io.StringIO()
    # Ids differ between charts, not between builds; text stays text, which can be searched and read aloud.
    with matplotlib.rc_context({"svg.hashsalt": alt, "svg.fonttype": "none"}):
        drawing.savefig(file, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None})
    svg = file.getvalue().partition("<svg")[2].replace("\n", " ").replace(INK, "currentColor")
    return f'<div class="scroll"><svg class="chart" role="img" aria-label="{escape(alt)}"{svg}</div>'


def picture(path: str, alt: str) -> str:
    """A PNG file of the repository, with its alternative text."""
    png = base64.b64encode(Path(path).read_bytes()).decode()
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{png}">'


def scene(viewer: Scene) -> str:
    """An interactive viewer."""
    return viewer._repr_html_()


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
