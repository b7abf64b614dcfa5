"""The explorer in a real browser: it draws, trains, follows its controls, and its address holds what is seen."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.explorer.site import HEART, ask, wait


def new_page(browser: Any, site: str, **options: Any) -> Any:
    """A page without motion, unless another is wanted, which notes errors and requests that leave the site."""
    page = browser.new_page(**{"viewport": {"width": 1000, "height": 800}, "reduced_motion": "reduce"} | options)
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("console", lambda said: page.errors.append(said.text) if said.type == "error" else None)
    page.on("request", lambda r: None if r.url.startswith((site, "data:")) else page.errors.append(r.url))
    return page


@pytest.fixture(scope="module")
def window(browser: Any, site: str) -> Any:
    return new_page(browser, site)


@pytest.fixture
def page(window: Any, site: str) -> Iterator[Any]:
    """The page with its default view, drawn, and the teacher's errors known."""
    window.goto("about:blank")
    window.goto(site)
    wait(window, "e.drawn > 0 && e.rulers.length")
    yield window
    assert window.errors == []


def pixels(page: Any, name: str) -> np.ndarray:
    """A canvas as it is after the next frame."""
    drawn = ask(page, "(e.wake(), e.drawn)")
    wait(page, f"e.drawn > {drawn}")
    png = page.evaluate(f"document.querySelector('canvas.{name}').toDataURL()")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png.split(",")[1]))).convert("RGBA")).astype(int)


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Share of values that differ."""
    return float((a != b).mean())


def choose(page: Any, control: str, value: int) -> None:
    page.locator(f'[data-act="{control}"]').fill(str(value))


def test_it_distils(page: Any) -> None:
    before = pixels(page, "student"), pixels(page, "chart")
    page.locator('[data-act="steps"]').select_option("300")
    page.get_by_role("button", name="Distil", exact=True).click()
    wait(page, "!e.training")
    error, curve = ask(page, "[e.progress.error, e.curve]")
    assert error < 0.08
    assert curve[0]["error"] == pytest.approx(1, abs=0.01)
    assert curve[-1] == {"step": 300, "error": error}
    assert f"{error:.3f}" in page.inner_text('[data-show="error"]')
    assert "calls of the teacher (its error is" in page.inner_text('[role="status"]')
    assert difference(pixels(page, "student"), before[0]) > 0.02
    assert difference(pixels(page, "chart"), before[1]) > 0.005
    # Its samples are where the teacher's are.
    shown = ask(page, "[...e.student.evaluate(0.002)]")
    exact = ask(page, "[...e.teacher.path.slice(-e.z.length)]")
    assert np.sqrt(np.mean(np.subtract(shown, exact) ** 2)) < 0.1
    # Another N is another teacher, for which training is offered.
    choose(page, "n", 1)
    assert page.inner_text('[data-show="student"]') == "1 call per sample, distilled at N = 250"
    assert page.get_by_role("button", name="Distil at N = 10").is_enabled()
    assert ask(page, "[e.progress, e.view.distilled]") == [None, False]


def test_the_controls_change_the_picture(page: Any) -> None:
    seen = {name: pixels(page, name) for name in ("teacher", "student", "pad", "chart")}

    def changed(*names: str) -> None:
        for name in names:
            now = pixels(page, name)
            assert difference(now, seen[name]) > 1e-3, name
            seen[name] = now

    choose(page, "time", 40)
    changed("teacher", "student")
    choose(page, "calls", 2)
    changed("teacher")
    assert ask(page, "e.view.calls") == 4
    assert "4 calls per sample: RMSE / spread 0.3" in page.inner_text('[data-show="teacher"]')
    choose(page, "n", 1)
    assert ask(page, "[e.view.n, e.view.calls]") == [10, None]
    changed("teacher")
    wait(page, "e.rulers.length === 4")
    changed("chart")
    page.get_by_role("button", name="New noise").click()
    changed("teacher", "student")
    box = page.locator("canvas.teacher").bounding_box()
    page.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + 0.4 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.8 * box["width"], box["y"] + 0.3 * box["height"], steps=3)
    page.mouse.up()
    assert ask(page, "e.view.noise") == pytest.approx([0.6 * 2.7, 0.4 * 2.7], abs=0.03)
    changed("teacher", "student")
    page.locator("canvas.student").press("ArrowLeft")
    assert ask(page, "e.view.noise[0]") == pytest.approx(0.6 * 2.7 - 0.05, abs=0.03)
    page.get_by_role("button", name="Moons").click()
    changed("teacher", "student", "pad")


def test_a_distribution_is_drawn_with_the_mouse(page: Any) -> None:
    box = page.locator("canvas.pad").bounding_box()
    page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 0.5 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.8 * box["width"], box["y"] + 0.5 * box["height"], steps=5)
    page.mouse.up()
    points = np.array(ask(page, "e.view.points"))
    assert ask(page, "e.view.preset") is None
    # Three fifths of an area of 4.4 across, one point per 0.18.
    np.testing.assert_allclose(np.diff(points[:, 0]), 0.18, atol=0.002)
    assert np.ptp(points[:, 0]) == pytest.approx(2.64, abs=0.19)
    assert ask(page, "e.mixture.count") == len(points)
    end = np.array(ask(page, "[...e.teacher.path.slice(-e.z.length)]")).reshape(-1, 2)
    assert end.std(0)[0] > 4 * end.std(0)[1]


def test_a_distribution_is_drawn_with_keys(page: Any) -> None:
    pad = page.locator("canvas.pad")
    for key in ["ArrowRight", "Enter", "Shift+ArrowUp", " ", "Enter", "Backspace"]:
        pad.press(key)
    assert ask(page, "e.view.points") == [[0.1, 0], [0.1, 0.5]]
    page.get_by_role("button", name="Clear").click()
    assert ask(page, "[e.view.points, e.mixture]") == [[], None]
    assert page.get_by_role("button", name="Distil", exact=True).is_disabled()
    assert not pixels(page, "teacher").any()
    pad.press("Enter")
    assert ask(page, "e.view.points.length") == 1


def test_the_address_holds_the_view(page: Any, browser: Any, site: str) -> None:
    pad = page.locator("canvas.pad")
    for key in ["Enter", "Shift+ArrowUp", "Enter", "Shift+ArrowRight", "Enter"]:
        pad.press(key)
    choose(page, "n", 2)
    choose(page, "calls", 3)
    page.get_by_role("button", name="New noise").click()
    choose(page, "time", 70)
    page.locator("canvas.teacher").press("ArrowUp")
    wait(page, "location.hash.includes('noise')")
    view, seen = ask(page, "e.view"), [pixels(page, name) for name in ("teacher", "student")]
    other = new_page(browser, site)
    other.goto(page.url)
    wait(other, "e.drawn > 0")
    assert ask(other, "e.view") == view
    for name, picture in zip(("teacher", "student"), seen, strict=True):
        assert difference(pixels(other, name), picture) == 0
    assert other.errors == []
    other.close()


def test_the_address_holds_the_student(page: Any, browser: Any, site: str) -> None:
    """The same seed trains the same student, as far as it has come."""
    page.get_by_role("button", name="Distil", exact=True).click()
    wait(page, "location.hash.includes('distilled') && e.progress?.step >= 20")
    other = new_page(browser, site)
    other.goto(page.url)
    wait(other, "e.progress?.step >= 20")
    curves = [{point["step"]: point["error"] for point in ask(each, "e.curve")} for each in (page, other)]
    shared = curves[0].keys() & curves[1].keys()
    assert {curves[0][step] for step in shared} == {curves[1][step] for step in shared}
    other.close()


@pytest.mark.parametrize(
    "hash",
    [
        "#points=",
        "#points=A",
        "#points=%3Cscript%3E",
        "#preset=constructor&n=7&calls=-1",
        "#noise=a_b&time=9&seed=1e99",
    ],
)
def test_an_address_that_says_nothing_is_the_default(page: Any, site: str, hash: str) -> None:
    view = ask(page, "e.view")
    page.goto("about:blank")
    page.goto(site + hash)
    wait(page)
    assert ask(page, "e.view") == view


@pytest.mark.parametrize("drawn", [False, True], ids=["preset", "drawn"])
def test_the_exported_code_runs(page: Any, drawn: bool) -> None:
    if drawn:
        page.evaluate("points => document.querySelector('.explorer').explorer.setData({ preset: null, points })", HEART)
    page.locator('[data-act="steps"]').select_option("300")
    code = page.locator('[data-show="python"]').text_content()
    # As it is, but for what takes long.
    for longer, shorter in [("steps=300, n=250", "steps=2, n=250, progress=False"), ("evaluate()", "evaluate(n=64)")]:
        assert longer in code
        code = code.replace(longer, shorter)
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["samples"].shape == (1000, 2)
    x = 3 * torch.randn(20, 2, dtype=torch.float64)
    for sigma in (0.002, 0.3, 80.0):
        found = page.evaluate(
            """([points, sigma]) => points.map(([x, y]) => {
                 const d = [];
                 document.querySelector(".explorer").explorer.mixture.denoise(x, y, sigma, d);
                 return d;
               })""",
            [x.tolist(), sigma],
        )
        np.testing.assert_allclose(found, names["teacher"].denoise(x, sigma), atol=1e-9)
    assert ask(page, "e.mixture.std") == pytest.approx(names["teacher"].std, rel=1e-12)


def test_without_simd_a_smaller_network_is_trained(browser: Any, site: str) -> None:
    page = new_page(browser, site)
    page.add_init_script("delete globalThis.WebAssembly")
    page.goto(site)
    wait(page)
    assert ask(page, "[e.simd, e.student.network.width]") == [False, 32]
    page.get_by_role("button", name="Distil", exact=True).click()
    wait(page, "e.progress?.step >= 40")
    assert ask(page, "e.progress.error") < 0.9
    assert page.errors == []
    page.close()


def test_it_moves_unless_motion_is_not_wanted(page: Any, browser: Any, site: str) -> None:
    assert ask(page, "[e.playing, e.view.time]") == [False, 1]
    moving = new_page(browser, site, reduced_motion="no-preference")
    moving.goto(site)
    wait(moving, "e.playing && e.view.time > 0.02")
    moving.get_by_role("button", name="Pause").click()
    assert ask(moving, "e.playing") is False
    moving.close()


def test_it_starts_only_in_view(browser: Any, site: str) -> None:
    page = new_page(browser, site)
    page.add_init_script("addEventListener('DOMContentLoaded', () => (document.body.style.paddingTop = '3000px'))")
    page.goto(site)
    page.wait_for_timeout(300)
    assert ask(page, "e.drawn") == 0
    page.evaluate("scrollTo(0, 3000)")
    wait(page)
    page.close()


def test_it_follows_light_and_dark(page: Any) -> None:
    light = pixels(page, "chart")
    page.evaluate("document.body.dataset.mdColorScheme = 'slate'")
    dark = pixels(page, "chart")
    ink = [picture[picture[..., 3] > 200][:, :3].mean(1) for picture in (light, dark)]
    # Text stands out, and the lines of the grid hardly do: 102 and 226 on white, 190 and 59 on nearly black.
    assert ink[0].min() < 110 < 200 < ink[0].max()
    assert ink[1].min() < 80 < 180 < ink[1].max()
    assert difference(light, dark) > 0.01


def test_a_phone_shows_all_of_it_and_a_finger_draws(browser: Any, site: str) -> None:
    page = new_page(browser, site, viewport={"width": 400, "height": 800}, has_touch=True, is_mobile=True)
    page.goto(site)
    wait(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    finger = page.context.new_cdp_session(page)
    box = page.locator("canvas.pad").bounding_box()
    x, y = box["x"] + 0.3 * box["width"], box["y"] + 0.5 * box["height"]
    for kind, i in [("touchStart", 0), *[("touchMove", i) for i in range(1, 9)], ("touchEnd", None)]:
        points = [] if i is None else [{"x": x + 15 * i, "y": y}]
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    wait(page, "e.view.points.length >= 9")
    assert page.evaluate("scrollY") == 0
    # With only the chart in view, which is below the pictures, it is still drawn.
    page.locator("canvas.chart").scroll_into_view_if_needed()
    page.evaluate("scrollBy(0, document.querySelector('.panels').getBoundingClientRect().bottom)")
    light = pixels(page, "chart")
    page.evaluate("document.body.dataset.mdColorScheme = 'slate'")
    wait(page)
    assert difference(light, pixels(page, "chart")) > 0.01
    assert page.errors == []
    page.context.close()


@pytest.mark.slow
@pytest.mark.parametrize("data", [{"preset": "ring"}, {"preset": "grid"}, {"preset": None, "points": HEART}], ids=str)
def test_the_promised_error_is_reached(page: Any, data: dict[str, Any]) -> None:
    page.evaluate("data => document.querySelector('.explorer').explorer.setData(data)", {"points": []} | data)
    page.get_by_role("button", name="Distil", exact=True).click()
    wait(page, "!e.training")
    assert ask(page, "e.progress.error") <= 0.05
