"""What a GPU computes is what the CPU does: python -m pytest -m gpu, some three minutes.

Batches are drawn from the CPU's random numbers on either side, and float32 is not rounded to TF32 unless a test says
so. Two ways of adding up differ by some 1e-7 of a first loss, and by 1e-5 after a few steps of Adam, whose first
updates are of one size however small the gradient; bfloat16 on the CPU by 2e-3.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pidlearn as pid
from pidlearn.cli import commands
from pidlearn.cli.main import main
from pidlearn.methods import METHODS
from pidlearn.utils.overrides import overridden, tf32
from pidlearn.utils.random import seeded
from tests.tiny import recipe, teacher

DEVICE = "cuda"

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.filterwarnings("default"),  # of kernels and compilers, which differ from GPU to GPU
]

SHORT: dict[str, Any] = {"steps": 4, "batch_size": 8, "n": 10, "lr": 1e-4}
LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])


@pytest.fixture(autouse=True)
def full_float32() -> Iterator[None]:
    with overridden(tf32(False)):
        yield


def losses(device: str = DEVICE, of: dict[str, Any] | None = None, **choices: Any) -> np.ndarray:
    run = pid.steps(teacher(label_dim=3, **of or {}).to(device), **{**SHORT, **choices})
    run.trainer.generator = torch.Generator().manual_seed(0)
    assert next(run.student.parameters()).device.type == torch.device(device).type
    return np.array([step.loss for step in run])


def on_device(module: nn.Module) -> bool:
    return all(tensor.device.type == torch.device(DEVICE).type for tensor in module.state_dict().values())


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("derivative", ["forward", "central", "exact"])
@pytest.mark.parametrize("of", [{}, {"model_type": "DhariwalUNet", "model_channels": 64}], ids=["SongUNet", "Dhariwal"])
def test_losses_are_the_cpu_s(derivative: str, of: dict[str, Any]) -> None:
    here, there = (losses(device, of, derivative=derivative) for device in ("cpu", DEVICE))
    np.testing.assert_allclose(there[0], here[0], rtol=5e-5)
    np.testing.assert_allclose(there, here, rtol=5e-4)


FLOW_MAPS = [f"flow_map {identity}" for identity in ("eulerian", "semigroup", "meanflow")]
PAIRS: dict[str, dict[str, Any]] = {name: {"pairs": 16} for name in ("endpoint", "reflow", "dsno")}


@pytest.mark.parametrize("name", [*METHODS, *FLOW_MAPS])
def test_every_method_computes_what_the_cpu_does_and_draws_there(name: str) -> None:
    method, *identity = name.split()
    settings = {"method": method, **PAIRS.get(method, {}), "steps": 8}
    if identity:
        settings |= {"identity": identity[0], "points": "data", "n": 9}
    if METHODS[method](**{"points": "data"} if identity else {}).needs == "data":
        settings["data"] = noise(16, 1, 8, 8), LABELS.repeat(2)
    here, there = (losses(device, **settings) for device in ("cpu", DEVICE))
    np.testing.assert_allclose(there[0], here[0], rtol=1e-3)
    np.testing.assert_allclose(there, here, rtol=2e-2)
    result = pid.distill(teacher(label_dim=3).to(DEVICE), **{**SHORT, **settings}, progress=False)
    assert np.isfinite(result.history["loss"]).all()
    assert on_device(result.student)


@pytest.mark.parametrize(
    ("bound", "choices"),
    [(0.005, {"precision": "tf32"}), (0.01, {"precision": "bfloat16", "derivative": "exact"})],
    ids=["tf32", "bfloat16"],
)
def test_fewer_digits_are_near(bound: float, choices: dict[str, Any]) -> None:
    exact = losses(**{**choices, "precision": "float32"})
    np.testing.assert_allclose(losses(**choices), exact, rtol=bound)


@pytest.mark.parametrize(
    "choices",
    [
        {"recompute": True, "micro_batch": 3},
        {"compile": "inductor", "of": {"channel_mult": [1], "attn_resolutions": [8]}},
        {"optimizer": "radam", "micro_batch": 8},
        {"optimizer": "muon", "micro_batch": 8},
    ],
    ids=["recomputed in parts", "compiled", "radam", "muon"],
)
def test_how_it_is_computed_changes_nothing(choices: dict[str, Any]) -> None:
    plain = {name: choice for name, choice in choices.items() if name not in pid.Config.EXECUTION}
    np.testing.assert_allclose(losses(**choices), losses(**plain), rtol=5e-4)


@pytest.mark.parametrize("first", ["cpu", DEVICE])
@pytest.mark.parametrize("then", ["cpu", DEVICE])
def test_a_run_goes_on(first: str, then: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    choices = {**SHORT, "ema": (0.9,), "checkpoints": tmp_path, "save_every": 1, "progress": False}
    begun = pid.distill(teacher().to(first), callbacks=[lambda step: step.number == 2], **choices).history["loss"]
    found = pid.distill(teacher().to(then), **choices).history["loss"]
    np.testing.assert_array_equal(found[:2], begun)
    choices.pop("checkpoints")
    whole = pid.distill(teacher().to(then), **choices).history["loss"]
    # Another kind of device draws other batches.
    np.testing.assert_allclose(found, whole, rtol=1e-4 if first == then else 0.5)


def test_an_exact_derivative_is_that_of_float64() -> None:
    denoiser = teacher(label_dim=3).to(DEVICE)
    run = pid.steps(denoiser, derivative="exact", **SHORT)
    for _ in run:
        pass
    grid, z, index = pid.karras_grid(10), 80 * noise(8, 1, 8, 8), torch.arange(8)
    found = []
    for device, dtype in ((DEVICE, torch.float32), ("cpu", torch.float64)):
        student, ode = (copy.deepcopy(net).to(device, dtype) for net in (run.student, denoiser))
        inputs = [z.to(device, dtype), grid, index.to(device)]
        options = {"derivative": "exact", "class_labels": LABELS.to(device)}
        found.append(pid.pid_loss(student, pid.DenoiserODE(ode), *inputs, **options).detach().cpu().double())
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-6)


@pytest.mark.skipif(not (find_spec("lpips") and find_spec("torchvision")), reason="no lpips")
@pytest.mark.parametrize("chunk", [None, 3])
def test_lpips_is_the_cpu_s(chunk: int | None) -> None:
    distance = pid.LPIPS("alex", weights="random", resize=64, chunk=chunk)
    a, b = noise(2, 8, 3, 32, 32).tanh()
    found = []
    for device in ("cpu", DEVICE):
        x = a.to(device).requires_grad_()
        d = distance.to(device)(x, b.to(device))
        found.append((d.detach().cpu(), *(g.cpu() for g in torch.autograd.grad(d.sum(), x))))
    (d, slope), (d_there, slope_there) = found
    torch.testing.assert_close(d_there, d, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(slope_there, slope, rtol=0, atol=1e-3 * slope.abs().max().item())


def test_samples_are_the_cpu_s() -> None:
    student = pid.steps(teacher(label_dim=3), steps=1).student
    at_home = student.sample(8, LABELS, torch.Generator().manual_seed(1))
    there = student.to(DEVICE).sample(8, LABELS, torch.Generator().manual_seed(1))
    torch.testing.assert_close(there.cpu(), at_home, rtol=1e-4, atol=1e-4)
    own = student.sample(8, generator=torch.Generator(DEVICE).manual_seed(1))
    assert own.device == there.device
    assert own.isfinite().all()


def test_a_result_is_the_same_after_it_was_saved(tmp_path: Path) -> None:
    denoiser = teacher(label_dim=3).to(DEVICE)
    result = pid.distill(denoiser, track_error=8, ema=(0.9,), progress=False, **SHORT)
    assert on_device(result.student)
    again = pid.load(result.save(tmp_path / "student.safetensors"), denoiser)
    assert on_device(again.student)
    figures = result.evaluate(32)
    assert again.evaluate(32) == pytest.approx(figures, rel=1e-3, abs=1e-5)
    result.plot(tmp_path / "plot.png")
    assert result.watch()._repr_html_()
    alone = pid.load(tmp_path / "student.safetensors", teacher(label_dim=3))
    assert alone.evaluate(32)["relative_rmse"] == pytest.approx(figures["relative_rmse"], rel=1e-3)


def test_a_teacher_is_trained_as_on_the_cpu() -> None:
    images, labels = noise(64, 1, 8, 8).tanh(), torch.arange(64) % 3
    sigma = torch.linspace(0.1, 10, 8)
    found = []
    for device in ("cpu", DEVICE):
        torch.manual_seed(0)
        options = {"model_channels": 16, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [4]}
        network = pid.nets.SongUNet(8, 1, 1, 3, dropout=0.0, **options).to(device)
        how: dict[str, Any] = {"steps": 5, "batch_size": 16, "lr": 1e-4, "progress": False}
        denoiser = pid.train_denoiser(images.to(device), labels.to(device), network, **how)
        x, *rest = (given.to(device) for given in (images[:8], sigma, LABELS))
        found.append(denoiser(x, *rest).cpu())
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=2e-3)


def test_dropout_is_of_the_seed() -> None:
    """The numbers belong to a run's rows, so that it can be repeated, and the caller's own are let alone."""

    def trained() -> Tensor:
        torch.manual_seed(0)
        options = {"model_channels": 8, "channel_mult": [1], "num_blocks": 1, "attn_resolutions": []}
        network = pid.nets.SongUNet(8, 1, 1, dropout=0.5, **options).to(DEVICE)
        how: dict[str, Any] = {"steps": 3, "batch_size": 16, "lr": 1e-4, "progress": False}
        return pid.train_denoiser(noise(64, 1, 8, 8), None, network, **how)(noise(4, 1, 8, 8).to(DEVICE), 1.0)

    first = trained()
    torch.rand(9, device=DEVICE)
    torch.testing.assert_close(trained(), first, rtol=0, atol=1e-4)
    torch.manual_seed(3)
    expected = torch.rand(5, device=DEVICE)
    torch.manual_seed(3)
    with seeded(0):
        torch.rand(5, device=DEVICE)
    assert torch.equal(torch.rand(5, device=DEVICE), expected)


def test_half_precision_of_a_published_teacher_is_near() -> None:
    x, sigma = 2 * noise(8, 1, 8, 8), torch.full((8,), 2.0)
    half = teacher(use_fp16=True).to(DEVICE)(x.to(DEVICE), sigma.to(DEVICE)).cpu()
    torch.testing.assert_close(half, teacher()(x, sigma), rtol=0, atol=0.01)


def test_formulas_are_asked_where_the_student_is() -> None:
    network = pid.nets.MLP(2, width=16, depth=2, fourier=8).to(DEVICE)
    result = pid.distill(pid.toy("ring"), network, progress=False, **SHORT)
    assert on_device(result.student)
    assert np.isfinite(list(result.evaluate(64).values())).all()
    data = pid.EmpiricalDenoiser(noise(64, 1, 4, 4).to(DEVICE), 0.1)
    assert data.sample(3).device == data.device
    assert on_device(pid.distill(data, progress=False, **SHORT).student)
    denoiser = teacher().to(DEVICE)
    own = pid.distill(
        lambda x, sigma: denoiser(x, sigma),
        copy.deepcopy(denoiser.model).requires_grad_(),
        event_shape=(1, 8, 8),
        progress=False,
        **SHORT,
    )
    assert on_device(own.student)
    means = noise(3, 2)
    torch.testing.assert_close(pid.GaussianMixture(means.to(DEVICE), 0.1).means, means.double())


def test_an_ode_of_a_network(tmp_path: Path) -> None:
    class Turning(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rate = nn.Parameter(torch.ones(2))

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return self.rate * torch.stack([x[:, 1], -x[:, 0]], 1)

    def box(n: int, generator: torch.Generator | None = None) -> Tensor:
        return torch.rand(n, 2, generator=generator)

    field = pid.VelocityODE(Turning().to(DEVICE))
    options: dict[str, Any] = {"t_start": 0.0, "t_end": 1.0, "windows": 2, "steps": 60, "batch_size": 16}
    result = pid.distill(field, prior=box, progress=False, **options)
    assert on_device(result.student)
    assert result.evaluate(16)["relative_rmse"] < 1
    result.plot(tmp_path / "plot.png")


@pytest.mark.skipif(not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="torch before 2.9")
def test_precision_told_by_torch_s_newer_flags() -> None:
    """Once they are set, the older ones cannot be read."""
    with overridden(tf32(True)):
        found = losses(steps=1)
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    np.testing.assert_allclose(found, losses(steps=1), rtol=1e-6)


def test_the_command_line(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    source, out = recipe(tmp_path), tmp_path / "run"
    student, their = str(out / "student.safetensors"), str(out / "teacher.safetensors")
    assert main(["distill", str(source), "--device", DEVICE, "--out", str(tmp_path / "none"), "--dry-run"]) == 0
    assert main(["distill", str(source), "--device", DEVICE, "--out", str(out), "--reference", "8"]) == 0
    assert main(["distill", str(source), "--device", DEVICE, "--out", str(out)]) == 0  # nothing is left to do
    options = ["--teacher", their, "--device", DEVICE]
    assert main(["sample", student, "-n", "4", "-o", str(tmp_path / "samples.png"), *options]) == 0
    there, here = (commands.evaluate(student, teacher=their, n=80, real="digits", device=d) for d in (DEVICE, "cpu"))
    assert there == pytest.approx(here, rel=2e-2)
