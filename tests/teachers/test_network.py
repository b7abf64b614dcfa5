"""Any third-party network with its parametrization: the right denoiser, and a student that is a copy of the network."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pidlearn as pid
from pidlearn.nets.adapted import AdaptedStudent
from pidlearn.nets.noise_parametrization import VP
from pidlearn.utils.optional_imports import package
from tests.teachers.tiny import Velocity, exact_velocity, unet

from_network = pid.teachers.from_network
SHORT: dict[str, Any] = {"steps": 3, "batch_size": 4, "n": 8, "progress": False}
MIXTURE = pid.toy("anisotropic")
ALPHAS = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
NAMES: list[Any] = ["edm", "vp", "ve", "flow", ALPHAS]
IDS = ["edm", "vp", "ve", "flow", "alphas"]


def column(t: Tensor) -> Tensor:
    return t[:, None]


def edm(x: Tensor, t: Tensor) -> Tensor:
    """Karras et al. 2022, Eq. 7, solved for F."""
    sigma = column((4 * t).exp())
    scale = (sigma**2 + 0.25).sqrt()
    denoised = MIXTURE.denoise(x * scale, sigma[:, 0])
    return (denoised - 0.25 / scale**2 * x * scale) / (0.5 * sigma / scale)


def noise_at(x: Tensor, sigma: Tensor) -> Tensor:
    """The noise in a variance-preserving x."""
    x = x * (1 + column(sigma) ** 2).sqrt()
    return (x - MIXTURE.denoise(x, sigma)) / column(sigma)


def vp(x: Tensor, t: Tensor) -> Tensor:
    """Score-SDE's VP: 1 + sigma^2 = exp(integral of beta from 0 to t), and the network gets 999 t."""
    t = t / 999
    integral = 0.1 * t + 0.5 * 19.9 * t**2
    return noise_at(x, integral.expm1().sqrt())


def ve(x: Tensor, sigma: Tensor) -> Tensor:
    return MIXTURE.score(x, sigma)


def discrete(x: Tensor, k: Tensor) -> Tensor:
    log_sigma = ((1 - ALPHAS) / ALPHAS).log() / 2
    low = k.floor().long().clamp(max=998)
    return noise_at(x, torch.lerp(log_sigma[low], log_sigma[low + 1], k - low).exp())


EXACT = [edm, vp, ve, exact_velocity(MIXTURE, 0), discrete]


@pytest.mark.parametrize(("network", "name"), list(zip(EXACT, NAMES, strict=True)), ids=IDS)
def test_is_the_mixtures_denoiser(network: Any, name: Any) -> None:
    teacher = from_network(network, name, event_shape=2)
    x0 = MIXTURE.sample(64).double()
    for sigma in (0.02, 0.3, 4.0, 79.0):
        x = x0 + sigma * torch.randn_like(x0)
        torch.testing.assert_close(teacher(x, sigma), MIXTURE.denoise(x, sigma), rtol=0, atol=1e-8)


def test_own_functions_of_sigma() -> None:
    """A network of the noise in x itself, with sigma as its time, and data of another scale."""

    def noise(x: Tensor, sigma: Tensor) -> Tensor:
        return (x - MIXTURE.denoise(x, sigma)) / column(sigma)

    teacher = from_network(
        noise, lambda sigma: (torch.ones_like(sigma), -sigma, torch.ones_like(sigma), sigma), event_shape=2
    )
    x = 3 * torch.randn(8, 2, dtype=torch.float64)
    torch.testing.assert_close(teacher(x, 3.0), MIXTURE.denoise(x, 3.0), rtol=0, atol=1e-12)


def test_spans() -> None:
    assert from_network(vp, "vp").sigma_max == VP().span[1]
    assert from_network(discrete, ALPHAS).sigma_min == pytest.approx(math.sqrt(1e-4 / (1 - 1e-4)))
    given = from_network(vp, "vp", sigma_min=0.1, sigma_max=9.0)
    assert (given.sigma_min, given.sigma_max) == (0.1, 9.0)
    assert from_network(ve, "ve").sigma_max == math.inf


