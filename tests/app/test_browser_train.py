"""The page Train in a real browser, alone and among others."""

from __future__ import annotations

import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

import pidlearn as pid
from app.training import drawn_points
from tests.app.test_browser import Visit, browser, picture, server, settle, visit, visitors
from tests.browser import PATIENCE, POLLING, ask, wait

__all__ = ["browser", "server", "visit", "visitors"]  # fixtures


def begun(page: Any) -> None:
    page.get_by_role("button", name="Train", exact=True).click()
    wait(page, "v.drawn > 0 && v.scene.title.endsWith(': a student in training')")  # before, the page has a replay


def press(page: Any, name: str, then: Any) -> None:
    """Press a button until something is there: a press while Streamlit replaces the buttons has no effect."""
    from playwright.sync_api import TimeoutError as TooLate

    button = page.get_by_role("button", name=name, exact=True)
    end = time.monotonic() + PATIENCE / 1000
    while not then.is_visible():
        assert time.monotonic() < end, f"{name} has no effect"
        with suppress(TooLate):  # it is disabled, or gone
            button.click(timeout=5000)
            then.wait_for(timeout=5000)


def workers(server: tuple[str, int]) -> int:
    """How many trainings run on this server."""
    command = ["pgrep", "-P", str(server[1]), "-f", "app.training.worker"]
    return len(subprocess.run(command, capture_output=True, text=True).stdout.split())


def test_a_training_is_seen_goes_on_elsewhere_and_is_cancelled_and_its_student_taken_along(
    visit: Visit, tmp_path: Path
) -> None:
    page = visit("train?data=Moons&steps=12%2C000", drawn=False)
    begun(page)
    first = ask(page, "v.scene.id")
    wait(page, f"v.scene.id !== '{first}'")  # it has moved on by itself
    before = picture(page)
    second = ask(page, "v.scene.id")
    wait(page, f"v.scene.id !== '{second}'")
    assert (picture(page) != before).any()
    page.get_by_role("link", name="Watch").first.click()
    wait(page, "v.scene.title.includes('in grey')")
    page.wait_for_timeout(1500)
    page.get_by_role("link", name="Train").first.click()
    wait(page, "v.scene.title === 'Moons: a student in training'")
    pause, resume = (page.get_by_role("button", name=name, exact=True) for name in ("Pause", "Resume"))
    press(page, "Pause", then=resume)
    press(page, "Resume", then=pause)
    press(page, "Cancel", then=page.get_by_text("Cancelled"))
    page.get_by_role("button", name="Train", exact=True).wait_for()
    page.get_by_role("button", name="Save").click()
    with page.expect_download() as waiting:
        page.get_by_role("button", name="student.safetensors").click()
    path = tmp_path / "student.safetensors"
    waiting.value.save_as(path)
    assert len(pid.load(path).history["loss"]) < 12_000  # it did not wait for the end
    assert "stopped" in pid.load(path).stopped or "taken" in pid.load(path).stopped
    assert page.errors == []


def points_of(url: str) -> np.ndarray:
    """The points that an address holds."""
    return drawn_points.decode(parse_qs(urlsplit(url).query)["points"][0]) if "points=" in url else np.zeros((0, 2))


def test_drawn_points_are_in_the_address_and_bad_files_get_a_word(visit: Visit) -> None:
    page = visit("train?teacher=Your+points", drawn=False)
    from playwright.sync_api import expect

    page.get_by_text("Draw some points").wait_for()
    canvas = page.get_by_role("application")
    # Fonts and components that load late move the canvas: press where it has come to rest.
    page.evaluate("document.fonts.ready")
    canvas.hover(position={"x": 60, "y": 60})
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 60, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 250, box["y"] + 200, steps=12)
    page.mouse.up()
    canvas.press("ArrowUp")
    canvas.press("Enter")
    page.get_by_text("14 points").wait_for()
    # The stroke and the single point reach the address one after the other: wait for both.
    page.wait_for_url(lambda url: len(points_of(url)) == 14)
    other = visit(page.url, drawn=False)
    other.get_by_text("14 points").wait_for()
    upload, train = other.locator('input[type="file"]'), other.get_by_role("button", name="Train", exact=True)
    for content, complaint in [(b"1,2\n3,oops\n", "Line 2 is"), (b"1,2\ninf,4\n", "infinity"), (b"", "empty")]:
        upload.set_input_files({"name": "mine.csv", "mimeType": "text/csv", "buffer": content})
        other.get_by_text(complaint).wait_for()
        # A page updates from top to bottom: the button follows the complaint, in both directions.
        expect(train).to_be_disabled(timeout=PATIENCE)
        other.get_by_role("button", name="Remove").click()
        other.get_by_text(complaint).wait_for(state="detached")
        expect(train).to_be_enabled(timeout=PATIENCE)
    upload.set_input_files({"name": "mine.csv", "mimeType": "text/csv", "buffer": b"x,y\n0,0\n1e6,1e6\n0,1e6\n"})
    other.get_by_text("3 points, shifted to mean 0").wait_for()
    begun(other)
    assert ask(other, "v.scene.mixture.means.length") == 3
    other.get_by_role("button", name="Cancel").click()
    assert page.errors == []
    assert other.errors == []


