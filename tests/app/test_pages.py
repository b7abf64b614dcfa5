"""The pages' own logic, by Streamlit's AppTest."""

from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest

PAGES = ["watch", "residual", "break_it", "train", "more_steps", "systems", "images"]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_runs(page: str) -> None:
    app = AppTest.from_file(f"../../app/views/{page}.py", default_timeout=60).run()
    assert not app.exception
    assert app.markdown[0].value.startswith("###")


def test_every_choice_of_break_it() -> None:
    app = AppTest.from_file("../../app/views/break_it.py", default_timeout=60).run()
    for question in app.pills(key="choice").options:
        app.pills(key="choice").set_value(question).run()
        assert not app.exception
        assert any("Seeds 0 and 1" in text.value for text in app.markdown)
