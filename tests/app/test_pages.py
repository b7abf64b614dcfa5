"""The pages' own logic, by Streamlit's AppTest."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from app.shared.url_state import PARAMETERS
from app.views.break_it import model as break_it

ROOT = Path(__file__).parents[2]
PAGES = ["watch", "residual", "break_it", "train", "more_steps", "systems", "images"]


def test_the_first_link_to_a_page_finds_it() -> None:
    """Next to a folder of this name Streamlit shows "Page not found", unless somebody has opened the app before."""
    assert not (ROOT / "app" / "pages").exists()


@pytest.mark.parametrize("page", PAGES)
def test_a_page_runs(page: str) -> None:
    app = AppTest.from_file(f"../../app/views/{page}/page.py", default_timeout=60).run()
    assert not app.exception
    assert app.markdown[0].value.startswith("###")


@pytest.mark.parametrize("question", break_it.QUESTIONS)
def test_every_choice_of_break_it(question: str) -> None:
    app = AppTest.from_file("../../app/views/break_it/page.py", default_timeout=60)
    app.query_params |= {"choice": question, "v": "1", "n": "18"}  # as the viewer's own N stands there
    app.run()
    for variant in break_it.QUESTIONS[question][1]:
        app.pills(key=f"changed-{question.lower()}").set_value(variant).run()
        assert not app.exception
        assert any("seeds 0 and 1" in text.value for text in app.markdown)


EMPTY = ["data", "choice", "on", "system", "images", "teacher", "steps", "grid", "plane", "changed-equation", "seed"]


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("said", ["", "nope", "inf", "1e400"])
def test_a_choice_that_is_none_is_left_out_with_a_word(page: str, said: str) -> None:
    app = AppTest.from_file(f"../../app/views/{page}/page.py", default_timeout=60)
    app.query_params |= dict.fromkeys(EMPTY, said)
    app.run()
    assert not app.exception
    assert any("not an option here" in toast.value for toast in app.toast)


def test_no_choice_takes_a_name_that_is_the_view_s() -> None:
    taken, found = {"v", *(name for name, _ in PARAMETERS.values())}, 0
    for page in (ROOT / "app" / "views").glob("*/page.py"):
        for call in ast.walk(ast.parse(page.read_text())):
            if not isinstance(call, ast.Call):
                continue
            keys = [k.value for k in call.keywords if k.arg == "key" and any(k.arg == "bind" for k in call.keywords)]
            if isinstance(call.func, ast.Name) and call.func.id == "pick":
                keys.append(call.args[2])
            for key in (ast.unparse(key).strip("f'\"") for key in keys):
                found += 1
                assert key not in taken
                assert not key.startswith("{"), "a key that is computed needs a prefix of its own"
    assert found >= 14
