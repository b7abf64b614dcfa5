"""How networks of images are trained: their start, their precision, and what saves memory and leaves the numbers."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pidlearn as pid
from pidlearn.training import checkpoints
from pidlearn.utils.overrides import overridden, tf32
from tests.tiny import OPTIONS, teacher

SHORT: dict[str, Any] = {"steps": 3, "batch_size": 4, "n": 50, "progress": False}


def losses(denoiser: nn.Module | None = None, **choices: Any) -> np.ndarray:
    return pid.distill(denoiser or teacher(), **{**SHORT, **choices}).history["loss"]


@functools.cache
def plain(**choices: Any) -> np.ndarray:
    """The losses of a run that others are compared with."""
    return losses(**choices)


# How a copy starts


def image_at_the_start(init: str, denoiser: Any) -> tuple[Tensor, Tensor]:
    """What a new student puts out at t_max, and D(z, t_max)."""
    run = pid.steps(denoiser, init=init, steps=1)
    z = run.problem.sample_prior(3, torch.Generator().manual_seed(0)).double()
    student = run.student.double()
    with torch.no_grad():
        t = torch.full((3,), 80.0, dtype=torch.float64)
        image = student.network(student.c_in * z, t.log() / 4)
        return image, denoiser.double()(z, t)


@pytest.mark.parametrize("kind", ["SongUNet", "DhariwalUNet"])
def test_a_copy_starts_as_the_image_that_the_teacher_sees(kind: str) -> None:
    image, seen = image_at_the_start("teacher", teacher(model_type=kind, model_channels=32))
    # All but c_skip z, a three-hundredth of the scale of the data.
    torch.testing.assert_close(image, seen, rtol=0, atol=0.005 * 4)
    assert (image - seen).std() < 0.004
    twice, _ = image_at_the_start("official", teacher(model_type=kind, model_channels=32))
    torch.testing.assert_close(twice, 2 * image, rtol=1e-4, atol=1e-6)


def test_new_weights_are_of_the_seed_and_not_the_teacher_s() -> None:
    made = [pid.steps(teacher(), init="random", steps=1, seed=seed).student.network for seed in (0, 0, 1)]
    one, again, other = (nn.utils.parameters_to_vector(network.parameters()) for network in made)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert not torch.equal(one, nn.utils.parameters_to_vector(teacher().model.parameters()))


def predictor(kind: str) -> Any:
    """A teacher that predicts noise and sees it in coordinates of its own."""
    options = {key: value for key, value in OPTIONS.items() if key != "model_type"}
    torch.manual_seed(0)
    return getattr(pid.nets, kind)(**options, model_type="SongUNet").eval()


@pytest.mark.parametrize("kind", ["VPPrecond", "VEPrecond", "iDDPMPrecond"])
def test_of_a_network_that_predicts_noise_the_image_starts_at_a_scale_to_learn_in(kind: str) -> None:
    denoiser = predictor(kind)
    image, seen = image_at_the_start("teacher", denoiser)
    nearest = 0.01 if kind == "iDDPMPrecond" else 1e-6  # iDDPM's teacher is asked at the level nearest to 80
    torch.testing.assert_close(image, seen / 80, rtol=nearest, atol=nearest)
    raw, _ = image_at_the_start("official", denoiser)
    assert (raw - image).abs().max() > 0.1
    with torch.no_grad():
        told = denoiser.noise_parametrization(torch.tensor([80.0, 1.0, 0.02], dtype=torch.float64)).c_noise
        known = denoiser.coefficients(torch.tensor([80.0, 1.0, 0.02], dtype=torch.float64)).c_noise
    torch.testing.assert_close(told, known, rtol=0, atol=0.51 if kind == "iDDPMPrecond" else 1e-12)


@pytest.mark.parametrize("kind", ["VPPrecond", "iDDPMPrecond"])
@pytest.mark.parametrize("init", ["teacher", "official"])
def test_students_of_such_networks_are_saved_and_loaded(kind: str, init: str, tmp_path: Path) -> None:
    denoiser = predictor(kind)
    result = pid.distill(denoiser, init=init, derivative="exact", recompute=False, **SHORT)
    loaded = pid.load(result.save(tmp_path / "student.safetensors")).student
    z, t = 80 * torch.randn(2, 1, 8, 8), torch.tensor([3.0, 0.5])
    assert torch.equal(loaded(z, t), result.student(z, t))
    assert loaded.sample(2).shape == (2, 1, 8, 8)
    assert denoiser.model.options["out_channels"] == (2 if kind == "iDDPMPrecond" else 1)  # the teacher's stay


# Precision


def test_bfloat16_with_the_exact_derivative_is_near_float32() -> None:
    """The bound is bfloat16's rounding, 2^-9, times some: differences on 250 points would be out by all of it."""
    usual, half = (losses(derivative="exact", precision=precision, lr=1e-6) for precision in ("float32", "bfloat16"))
    np.testing.assert_allclose(half, usual, rtol=0.05)
    assert (half != usual).all()


