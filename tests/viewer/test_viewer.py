"""The viewer in a real browser: what it computes is what the library computes, and what is dragged moves."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import pidlearn as pid
from pidlearn.viewer import Heat, Images, Plane, Scene, View
from pidlearn.viewer.build import network
from tests.browser import ask, chromium, wait

Z = 80 * torch.randn(40, 2, generator=torch.Generator().manual_seed(3))
SKEW = pid.toy("anisotropic")


def student(boundary: str = "hard") -> pid.Trajectory:
    torch.manual_seed(1)
    net = pid.nets.MLP(2, width=16, depth=3, fourier=8)
    for weight in net.body.out.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return pid.Trajectory(net, sigma_data=SKEW.std, boundary=boundary)


@cache
def watched(boundary: str = "hard") -> Scene:
    return pid.watch(SKEW, student(boundary), starts=Z)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def window(browser: Any) -> Any:
    """The one page that shows nearly all scenes: a new one for each would cost more than what it draws."""
    return new_page(browser, viewport={"width": 900, "height": 800})


def new_page(browser: Any, **options: Any) -> Any:
    page = browser.new_page(**options)
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("console", lambda said: page.errors.append(said.text) if said.type == "error" else None)
    page.on("request", lambda r: None if r.url.startswith(("file:", "about:")) else page.errors.append(r.url))
    return page


Opened = Callable[..., Any]


@pytest.fixture
def opened(window: Any, tmp_path: Path) -> Iterator[Opened]:
    """Opens a scene, without motion, which costs a processor core where there is no GPU, and returns the page."""

    def show(scene: Scene, page: Any = window, **media: Any) -> Any:
        page.emulate_media(**{"reduced_motion": "reduce", "color_scheme": "light"} | media)
        page.goto(scene.save(tmp_path / "scene.html").as_uri())
        wait(page)
        return page

    window.errors.clear()
    yield show
    window.goto("about:blank")  # ends animations


def array(page: Any, question: str) -> np.ndarray:
    return np.array(ask(page, f"[...{question}]")).reshape(-1, 2)


@pytest.mark.parametrize("boundary", ["hard", "increment", "soft", "signal"])
def test_the_student_in_the_browser_is_the_student(opened: Opened, boundary: str) -> None:
    ours = student(boundary)
    page = opened(watched(boundary).seen(View(play=False)))
    for frame in (0, 25, 60):
        t = ask(page, f"v.model.times[{frame}]")
        found = array(page, f"v.model.cloud(v.model.panels[0], v.view, v.model.times[{frame}])")
        with torch.no_grad():
            expected = ours.double()(Z.double(), t).numpy()
        np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-6)
    assert page.errors == []


@pytest.mark.parametrize(("method", "n"), [("euler", 10), ("heun", 18), ("euler", 250)])
def test_the_solvers_in_the_browser_are_the_solvers(opened: Opened, method: str, n: int) -> None:
    page = opened(watched().seen(View(n=n, solver=method, play=False)))
    found = array(page, "v.model.teacher(v.view).end()")
    expected = pid.solve(pid.DenoiserODE(SKEW), Z.double(), pid.karras_grid(n), method)[-1]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-9)


def test_figures_are_the_library_s(opened: Opened) -> None:
    from pidlearn.evaluation.metrics import rmse, wrong_mode_share

    ours = student()
    page = opened(watched().seen(View(n=10, solver="euler", play=False)))
    shown = ask(
        page, "(({wrong, ...rest}) => ({...rest, wrong: wrong.size}))(v.model.metrics(v.model.panels[0], v.view))"
    )
    ode = pid.DenoiserODE(SKEW)
    with torch.no_grad():
        x = ours(Z, 0.002).double()
    euler = pid.solve(ode, Z.double(), pid.karras_grid(10))[-1]
    exact = pid.solve(ode, Z.double(), [80.0, 0.002], "scipy", rtol=1e-9, atol=1e-9)[-1]
    assert shown["toTeacher"] == pytest.approx(rmse(x, euler), rel=1e-4)
    assert shown["toExact"] == pytest.approx(rmse(x, exact), rel=1e-3)
    assert shown["teacherToExact"] == pytest.approx(rmse(euler, exact), rel=1e-3)
    assert shown["wrong"] == round(40 * wrong_mode_share(x, euler, SKEW))
    assert f"{shown['wrong']} of 40 samples in a different mode than Euler-10" in page.inner_text(".summary")


@pytest.mark.parametrize("alone", [False, True], ids=["recorded student", "teacher alone"])
def test_teachers_are_free_to_explore_only_as_far_as_their_students(opened: Opened, alone: bool) -> None:
    """A student that the browser cannot evaluate has recorded paths alone, and a drag picks the nearest of them."""

    class Other(torch.nn.Module):
        def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
            return x * time[:, None].cos()

    other = None if alone else pid.Trajectory(Other(), sigma_data=SKEW.std)
    page = opened(pid.watch(SKEW, other, starts=Z, view=View(frame=60, play=False)))
    ask(page, "v.setProbe([100, 20])")
    wait(page, "v.drawn > 1 && !v.pending")
    assert page.errors == []
    nearest = Z[(Z - torch.tensor([100.0, 20.0])).norm(dim=1).argmin()].tolist()
    expected = [100, 20] if alone else nearest
    assert ask(page, "v.view.probe") == pytest.approx(expected, rel=1e-5)
    exact = pid.solve(pid.DenoiserODE(SKEW), torch.tensor([expected]).double(), [80.0, 0.002], "scipy")[-1, 0]
    found = ask(page, "[...v.model.single(v.model.panels[0], v.view, v.view.probe)[0][60]]")
    np.testing.assert_allclose(found, exact.numpy(), atol=2e-3)


def test_a_handover_walks_on_from_the_student(opened: Opened) -> None:
    ours = student()
    scene = watched()
    handing = Scene(
        scene.title, scene.times, [Plane("", network(ours), handover=True)], scene.starts, scene.mixture, scene.exact,
        scene.sigma_data, view=View(handover=30, steps=5, play=False),
    )  # fmt: skip
    page = opened(handing)
    t = scene.times[30]
    with torch.no_grad():
        jump = ours.double()(Z.double(), t)
    expected = pid.solve(pid.DenoiserODE(SKEW), jump, pid.karras_grid(6, 0.002, t), "heun")[-1]
    found = array(page, "v.model.cloud(v.model.panels[0], v.view, v.model.times[60])")
    np.testing.assert_allclose(found, expected.numpy(), atol=2e-5)
    assert "11 calls" in page.inner_text(".summary")


def pixels(page: Any) -> np.ndarray:
    png = base64.b64decode(ask(page, "v.canvas.toDataURL()").split(",")[1])
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def test_dragging_n_time_and_the_noise_point_changes_the_picture(opened: Opened) -> None:
    page = opened(watched().seen(View(frame=60, play=False)))
    seen = [pixels(page)]

    def changed() -> None:  # pictures only move in a frame, which a gesture asks for at once
        wait(page, "!v.pending")
        seen.append(pixels(page))
        assert (seen[-1] != seen[-2]).mean() > 1e-4

    page.locator('[data-act="n"]').fill("2")
    changed()
    assert ask(page, "[v.view.n, v.view.solver]") == [4, "euler"]
    page.locator('[data-act="time"]').fill("20")
    changed()
    box = page.locator("canvas").bounding_box()
    page.mouse.move(box["x"] + 300, box["y"] + 200)
    page.mouse.down()
    page.mouse.move(box["x"] + 520, box["y"] + 320, steps=4)
    page.mouse.up()
    changed()
    page.locator("canvas").press("r")
    changed()
    assert ask(page, "v.view.raw") is True
    page.locator("canvas").press("Shift+ArrowLeft")
    changed()
    assert page.errors == []


def test_it_plays_by_itself(opened: Opened) -> None:
    page = opened(pid.watch(pid.toy("ring"), student(), starts=400), reduced_motion="no-preference")
    before = ask(page, "[v.drawn, v.u]")
    wait(page, f"v.drawn > {before[0] + 20} && v.u !== {before[1]}")


def test_it_stands_still_where_motion_is_not_wanted(opened: Opened) -> None:
    page = opened(watched(), reduced_motion="reduce")
    assert ask(page, "[v.playing, v.u - v.model.last]") == [False, 0]  # its end
    page.locator("canvas").press(" ")
    assert ask(page, "v.playing") is True


def test_light_and_dark(opened: Opened) -> None:
    scene = watched().seen(View(density=False, flow=False, play=False))
    light, dark = (pixels(opened(scene, color_scheme=scheme)).mean() for scheme in ("light", "dark"))
    assert light > 200 > 60 > dark


def test_a_film_rests_where_nobody_sees_it(opened: Opened) -> None:
    page = opened(watched(), reduced_motion="no-preference")
    page.evaluate("document.body.insertAdjacentHTML('afterbegin', '<div id=above style=\"height: 3000px\"></div>')")
    wait(page, "!v.visible")
    page.wait_for_timeout(300)
    drawn, u = ask(page, "[v.drawn, v.u]")
    page.wait_for_timeout(500)
    assert ask(page, "[v.drawn, v.u]") == [drawn, u]
    page.evaluate("document.getElementById('above').remove()")
    wait(page, f"v.drawn > {drawn} + 3 && v.u > {u}")
    assert page.errors == []


def test_a_row_of_the_heat_map_lights_its_path(opened: Opened) -> None:
    scene = watched()
    order = np.arange(40)[::-1].copy()
    heat = Heat("residual", np.random.default_rng(0).random((40, 61)), order, (0.0, 1.0))
    both = Scene(
        scene.title, scene.times, [scene.panels[0], heat], scene.starts, scene.mixture, scene.exact, scene.sigma_data,
        view=View(play=False),
    )  # fmt: skip
    page = opened(both)
    box = page.locator("canvas").bounding_box()
    page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + box["height"] - 25)  # above the axis of time
    wait(page, "v.view.row === 39")
    np.testing.assert_allclose(ask(page, "v.view.probe"), Z[0].numpy(), rtol=1e-5)
    page.locator("canvas").press("ArrowUp")
    assert ask(page, "v.view.row") == 38


def test_a_finger_drags_the_noise_point_and_scrolls_elsewhere(browser: Any, opened: Opened) -> None:
    phone = new_page(browser, viewport={"width": 400, "height": 500}, has_touch=True, is_mobile=True)
    page = opened(watched().seen(View(probe=(0.0, 0.0), play=False, trails=False)), phone)
    finger = page.context.new_cdp_session(page)

    def swipe(x: float, y: float, dx: float, dy: float) -> None:
        for kind, share in [("touchStart", 0.0), *[("touchMove", i / 10) for i in range(1, 11)]]:
            points = [{"x": x + share * dx, "y": y + share * dy}]
            finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        # A finger that rests before it is lifted leaves no page in motion, on which the next tap would only stop it.
        page.wait_for_timeout(150)
        finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    box = page.locator("canvas").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    swipe(x, y, 0, -100)
    wait(page, "v.view.probe[1] > 30 && !v.pending")
    probe = ask(page, "v.view.probe")
    assert abs(probe[0]) < 5
    assert page.evaluate("scrollY") == 0
    swipe(x - 120, y + 100, 0, -100)
    wait(page, "scrollY > 30")
    assert ask(page, "v.view.probe") == probe
    page.evaluate("scrollTo(0, 0)")
    page.touchscreen.tap(x - 100, y + 60)
    wait(page, "v.view.probe[0] < -30")
    page.context.close()


def test_recorded_paths_and_images_draw(opened: Opened) -> None:
    paths = pid.watch(pid.system("pendulum"), starts=10)
    page = opened(paths)
    np.testing.assert_allclose(array(page, "v.model.exact.end()"), paths.exact[-1], atol=1e-3)
    assert pixels(page).std() > 5
    frames = np.random.default_rng(0).integers(0, 255, (5, 3, 8, 8), np.uint8)
    page = opened(Scene("noise", np.linspace(0, 1, 5), [Images("", {"one": frames})]))
    assert pixels(page).std() > 5
    assert page.errors == []


@pytest.mark.parametrize("evil", ["</script><img src=x onerror=alert(1)>", "<!-- <script>", "\u2028 ' \" \\ `${1}"])
def test_text_of_a_scene_is_text(opened: Opened, evil: str) -> None:
    scene = Scene(evil, np.linspace(1, 0, 5), [Plane(evil)], np.zeros((1, 2)), caption=evil, exact=np.zeros((5, 1, 2)))
    page = opened(scene)
    assert ask(page, "v.scene.title") == evil
    assert page.locator("img").count() == 0
    assert page.errors == []
