"""Pictures and viewers of a block, for it to print into its page."""

from __future__ import annotations

import base64
import io
from html import escape
from pathlib import Path

from matplotlib.figure import Figure

from pidlearn.viewer import Scene


def figure(drawn: Figure, says: str) -> str:
    """A figure; ``says`` what it shows, for who cannot see it."""
    file = io.BytesIO()
    drawn.savefig(file, dpi=110, bbox_inches="tight")
    return _image(file.getvalue(), says)


def picture(path: str, says: str) -> str:
    """A PNG file of the repository."""
    return _image(Path(path).read_bytes(), says)


def scene(shown: Scene) -> str:
    """A viewer."""
    return shown._repr_html_()


def _image(png: bytes, says: str) -> str:
    return f'<img alt="{escape(says)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
