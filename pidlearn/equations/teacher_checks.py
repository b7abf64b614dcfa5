"""Warnings of a denoiser that is not what its attributes say, from a few noises and the samples they lead to."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pidlearn.equations.data_scale import LOW_DIMENSIONAL, SIGMA_DATA, is_usual, stated_std
from pidlearn.equations.grids import log_grid
from pidlearn.equations.solvers import walk
from pidlearn.utils.validation import NotFiniteError
from pidlearn.utils.wrappers import unwrapped

if TYPE_CHECKING:
    from pidlearn.equations.diffusion import Diffusion

__all__ = ["warn_of_denoiser"]

CALLS = 8
"""Calls of the teacher per sample. DPM-Solver++ in equal steps of ln t ends with the standard deviation of Gaussian
data within 6 % for any of .02 to 5, over EDM's span; Euler's method on EDM's grid with .6 to .8 of it."""

MANY = 256
"""Samples of a few coordinates; of images there are fewer, down to 8."""


@torch.no_grad()
def warn_of_denoiser(problem: Diffusion) -> None:
    """Warn of what is wrong with a problem's teacher, or with the scale of its data for the span."""
    for message in _messages(problem):
        warnings.warn(message, stacklevel=5)  # where `distill` is called


def _messages(problem: Diffusion) -> Iterator[str]:
    denoiser, std = unwrapped(problem.ode.denoiser), problem.sigma_data
    stated = stated_std(denoiser) is not None
    if stated and not is_usual(std):
        yield (
            f"the data have a standard deviation of {std:.3g}, but recipes and students are designed for about "
            f"{SIGMA_DATA}: divide the data by {std / SIGMA_DATA:.3g}"
        )
    # data_at: of a flow, whose sigma_data is a setting of the user's and not one of the network's.
    data_at: int | None = getattr(getattr(denoiser, "noise_parametrization", None), "data_at", None)
    # The coordinates of a point may have units of their own; pixels share one.
    points = len(problem.event_shape) == 1 and problem.event_shape[0] <= LOW_DIMENSIONAL
    # Images of a teacher that states its scale need no samples, and so no more than the one call of `_of_noise`.
    drawn = _samples(problem) if points or data_at is not None or not stated else None
    if drawn is not None and (data_at is not None or not stated):
        std = _rms(drawn[0].std(0))
    # Few images of a flow may all be of one kind and vary less than the data do: then sigma_data is the better bound.
    message = _of_noise(problem, std if points or data_at is None else max(std, problem.sigma_data))
    if not message and drawn is not None:
        samples, mean = drawn
        message = "" if data_at is None else _of_flow(problem, samples, mean, data_at)
        if not stated and not is_usual(std):
            message = (
                f"the teacher states no standard deviation of its data and its samples have one of {std:.3g}, but "
                f"recipes and spans are designed for about {SIGMA_DATA}: set the teacher's attribute std, divide the "
                f"data by {std / SIGMA_DATA:.3g}, or, if they do not have it, return the denoised x from D(x, sigma)"
            )
        if points and not message:
            message = _of_thin_coordinates(problem, samples)
    if message:
        yield message


