"""Hooks of the site's build: formulas, kept outputs of code blocks, notebooks, the gallery, links."""

from __future__ import annotations

import posixpath
import re
import sys
from html import escape
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch

BLOCK = 'exec="on"'
PROSE = re.compile(r"^(?:\*\*)?[A-Z“\"].*?(?=\n\n|\Z)", re.DOTALL | re.MULTILINE)
LINK = re.compile(r'href="(?![a-z]+:)([^"#]+\.md)(#[^"]*)?"')


def on_startup(**_: Any) -> None:
    """Let code blocks import what is in `blocks`, and run on one thread, which is fastest for small networks."""
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent / "blocks")]
    torch.set_num_threads(1)


def on_config(config: Any, **_: Any) -> Any:
    """Add the extension for formulas; its module can be imported only since `on_startup`."""
    from mathml import MathML

    config.markdown_extensions.append(MathML())
    return config


def on_pre_build(config: Any, **_: Any) -> None:
    """Execute code blocks whose output is not known, on all cores."""
    from fill import fill, keep

    fill(page for page in sorted(Path(config.docs_dir).rglob("*.md")) if BLOCK in page.read_text(encoding="utf-8"))
    keep()


def on_post_build(config: Any, **_: Any) -> None:
    """Delete outputs that no page has any more, and check all links."""
    from fill import formatter
    from links import dead_links

    formatter._run_python.forget_others()
    if dead := dead_links(Path(config.site_dir).resolve()):
        raise ValueError("links that lead nowhere:\n" + "\n".join(dead))


def on_page_markdown(markdown: str, page: Any, **_: Any) -> None:
    """Describe a page to search engines, and in previews of links, by a lesson's claim, or the first paragraph."""
    outside = re.sub(r"^( *)```.*?^\1```$", "", markdown, flags=re.DOTALL | re.MULTILINE)
    plain = [text for text in PROSE.findall(outside) if "\\" not in text]  # no formula with commands
    claims = [text.partition(".** ")[2] for text in plain if text.startswith("**Claim.** ")]
    if first := next(iter([*claims, *plain]), ""):
        words = re.sub(r"\[([^]]*)\](?:\([^)]*\)|\[[^]]*\])|[*`$]|<[^>]*>", r"\1", first)
        page.meta.setdefault("description", escape(shorten(words, 160, placeholder=" …")))


def on_page_content(html: str, page: Any, files: Any, **_: Any) -> str:
    """Resolve links, and add one to the page's notebook.

    Links in what code blocks print have not been seen by the builder: they still name the other page's source.
    """

    def resolved(match: re.Match[str]) -> str:
        source = posixpath.normpath(posixpath.join(posixpath.dirname(page.file.src_uri), match[1]))
        target = files.get_file_from_path(source)
        if target is None:
            raise ValueError(f"{page.file.src_uri} links to {match[1]}, which is no page")
        url, anchor = target.url_relative_to(page.file), match[2] or ""
        return f'href="{url}{anchor}"'

    link = f'<p><a href="{name}" download>This page as a notebook</a></p>' if (name := _notebook(page)) else ""
    return LINK.sub(resolved, html) + link


def on_env(env: Any, files: Any, **_: Any) -> None:
    """Fill the gallery, now that all pages are rendered."""
    from gallery import cards

    pages = [files.get_file_from_path("index.md").page]
    while page := pages[-1].next_page:  # in the order of the navigation
        pages.append(page)
    gallery = files.get_file_from_path("gallery.md")
    gallery.page.content = gallery.page.content.replace("<!-- cards -->", cards(pages, gallery))


def on_post_page(output: str, page: Any, config: Any, **_: Any) -> str:
    """Write the notebook of a page that has code blocks next to it."""
    from notebook import notebook

    if name := _notebook(page):
        folder = Path(config.site_dir, page.file.dest_uri).parent
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(notebook(page.markdown), encoding="utf-8")
    return output


def _notebook(page: Any) -> str | None:
    """File name of a page's notebook; None of a page without code blocks."""
    return f"{Path(page.file.src_uri).stem}.ipynb" if BLOCK in page.markdown else None
