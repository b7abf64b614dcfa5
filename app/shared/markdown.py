"""Plain text in places that render Markdown."""

from __future__ import annotations

import re

__all__ = ["escape_markdown"]

PUNCTUATION = re.compile(r"[!-/:-@\[-`{-~]")


def escape_markdown(text: str) -> str:
    """Escape text so that Markdown shows it literally: no image, link, formula or colour, whoever wrote it.

    An invisible word joiner (U+2060) precedes each escaped mark: a backslash alone does not stop Streamlit from turning
    a bare URL into a link.
    """
    return PUNCTUATION.sub(lambda mark: f"\u2060\\{mark[0]}", text)
