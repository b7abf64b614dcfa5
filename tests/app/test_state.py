"""Views in the address bar."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.shared.url_state import clamp_view, from_params, from_viewer, to_params
from app.views.residual import model as residual
from app.views.watch import model as watch
from pidlearn.viewer import View

coordinate = st.floats(-300, 300).map(lambda v: float(f"{v:.5g}"))
views = st.builds(
    View,
    n=st.integers(2, 250),
    solver=st.sampled_from(["euler", "heun", "exact"]),
    frame=st.integers(0, 60),
    play=st.booleans(),
    raw=st.booleans(),
    flow=st.booleans(),
    probe=st.none() | st.tuples(coordinate, coordinate),
    handover=st.integers(1, 59),
    steps=st.integers(0, 16),
    row=st.none() | st.integers(0, 149),
)


@given(views)
def test_an_address_gives_the_view_back(view: View) -> None:
    assert from_params(to_params(view, View()), View()) == (view, [])


def test_the_usual_view_leaves_the_address_clean() -> None:
    assert to_params(View(n=10), View(n=10)) == {}


@given(st.dictionaries(st.sampled_from(["v", "n", "solver", "frame", "z", "k", "raw", "row"]), st.text(max_size=12)))
def test_whatever_is_typed_there_is_a_view_and_a_word(params: dict[str, str]) -> None:
    view, _ = from_params(params, View())
    assert 2 <= view.n <= 250
    assert from_params(to_params(view, View()), View()) == (view, [])


@pytest.mark.parametrize(
    "params", [{"n": "0"}, {"n": "1e9"}, {"z": "nan,1"}, {"z": "1e300,0"}, {"z": "1"}, {"solver": "rk"}, {"raw": "yes"}]
)
def test_absurd_parameters_are_left_out_and_named(params: dict[str, str]) -> None:
    view, complaints = from_params(params, View())
    assert view == View()
    assert len(complaints) == 1
    assert next(iter(params)) in complaints[0]


def test_another_version_is_not_guessed_at() -> None:
    view, complaints = from_params({"v": "2", "n": "5"}, View())
    assert view == View()
    assert "another version" in complaints[0]


def test_what_the_viewer_tells() -> None:
    assert from_viewer(None, View(n=7)) == View(n=7)
    assert from_viewer({"n": 5, "probe": [1.0, 2.0], "unknown": 1}, View()) == View(n=5, probe=(1.0, 2.0))


def nested(depth: int) -> list[Any]:
    return [] if depth == 0 else [nested(depth - 1)]


@pytest.mark.parametrize(
    "told",
    [
        {"n": 200000},
        {"frame": "x"},
        {"probe": [1]},
        {"probe": "ab"},
        {"solver": ["rk"]},
        {"probe": nested(600)},
        "abc",
        3,
        [1, 2],
        [["n", 5]],
        True,
    ],
)
def test_a_browser_that_tells_nonsense_is_not_believed(told: Any) -> None:
    assert from_viewer(told, View(n=7)) == View(n=7)


def test_a_view_is_held_within_its_scene() -> None:
    planes = watch.scene("ring")
    far = View(frame=1000, handover=1000, row=9999)
    assert clamp_view(planes, far) == View(frame=60, handover=59, row=None)
    scene = residual.scene("ring")
    held = clamp_view(scene, far)
    assert held.row == 149
    last = scene.panels[1].order[149]
    assert held.probe == tuple(scene.starts[last].tolist())
    assert clamp_view(scene, replace(far, probe=(1.0, 2.0))).probe == (1.0, 2.0)
    assert clamp_view(planes, View()) == View()
