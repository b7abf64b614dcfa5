"""Networks of diffusers: exactly its own DDIM, the right denoiser, and a student that starts from the network."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pidlearn as pid
from pidlearn.equations.from_teacher import problem_from_teacher
from pidlearn.nets.adapted import AdaptedStudent
from pidlearn.utils.optional_imports import package
from tests.teachers.tiny import ExactUNet, unet

from_diffusers = pid.teachers.from_diffusers
PREDICTIONS = ("epsilon", "v_prediction", "sample")
SHORT: dict[str, Any] = {"steps": 3, "batch_size": 4, "n": 8, "progress": False}


def ddpm(**options: Any) -> Any:
    from diffusers import DDPMScheduler

    return DDPMScheduler(**options)


def ddim(prediction: str, steps: int, **options: Any) -> Any:
    """In float64, without what is no part of the ODE."""
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(
        clip_sample=False, set_alpha_to_one=False, timestep_spacing="trailing", prediction_type=prediction, **options
    )
    scheduler.set_timesteps(steps)
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    scheduler.final_alpha_cumprod = scheduler.alphas_cumprod[0]
    return scheduler


def signals() -> Any:
    from diffusers import UNet1DModel

    return UNet1DModel(block_out_channels=(4,), down_block_types=("DownBlock1D",), up_block_types=("UpBlock1D",))


def sigmas(scheduler: Any) -> Tensor:
    ab = scheduler.alphas_cumprod.double()
    return ((1 - ab) / ab).sqrt()


@torch.no_grad()
def sampled(network: Any, scheduler: Any, x_vp: Tensor) -> Tensor:
    """By diffusers' own loop."""
    for k in scheduler.timesteps:
        x_vp = scheduler.step(network(x_vp, k, return_dict=False)[0], k, x_vp).prev_sample
    return x_vp


def teacher(**options: Any) -> Any:
    return from_diffusers(unet(**options), ddpm())


@pytest.mark.parametrize("prediction", PREDICTIONS)
class TestExactly:
    mixture = pid.toy("anisotropic")

    def test_is_the_mixtures_denoiser(self, prediction: str) -> None:
        """At every hundredth timestep, and between two."""
        scheduler = ddpm(prediction_type=prediction)
        ours = from_diffusers(ExactUNet(self.mixture, scheduler), scheduler)
        x0, table = self.mixture.sample(32).double(), sigmas(scheduler)
        for sigma in [*table[::111].tolist(), 0.3, 80.0]:
            x = x0 + sigma * torch.randn_like(x0)
            out = ours(x.reshape(-1, 1, 1, 2), sigma)
            assert out.dtype == torch.float64
            torch.testing.assert_close(out.flatten(1), self.mixture.denoise(x, sigma), rtol=0, atol=1e-9)

    def test_ddim_is_euler_step_for_step(self, prediction: str) -> None:
        network, scheduler = unet().double(), ddim(prediction, 20)
        ode = pid.DenoiserODE(from_diffusers(network, scheduler))
        x_vp = torch.randn(2, 1, 4, 4, dtype=torch.float64)
        table = sigmas(scheduler)
        grid = torch.cat([table[scheduler.timesteps], table[:1]])
        r = (1 + grid**2).sqrt()
        euler = pid.solve(ode, r[0] * x_vp, grid, "euler")[-1] / r[-1]
        torch.testing.assert_close(euler, sampled(network, scheduler, x_vp), rtol=1e-8, atol=1e-8)


def test_ddim_converges_to_our_flow() -> None:
    """At first order, as Euler's method does."""
    mixture = pid.toy("anisotropic")
    network = ExactUNet(mixture, ddim("epsilon", 50))
    ode = pid.DenoiserODE(from_diffusers(network, ddim("epsilon", 50)))
    x_vp, table = torch.randn(16, 1, 1, 2, dtype=torch.float64), sigmas(ddim("epsilon", 50))
    r = (1 + table**2).sqrt()
    exact = pid.solve(ode, r[-1] * x_vp, table[[-1, 0]], "scipy", rtol=1e-7, atol=1e-7)[-1] / r[0]
    coarse, middle, fine = (
        (sampled(network, ddim("epsilon", n), x_vp) - exact).square().mean().sqrt().item() for n in (50, 100, 200)
    )
    assert [math.log2(coarse / middle), math.log2(middle / fine)] == pytest.approx([1, 1], abs=0.25)


