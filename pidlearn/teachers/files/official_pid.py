"""Files of the official PID repository: a network's tensors by name, as `torch.save` writes them, without its options.

The options follow from the names and shapes; the preconditioning of a teacher leaves no trace in them. Teachers there
are EDM's, so their names start with ``model.``; students are the bare network. Dropout leaves no trace either and is
set to 0.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pidlearn.nets.noise_parametrization import IDDPM
from pidlearn.nets.registry import DENOISERS, NETWORKS
from pidlearn.teachers.files.build import SET_BY_THE_DENOISER, build, fill
from pidlearn.teachers.files.state_dict import WRAP_IT, read_state_dict

__all__ = ["infer", "read_student_network", "read_teacher"]

PREFIX = "model."
LEVELS = "u"
"""The name of iDDPM's table of noise levels."""


def read_student_network(path: Path) -> tuple[nn.Module, tuple[int, ...]]:
    """Return a student's network, in eval mode and frozen, and the shape of its images.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a file of anything else, a teacher included.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder: pass the path of a file")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: pass the path of a student")
    tensors = read_state_dict(path)
    if any(name.startswith(PREFIX) or "map_augment" in name for name in tensors):
        raise ValueError(f"{path} is a teacher, not a student: load it with pidlearn.load_teacher")
    with _naming(path):
        kind, options = infer(tensors)
        channels, outputs = options["in_channels"], options["out_channels"]
        if outputs != channels:
            raise ValueError(f"it maps {channels} channels to {outputs}, and a student's are equal")
        network = fill(NETWORKS[kind], options, tensors)
    return network, (channels, *[options["img_resolution"]] * 2)


def read_teacher(path: Path, precond: str | None = None) -> nn.Module:
    """Return the teacher of a file, whose names may start with ``model.`` or not, as one of EDM's denoisers.

    Args:
        path: the file.
        precond: the class of the denoiser; by default iDDPM's if its table is there, else EDM's, with a warning.

    Raises:
        ValueError: for a file that does not hold a network of the official code.
    """
    tensors = read_state_dict(path)
    levels = tensors.pop(LEVELS, None)
    named = [name for name in tensors if name.startswith(PREFIX)]
    if named and len(named) < len(tensors):
        raise ValueError(
            f"{path} has names with and without {PREFIX!r}; the official code writes either: save the state_dict of "
            f"one network"
        )
    if levels is not None and precond not in (None, "iDDPMPrecond"):
        raise ValueError(
            f"got precond = {precond!r} for {path}, whose table {LEVELS!r} of noise levels says that it is "
            f"iDDPMPrecond: leave precond out"
        )
    bare = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}
    with _naming(path):
        kind, options = infer(bare)
        denoiser = precond or ("EDMPrecond" if levels is None else "iDDPMPrecond")
        denoiser_options = {k: v for k, v in options.items() if k not in SET_BY_THE_DENOISER}
        denoiser_options |= {"img_channels": options["in_channels"], "model_type": kind}
        weights = {PREFIX + name: tensor for name, tensor in bare.items()}
        if levels is not None:
            weights[LEVELS] = _exact_levels(levels)
            denoiser_options["M"] = len(levels) - 1
        teacher = build(denoiser, denoiser_options, weights)
    if precond is None and levels is None:
        student = "" if named or options["augment_dim"] else " (it may also be a student: see load_official_student)"
        warnings.warn(
            f"{path} does not say its preconditioning, and is loaded as a teacher of EDM's, as the official PID code "
            f"takes it{student}. Pass precond= to "
            f"load_teacher, or convert the file with pidlearn import-teacher FILE -o TEACHER.safetensors --precond "
            f"NAME, to say which it is: {', '.join(map(repr, DENOISERS))}",
            stacklevel=3,
        )
    return teacher


def _exact_levels(levels: Tensor) -> Tensor:
    """Return the noise levels (M + 1,) of iDDPM's schedule, in float32 where a file has them in half precision.

    Raises:
        ValueError: levels of another schedule.
    """
    is_table = levels.is_floating_point() and levels.ndim == 1
    exact = torch.tensor(IDDPM(M=len(levels) - 1).sigmas[::-1], dtype=torch.float64) if is_table else None
    # Half precision rounds by up to eps / 2, in bfloat16 2e-3: neighbouring levels could no longer be distinguished.
    if exact is None or not torch.allclose(levels.double(), exact, rtol=max(1e-4, torch.finfo(levels.dtype).eps)):
        raise ValueError(f"its noise levels {LEVELS!r} are not those of iDDPM's schedule with C_1 = 0.001, C_2 = 0.008")
    return exact.float() if levels.dtype.itemsize < 4 else levels


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Name the file in errors."""
    try:
        yield
    except ValueError as error:
        raise ValueError(
            f"{path} holds no network of the official PID code: {error}. If it is another, {WRAP_IT}"
        ) from error


