"""The explorer's page without the rest of the site, served on this machine: modules and workers need a server."""

from __future__ import annotations

import functools
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

TUTORIALS = Path(__file__).parents[2] / "tutorials"
_ANGLES = np.linspace(0, 2 * np.pi, 60, endpoint=False)
_WAVES = 13 * np.cos(_ANGLES) - 5 * np.cos(2 * _ANGLES) - 2 * np.cos(3 * _ANGLES) - np.cos(4 * _ANGLES)
HEART: list[list[float]] = np.stack([1.5 * np.sin(_ANGLES) ** 3, _WAVES / 11], 1).round(3).tolist()
"""A distribution as a visitor could draw it, (60, 2)."""
SHELL = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<body class="md-typeset" data-md-color-scheme="default">
{}
</body>
</html>
"""


class _Quiet(SimpleHTTPRequestHandler):
    extensions_map: ClassVar[dict[str, str]] = {**SimpleHTTPRequestHandler.extensions_map, ".js": "text/javascript"}

    def log_message(self, *_: Any) -> None:
        """Keep the tests' output free of requests."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a copy of the page from a folder; yields its address."""
    shutil.copytree(TUTORIALS / "explorer", folder / "explorer")
    block = re.search(r"<link rel=.*</script>", (TUTORIALS / "explorer.md").read_text(), re.DOTALL)
    assert block is not None
    (folder / "explorer" / "index.html").write_text(SHELL.format(block[0]))
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/explorer/"
    finally:
        server.shutdown()
        server.server_close()


def ask(page: Any, question: str) -> Any:
    """Evaluate a JavaScript expression of ``e``, the page's explorer."""
    return page.evaluate(f"() => {{ const e = document.querySelector('.explorer').explorer; return {question}; }}")


def wait(page: Any, condition: str = "e.drawn > 0", timeout: float = 120_000) -> None:
    """Wait until a JavaScript condition of ``e``, the page's explorer, holds."""
    holds = f"() => {{ const e = document.querySelector('.explorer')?.explorer; return e && ({condition}); }}"
    page.wait_for_function(holds, timeout=timeout, polling=50)