@pytest.mark.parametrize("name", ["EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"])
@torch.no_grad()
def test_edm_schedulers(name: str) -> None:
    """By the scheduler's own three functions, at its own scale of the data."""
    network: Any = unet()
    diffusers: Any = package("diffusers", "this test")
    scheduler = getattr(diffusers, name)(sigma_data=0.7, sigma_max=50.0)
    ours = from_diffusers(network, scheduler)
    assert (ours.sigma_data, ours.sigma_min, ours.sigma_max) == (0.7, 0.002, 50.0)
    assert from_diffusers(network, scheduler, sigma_data=0.6).sigma_data == 0.6
    for sigma in (torch.tensor(0.1), torch.tensor(20.0)):
        x = sigma * torch.randn(2, 1, 4, 4)
        out = network(scheduler.precondition_inputs(x, sigma), scheduler.precondition_noise(sigma)).sample
        torch.testing.assert_close(ours(x, sigma), scheduler.precondition_outputs(x, out, sigma))


@torch.no_grad()
def test_solvers_of_flows() -> None:
    """A multistep solver with flow_prediction has a table of alphas, too, which its network does not follow."""
    network: Any = unet()
    diffusers: Any = package("diffusers", "this test")
    scheduler = diffusers.UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)
    scheduler.set_timesteps(10)
    scheduler._init_step_index(scheduler.timesteps[4])
    t, x = scheduler.sigmas[4], torch.randn(2, 1, 4, 4)
    x0 = scheduler.convert_model_output(network(x, 1000 * t).sample, sample=x)
    torch.testing.assert_close(from_diffusers(network, scheduler)(x / (1 - t), t / (1 - t)), x0)


@torch.no_grad()
def test_continuous_timesteps_are_refused_with_the_line_to_write() -> None:
    """Stable Video Diffusion's: v_prediction at ln(sigma) / 4. They were read as timesteps of the table."""
    network: Any = unet()
    diffusers: Any = package("diffusers", "this test")
    options = {"prediction_type": "v_prediction", "timestep_type": "continuous"}
    scheduler = diffusers.EulerDiscreteScheduler(**options, sigma_min=0.002, sigma_max=700.0, use_karras_sigmas=True)
    with pytest.raises(ValueError, match="timestep_type = 'continuous'") as refused:
        from_diffusers(network, scheduler)
    line = str(refused.value).partition("use ")[2]
    scheduler.set_timesteps(10)
    sigma, time = scheduler.sigmas[4], scheduler.timesteps[4]
    x = sigma * torch.randn(2, 1, 4, 4)
    out = network(scheduler.scale_model_input(x, time), time).sample
    expected = scheduler.step(out, time, x).pred_original_sample
    torch.testing.assert_close(eval(line, {"pidlearn": pid, "unet": network})(x, sigma), expected)


