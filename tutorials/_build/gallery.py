"""The first chart of each page, as cards."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

__all__ = ["cards"]

CHART = re.compile(r'<svg class="chart".*?</svg>', re.DOTALL)
CLAIM = re.compile(r"<p><strong>Claim\.?</strong>(?: \(.*?\)\.)?(.*?)</p>", re.DOTALL)

LINK = re.compile(r"</?a\b[^>]*>")


def cards(pages: Iterable[Any], here: Any) -> str:
    """The cards of those of the rendered pages that have a chart, with links from the file ``here`` and claims."""
    parts = []
    for page in pages:
        if chart := CHART.search(page.content):
            # The links of a claim lead from its own page: the card has one, to that page.
            claim = f"<p>{LINK.sub('', match[1]).strip()}</p>" if (match := CLAIM.search(page.content)) else ""
            link = f'<a href="{page.file.url_relative_to(here)}">{page.title}</a>'
            parts.append(f"<figure>{chart[0]}<figcaption>{link}{claim}</figcaption></figure>")
    return "\n".join(parts)
