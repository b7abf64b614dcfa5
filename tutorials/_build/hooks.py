"""What the build of these pages needs: formulas as MathML, one thread, and `show` for the blocks that draw."""

from __future__ import annotations

import re
import sys
from html import unescape
from pathlib import Path
from typing import Any

import torch
from latex2mathml.converter import convert

FORMULA = re.compile(r'<(?:span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</(?:span|div)>', re.DOTALL)


def on_startup(**_: Any) -> None:
    """Blocks import `show` from here; small networks are fastest on one thread."""
    sys.path.insert(0, str(Path(__file__).parent))
    torch.set_num_threads(1)


def on_page_content(html: str, **_: Any) -> str:
    """Browsers read MathML: no script, and nothing from another server."""
    return FORMULA.sub(
        lambda found: convert(unescape(found[2]), display="inline" if found[1] == "(" else "block"), html
    )