def _samples(problem: Diffusion) -> tuple[Tensor, Tensor] | None:
    """Samples of the teacher and its D(z, t_max) for the noises they start from, both (n, *event) float64.

    None for a teacher whose paths become NaN, and for one whose data are a single point, without a scale.
    """
    # 8 images or 256 points of the plane, of which one step of training computes as many or more.
    n = min(MANY, max(8, 2**13 // math.prod(problem.event_shape)))
    generator = torch.Generator(problem.rng_device).manual_seed(0)
    z, labels = problem.sample_prior(n, generator), problem.sample_labels(n, generator)
    grid = log_grid(CALLS + 1, problem.t_end, problem.t_start)
    try:
        *_, samples = walk(problem.ode, z, grid, "dpm++", labels)
    except NotFiniteError:  # reported where it stops the training
        return None
    mean = problem.ode.denoise(z, problem.t_start, labels).double()
    return (samples.double(), mean) if mean.std(0).any() else None


def _of_noise(problem: Diffusion, std: float) -> str:
    """What to say if D of pure noise varies more than a denoiser's can, or if noise does not drown the data's mean.

    Where noise drowns the data, D(z, sigma) can only tell their mean. Data of d coordinates with variance s^2 each
    have no direction of more than d s^2, so over z a denoiser has at most the variance s^2 d s^2 / (d s^2 +
    sigma^2). Another parametrization, or a flow in the other direction of time, varies as much as the data do.
    """
    widest = math.sqrt(math.prod(problem.event_shape)) * std  # the std in a direction that carries all the variance
    # At sigma = 10 widest the bound is about std / 10; t_start may allow less noise than that.
    sigma = min(problem.t_start, 10 * widest)
    z = problem.sample_prior(8, torch.Generator(problem.rng_device).manual_seed(0)) * (sigma / problem.t_start)
    labels = torch.zeros(8, dtype=torch.int64, device=problem.device) if problem.label_dim else None
    denoised = problem.ode.denoise(z, sigma, labels).double()
    # (8, *event) to two numbers: the RMS over all coordinates of the std, and of the mean, of the 8 samples.
    spread, mean = _rms(denoised.std(0)), _rms(denoised.mean(0))
    # The bound s * widest / sqrt(widest^2 + sigma^2) with a margin: 1.5 times, and never below std / 2. A network may
    # be off by a fifth of the data's mean, where that can be one.
    far = mean > problem.t_start / 5
    if spread > std * max(0.5, 1.5 * widest / math.hypot(widest, sigma)) + (0.0 if far else 0.2 * mean):
        return (
            f"the denoised samples of pure noise at sigma = {sigma:.3g} differ by {spread:.3g} (standard deviation "
            f"over 8 of them), but must nearly be the mean of the data, whose own is {std:.3g}: check the "
            f"parametrization (for a flow, data_at= and the sign of its velocity), and sigma_data"
        )
    if far:
        return (
            f"the data's mean is {mean:.3g} away from 0, which noise of t_max = {problem.t_start:g} does not drown: "
            f"subtract it from the data, or raise t_max to {5 * mean:.3g}"
        )
    return ""


def _of_flow(problem: Diffusion, samples: Tensor, mean: Tensor, data_at: int) -> str:
    """What to say if a flow's samples have another mean than D(noise), or another standard deviation than sigma_data.

    At its noise end a flow is v = +-(x - E[x0]) and at its data end +-x, with the same signs for either data_at: the
    ends differ in the mean alone, which is D(z, t_max). The flow of N(m, s^2) read backwards has samples from
    N(-m/s, 1/s^2), while its D(z, t_max) is nearly 0. If m = 0, it is the flow of N(0, 1/s^2) exactly, so that only
    sigma_data can tell.
    """
    std, apart, centre = _rms(samples.std(0)), _rms(samples.mean(0) - mean.mean(0)), _rms(samples.mean(0))
    # A mean of n samples is off by the data's std / sqrt(n), in which pixels that vary together count as one: where
    # the samples vary less than sigma_data says, they may lack a kind. A network may be off by a fifth of its mean.
    if apart > 4 * max(std, problem.sigma_data) / math.sqrt(len(samples)) + 0.4 * centre:
        return (
            f"the flow predicts data of another mean from pure noise than its samples have (they are {apart:.3g} "
            f"apart): check data_at={data_at}, the time of the data, and the sign of the velocity"
        )
    # Eight images may all be of one kind, which a tenth of the data are not, and then vary too little. Those of a flow
    # read backwards vary by 1 / sigma_data; by more if pixels differ in their std s, since rms(1/s) >= 1 / rms(s).
    narrow = std < problem.sigma_data / 1.7 and (len(samples) >= MANY or std > 0.8 / problem.sigma_data)
    if std > 1.7 * problem.sigma_data or narrow:
        return (
            f"the flow's samples have a standard deviation of {std:.3g}, but sigma_data is {problem.sigma_data:.3g}: "
            f"pass sigma_data={std:.3g}, or, if the data do not have that standard deviation, data_at={1 - data_at}"
        )
    return ""


def _of_thin_coordinates(problem: Diffusion, samples: Tensor) -> str:
    """What to say if noise at t_min hides a coordinate of the data, though not all of them."""
    width, coordinate = samples.std(0).min(0)  # a sample's variance is the data's plus t_min^2
    std = math.sqrt(max(0.0, width.item() ** 2 - problem.t_end**2))
    least = 0.75 * problem.t_end  # what so few samples can tell from none
    if std < least <= 0.15 * problem.sigma_data:
        return (
            f"coordinate {coordinate.item()} of the data is constant, or has a standard deviation below {least:.2g}, "
            f"which noise at t_min = {problem.t_end:g} hides: leave it out if it is constant, lower t_min to a 250th "
            f"of its standard deviation, or give all coordinates similar scales"
        )
    alike = width > 0.5 * samples.std(0).max()  # then `diffusion` warns of the data as a whole, at the same limit
    if std < 5 * problem.t_end <= problem.sigma_data and not alike:
        return (
            f"coordinate {coordinate.item()} of the data has a standard deviation of about {std:.2g}, which noise at "
            f"t_min = {problem.t_end:g} still hides: expect samples that are too wide there, lower t_min to "
            f"{std / 250:.2g}, or give all coordinates similar scales"
        )
    return ""


def _rms(x: Tensor) -> float:
    return x.square().mean().sqrt().item()
