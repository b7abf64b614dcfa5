"""A failing test of the app in a browser says what its visitors had before them."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    report = yield
    visit = getattr(item, "funcargs", {}).get("visit")
    if report.when == "call" and report.failed and visit is not None:
        for page in visit.pages:
            if page.is_closed():
                continue
            state = page.get_by_test_id("stApp").get_attribute("data-test-script-state", timeout=5_000)
            report.sections.append((f"{page.url}, {state}", page.inner_text("body", timeout=5_000)))
    return report
