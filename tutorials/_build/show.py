"""Figures and viewers as HTML, for code blocks to print into their page."""

from __future__ import annotations

import base64
import io
from html import escape
from pathlib import Path

from matplotlib.figure import Figure

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
