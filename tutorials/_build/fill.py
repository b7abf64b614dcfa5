"""Executes the pages' code blocks in several processes before the site is built: no page depends on another."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from cache import Cache, fingerprint
from markdown import Markdown
from markdown_exec._internal.formatters import python as formatter
from mkdocs.config import load_config

__all__ = ["fill", "keep"]

KEPT = Path(".cache/tutorials")
"""Folder of what code blocks printed, below the project's."""


def keep() -> None:
    """Execute only code blocks whose output is not known. markdown-exec has no setting for that."""
    run = getattr(formatter._run_python, "run", formatter._run_python)  # once, where a server builds again and again
    formatter._run_python = Cache(run, KEPT, fingerprint(Path()))


def fill(pages: Iterable[Path]) -> None:
    """Render pages so that what their blocks print is kept. A page that fails here will fail in the build, too."""
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as processes:
        for page in pages:
            processes.submit(_render, page)


@cache
def _config() -> Any:
    """The configuration of a build, in this process."""
    config = load_config()
    config.plugins.on_startup(command="build", dirty=False)
    keep()
    return config.plugins.on_config(config)


def _render(page: Path) -> None:
    config, text = _config(), page.read_text(encoding="utf-8")
    Markdown(extensions=config.markdown_extensions, extension_configs=config.mdx_configs).convert(text)
