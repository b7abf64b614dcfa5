"""Chromium, driven by Playwright: pages of the viewer and of the app as a visitor has them."""

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
"""The viewer of a page, within Streamlit's shadow root or outside of one."""


PATIENCE = 120_000
"""Milliseconds to wait for what comes soon, unless the machine has much else to do."""


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser; the test is skipped where there is none, but never in CI."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        if os.environ.get("CI_NEEDS_BROWSER"):
            pytest.fail("no Chromium here, and CI must not pass without one: .ci/run installs it")
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


def ask(page: Any, question: str) -> Any:
    """The value of a JavaScript expression of ``v``, the page's viewer."""
    return page.evaluate(f"() => {{ const v = ({VIEWER})(); return {question}; }}")


def wait(page: Any, condition: str = "v.drawn > 0", timeout: float = PATIENCE) -> None:
    """Until a JavaScript condition of ``v``, the page's viewer, holds."""
    page.wait_for_function(f"() => {{ const v = ({VIEWER})(); return v && ({condition}); }}", timeout=timeout)