def infer(tensors: Mapping[str, Tensor]) -> tuple[str, dict[str, Any]]:
    """Return the class and options of the network that a bare state dict belongs to, with dropout 0.

    Raises:
        ValueError: if it is not the state dict of a `SongUNet` or `DhariwalUNet`.
    """
    try:
        return _infer({name: tuple(tensor.shape) for name, tensor in tensors.items()}, tensors)
    except (LookupError, ArithmeticError, TypeError) as error:
        raise ValueError(
            f"its names and shapes are not those of a SongUNet or DhariwalUNet ({error!r:.200})"
        ) from error


def _infer(shapes: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Tensor]) -> tuple[str, dict[str, Any]]:
    """Do the work of `infer`; raise LookupError and the like where a name or shape is missing."""
    adm = "out_conv.weight" in shapes
    levels = {int(match[1]) for name in shapes if (match := re.match(r"enc\.(\d+)x\1_", name))}
    if not levels:
        raise ValueError(
            f"its names, such as {next(iter(shapes), '')!r:.80}, are not those of a SongUNet or DhariwalUNet"
        )
    resolutions = sorted(levels, reverse=True)
    top = f"{resolutions[0]}x{resolutions[0]}"
    first = shapes[f"enc.{top}_conv.weight"]
    emb, noise = shapes["map_layer0.weight"]
    m = noise if adm else first[0]
    options: dict[str, Any] = {
        "img_resolution": resolutions[0],
        "in_channels": first[1],
        "out_channels": shapes["out_conv.weight" if adm else f"dec.{top}_aux_conv.weight"][0],
        "label_dim": shapes.get("map_label.weight", (0, 0))[1],
        "augment_dim": shapes.get("map_augment.weight", (0, 0))[1],
        "model_channels": m,
        "channel_mult": [_ratio(shapes[f"enc.{r}x{r}_block0.conv0.weight"][0], m) for r in resolutions],
        "channel_mult_emb": _ratio(emb, m),
        "num_blocks": sum(bool(re.fullmatch(rf"enc\.{top}_block\d+\.conv0\.weight", name)) for name in shapes),
        "attn_resolutions": [r for r in resolutions if f"enc.{r}x{r}_block0.qkv.weight" in shapes],
        "dropout": 0.0,
    }
    if adm:
        return "DhariwalUNet", options
    down = [f"enc.{r}x{r}" for r in resolutions[1:]]
    kinds = {"residual": "aux_residual.weight", "skip": "aux_skip.weight"}
    encoder = [kind for kind, name in kinds.items() if any(f"{key}_{name}" in shapes for key in down)]
    filters = [tensors[f"{key}_down.conv0.resample_filter"] for key in down[:1]]
    return "SongUNet", options | {
        "embedding_type": "fourier" if "map_noise.freqs" in shapes else "positional",
        "channel_mult_noise": _ratio(noise, m),
        "encoder_type": encoder[0] if encoder else "standard",
        "decoder_type": "skip" if f"dec.{top}_aux_up.resample_filter" in shapes else "standard",
        "resample_filter": _taps(filters[0]) if filters else [1, 1],
    }


def _ratio(channels: int, m: int) -> int:
    """Return channels / m, a whole number."""
    times, remainder = divmod(channels, m)
    if remainder:
        raise ValueError(f"{channels} channels are not a multiple of its model_channels, {m}")
    return times


def _taps(kernel: Tensor) -> list[int]:
    """Return the whole numbers f with filter = outer(f, f) / sum(f)^2, for a filter (1, 1, L, L)."""
    row = kernel.double()[0, 0].sum(0)
    return [round(tap) for tap in (row / row.min()).tolist()]