@pytest.mark.parametrize("name", NAMES, ids=IDS)
class TestStudent:
    def test_is_a_copy_that_starts_as_the_teachers_image(self, name: Any) -> None:
        """In units of t_max where the noise is predicted: a small difference of two large numbers."""
        torch.manual_seed(3)
        teacher = from_network(Velocity(label_dim=3), name, event_shape=(1, 6, 6), label_dim=3).double()
        student = pid.steps(teacher).student.double()
        assert isinstance(student.network, AdaptedStudent)
        z, t, labels = 80 * torch.randn(3, 1, 6, 6).double(), torch.full((3,), 80.0).double(), torch.tensor([0, 1, 2])
        with torch.no_grad():
            image = student.network(student.c_in * z, t.log() / 4, labels)
            expected = teacher(z, 80.0, labels) / (1.0 if name in ("edm", "flow") else 80.0)
        torch.testing.assert_close(image, expected, rtol=1e-6, atol=1e-6)

    def test_is_trained_saved_and_loaded(self, name: Any, tmp_path: Path) -> None:
        teacher = from_network(Velocity(), name, event_shape=(1, 6, 6))
        result = pid.distill(teacher, **SHORT)
        loaded = pid.load(result.save(tmp_path / "student.safetensors"), teacher)
        z = 80 * torch.randn(2, 1, 6, 6)
        with torch.no_grad():
            assert torch.equal(loaded.student(z, 0.05), result.student(z, 0.05))
            assert result.student(z, 0.05).isfinite().all()


class Timed(nn.Module):
    """A network of timesteps: embedded in float32 as usual, or by a layer of its own dtype on the time itself."""

    event_shape = (1, 4, 4)

    def __init__(self, embeds: bool) -> None:
        super().__init__()
        self.first, self.embeds = nn.Linear(1, 1), embeds
        nn.init.ones_(self.first.weight)
        nn.init.zeros_(self.first.bias)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        time = (time.float() / 1000).to(x.dtype) if self.embeds and time.dtype != x.dtype else time
        # Steps of 2 ** -8 in the embedding show a time that was rounded to 8 bits before.
        return 0 * x + self.first(time[:, None])[..., None, None]


@pytest.mark.parametrize("make", [lambda f: from_network(f, ALPHAS), pid.teachers.from_flow], ids=["network", "flow"])
def test_the_time_of_networks_in_half_precision(make: Any) -> None:
    """bfloat16 has 8 bits: timestep 997 would be 996. A network that takes no other dtype gets its own."""
    times: list[Tensor] = []
    for embeds, dtype in ((True, torch.float32), (False, torch.bfloat16)):
        network = Timed(embeds).bfloat16()
        network.register_forward_hook(lambda _, inputs, __: times.append(inputs[1]))
        teacher, x = make(network), torch.zeros(1, 1, 4, 4)
        sigma = ((1 - ALPHAS[997]) / ALPHAS[997]).sqrt()
        assert torch.equal(teacher(x, sigma), teacher(x, sigma))
        assert [t.dtype for t in times] == [dtype, dtype]
        exact = teacher.noise_parametrization(sigma.reshape(1)).c_noise
        torch.testing.assert_close(times.pop().double(), exact, rtol=1e-6 if embeds else 4e-3, atol=0)
        times.clear()


def test_other_errors_of_networks_in_half_precision() -> None:
    """They are raised as they come, and do not count as a network that takes no float32."""

    def broken(*_: Any) -> None:
        raise RuntimeError("no kernel")

    network = Timed(True).bfloat16()
    network.register_forward_pre_hook(broken)
    teacher = from_network(network, "edm")
    with pytest.raises(RuntimeError, match="no kernel"):
        teacher(torch.zeros(1, 1, 4, 4), 1.0)
    assert not teacher.network.rounds_time


def test_networks_that_are_nan_at_the_first_timestep() -> None:
    """A diffusers U-Net that takes ln(timestep): the paths end at timestep 1, as with `from_diffusers`."""
    teacher = from_network(unet(time_embedding_type="fourier"), ALPHAS, event_shape=(1, 4, 4))
    assert teacher.sigma_min == pytest.approx(((1 - ALPHAS[1]) / ALPHAS[1]).sqrt().item())
    assert pid.distill(teacher, **SHORT).sample(2).isfinite().all()


def test_learned_variances_and_output_objects() -> None:
    class Two(nn.Module):
        event_shape = (2, 4, 4)
        label_dim = 5

        def forward(self, x: Tensor, t: Tensor, class_labels: Tensor | None = None) -> Any:
            return SimpleNamespace(sample=torch.cat([x * t.reshape(-1, 1, 1, 1), x.exp()], 1))

    teacher = from_network(Two(), "flow")
    x = torch.randn(3, 2, 4, 4)
    # x_t = x / 4 and v = 3/4 x_t at sigma = 3, so D = x_t - 3/4 v
    torch.testing.assert_close(teacher(x, 3.0), x / 4 * (1 - 9 / 16))
    assert (teacher.event_shape, teacher.label_dim) == ((2, 4, 4), 5)


