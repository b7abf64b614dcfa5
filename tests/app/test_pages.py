"""The pages' own logic, by Streamlit's AppTest."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1 import AppTest

from app.components import sketch
from app.shared.lessons import LESSONS, links
from app.shared.url_state import PARAMETERS
from app.training import drawn_points
from app.views.break_it import model as break_it
from app.views.more_steps import model as more_steps

ROOT = Path(__file__).parents[2]
PAGES = ["watch", "residual", "break_it", "train", "more_steps", "methods", "systems", "images"]


@pytest.fixture(scope="module", autouse=True)
def scanned_once() -> Iterator[None]:
    """Streamlit reads the metadata of all installed packages, half a second, whenever a page starts: here only once."""
    with pytest.MonkeyPatch.context() as patch:
        scan = cache(manifest_scanner.scan_component_manifests)
        patch.setattr(manifest_scanner, "scan_component_manifests", scan)
        yield


def test_the_first_link_to_a_page_finds_it() -> None:
    """Next to a folder of this name Streamlit shows "Page not found", unless somebody has opened the app before."""
    assert not (ROOT / "app" / "pages").exists()


@pytest.mark.parametrize("page", PAGES)
def test_a_page_runs(page: str) -> None:
    app = AppTest.from_file(f"../../app/views/{page}/page.py", default_timeout=60).run()
    assert not app.exception
    assert app.markdown[0].value.startswith("###")


def test_more_steps_of_images() -> None:
    app = AppTest.from_file("../../app/views/more_steps/page.py", default_timeout=60)
    app.query_params["data"] = next(iter(more_steps.IMAGES.values()))
    app.run()
    assert not app.exception
    assert len(app.get("image")) == 1


@pytest.mark.parametrize("question", break_it.QUESTIONS)
def test_every_choice_of_break_it(question: str) -> None:
    app = AppTest.from_file("../../app/views/break_it/page.py", default_timeout=60)
    app.query_params |= {"choice": question, "v": "1", "n": "18"}  # as the viewer's own N stands there
    app.run()
    for variant in break_it.QUESTIONS[question][1]:
        app.pills(key=f"changed-{question.lower()}").set_value(variant).run()
        assert not app.exception
        assert any("seeds 0 and 1" in text.value for text in app.markdown)


def test_calls_are_a_slider() -> None:
    app = AppTest.from_file("../../app/views/methods/page.py", default_timeout=60)
    app.query_params |= {"one": "PID", "two": "Lagrangian map", "calls": "4 calls"}
    app.run()
    slider = app.select_slider(key="calls")
    assert (slider.options, slider.value) == (["1 call", "2 calls", "4 calls", "8 calls"], "4")
    for calls in ("8", "1"):
        slider.set_value(calls).run()
        assert not app.exception
        shown = [text.value for text in app.caption if "one call is shown instead of" in text.value]
        assert shown == [f"Its student is called once, so one call is shown instead of {calls}."] * (calls == "8")


def test_pages_and_lessons_lead_to_each_other() -> None:
    learn = ROOT / "tutorials" / "learn"
    assert {path.stem for path in learn.glob("*.md")} == LESSONS.keys()
    for name, (title, pages) in LESSONS.items():
        text = (learn / f"{name}.md").read_text()
        assert text.startswith(f"# {title}\n")
        assert set(re.findall(r"http://127\.0\.0\.1:8501/([a-z-]*)", text)) == set(pages)
        for page in pages:
            assert f"[{title}](http://127.0.0.1:8000/learn/{name}/)" in links(page)


EMPTY = [
    "data",
    "choice",
    "on",
    "system",
    "images",
    "teacher",
    "steps",
    "grid",
    "plane",
    "changed-equation",
    "seed",
    "one",
    "calls",
]


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("said", ["", "nope", "inf", "1e400"])
def test_a_choice_that_is_none_is_left_out_with_a_word(page: str, said: str) -> None:
    app = AppTest.from_file(f"../../app/views/{page}/page.py", default_timeout=60)
    app.query_params |= dict.fromkeys(EMPTY, said)
    app.run()
    assert not app.exception
    assert any("not an option here" in toast.value for toast in app.toast)


def test_back_to_an_address_with_such_a_choice_leaves_a_page() -> None:
    app = AppTest.from_file("../../app/views/train/page.py", default_timeout=60)
    app.query_params["steps"] = "foo"
    app.run()
    app.pills(key="teacher").set_value("equations").run()
    app.query_params["steps"] = "foo"  # as the browser's Back has it, now that the control owns the parameter
    app.run()
    assert not app.exception
    assert any("not an option here" in toast.value for toast in app.toast)


@pytest.mark.parametrize("report", ["abc", [[0.0, 0.1]] * 151, [[0.0, "x"]], [[1.0]], [[5.0, 0.0]], {"points": 1}])
def test_a_canvas_that_reports_nonsense_leaves_the_points_as_they_were(
    report: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sketch, "component", lambda **_: SimpleNamespace(points=report))
    app = AppTest.from_file("../../app/views/train/page.py", default_timeout=60)
    app.query_params |= {"teacher": "Your points", "points": drawn_points.encode(np.array([[0.1, 0.2], [0.5, 0.5]]))}
    app.run()
    assert not app.exception
    np.testing.assert_allclose(app.session_state["drawn"], [[0.1, 0.2], [0.5, 0.5]])


def test_no_choice_takes_a_name_that_is_the_view_s() -> None:
    taken, found = {"v", *(name for name, _ in PARAMETERS.values())}, 0
    for page in (ROOT / "app" / "views").glob("*/page.py"):
        for call in ast.walk(ast.parse(page.read_text())):
            if not isinstance(call, ast.Call):
                continue
            keys = [k.value for k in call.keywords if k.arg == "key" and any(k.arg == "bind" for k in call.keywords)]
            if isinstance(call.func, ast.Name) and call.func.id in ("pick", "slide"):
                keys.append(call.args[2])
            for key in (ast.unparse(key).strip("f'\"") for key in keys):
                found += 1
                assert key not in taken
                assert not key.startswith("{"), "a key that is computed needs a prefix of its own"
    assert found >= 14
