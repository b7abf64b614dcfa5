"""Text for places that read Markdown."""

from __future__ import annotations

import re

__all__ = ["plain"]

PUNCTUATION = re.compile(r"[!-/:-@\[-`{-~]")


def plain(text: str) -> str:
    """Markdown that shows the text as it is, whoever wrote it: no image, link, formula or colour comes of it.

    A word joiner, which no one sees, stands before each mark, or an address would become a link in spite of the escape.
    """
    return PUNCTUATION.sub(lambda mark: f"\u2060\\{mark[0]}", text)
