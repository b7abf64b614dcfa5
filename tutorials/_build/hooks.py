"""Hooks of the site's build: kept outputs of code blocks, formulas as MathML, links in printed text, one thread."""

from __future__ import annotations

import posixpath
import re
import sys
from html import unescape
from pathlib import Path
from typing import Any

import torch
from latex2mathml.converter import convert
from markdown_exec._internal.formatters import python as formatter

FORMULA = re.compile(r'<(?:span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</(?:span|div)>', re.DOTALL)
LINK = re.compile(r'href="(?![a-z]+:)([^"#]+\.md)(#[^"]*)?"')


KEPT = Path(".cache/tutorials")
"""Folder of what code blocks printed, below the project's."""


def on_startup(**_: Any) -> None:
    """Let code blocks import `show`, and run on one thread, which is fastest for small networks."""
    sys.path.insert(0, str(Path(__file__).parent))
    torch.set_num_threads(1)


def on_pre_build(**_: Any) -> None:
    """Execute only code blocks whose output is not known. markdown-exec has no setting for that."""
    from cache import Cache, fingerprint

    run = getattr(formatter._run_python, "run", formatter._run_python)  # once, where a server builds again and again
    formatter._run_python = Cache(run, KEPT, fingerprint(Path()))


def on_post_build(**_: Any) -> None:
    """Delete outputs that no page has any more."""
    formatter._run_python.forget_others()


def on_page_content(html: str, page: Any, files: Any, **_: Any) -> str:
    """Replace formulas by MathML, which browsers show without a script from another server, and mend links.

    Links in what code blocks print have not been seen by the builder: they still name the other page's source.
    """

    def mended(match: re.Match[str]) -> str:
        source = posixpath.normpath(posixpath.join(posixpath.dirname(page.file.src_uri), match[1]))
        target = files.get_file_from_path(source)
        if target is None:
            raise ValueError(f"{page.file.src_uri} links to {match[1]}, which is no page")
        url, anchor = target.url_relative_to(page.file), match[2] or ""
        return f'href="{url}{anchor}"'

    return LINK.sub(mended, FORMULA.sub(_formula, html))


def _formula(match: re.Match[str]) -> str:
    """A formula as MathML; one that stands alone can be scrolled on a narrow screen."""
    latex = unescape(match[2])
    if match[1] == "(":
        return convert(latex, display="inline")
    return f'<div class="formula">{convert(latex, display="block")}</div>'
