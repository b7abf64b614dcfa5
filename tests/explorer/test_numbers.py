"""The explorer's mathematics, run in a browser, compared with the library's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

import pidlearn as pid
from pidlearn.losses.distances import pseudo_huber
from pidlearn.training.muon import Muon
from pidlearn.training.optim import MATRIX_LR, OptimizerConfig, schedule

PRESETS = ["ring", "grid", "checkerboard", "moons", "spiral"]


@pytest.fixture(scope="module")
def page(browser: Any, site: str) -> Iterator[Any]:
    page = browser.new_page()
    page.goto(site + "explorer.css")  # any file of the same origin: the modules are imported alone
    yield page
    page.close()


def run(page: Any, modules: dict[str, str], body: str, **values: Any) -> Any:
    """Run JavaScript with names from modules; typed arrays come back as lists."""
    imports = "".join(f"const {{{names}}} = await import('/explorer/{file}.js');" for file, names in modules.items())
    return page.evaluate(f"async (given) => {{ {imports} {body} }}", values)


def test_presets_are_the_library_s(page: Any) -> None:
    x = (3 * torch.randn(40, 2, dtype=torch.float64)).tolist()
    sigmas = [0.002, 0.05, 0.5, 3.0, 80.0]
    found = run(
        page,
        {"teacher": "Mixture", "presets": "PRESETS"},
        """return Object.entries(PRESETS).map(([name, {means, std}]) => {
             const mixture = new Mixture(means, std), d = [0, 0];
             const at = (sigma) => given.x.map(([x, y]) => (mixture.denoise(x, y, sigma, d), [...d]));
             return [name, mixture.std, given.sigmas.map(at)];
           })""",
        x=x,
        sigmas=sigmas,
    )
    assert [name for name, *_ in found] == PRESETS
    for name, std, denoised in found:
        toy = pid.toy(name)
        assert std == pytest.approx(toy.std, abs=1e-12)
        expected = [toy.denoise(torch.tensor(x, dtype=torch.float64), sigma).tolist() for sigma in sigmas]
        np.testing.assert_allclose(denoised, expected, atol=1e-10)


def test_grid_and_euler_are_the_library_s(page: Any) -> None:
    z = 80 * torch.randn(16, 2, dtype=torch.float64)
    found = run(
        page,
        {"teacher": "Mixture, euler, karrasGrid", "presets": "PRESETS"},
        """const grid = karrasGrid(50), {means, std} = PRESETS.moons;
           return [[...grid], [...euler(new Mixture(means, std), Float64Array.from(given.z), grid)]]""",
        z=z.flatten().tolist(),
    )
    grid = pid.karras_grid(50)
    np.testing.assert_allclose(found[0], grid, rtol=1e-12)
    path = pid.solve(pid.DenoiserODE(pid.toy("moons")), z, grid, "euler")
    np.testing.assert_allclose(np.reshape(found[1], path.shape), path, atol=1e-9)


def test_relative_error_is_the_library_s(page: Any) -> None:
    from pidlearn.evaluation.metrics import relative_rmse

    a, b = torch.randn(2, 50, 2, dtype=torch.float64) + 3
    found = run(page, {"teacher": "relativeError"}, "return relativeError(given.a, given.b)",
                a=a.flatten().tolist(), b=b.flatten().tolist())  # fmt: skip
    assert found == pytest.approx(relative_rmse(a, b), rel=1e-9)


def test_times_are_drawn_as_often_as_the_library_draws_them(page: Any) -> None:
    from pidlearn.losses.time_sampling import lognormal

    found = run(
        page,
        {"loss": "TimeSampler", "teacher": "karrasGrid", "random": "Random"},
        """const index = new Int32Array(20000);
           new TimeSampler(karrasGrid(50), 0.7).draw(index, new Random(1));
           return [...index]""",
    )
    density = lognormal(pid.karras_grid(50)[:-1], 0.7)
    expected = 20000 * (density / density.sum()).numpy()
    # Draws are stratified, so each count is off by two at most.
    np.testing.assert_allclose(np.bincount(found, minlength=49), expected, atol=2)


def test_noise_is_standard_normal(page: Any) -> None:
    found = np.array(run(page, {"random": "noise"}, "return [...noise(20000, 1, 5)]"))
    assert found.mean() == pytest.approx(0, abs=0.02)
    assert found.std() == pytest.approx(1, abs=0.02)
    assert (found**4).mean() == pytest.approx(3, abs=0.15)
    assert np.corrcoef(found[::2], found[1::2])[0, 1] == pytest.approx(0, abs=0.02)


ONE_STEP = """
const reference = new Reference(new Mixture(PRESETS.ring.means, PRESETS.ring.std), 250);
const training = new Training(makeKernel(given.simd), reference, { steps: 1000, seed: 3 });
const { network } = training.student;
const random = new Random(4);
const { shapes } = network;
// Nothing is zero, as the output layer is before training, but what pads it to four.
for (const { name, weight: [from, to], bias: [, end] } of shapes) {
  if (name === "out") for (let i = from; i < end; i++) network.weights[i] = i % 4 < 2 ? 0.3 * random.normal() : 0;
}
const before = [...network.weights];
const loss = training.step();
return {
  simd: training.optimizer.kernel.simd, loss, before, shapes, frequencies: [...network.frequencies],
  gradients: [...network.gradients], after: [...network.weights], z: [...training.z], index: [...training.index],
  error: training.error(), reference: [...reference.z], noise: network.noise, harmonics: network.harmonics,
};
"""


@pytest.fixture(scope="module", params=[True, False], ids=["SIMD", "plain JavaScript"])
def one_step(page: Any, request: pytest.FixtureRequest) -> dict[str, Any]:
    modules = {
        "teacher": "Mixture", "presets": "PRESETS", "kernel": "makeKernel", "training": "Reference, Training",
        "random": "Random",
    }  # fmt: skip
    found: dict[str, Any] = run(page, modules, ONE_STEP, simd=request.param)
    assert found["simd"] is request.param
    return found


def matrices(step: dict[str, Any], values: list[float]) -> list[torch.Tensor]:
    """The browser's weights or gradients in the order and layout of the torch network's parameters."""
    fourier, h, noise = len(step["frequencies"]) // 2, step["harmonics"], step["noise"]
    # Torch joins x, the time, all cosines, all sines; the browser keeps what depends on the noise in front.
    columns = [
        *(0, 1), noise, *range(2, 2 + fourier), *range(noise + 1, noise + 1 + h),
        *range(2 + fourier, 2 + 2 * fourier), *range(noise + 1 + h, noise + 1 + 2 * h),
    ]  # fmt: skip
    parts = []
    for shape in step["shapes"]:
        weight = torch.tensor(values[slice(*shape["weight"])], dtype=torch.float64)
        weight = weight.reshape(shape["inputs"], shape["outputs"]).T.contiguous()
        bias = torch.tensor(values[slice(*shape["bias"])], dtype=torch.float64)
        if shape["name"] == "first":
            weight = weight[:, columns]
        rows = 2 if shape["name"] == "out" else len(bias)
        parts += [weight[:rows], bias[:rows]]
    return parts


def trajectory(step: dict[str, Any], values: list[float]) -> tuple[pid.Trajectory, list[torch.nn.Parameter]]:
    """The student in torch, and its parameters in the browser's order."""
    width, depth = step["shapes"][0]["outputs"], len(step["shapes"]) - 1
    net = pid.nets.MLP(2, width, depth, fourier=len(step["frequencies"]) // 2, harmonics=step["harmonics"]).double()
    net.frequencies.copy_(torch.tensor(step["frequencies"], dtype=torch.float64).reshape(2, -1))
    layers = [net.first, *net.body.hidden, net.body.out]
    parameters = [p for layer in layers for p in (layer.weight, layer.bias)]
    with torch.no_grad():
        for p, value in zip(parameters, matrices(step, values), strict=True):
            p.copy_(value)
    return pid.Trajectory(net, sigma_data=pid.toy("ring").std), parameters


def test_loss_and_gradients_are_torch_s(one_step: dict[str, Any]) -> None:
    student, parameters = trajectory(one_step, one_step["before"])
    z = torch.tensor(one_step["z"], dtype=torch.float64).reshape(-1, 2)
    loss = pid.pid_loss(
        student, pid.DenoiserODE(pid.toy("ring")), z, pid.karras_grid(250), torch.tensor(one_step["index"]),
        distance=pseudo_huber,
    ).mean()  # fmt: skip
    loss.backward()
    assert one_step["loss"] == pytest.approx(loss.item(), rel=1e-5)
    for p, found in zip(parameters, matrices(one_step, one_step["gradients"]), strict=True):
        assert p.grad is not None
        assert (found - p.grad).norm() <= 1e-5 * p.grad.norm()


def test_a_step_is_muon_s(one_step: dict[str, Any]) -> None:
    _, parameters = trajectory(one_step, one_step["before"])
    for p, gradient in zip(parameters, matrices(one_step, one_step["gradients"]), strict=True):
        p.grad = gradient
    rate = 3e-3 * (5500 / 1000) ** 0.5 * schedule(OptimizerConfig(steps=1000), 0, 1000)
    Muon(parameters, rate, matrix_lr=MATRIX_LR * rate).step()
    for p, found in zip(parameters, matrices(one_step, one_step["after"]), strict=True):
        np.testing.assert_allclose(found, p.detach(), atol=1e-6)


def test_the_error_is_that_of_the_student_in_torch(one_step: dict[str, Any]) -> None:
    from pidlearn.evaluation.metrics import relative_rmse

    student, _ = trajectory(one_step, one_step["after"])
    z = torch.tensor(one_step["reference"], dtype=torch.float64).reshape(-1, 2)
    end = pid.solve(pid.DenoiserODE(pid.toy("ring")), z, pid.karras_grid(250))[-1]
    with torch.no_grad():
        assert one_step["error"] == pytest.approx(relative_rmse(student(z, 0.002), end), rel=1e-5)


def test_the_recipe_is_the_library_s(page: Any) -> None:
    from pidlearn.config import resolve_settings
    from pidlearn.equations.from_teacher import problem_from_teacher

    problem = problem_from_teacher(pid.toy("ring"))
    steps = [300, 1000, 4000, 20000]
    found = run(page, {"training": "peakRate"}, "return given.steps.map(peakRate)", steps=steps)
    configs = [resolve_settings(problem, pid.Config(steps=s))[0] for s in steps]
    assert found == pytest.approx([config.lr for config in configs])
    config = configs[0]
    settings = (config.optimizer, config.batch_size, config.warmup, config.beta2, config.matrix_lr, config.ema)
    assert settings == ("muon", 256, 0.02, 0.99, None, ())
    assert (config.derivative, config.distance, config.time_sampling) == ("forward", "pseudo_huber", "lognormal")