def test_bfloat16_differences_are_warned_of() -> None:
    with pytest.warns(UserWarning, match="differences on a grid of 50 points multiply its rounding"):
        losses(precision="bfloat16")


def test_precision_lasts_for_the_steps_alone() -> None:
    denoiser = teacher()
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    run = pid.steps(
        denoiser, derivative="exact", precision="bfloat16", **{k: SHORT[k] for k in ("steps", "batch_size", "n")}
    )
    seen: list[Any] = []
    denoiser.model.register_forward_hook(lambda module, inputs, out: seen.append((out.dtype, inputs[1].dtype)))
    next(run)
    assert set(seen) == {(torch.bfloat16, torch.float32)}  # the noise level stays exact
    assert (denoiser.compute_dtype, run.student.compute_dtype) == (None, None)
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == before
    assert run.result().sample(1).dtype == torch.float32


# Memory and speed


@pytest.mark.parametrize("kind", ["SongUNet", "DhariwalUNet"])
def test_recomputed_activations_are_the_same(kind: str) -> None:
    one, two = (losses(teacher(model_type=kind), recompute=recompute) for recompute in (False, True))
    np.testing.assert_array_equal(one, two)


def test_recomputation_keeps_less() -> None:
    held = []
    for recompute in (False, True):
        run = pid.steps(teacher(), recompute=recompute, **{k: SHORT[k] for k in ("steps", "batch_size", "n")})
        sizes: list[int] = []
        hooks = torch.autograd.graph.saved_tensors_hooks(lambda x, s=sizes: s.append(x.nbytes) or x, lambda x: x)
        with overridden(run.overrides), hooks:
            run.trainer.enter_stage()
            batch = run.trainer.method.draw(run.trainer.context, 4, torch.Generator().manual_seed(0))
            run.trainer.method.loss(run.trainer.context, batch)
        held.append(sum(sizes))
    assert held[1] < 0.5 * held[0]


def switched_off(*modules: nn.Module) -> bool:
    parts = [part for module in modules for part in module.modules()]
    switched = {"compute_dtype", "recompute", "forward", "learned_term_jvp", "denoised_jvp"}
    return not any(switched & vars(part).keys() for part in parts)


def test_recomputation_lasts_for_the_run_alone() -> None:
    denoiser = teacher()
    student = pid.distill(denoiser, recompute=True, **SHORT).student
    assert switched_off(student, denoiser)
    losses(denoiser, student=student, derivative="exact")  # which would stumble over it


@pytest.mark.parametrize("settings", [{"precision": "bfloat16"}, {"recompute": True}])
def test_a_network_that_two_stages_train_is_restored_once(settings: dict[str, Any]) -> None:
    class Twice(pid.methods.Endpoint):
        """Trains the student, and then its network, a part of it."""

        def stages(self, context: Any, steps: int) -> Any:
            return [pid.methods.Stage(context.student, 1), pid.methods.Stage(context.student.network, 1)]

    for method in (Twice(pairs=2), pid.methods.Corrector(first=pid.methods.Endpoint(pairs=2), share=0.5)):
        denoiser = teacher()
        run = pid.steps(denoiser, method=method, steps=2, batch_size=2, n=3, **settings)
        next(run)
        assert switched_off(run.student, denoiser)


