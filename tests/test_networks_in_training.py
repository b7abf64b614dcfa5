"""How networks of images are trained: their start, their precision, and what saves memory and leaves the numbers."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pidlearn as pid
from tests.tiny import OPTIONS, teacher

SHORT: dict[str, Any] = {"steps": 3, "batch_size": 4, "n": 50, "progress": False}


def losses(denoiser: nn.Module | None = None, **choices: Any) -> np.ndarray:
    return pid.distill(denoiser or teacher(), **{**SHORT, **choices}).history["loss"]


# How a copy starts


def image_at_the_start(init: str, denoiser: Any) -> tuple[Tensor, Tensor]:
    """What a new student puts out at t_max, and D(z, t_max)."""
    run = pid.steps(denoiser, init=init, steps=1)
    z = run.problem.draw(3, torch.Generator().manual_seed(0)).double()
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


def test_of_iddpm_the_image_alone_is_kept() -> None:
    options = {key: value for key, value in OPTIONS.items() if key != "model_type"}
    denoiser = pid.nets.iDDPMPrecond(**options, model_type="SongUNet").eval()
    result = pid.distill(denoiser, **SHORT)
    assert result.student.network.options["out_channels"] == 1
    assert result.sample(2).shape == (2, 1, 8, 8)
    assert denoiser.model.options["out_channels"] == 2


def test_a_network_that_predicts_noise_starts_at_a_scale_to_learn_in() -> None:
    options = {key: value for key, value in OPTIONS.items() if key != "model_type"}
    image, _ = image_at_the_start("teacher", pid.nets.VPPrecond(**options).eval())
    assert image.std() < 5


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
    run = pid.steps(denoiser, derivative="exact", precision="bfloat16", **{k: SHORT[k] for k in ("steps", "n")})
    seen: list[Any] = []
    denoiser.model.register_forward_hook(lambda module, inputs, out: seen.append((out.dtype, inputs[1].dtype)))
    next(run)
    assert set(seen) == {(torch.bfloat16, torch.float32)}  # the noise level stays exact
    assert (denoiser.body, run.student.body) == (None, None)
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
        with torch.autograd.graph.saved_tensors_hooks(lambda x, sizes=sizes: sizes.append(x.nbytes) or x, lambda x: x):
            run._losses(0, run._draw(0, torch.Generator().manual_seed(0)))
        held.append(sum(sizes))
    assert held[1] < 0.5 * held[0]


def test_recomputation_is_refused_where_it_cannot_be() -> None:
    with pytest.raises(ValueError, match="recompute needs a student with a SongUNet"):
        losses(pid.toy("ring"), recompute=True)
    with pytest.raises(ValueError, match=r"does not go with derivative='exact'.*micro_batch"):
        losses(recompute=True, derivative="exact")


@pytest.mark.parametrize("derivative", ["forward", "exact"])
def test_compiled_networks_are_the_same(derivative: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own compiler
        compiled = losses(compile="eager", derivative=derivative)
    np.testing.assert_allclose(compiled, losses(derivative=derivative), rtol=1e-5)


def test_a_run_goes_on_with_another_way_of_computing(tmp_path: Any) -> None:
    choices = {**SHORT, "checkpoints": tmp_path, "save_every": 1}
    pid.distill(teacher(), callbacks=[lambda step: step.number == 2], **choices)
    result = pid.distill(teacher(), recompute=True, micro_batch=2, **choices)
    np.testing.assert_allclose(result.history["loss"], losses(), rtol=1e-5)