class TestRead:
    """What is read off network and scheduler."""

    def test_span(self) -> None:
        problem = problem_from_teacher(teacher())
        assert problem.t_start == 80.0
        assert problem.t_end == pytest.approx(0.01, rel=1e-3)
        latent = from_diffusers(unet(), ddpm(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012))
        assert problem_from_teacher(latent).t_start == latent.sigma_max == pytest.approx(14.6, abs=0.1)
        for span in ({"t_max": 158.0}, {"t_min": 0.009}):
            with pytest.raises(ValueError, match=r"exceeds the teacher's noise levels, 0\.01"):
                pid.steps(teacher(), **span)

    def test_a_fourier_embedding_has_no_level_zero(self) -> None:
        """It takes ln(timestep): NaN at timestep 0, where the samples would be."""
        ours = from_diffusers(unet(time_embedding_type="fourier"), ddpm())
        assert ours.sigma_min == pytest.approx(sigmas(ddpm())[1].item(), rel=1e-6)
        for derivative in ("forward", "exact"):
            result = pid.distill(ours, derivative=derivative, **SHORT)
            assert result.sample(3).isfinite().all()

    def test_no_signal_at_the_end(self) -> None:
        zero = from_diffusers(unet(), ddpm(rescale_betas_zero_snr=True, prediction_type="v_prediction"))
        assert 80 < zero.sigma_max < math.inf

    def test_shape_and_classes(self) -> None:
        ours = from_diffusers(unet(in_channels=3, out_channels=3, num_class_embeds=5), ddpm(), sigma_data=0.7)
        problem = problem_from_teacher(ours)
        assert (problem.event_shape, problem.label_dim, problem.sigma_data) == ((3, 4, 4), 5, 0.7)
        x, one = torch.randn(2, 3, 4, 4), torch.tensor([1, 1])
        with torch.no_grad():
            assert not torch.equal(ours(x, 1.0, one), ours(x, 1.0, one + 1))
        assert problem_from_teacher(
            from_diffusers(unet(sample_size=None), ddpm()), event_shape=(1, 8, 4)
        ).event_shape == (
            1,
            8,
            4,
        )

    def test_a_pipeline(self) -> None:
        from diffusers import DDPMPipeline

        network, scheduler = unet(), ddpm()
        x = torch.randn(2, 1, 4, 4)
        with torch.no_grad():
            assert torch.equal(from_diffusers(DDPMPipeline(network, scheduler))(x, 2.0), teacher()(x, 2.0))

    def test_learned_variance_is_left_out(self) -> None:
        network = unet(out_channels=2)
        x, sigma = torch.randn(2, 1, 4, 4), 3.0
        ours = from_diffusers(network, ddpm())
        with torch.no_grad():
            k = ours.noise_parametrization(torch.full((2,), sigma)).c_noise
            noise = network(x / math.hypot(1, sigma), k).sample[:, :1]
            torch.testing.assert_close(ours(x, sigma), x - sigma * noise)

    def test_a_flow_matching_scheduler(self) -> None:
        from diffusers import FlowMatchEulerDiscreteScheduler

        network, scheduler = unet(), FlowMatchEulerDiscreteScheduler()
        scheduler.set_timesteps(7)
        x = torch.randn(2, 1, 4, 4)
        with torch.no_grad():
            out = network(x, scheduler.timesteps[2].expand(2)).sample
            theirs = scheduler.step(out, scheduler.timesteps[2], x).prev_sample
            t, t_next = scheduler.sigmas[2:4]
            x0 = from_diffusers(network, scheduler)(x / (1 - t), t / (1 - t))
        torch.testing.assert_close(x + (t_next - t) * (x - x0) / t, theirs)

    def test_dtypes(self) -> None:
        seen: list[tuple[torch.dtype, torch.dtype]] = []

        class Spy(nn.Module):
            config = SimpleNamespace(in_channels=1, sample_size=2)

            def __init__(self) -> None:
                super().__init__()
                self.weight = nn.Parameter(torch.ones(1, dtype=torch.bfloat16))

            def forward(self, sample: Tensor, timestep: Tensor, return_dict: bool = True) -> tuple[Tensor]:
                seen.append((sample.dtype, timestep.dtype))
                return (sample * self.weight,)

        ours = from_diffusers(Spy(), ddpm())
        for dtype, time in ((torch.float64,) * 2, (torch.float32,) * 2, (torch.bfloat16, torch.float32)):
            assert ours(torch.randn(2, 1, 2, 2, dtype=dtype), 9.0).dtype == dtype
            assert seen.pop() == (torch.bfloat16, time)

    @pytest.mark.parametrize(
        "output",
        [
            lambda out: SimpleNamespace(prediction=out, to_tuple=lambda: (out,)),  # as an output of diffusers
            lambda out: out,
            lambda out: [out, None],
            lambda out: {"sample": out},
            lambda out: SimpleNamespace(sample=out),
        ],
    )
    def test_of_networks_that_ignore_return_dict(self, output: Any) -> None:
        class Ignores(ExactUNet):
            def forward(self, *args: Any, **options: Any) -> Any:
                return output(super().forward(*args, **options)[0])

        mixture, x = pid.toy("ring"), torch.randn(3, 1, 1, 2, dtype=torch.float64)
        ours = from_diffusers(Ignores(mixture, ddpm()), ddpm())
        assert torch.equal(ours(x, 2.0), from_diffusers(ExactUNet(mixture, ddpm()), ddpm())(x, 2.0))


