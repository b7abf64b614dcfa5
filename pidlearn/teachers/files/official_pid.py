"""Files of the official PID repository: `torch.save` archives of a network's tensors by name, without its options.

The options follow from the names and shapes. Teachers there are EDM's, so their names start with ``model.``; students
are the bare network. Dropout leaves no trace in a file, and is 0.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pidlearn.nets.registry import NETWORKS
from pidlearn.students.trajectory import Trajectory
from pidlearn.teachers.files.build import GIVEN_BY_THE_DENOISER, build, fill
from pidlearn.utils import torch_archive

__all__ = ["infer", "load_official_student", "read_teacher"]

PREFIX = "model."


def load_official_student(path: str | Path) -> Trajectory:
    """A student trained with the official PID code, as the path x(z, t) that it stands for.

    Args:
        path: a ``model*.pt`` or ``ema_*.pt`` of the official repository.

    Returns:
        The trajectory from t_max = 80 to t_min = 0.002, in eval mode and frozen, with z scaled as at t_max for every t
        and sigma_data 0.5: ``sample(n)`` draws images (n, channels, R, R). Class labels are int64 (n,).

    Raises:
        ValueError: for another kind of file, a teacher among them.
        FileNotFoundError: if there is none.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    tensors = torch_archive.read(path)
    if any(name.startswith(PREFIX) or "map_augment" in name for name in tensors):
        raise ValueError(f"{path} is a teacher, not a student: pidlearn.load_teacher reads it")
    with _explained(path):
        kind, options = infer(tensors)
        channels, outputs = options["in_channels"], options["out_channels"]
        if outputs != channels:
            raise ValueError(f"it makes {outputs} channels of {channels}, which no student does")
        network = fill(NETWORKS[kind], options, tensors)
    event_shape = (channels, *[options["img_resolution"]] * 2)
    return Trajectory(network, 80.0, t_min=0.002, sigma_data=0.5, event_shape=event_shape).eval()


def read_teacher(path: Path) -> nn.Module:
    """A teacher's file, with or without ``model.`` before its names, as EDM's denoiser.

    Raises:
        ValueError: for a file that is no network of the official code.
    """
    tensors = torch_archive.read(path)
    named = [name for name in tensors if name.startswith(PREFIX)]
    if named and len(named) < len(tensors):
        raise ValueError(f"{path} mixes names with and without {PREFIX!r}, so it is not a file of the official code")
    bare = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}
    with _explained(path):
        kind, options = infer(bare)
        of_denoiser = {k: v for k, v in options.items() if k not in GIVEN_BY_THE_DENOISER}
        of_denoiser |= {"img_channels": options["in_channels"], "model_type": kind}
        teacher = build("EDMPrecond", of_denoiser, {PREFIX + name: tensor for name, tensor in bare.items()})
    if not named and not options["augment_dim"]:
        warnings.warn(
            f"nothing in {path} tells whether it is a teacher or a student of the official code: it is taken for a "
            f"teacher. load_official_student reads students",
            stacklevel=3,
        )
    return teacher


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path} holds no network of the official PID code: {error}") from error


def infer(tensors: Mapping[str, Tensor]) -> tuple[str, dict[str, Any]]:
    """The class and options of the network that a bare state dict belongs to; its dropout is taken for 0.

    Raises:
        ValueError: if it belongs to none.
    """
    try:
        return _infer({name: tuple(tensor.shape) for name, tensor in tensors.items()}, tensors)
    except (LookupError, ArithmeticError, TypeError) as error:
        raise ValueError(
            f"its names and shapes are not those of a SongUNet or DhariwalUNet ({error!r:.200})"
        ) from error


def _infer(shapes: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Tensor]) -> tuple[str, dict[str, Any]]:
    """`infer`, for names and shapes that may lack what is asked for."""
    adm = "out_conv.weight" in shapes
    found = {int(match[1]) for name in shapes if (match := re.match(r"enc\.(\d+)x\1_", name))}
    if not found:
        raise ValueError(
            f"its names, such as {next(iter(shapes), '')!r:.80}, are not those of a SongUNet or DhariwalUNet"
        )
    resolutions = sorted(found, reverse=True)
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
    """How many times m the channels are."""
    times, left = divmod(channels, m)
    if left:
        raise ValueError(f"{channels} channels are no multiple of its model_channels, {m}")
    return times


def _taps(kernel: Tensor) -> list[int]:
    """The whole numbers f of which a filter (1, 1, L, L) is outer(f, f) / sum(f)^2."""
    row = kernel.double()[0, 0].sum(0)
    return [round(tap) for tap in (row / row.min()).tolist()]