def test_a_typed_ode_is_trained_and_code_is_not_run(visit: Visit) -> None:
    page = visit("train?teacher=Your+ODE", drawn=False)
    area = page.get_by_role("textbox", name="Equations")
    area.fill("x' = __import__('os')\nx in [0, 1]\nt in [0, 1]")
    area.press("Control+Enter")
    page.get_by_text("is not a function here").wait_for()
    area.fill("x' = v\nv' = -x\nx in [0, 1]\nv in [0, 1]\nt in [0, 6]")
    area.press("Control+Enter")
    page.wait_for_url("**equations=**")
    settle(page)
    begun(page)
    assert ask(page, "v.scene.axes.join()") == "x,v"
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("Cancelled").wait_for()
    assert page.errors == []


def closed(server: tuple[str, int], before: int, pages: list[Any]) -> None:
    """Close the pages, and wait until their trainings have stopped."""
    for page in pages:
        page.context.close()
    end = time.monotonic() + 60
    while workers(server) > before:
        assert time.monotonic() < end, "a closed tab's training goes on"
        time.sleep(0.5)


@pytest.mark.slow
def test_visitors_see_their_own_and_a_closed_tab_s_training_stops(server: tuple[str, int], visit: Visit) -> None:
    before = workers(server)
    training = [visit(f"train?steps=12%2C000&data={data}", drawn=False) for data in ("Ring+of+8", "Moons")]
    for page in training:
        begun(page)
    assert workers(server) == before + 2
    assert [ask(page, "v.scene.title.split(':')[0]") for page in training] == ["Ring of 8", "Moons"]
    fresh = visit("train", drawn=False)
    assert fresh.locator("canvas").count() == 0
    closed(server, before, [*training, fresh])


@pytest.mark.slow
def test_seven_visitors_are_answered_while_three_train(server: tuple[str, int], visit: Visit) -> None:
    """How fast is measured by `python -m benchmarks.app`."""
    before = workers(server)
    training = []
    for data in ("Ring+of+8", "Moons", "Spiral"):
        training.append(visit(f"train?steps=12%2C000&data={data}", drawn=False))
        begun(training[-1])
    others = [visit("?v=1&play=0") for _ in range(7)]
    for page in others:
        page.get_by_text("Checkerboard", exact=True).click()
        wait(page, "v.scene.title.startsWith('Checkerboard')")
    assert workers(server) == before + 3
    closed(server, before, [*training, *others])


@pytest.mark.parametrize(
    "teacher",
    [pytest.param(name, marks=pytest.mark.slow) for name in ("Preset", "ODE of the zoo")] + ["Your points", "Your ODE"],
)
def test_a_narrow_screen_needs_no_scrolling_sideways(visit: Visit, teacher: str) -> None:
    page = visit(f"train?teacher={teacher.replace(' ', '+')}", drawn=False)
    page.set_viewport_size({"width": 400, "height": 800})
    page.wait_for_function("innerWidth === 400 && document.documentElement.scrollWidth <= 400", polling=POLLING)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert page.errors == []


@pytest.mark.parametrize(
    "params", ["seed=-5&steps=zzz&grid=-1", "teacher=Your+points&points=!!!", "teacher=Your+ODE&equations=%00", "v=9"]
)
def test_absurd_addresses_leave_a_page(visit: Visit, params: str) -> None:
    page = visit(f"train?{params}", drawn=False)
    assert page.locator('[data-testid="stException"]').count() == 0
    assert page.errors == []
