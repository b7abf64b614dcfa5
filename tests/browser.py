"""Chromium, driven by Playwright: the viewer and the app as a visitor sees them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

FLAGS = [
    f"--{flag}"
    for flag in (
        "no-sandbox",
        "disable-gpu",
        "disable-quic",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
    )
]

VIEWER = """() => {
  const find = (root) => {
    for (const element of root.querySelectorAll("*")) {
      if (element.tagName === "CANVAS" && element.pidlearn) return element.pidlearn;
      const within = element.shadowRoot && find(element.shadowRoot);
      if (within) return within;
    }
    return null;
  };
  return find(document);
}"""
"""JavaScript that finds the viewer of a page, inside Streamlit's shadow root or outside."""


PATIENCE = 120_000
"""Timeout in milliseconds, generous because the machine may be busy."""
POLLING = 50
"""Milliseconds between two evaluations of a condition that is waited for."""


@contextmanager
def chromium() -> Iterator[Any]:
    """Start a browser; without one the test is skipped, except in CI, where it fails."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        if os.environ.get("CI_NEEDS_BROWSER"):
            pytest.fail("Chromium is not installed, and CI must not pass without it: .ci/run installs it")
        pytest.skip("Chromium is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


def ask(page: Any, question: str) -> Any:
    """Evaluate a JavaScript expression of ``v``, the page's viewer."""
    return page.evaluate(f"() => {{ const v = ({VIEWER})(); return {question}; }}")


def wait(page: Any, condition: str = "v.drawn > 0", timeout: float = PATIENCE) -> None:
    """Wait until a JavaScript condition of ``v``, the page's viewer, holds."""
    holds = f"() => {{ const v = ({VIEWER})(); return v && ({condition}); }}"
    # By default it would be evaluated in every frame, and each time search the whole page.
    page.wait_for_function(holds, timeout=timeout, polling=POLLING)