def test_a_student_that_is_not_finite_where_it_ends() -> None:
    """The exact derivative never evaluates it there, and its samples were NaN after a normal finish."""

    class Logarithm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, x: Tensor, time: Tensor, class_labels: Tensor | None = None) -> Tensor:
            level = (4 * time).exp() - 0.002
            return self.weight * x * level.log().reshape(-1, 1) / level.reshape(-1, 1)

    student = pid.Trajectory(Logarithm(), 80.0)
    with pytest.raises(ValueError, match=r"NaN or infinity at t = 0\.002, where its paths end.*t_min, t_end"):
        pid.steps(pid.toy("ring"), student, derivative="exact")


def test_a_transformer_of_diffusers() -> None:
    """A DiT, with classes and a learned variance, as its own DDIM step sees it."""
    diffusers: Any = package("diffusers", "this test")
    torch.manual_seed(0)
    dit = diffusers.DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=4,
        in_channels=1,
        out_channels=2,
        num_layers=1,
        sample_size=4,
        patch_size=2,
        num_embeds_ada_norm=5,
        norm_num_groups=1,
    ).eval()
    ab = diffusers.DDPMScheduler().alphas_cumprod
    teacher = from_network(dit, ab, event_shape=(1, 4, 4), label_dim=5)
    x, labels = torch.randn(2, 1, 4, 4), torch.tensor([1, 4])
    sigma = ((1 - ab[600]) / ab[600]).sqrt()
    with torch.no_grad():
        noise = dit(x * ab[600].sqrt(), torch.tensor([600, 600]), labels).sample[:, :1]
        torch.testing.assert_close(teacher(x, sigma, labels), x - sigma * noise, rtol=1e-3, atol=1e-3)
    assert isinstance(pid.steps(teacher).student.network, AdaptedStudent)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "says"),
    [
        ((3, "edm"), {}, TypeError, "network of type int; expected a torch.nn.Module"),
        ((edm, "EDM2"), {}, ValueError, "parametrization = 'EDM2'; expected 'edm', 'vp', 've', 'flow', a decreasing"),
        ((edm, None), {}, ValueError, "parametrization = None; expected"),
        ((edm, 3), {}, ValueError, "parametrization = 3; expected"),
        ((edm, np.array([0.1, 0.9])), {}, ValueError, "alphas_cumprod that do not decrease"),
        (
            (edm, "edm"),
            {"sigma_min": 2.0, "sigma_max": 1.0},
            ValueError,
            "sigma_min = 2.0 to sigma_max = 1.0; expected",
        ),
        ((edm, "edm"), {"event_shape": 0}, ValueError, "sizes of one sample"),
    ],
)
def test_bad_input(arguments: Any, options: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        from_network(*arguments, **options)


class Image(nn.Module):
    """A denoiser D(x, sigma) of a user, around a network that nothing else can see."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.event_shape = shape
        self.network = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x: Tensor, sigma: Tensor, class_labels: Tensor | None = None) -> Tensor:
        return self.network(x / (1 + sigma.reshape(-1, 1, 1, 1)))


class TestBareDenoisers:
    def test_of_images_get_an_mlp_and_a_word(self) -> None:
        says = r"images \(1, 5, 5\), so its student is a new MLP with 0\.5 million weights: .*from_network\(.* student="
        for teacher in (Image((1, 5, 5)), pid.teachers.from_flow(lambda x, t: x, event_shape=(1, 5, 5))):
            with pytest.warns(UserWarning, match=says):
                pid.steps(teacher)

    def test_no_word_without_need(self) -> None:
        shape = (1, 5, 5)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", "the denoised samples of pure noise")  # Image has random weights
            pid.steps(Image((1, 4, 4)))
            pid.steps(Image(shape), pid.nets.MLP(shape))
            pid.steps(lambda x, sigma: 0 * x, event_shape=(25,))
            pid.steps(pid.EmpiricalDenoiser(torch.randn(20, *shape)))
            pid.steps(pid.nets.Preconditioned(pid.nets.MLP(shape)))
