"""Each block of the guide to teachers, on small networks that are called as those of its project are."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

import pidlearn as pid
from pidlearn.nets.adapted import AdaptedStudent
from pidlearn.utils.optional_imports import package
from tests.teachers import edm_files
from tests.teachers.tiny import unet

PAGE = (Path(__file__).parents[2] / "tutorials/guides/teachers.md").read_text()
SECTIONS = PAGE.partition("## The lines for each source")[2].partition("\n## ")[0].split("\n### ")[1:]
BLOCKS = {
    section.partition("\n")[0]: block[1]
    for section in SECTIONS
    if (block := re.search(r"^```.*?\n(.*?teacher = .*?)^```", section, re.DOTALL | re.MULTILINE))
}
CALL = re.search(r"^class Call\(.*?(?=^```)", PAGE, re.DOTALL | re.MULTILINE)
ALPHAS = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
SIGMAS = ((1 - ALPHAS) / ALPHAS).sqrt()


class Net(nn.Module):
    """F(x, t, y), a function of all three; of one-hot labels if these are floating."""

    def __init__(self, outputs: int = 1, *, classes: bool = False) -> None:
        super().__init__()
        self.classes = classes
        self.weight = nn.Parameter(torch.tensor([0.7]))
        self.outputs = outputs

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        assert (y is not None) == self.classes
        label = 0 if y is None else (y if y.ndim == 1 else y.argmax(1)).reshape(-1, 1, 1, 1) / 1000
        # The time counts at any scale: 0.25, ln(3) / 4, 250 and 999 t all differ.
        out = torch.tanh(self.weight * x + t.reshape(-1, *[1] * (x.ndim - 1)).cos() + label)
        return torch.cat([out, out.exp()], 1)[:, : self.outputs * x.shape[1]]


class TimeFirst(Net):
    def forward(self, t: Tensor, x: Tensor) -> Tensor:  # type: ignore[override]  # torchcfm's order
        return super().forward(x, t)


class Extra(Net):
    def forward(self, x: Tensor, t: Tensor, extra: dict[str, Tensor]) -> Tensor:  # type: ignore[override]  # Meta's
        return super().forward(x, t, extra.get("label"))


class Small(Net):
    """smalldiffusion's Scaled(Unet): the scale of sigma broadcasts, and its embedding wants (B,)."""

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:  # type: ignore[override]  # no labels
        assert sigma.squeeze().shape == x.shape[:1]
        return super().forward(x * (1 / (1 + sigma**2)).sqrt(), sigma.squeeze())

    def predict_eps(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self(x, sigma)


def edm(net: Any, x: Tensor, s: Tensor, y: Any, time: Callable[[Tensor], Tensor], sd: float = 0.5) -> Tensor:
    """D of EDM's preconditioning, as these projects write it."""
    c_skip, c_out, c_in = sd**2 / (s**2 + sd**2), s * sd / (s**2 + sd**2) ** 0.5, 1 / (s**2 + sd**2) ** 0.5
    return c_skip * x + c_out * net(c_in * x, time(s.flatten()), *y)


def score_sde_vp(net: Any, x: Tensor, t: float) -> tuple[Tensor, float]:
    """x0 from Score-SDE's score -F / std at time t, and the sigma of that time."""
    log_mean = -0.25 * t**2 * 19.9 - 0.5 * t * 0.1
    mean, std = torch.tensor(log_mean).exp(), (1 - torch.tensor(2 * log_mean).exp()).sqrt()
    score = -net(mean * x, torch.tensor([999 * t])) / std
    return (mean * x + std**2 * score) / mean, (std / mean).item()


def one(sigma: float) -> Tensor:
    return torch.full((2, 1, 1, 1), sigma)


Y = torch.tensor([3, 999])
T_VP = 0.6
PROJECTS: dict[str, tuple[dict[str, Any], Any, float, tuple[int, ...]]] = {
    "EDM2": (
        {"net": SimpleNamespace(unet=(classes := Net(classes=True)))},
        lambda x, s: edm(classes, x, s, [one_hot(Y, 1000).float()], lambda s: s.log() / 4),
        3.0,
        (4, 64, 64),
    ),
    "OpenAI: consistency models, their EDM teachers": (
        {"model": classes},
        lambda x, s: edm(classes, x, s, [Y], lambda s: 1000 * 0.25 * s.log()),
        3.0,
        (3, 64, 64),
    ),
    "OpenAI: guided-diffusion, improved-diffusion": (
        {"model": (two := Net(2, classes=True)), "diffusion": SimpleNamespace(alphas_cumprod=ALPHAS.numpy())},
        lambda x, s: x - s * two(x * ALPHAS[600].float().sqrt(), torch.tensor([600]), Y)[:, :3],
        SIGMAS[600].item(),
        (3, 64, 64),
    ),
    "k-diffusion": (
        {"denoiser": SimpleNamespace(inner_model=(net := Net()), sigma_data=0.7)},
        lambda x, s: edm(net, x, s, [], lambda s: s, 0.7),
        3.0,
        (3, 32, 32),
    ),
    "score_sde (PyTorch), VP": (
        {"score_model": net},
        lambda x, s: score_sde_vp(net, x, T_VP)[0],
        score_sde_vp(net, torch.zeros(1, 1, 1, 1), T_VP)[1],
        (3, 32, 32),
    ),
    "score_sde (PyTorch), VE": ({"score_model": net}, lambda x, s: x + s**2 * net(x, s), 3.0, (3, 32, 32)),
    # x_t = t x0 + (1 - t) n: t = 1/4 at sigma = 3, and x0 = x_t + (1 - t) v
    "SiT": (
        {"model": classes},
        lambda x, s: x / 4 + 0.75 * classes(x / 4, torch.tensor([0.25]), Y),
        3.0,
        (4, 32, 32),
    ),
    "RectifiedFlow": (
        {"model": net},
        lambda x, s: x / 4 + 0.75 * net(x / 4, torch.tensor([0.25]) * 999),
        3.0,
        (3, 32, 32),
    ),
    "flow_matching (Meta), its image example": (
        {"model": (extra := Extra())},
        lambda x, s: x / 4 + 0.75 * extra(x / 4, torch.tensor([0.25]), extra={}),
        3.0,
        (3, 32, 32),
    ),
    "torchcfm": (
        {"model": (first := TimeFirst())},
        lambda x, s: x / 4 + 0.75 * first(torch.tensor([0.25]), x / 4),
        3.0,
        (3, 32, 32),
    ),
    "azula": (
        {"denoiser": SimpleNamespace(backbone=net)},
        lambda x, s: edm(net, x.flatten(1), s[..., 0, 0], [], lambda s: s.log(), 1.0).reshape(x.shape),
        3.0,
        (3, 32, 32),
    ),
    # alpha = 1 / 10^(1/2) and s = 3 alpha at sigma = 3, and x0 = alpha x_t - s v
    "v-prediction": (
        {"model": net},
        lambda x, s: (x / 10**0.5 - 3 * net(x / 10**0.5, torch.tensor([-2 * math.log(3)]))) / 10**0.5,
        3.0,
        (3, 32, 32),
    ),
    "smalldiffusion": (
        {"model": (small := Small())},
        lambda x, s: x - s * small.predict_eps(x, s),
        3.0,
        (1, 28, 28),
    ),
}


def run(block: str, **names: Any) -> Any:
    """The teacher of a block of the guide."""
    assert CALL is not None
    scope: dict[str, Any] = {"pid": pid, "torch": torch, "check": lambda teacher: None, **names}
    exec(CALL[0], scope)
    exec(block, scope)
    return scope["teacher"]


@pytest.mark.parametrize("project", PROJECTS)
def test_networks_of_other_projects(project: str) -> None:
    names, expected, sigma, shape = PROJECTS[project]
    teacher = run(BLOCKS[project], **names)
    x = sigma * torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    labels = Y if teacher.label_dim else None
    assert teacher.event_shape == shape
    with torch.no_grad():
        torch.testing.assert_close(teacher(x, sigma, labels), expected(x, one(sigma)), rtol=1e-3, atol=1e-3)
    assert isinstance(teacher.as_student(40.0), AdaptedStudent)


def test_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Genuine ones, under the names of the guide."""
    network = unet()  # which imports diffusers
    diffusers: Any = package("diffusers", "this test")
    monkeypatch.chdir(tmp_path)
    edm_files.write(tmp_path / "network-snapshot.pkl")
    torch.save(edm_files.denoiser("vp").state_dict(), "teacher.pt")
    pipeline = diffusers.DDPMPipeline(network, diffusers.DDPMScheduler())
    pipeline.save_pretrained("ddpm")
    torch.manual_seed(0)
    dit = diffusers.DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=4, in_channels=4, out_channels=8, num_layers=1, norm_num_groups=1
    )
    kinds = {
        "EDM": "EDMPrecond",
        "Official PID": "EDMPrecond",
        "diffusers, a folder": "AdaptedDenoiser",
        "diffusers, in memory": "AdaptedDenoiser",
        "diffusers, DiT": "AdaptedDenoiser",
    }
    names = {"pipeline": pipeline, "transformer": dit, "scheduler": pipeline.scheduler, "folder": tmp_path}
    for project, kind in kinds.items():
        teacher = run(BLOCKS[project], **names)
        assert type(teacher).__name__ == kind
    with torch.no_grad():
        assert teacher(torch.randn(2, 4, 32, 32), 9.0, Y).shape == (2, 4, 32, 32)
    assert BLOCKS.keys() == PROJECTS.keys() | kinds.keys()


def test_a_state_dict_of_another_preconditioning(tmp_path: Path) -> None:
    torch.save(pid.nets.VPPrecond(**edm_files.TINY).state_dict(), tmp_path / "teacher.pt")
    teacher = run(BLOCKS["Official PID"].replace("EDMPrecond", "VPPrecond"), folder=tmp_path)
    assert type(teacher).__name__ == "VPPrecond"
