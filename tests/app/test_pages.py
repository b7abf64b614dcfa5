"""The pages' own logic, by Streamlit's AppTest."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from app.models import broken
from app.models.state import READ

ROOT = Path(__file__).parents[2]
PAGES = ["watch", "residual", "break_it", "train", "more_steps", "systems", "images"]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_runs(page: str) -> None:
    app = AppTest.from_file(f"../../app/views/{page}.py", default_timeout=60).run()
    assert not app.exception
    assert app.markdown[0].value.startswith("###")


@pytest.mark.parametrize("question", broken.QUESTIONS)
def test_every_choice_of_break_it(question: str) -> None:
    app = AppTest.from_file("../../app/views/break_it.py", default_timeout=60)
    app.query_params |= {"choice": question, "v": "1", "n": "18"}  # as the viewer's own N stands there
    app.run()
    for variant in broken.QUESTIONS[question][1]:
        app.pills(key=f"changed-{question.lower()}").set_value(variant).run()
        assert not app.exception
        assert any("Seeds 0 and 1" in text.value for text in app.markdown)


def test_no_choice_takes_a_name_that_is_the_view_s() -> None:
    taken = {"v", *(name for name, _ in READ.values())}
    for page in (ROOT / "app" / "views").glob("*.py"):
        for call in ast.walk(ast.parse(page.read_text())):
            if isinstance(call, ast.Call) and any(k.arg == "bind" for k in call.keywords):
                (key,) = (ast.unparse(k.value).strip("f'\"") for k in call.keywords if k.arg == "key")
                assert key not in taken
                assert not key.startswith("{"), "a key that is computed needs a prefix of its own"