class TestDistilled:
    @pytest.mark.parametrize("prediction", PREDICTIONS)
    def test_end_to_end(self, prediction: str) -> None:
        ours = from_diffusers(unet(), ddpm(prediction_type=prediction))
        weights = {name: value.clone() for name, value in ours.state_dict().items()}
        result = pid.distill(ours, **SHORT)
        assert isinstance(result.student.network, AdaptedStudent)
        assert result.student.event_shape == (1, 4, 4)
        assert result.sample(3).isfinite().all()
        moved = result.student.network.network.state_dict()
        for name, value in ours.network.state_dict().items():
            assert torch.equal(value, weights[f"network.{name}"])
        assert not torch.equal(moved["module.conv_out.weight"], weights["network.module.conv_out.weight"])

    @pytest.mark.parametrize("prediction", PREDICTIONS)
    def test_starts_from_the_teachers_knowledge(self, prediction: str) -> None:
        """As the image that the teacher sees at t_max; of noise predicted, as that image in units of t_max."""
        ours = from_diffusers(unet().double(), ddpm(prediction_type=prediction))
        student = pid.steps(ours).student.double()
        z, t = 80 * torch.randn(3, 1, 4, 4, dtype=torch.float64), torch.full((3,), 80.0, dtype=torch.float64)
        with torch.no_grad():
            image = student.network(student.c_in * z, t.log() / 4)
            expected = ours(z, 80.0) / (80.0 if prediction == "epsilon" else 1.0)
        torch.testing.assert_close(image, expected, rtol=1e-5, atol=1e-5)

    def test_saved_and_loaded(self, tmp_path: Path) -> None:
        ours = teacher()
        result = pid.distill(ours, **SHORT)
        path = result.save(tmp_path / "student.safetensors")
        loaded = pid.load(path, ours, student=pid.steps(ours).student)
        z = 80 * torch.randn(2, 1, 4, 4)
        with torch.no_grad():
            assert torch.equal(loaded.student(z, 0.01), result.student(z, 0.01))

    def test_classes(self) -> None:
        result = pid.distill(teacher(num_class_embeds=3), **SHORT)
        assert result.sample(2, torch.tensor([0, 2])).isfinite().all()

    def test_exact_derivative_through_attention(self) -> None:
        """Against the difference quotient; fused attention and group norms have no such derivative of their own."""
        student = pid.steps(teacher()).student.double()
        z, t = 80 * torch.randn(2, 1, 4, 4, dtype=torch.float64), torch.tensor([40.0, 1.0], dtype=torch.float64)
        values, slope = torch.func.jvp(lambda t: student(z, t), (t,), (torch.ones_like(t),))
        h = 1e-3 * t
        with torch.no_grad():
            assert torch.allclose(values, student(z, t))
            quotient = (student(z, t + h) - student(z, t - h)) / (2 * h)[:, None, None, None]
        torch.testing.assert_close(slope, quotient, rtol=0.02, atol=0.02 * quotient.abs().max().item())
        result = pid.distill(teacher(), derivative="exact", **SHORT)
        assert result.stopped is None


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        (lambda: [nn.Linear(2, 2), ddpm()], TypeError, "got a Linear"),
        (lambda: [unet()], TypeError, "scheduler"),
        (lambda: [unet(), ddpm(prediction_type="velocity")], ValueError, "prediction_type = 'velocity'; expected"),
        (lambda: [unet(), SimpleNamespace(config=None)], ValueError, "no alphas_cumprod"),
        (
            lambda: [unet(time_embedding_type="learned", num_train_timesteps=9), ddpm()],
            ValueError,
            "one learned embedding",
        ),
        (lambda: [unet(class_embed_type="identity"), ddpm()], ValueError, "'identity'"),
        (lambda: [unet(class_embed_type="timestep"), ddpm()], ValueError, "num_class_embeds = None"),
        (lambda: [ExactUNet(pid.toy("ring"), ddpm(), cross_attention_dim=8), ddpm()], ValueError, "text"),
        (lambda: [unet(out_channels=3), ddpm()], ValueError, "3 output channels for 1 input .* 1, or 2"),
        (lambda: [unet(in_channels=2), ddpm()], ValueError, "1 output channels for 2 input .* 2, or 4"),
        (
            lambda: [signals(), ddpm()],
            ValueError,
            "a UNet1DModel is not called like a UNet2DModel: .*from_network.network, scheduler.alphas_cumprod",
        ),
        (
            lambda: [SimpleNamespace(components={"vqvae": 1, "unet": 2})],
            ValueError,
            "pipeline has vqvae in addition to",
        ),
        (
            lambda: [unet(), SimpleNamespace(config=None, alphas_cumprod=ddpm().alphas_cumprod)],
            ValueError,
            "_type = None",
        ),
        (
            lambda: [unet(), SimpleNamespace(config=ddpm().config, alphas_cumprod=torch.tensor([0.5, 0.9]))],
            ValueError,
            "do not decrease strictly",
        ),
    ],
)
def test_bad_input(arguments: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        from_diffusers(*arguments())


def test_a_wrapped_network(tmp_path: Path) -> None:
    """It computes the same, and its student is saved and loaded as that of the plain one."""
    network, z = unet(), 80 * torch.randn(2, 1, 4, 4)
    teacher, plain = (pid.teachers.from_diffusers(one, ddpm()) for one in (nn.DataParallel(network), network))
    assert teacher.event_shape == (1, 4, 4)
    assert torch.equal(teacher(z, 80.0), plain(z, 80.0))
    result = pid.distill(teacher, **SHORT)
    path = result.save(tmp_path / "a")
    assert torch.equal(pid.load(path, plain).generate(z), result.generate(z))
    assert torch.equal(pid.load(path, teacher).generate(z), result.generate(z))