@pytest.mark.parametrize("of", ["ring", "pendulum", "flow"])
def test_bfloat16_is_refused_where_it_cannot_be(of: str) -> None:
    flow = pid.teachers.from_flow(lambda x, t: x, event_shape=(1, 4, 4))
    problem = flow if of == "flow" else pid.toy(of) if of == "ring" else pid.system(of)
    with pytest.raises(ValueError, match=r"precision='bfloat16' needs a student with a SongUNet"):
        pid.steps(problem, precision="bfloat16", derivative="exact")


def test_recomputation_is_refused_where_it_cannot_be() -> None:
    with pytest.raises(ValueError, match="recompute needs a student with a SongUNet"):
        losses(pid.toy("ring"), recompute=True)
    with pytest.raises(ValueError, match=r"forward-mode automatic differentiation.*micro_batch"):
        losses(recompute=True, derivative="exact")


@pytest.mark.parametrize(
    "derivative", ["exact", *(pytest.param(name, marks=pytest.mark.slow) for name in ("forward", "can"))]
)
def test_compiled_networks_are_the_same(derivative: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own compiler
        compiled = pid.distill(denoiser := teacher(), compile="eager", derivative=derivative, **SHORT)
    np.testing.assert_allclose(compiled.history["loss"], plain(derivative=derivative), rtol=1e-5)
    assert switched_off(compiled.student, denoiser)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["SongUNet", "DhariwalUNet"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_exact_derivatives_are_compiled_in_one_piece(kind: str, precision: str) -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    choices = {**SHORT, "derivative": "exact", "precision": precision}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own compiler
        compiled = pid.distill(teacher(model_type=kind), compile="aot_eager", **choices)
    assert not torch._dynamo.utils.counters["graph_break"]
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2  # student and teacher
    usual = losses(teacher(model_type=kind), **choices)
    np.testing.assert_allclose(compiled.history["loss"], usual, rtol=1e-5 if precision == "float32" else 0.02)


def by_hand(path: Any, grid: Tensor, index: Tensor) -> Any:
    t = grid[index]
    (y,), (dydt,) = torch.func.jvp(path, (t,), (torch.ones_like(t),))
    return [(t, y, dydt)]


@pytest.mark.parametrize(
    "scheme", [lambda path, grid, index: pid.derivative.exact(path, grid, index), by_hand], ids=["lambda", "by hand"]
)
def test_any_scheme_shows_that_it_needs_forward_mode(scheme: Any) -> None:
    """Passed as a function it is compiled, and refused, as by its name."""
    np.testing.assert_array_equal(losses(derivative=scheme), plain(derivative="exact"))
    for passed in (scheme, functools.partial(scheme), "exact"):
        with pytest.raises(ValueError, match=r"forward-mode automatic differentiation.*micro_batch"):
            losses(recompute=True, derivative=passed)


def test_a_scheme_passed_as_a_function_is_compiled() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own compiler
        compiled = losses(compile="eager", derivative=pid.derivative.exact)
    np.testing.assert_allclose(compiled, plain(derivative="exact"), rtol=1e-5)


@pytest.mark.parametrize("of", [{"method": "scm"}, {"method": "flow_map", "identity": "meanflow", "points": "data"}])
def test_maps_that_are_differentiated_in_forward_mode_are_compiled(of: dict[str, Any]) -> None:
    settings = {**of, "steps": 3, "batch_size": 4, "data": torch.linspace(-1, 1, 9 * 64).reshape(9, 1, 8, 8)}
    plain = pid.steps(teacher(), **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own compiler
        compiled = pid.steps(teacher(), compile="eager", **settings)
        losses = [step.loss for step in compiled]
    assert (compiled.student, "denoised_jvp") in [override[:2] for override in compiled.overrides]
    np.testing.assert_allclose(losses, [step.loss for step in plain], rtol=1e-5)


def test_a_correctors_auxiliary_network_is_computed_as_the_student_is() -> None:
    settings = {"method": "corrector", "first": "boot", "share": 0.5, "steps": 4, "batch_size": 4}
    run = pid.steps(teacher(), recompute=True, precision="bfloat16", **settings)
    seen: list[tuple[torch.dtype, bool]] = []
    auxiliary = run.trainer.stages[1].auxiliary
    auxiliary.network.register_forward_pre_hook(lambda net, args: seen.append((args[0].dtype, _recomputes(net))))
    assert all(np.isfinite(step.loss) for step in run)
    assert set(seen) == {(torch.bfloat16, True)}  # in each step, and where it is recomputed
    assert switched_off(auxiliary, run.student)


def _recomputes(network: nn.Module) -> bool:
    return all(part.recompute for part in network.modules() if hasattr(part, "recompute"))


def test_the_method_before_a_corrector_that_gets_no_steps_forbids_nothing() -> None:
    trained = pid.steps(teacher(), method="freeflow", steps=1, batch_size=4).student
    settings = {"method": "corrector", "first": "freeflow", "steps": 2, "batch_size": 4}
    with pytest.raises(ValueError, match=r"recompute does not work with .*forward-mode"):
        pid.steps(teacher(), recompute=True, share=0.5, **settings)
    assert len(list(pid.steps(teacher(), trained, recompute=True, share=0, **settings))) == 2


def test_a_run_goes_on_with_another_way_of_computing(tmp_path: Path) -> None:
    choices = {**SHORT, "checkpoints": tmp_path, "save_every": 1}
    pid.distill(teacher(), callbacks=[lambda step: step.number == 2], **choices)
    result = pid.distill(teacher(), recompute=True, micro_batch=2, **choices)
    np.testing.assert_allclose(result.history["loss"], plain(), rtol=1e-5)


def test_networks_are_compiled_once() -> None:
    torch._dynamo.utils.counters.clear()
    torch.compiler.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own compiler
        losses(teacher(channel_mult=[1], attn_resolutions=[8]), compile="eager")
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2  # student and teacher


def begun(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The choices of a run that was stopped after its first step, and its checkpoint."""
    choices = {**SHORT, "checkpoints": folder, "save_every": 1}
    pid.distill(teacher(), callbacks=[lambda step: step.number == 1], **choices)
    state = checkpoints.load_newest(folder)
    assert state is not None
    return choices, state


def test_a_run_goes_on_where_weights_lie_otherwise(tmp_path: Path) -> None:
    """On a GPU they are laid out as tensor cores like, and the optimiser's moments with them."""
    choices, state = begun(tmp_path)
    for moments in state["trainer"]["optimizer"]["state"].values():
        moments |= {
            name: moment.to(memory_format=torch.channels_last) for name, moment in moments.items() if moment.ndim == 4
        }
    checkpoints.save(tmp_path, 1, state)
    np.testing.assert_array_equal(pid.distill(teacher(), **choices).history["loss"], plain())


def test_a_run_goes_on_where_random_numbers_are_others(tmp_path: Path) -> None:
    choices, state = begun(tmp_path)
    state["trainer"]["generator"] = torch.zeros(16, dtype=torch.uint8)  # as of CUDA
    checkpoints.save(tmp_path, 1, state)
    found = pid.distill(teacher(), **choices).history["loss"]
    assert found[0] == plain()[0]
    np.testing.assert_allclose(found, plain(), rtol=0.5)
    assert found[1] != plain()[1]


@pytest.mark.skipif(not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="torch before 2.9")
def test_a_gpu_s_float32_is_as_before() -> None:
    kernels = torch.backends.cuda.matmul, torch.backends.cudnn.conv  # type: ignore[attr-defined]  # torch's stubs
    before = [part.fp32_precision for part in kernels]
    with overridden([(kernels[0], "fp32_precision", "tf32")]):  # as torch advises; the older flags now raise
        with overridden(tf32(False)):
            assert [part.fp32_precision for part in kernels] == ["ieee", "ieee"]
        assert [part.fp32_precision for part in kernels] == ["tf32", before[1]]
    assert [part.fp32_precision for part in kernels] == before
