"""`pidlearn sample`: generate images with a student and save them as a PNG."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from pidlearn.cli.main import nonnegative_int, positive_int
from pidlearn.cli.shared import (
    calibration_kept,
    check_refine,
    default_calls,
    read_student,
    resolve_device,
    share,
    side_by_side,
)
from pidlearn.evaluation.images import image_grid, save_png
from pidlearn.refinement import with_teacher
from pidlearn.teachers import load_teacher

__all__ = ["add_arguments", "run", "sample"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``pidlearn sample``."""
    parser.add_argument(
        "student",
        nargs="?",
        help="a student's file, written by this library or by the official PID code; without it, the images are the "
        "teacher's",
    )
    parser.add_argument("-o", "--out", default="samples.png", help="the PNG file to write (default: samples.png)")
    parser.add_argument("-n", type=positive_int, default=64, help="number of images (default: 64)")
    parser.add_argument(
        "--seed", type=nonnegative_int, default=0, help="seed of the noise and the class labels (default: 0)"
    )
    parser.add_argument(
        "--calls",
        type=positive_int,
        metavar="K",
        help="network calls per image, at most; of a student x(z, t) the teacher takes as many as help (default: 1; "
        f"{default_calls(None)} Euler steps of a teacher)",
    )
    parser.add_argument(
        "--refine",
        type=share,
        default=1.0,
        metavar="SHARE",
        help="give the calls only to this share of the images, those with the largest estimated errors (default: 1)",
    )
    parser.add_argument("--label", type=int, help="class label of all images (default: drawn uniformly)")
    parser.add_argument("--teacher", help="also show the images of this teacher from the same noise")
    parser.add_argument("--device", help="cpu, cuda, ... (default: a GPU if there is one)")


def run(arguments: argparse.Namespace) -> int:
    """Generate images and print the path of their file."""
    names = ("n", "seed", "calls", "refine", "label", "teacher", "device")
    options = {name: getattr(arguments, name) for name in names}
    print(sample(arguments.student, arguments.out, **options))
    return 0


@torch.no_grad()
def sample(
    student: str | Path | None,
    out: str | Path,
    *,
    n: int = 64,
    seed: int = 0,
    calls: int | None = None,
    refine: float = 1.0,
    label: int | None = None,
    teacher: str | None = None,
    device: str | None = None,
) -> Path:
    """Save a grid of images, each generated in one call of the student, or in several.

    Args:
        student: a file of `Result.save`, or of the official PID repository; None for the teacher's own images.
        out: the PNG file to write.
        n: number of images.
        seed: seed of the noise, and of the class labels if ``label`` is None.
        calls: network calls per image. For a student x(z, t), ``teacher`` takes those that help; which do is
            measured, and kept in the student's file. By default 1, and 249 Euler steps without a student.
        refine: the share of the images that gets them, as in `Result.sample`.
        label: class label of all images.
        teacher: a file or a published name, as for `load_teacher`. The teacher's images from the same noise, by Euler
            steps on a grid of 250 points, are drawn above the student's.
        device: by default a GPU if there is one.

    Returns:
        ``out``.

    Raises:
        ValueError: a file that is not a student, an ``out`` that does not end in ".png", a label or a number of
            calls that the student does not have, or a teacher of other images.
    """
    if Path(out).suffix.lower() != ".png":
        raise ValueError(f"got {out}, but the images are written as PNG: choose a name that ends in .png")
    check_refine(refine, student, teacher)
    resolved = resolve_device(device)
    teacher_net = load_teacher(teacher).to(resolved) if teacher else None
    calls = default_calls(student) if calls is None else calls
    student_net, problem = read_student(student, teacher_net)
    student_net.to(resolved)
    if label is not None and not student_net.label_dim:
        raise ValueError(f"got label {label} for an unconditional student: leave the label out")
    if label is not None and not 0 <= label < student_net.label_dim:
        raise ValueError(f"got label {label}, but class labels must lie in 0..{student_net.label_dim - 1}")
    labels = None if label is None else torch.full((n,), label)
    if problem is not None:
        with calibration_kept(student, with_teacher(student_net, problem), calls, refine):
            pixels = side_by_side(student_net, problem, None, n, seed, labels, calls, refine)
    else:
        pixels = image_grid(student_net.sample(n, labels, torch.Generator().manual_seed(seed), calls))
    return save_png(pixels, Path(out))
