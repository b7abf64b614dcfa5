"""The app in a real browser, as a visitor has it."""

from __future__ import annotations

import csv
import io
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from tests.browser import PATIENCE, ask, chromium, wait

PAGES = ["", "residual", "break-it", "more-steps", "methods", "any-ode", "images"]
ROOT = Path(__file__).parents[2]
SCREEN = {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, int]]:
    """`pidlearn app` on a port of its own: its address and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--server.port", str(port), "--server.headless", "true"]
    command = [sys.executable, "-m", "streamlit", "run", str(ROOT / "app" / "main.py"), *options]
    # From elsewhere, as someone who has installed it would.
    process = subprocess.Popen(
        command,
        cwd="/",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PIDLEARN_NICE": "0"},
    )
    address = f"http://127.0.0.1:{port}"
    for _ in range(300):
        try:
            urllib.request.urlopen(f"{address}/_stcore/health", timeout=1)
            break
        except OSError:
            time.sleep(0.1)
    yield address, process.pid
    process.terminate()
    process.wait(10)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def visitors() -> list[Any]:
    """Pages, each of a visitor of its own, kept for later tests: a browser loads Streamlit the first time for long."""
    return []


Visit = Callable[..., Any]


@pytest.fixture
def visit(server: tuple[str, int], browser: Any, visitors: list[Any]) -> Iterator[Visit]:
    """Opens a path of the app for a visitor who is not here yet, and returns the page; ``pages`` holds all of them."""
    waiting = [page for page in visitors if not page.is_closed()]
    here: list[Any] = []

    def opened(path: str = "", drawn: bool = True) -> Any:
        if not waiting:
            waiting.append(visitor(browser, server[0]))
            visitors.append(waiting[0])
        page = waiting.pop(0)
        here.append(page)
        page.errors.clear()
        page.sent.clear()
        page.set_viewport_size(SCREEN)
        page.goto(path if path.startswith("http") else f"{server[0]}/{path}")
        if drawn:
            wait(page)
        else:
            page.get_by_role("button", name="Train", exact=True).wait_for()
        settle(page)
        assert page.get_by_role("dialog").count() == 0, page.get_by_role("dialog").inner_text()
        return page

    opened.pages = here  # type: ignore[attr-defined]  # what a failing test tells of
    yield opened
    for page in here:
        if not page.is_closed():
            page.goto("about:blank")


def visitor(browser: Any, address: str) -> Any:
    """A page as a visitor has it, but without motion, which costs a processor core where there is no GPU."""
    context = browser.new_context(viewport=SCREEN, accept_downloads=True, reduced_motion="reduce")
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.errors, page.sent = [], []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("request", lambda r: note_request(page, r.url, address))
    # Below an app's root Streamlit probes for its own root, and is told 404 on the way: not ours to count.
    page.on("console", lambda m: note_error(page, m))
    page.on("websocket", lambda s: s.on("framesent", lambda frame: page.sent.append(frame)))
    return page


def note_request(page: Any, url: str, address: str) -> None:
    host = address.split("/")[2]
    if not url.startswith(("data:", "blob:", "about:")) and url.split("/")[2] != host:
        page.errors.append(f"asked for {url}")


def note_error(page: Any, message: Any) -> None:
    url = message.location.get("url", "")
    if message.type == "error" and not ("404" in message.text and "/_stcore/" in url):
        page.errors.append(f"{message.text} {url}")


def settle(page: Any) -> None:
    page.wait_for_selector('[data-testid="stApp"][data-test-script-state="notRunning"]')


def picture(page: Any) -> np.ndarray:
    png = page.locator("canvas").first.screenshot()
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


@pytest.mark.parametrize("path", PAGES)
def test_every_page_draws_also_on_a_narrow_screen_stays_at_home_and_needs_no_torch(
    server: tuple[str, int], visit: Visit, path: str
) -> None:
    """The first pages that the server shows: some of the later tests take something along, which does need torch."""
    page = visit(path)
    assert picture(page).std() > 5
    assert page.locator('[data-testid="stException"]').count() == 0
    assert page.get_attribute("canvas", "aria-label")
    charts = page.locator('[data-testid="stVegaLiteChart"]')
    for chart in charts.all():
        chart.scroll_into_view_if_needed()
        chart.locator("canvas, svg").first.wait_for()
    assert page.errors == []
    page.set_viewport_size({"width": 400, "height": 800})
    wait(page, "v.canvas.clientWidth <= 400 && !v.pending")
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    box = page.locator("canvas").first.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 400
    maps = Path(f"/proc/{server[1]}/maps")
    if maps.exists():
        assert "libtorch" not in maps.read_text()


def test_n_moves_the_picture_without_the_server_and_then_the_address(visit: Visit) -> None:
    page = visit("?v=1&play=0&frame=60&n=250")
    before, sent = picture(page), len(page.sent)
    slider = page.locator('input[data-act="n"]')
    slider.evaluate("(e) => { e.value = 1; e.dispatchEvent(new Event('input', {bubbles: true})); }")
    wait(page, "v.view.n === 3 && !v.pending")
    assert (picture(page) != before).mean() > 1e-3
    assert len(page.sent) == sent  # all of it in the browser
    slider.evaluate("(e) => e.dispatchEvent(new Event('change', {bubbles: true}))")
    page.wait_for_url("**n=3**")
    assert len(page.sent) > sent


def test_a_copied_address_shows_the_same_to_someone_else(visit: Visit) -> None:
    page = visit()
    page.get_by_text("Checkerboard", exact=True).click()
    wait(page, "v.scene.title.startsWith('Checkerboard')")
    settle(page)
    page.locator("canvas").press("End")
    canvas = page.locator("canvas").bounding_box()
    page.mouse.move(canvas["x"] + 200, canvas["y"] + 150)
    page.mouse.down()
    page.mouse.move(canvas["x"] + 260, canvas["y"] + 240, steps=3)
    page.mouse.up()
    page.locator('select[data-act="solver"]').select_option("heun")
    if ask(page, "v.playing"):
        page.locator("canvas").press(" ")
    page.wait_for_url("**solver=heun**")
    page.wait_for_url("**z=**")
    page.wait_for_timeout(500)
    settle(page)
    asked = "({...v.view, u: Math.round(v.u), title: v.scene.title, playing: v.playing})"
    mine = ask(page, asked)
    other = visit(page.url)
    theirs = ask(other, asked)
    assert theirs.pop("probe") == pytest.approx(mine.pop("probe"), rel=1e-3)
    assert {**theirs, "play": 0, "frame": 0} == {**mine, "play": 0, "frame": 0}
    other.get_by_role("button", name="Reset").click()
    other.wait_for_url(lambda url: "solver" not in url)
    wait(other, "v.view.solver === 'euler' && v.view.n === 250")


def set_n(page: Any, position: int) -> None:
    page.locator('input[data-act="n"]').evaluate(
        f"(e) => {{ e.value = {position}; e.dispatchEvent(new Event('input', {{bubbles: true}}));"
        " e.dispatchEvent(new Event('change', {bubbles: true})); }"
    )


def test_the_choice_of_n_and_the_viewer_s_n_live_together(visit: Visit) -> None:
    page = visit("break-it?choice=N")
    page.get_by_role("radio", name="N = 35").click()
    wait(page, "v.scene.title.includes('N = 35')")
    settle(page)
    set_n(page, 1)
    page.wait_for_url(lambda url: "&n=3" in url and "changed-n=N+%3D+35" in url)
    other = visit(page.url)
    assert ask(other, "[v.view.n, v.scene.title.includes('N = 35')]") == [3, True]
    for one in (page, other):
        assert one.locator('[data-testid="stException"], [data-testid="stToast"]').count() == 0
        assert one.errors == []


def test_who_comes_back_finds_what_was_left(visit: Visit) -> None:
    page = visit("?v=1&play=0&n=6")
    set_n(page, 1)
    page.wait_for_url("**n=3**")
    settle(page)
    page.get_by_role("link", name="Images").click()
    wait(page, "v.scene.panels[0].type === 'images'")
    settle(page)
    assert "n=" not in page.url
    page.get_by_role("link", name="Watch").first.click()
    wait(page, "v.scene.panels[0].type === 'plane'")
    page.wait_for_url("**n=3**")
    assert ask(page, "v.view.n") == 3
    assert page.errors == []


def test_the_plane_and_the_picked_start_are_in_the_address(visit: Visit) -> None:
    page = visit("any-ode?system=Lorenz%2C+three&v=1&play=0")
    page.get_by_role("radio", name="b and c").click()
    wait(page, "v.scene.axes.join() === 'b,c'")
    settle(page)
    page.locator("canvas").first.press("Shift+ArrowRight")
    page.wait_for_url(lambda url: "plane=b+and+c" in url and "z=" in url)
    settle(page)
    other = visit(page.url)
    assert ask(other, "v.scene.axes.join()") == "b,c"
    assert ask(other, "v.view.probe") == pytest.approx(ask(page, "v.view.probe"), rel=1e-3)
    for one in (page, other):
        assert one.errors == []


def test_absurd_addresses_get_a_word_and_a_page(visit: Visit) -> None:
    page = visit("?v=1&n=1e99&z=inf,0&data=nonsense&solver=%00")
    assert page.locator('[data-testid="stToast"]').count() >= 1
    assert picture(page).std() > 5
    assert page.errors == []


@pytest.mark.parametrize(
    "crafted",
    ["?v=1&n=![](//a.co/b)&z=[a](//a.co)", "train?teacher=Your+ODE&equations=![x](http://198.51.100.7/a.png)+www.a.co"],
)
def test_a_crafted_address_can_say_nothing_of_its_own(visit: Visit, crafted: str) -> None:
    """What an address holds is told to the visitor as text: no image is fetched, and no link leads away."""
    page = visit(crafted, drawn="train" not in crafted)
    said = page.locator('[data-testid="stToast"], [data-testid="stAlert"]')
    said.first.wait_for()
    assert "](" in said.first.inner_text().replace("\u2060", "")
    assert said.locator("img, a").count() == 0
    assert page.errors == []


@pytest.mark.parametrize(
    "path",
    [
        "residual?row=9999",
        "images",
        *(
            pytest.param(path, marks=pytest.mark.slow)
            for path in ("?n=6", "break-it?choice=Boundary", "more-steps?handover=1000&k=4", "any-ode")
        ),
    ],
)
def test_every_view_can_be_taken_along(visit: Visit, tmp_path: Path, path: str) -> None:
    page = visit(f"{path}{'&' if '?' in path else '?'}v=1&play=0&frame=30")

    def saved(kind: str) -> Path:
        page.get_by_role("button", name="Save").click()
        with page.expect_download() as waiting:
            page.get_by_role("button", name=kind, exact=True).click()
        file = tmp_path / waiting.value.suggested_filename
        waiting.value.save_as(file)
        page.keyboard.press("Escape")
        return file

    assert np.asarray(Image.open(saved("PNG")).convert("L")).std() > 5
    assert ElementTree.parse(saved("SVG")).getroot().tag.endswith("svg")
    with Image.open(saved("GIF")) as film:
        assert film.n_frames > 10
    if path != "images":
        header, *rows = csv.reader(saved("CSV").read_text().splitlines())
        assert header[0].startswith("z ")
        assert header[-1] == "t"
        assert np.isfinite(np.array(rows, float)).all()
        assert len(rows) >= 48
    alone, title = saved("HTML"), ask(page, "v.scene.title")
    assert page.errors == []
    page.goto(alone.as_uri())
    wait(page)
    assert ask(page, "Math.round(v.u)") == 30
    assert ask(page, "v.scene.title") == title
