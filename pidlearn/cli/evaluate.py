"""`pidlearn evaluate`: measure a student, or its teacher, against its teacher, reference statistics or real images."""

from __future__ import annotations

import argparse
import json
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pidlearn import recipes
from pidlearn.cli.main import nonnegative_int, positive_int
from pidlearn.cli.shared import (
    GRID_POINTS,
    calibration_kept,
    check_refine,
    default_calls,
    read_student,
    refined,
    resolve_device,
    share,
)
from pidlearn.data import DATA_SETS
from pidlearn.data.files import read_images
from pidlearn.equations.diffusion import Diffusion
from pidlearn.equations.grids import karras_grid
from pidlearn.equations.problem import Problem
from pidlearn.evaluation import metrics
from pidlearn.evaluation.images import quantize
from pidlearn.evaluation.inception import Inception
from pidlearn.refinement import with_teacher
from pidlearn.students.base import Student
from pidlearn.teachers import load_teacher

__all__ = ["add_arguments", "evaluate", "run"]

CHUNK = 250
"""Images whose features are computed at a time."""

MAX_TEACHER_SAMPLES = 1000
"""Samples that are compared with the teacher's, each of which costs 249 calls."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``pidlearn evaluate``."""
    parser.add_argument(
        "student",
        nargs="?",
        help="a student's file, written by this library or by the official PID code; without it, the teacher itself is "
        "measured",
    )
    parser.add_argument("--teacher", help="measure the error to this teacher's samples from the same noise")
    parser.add_argument("-n", type=positive_int, default=1000, help="samples (default: 1000); published FIDs use 50000")
    parser.add_argument(
        "--seed", type=nonnegative_int, default=0, help="seed of the noise and the class labels (default: 0)"
    )
    parser.add_argument(
        "--calls",
        type=positive_int,
        metavar="K",
        help=f"network calls per sample (default: 1; {default_calls(None)} Euler steps of a teacher)",
    )
    parser.add_argument(
        "--refine",
        type=share,
        default=1.0,
        metavar="SHARE",
        help="give the calls only to this share of the samples, those with the largest estimated errors (default: 1)",
    )
    parser.add_argument(
        "--fid",
        help="reference for the FID: an .npz of mu and sigma, such as EDM's, or images as for `distill --data`",
    )
    parser.add_argument("--inception", help="weights of Inception (default: torch's cache, downloaded if missing)")
    parser.add_argument("--real", choices=list(DATA_SETS), help="real images to compare with")
    parser.add_argument("--device", help="cpu, cuda, ... (default: a GPU if there is one)")


def run(arguments: argparse.Namespace) -> int:
    """Print the metrics of a student as one line of JSON."""
    names = ("teacher", "n", "seed", "calls", "refine", "fid", "inception", "real", "device")
    results = evaluate(arguments.student, **{name: getattr(arguments, name) for name in names})
    print(json.dumps({name: round(value, 6) if isinstance(value, float) else value for name, value in results.items()}))
    return 0


@torch.no_grad()
def evaluate(
    student: str | Path | None,
    *,
    teacher: str | None = None,
    n: int = 1000,
    seed: int = 0,
    calls: int | None = None,
    refine: float = 1.0,
    fid: str | Path | None = None,
    inception: str | Path | None = None,
    real: str | None = None,
    device: str | None = None,
) -> dict[str, Any]:
    """Measure a student, or a teacher by itself, on n samples; each metric's name says on how many.

    With ``teacher``: the relative RMSE to its Euler solution from the same noise, or to the exact one if the teacher
    takes further calls; of students that add noise between calls, the energy distance to its samples instead. With
    ``fid``: the FID. With ``real``: Fréchet distance, precision and recall to up to n real images, on features of
    Inception if its weights or ``fid`` are given, else on pixels; also the distance's floor, between two halves of the
    real images, if a half is large enough. For ``fid`` and ``real``, images are rounded to bytes, as files would hold
    them.

    Args:
        student: a file of `Result.save`, or of the official PID repository; None to measure the teacher.
        teacher: a file or a published name, as for `load_teacher`.
        n: number of samples; published FIDs use 50,000.
        seed: seed of the noise and the class labels.
        calls: network calls per sample, as in `pidlearn.cli.sample.sample`; by default 1, and 249 without a student.
        refine: the share of the samples that gets them, as in `Result.sample`.
        fid: an ``.npz`` of ``mu`` and ``sigma``, such as EDM's, or images as for `pidlearn.data.read_images`,
            all of which are used.
        inception: weights of Inception; by default those in torch's cache, downloaded if missing.
        real: "digits" or "fashion-mnist".
        device: by default a GPU if there is one.

    Raises:
        FileNotFoundError: a missing file, before anything is computed.
        ValueError: a file of another kind, too few samples for a metric, a number of calls that the student cannot
            make use of, or nothing to measure; as early.
    """
    _check_request(student, n, teacher, fid, inception, real)
    check_refine(refine, student, teacher)
    resolved = resolve_device(device)
    teacher_net = load_teacher(teacher).to(resolved) if teacher else None
    calls = default_calls(student) if calls is None else calls
    student_net, problem = read_student(student, teacher_net)
    student_net.to(resolved)
    both = with_teacher(student_net, problem) if problem else student_net
    with calibration_kept(student, both, calls, refine):
        shape = _draw(both, problem, 1, seed, calls, refine).shape[1:]
    reference = _reference(fid, shape) if fid else None
    real_images = _real_images(real, shape, n).to(resolved) if real else None
    features = Inception(inception) if fid or inception else quantize
    if fid or real:
        k = _extract(features, torch.zeros(1, *shape, device=resolved)).shape[1]
        if isinstance(reference, Tensor):
            _check_counts(k, {str(fid): len(reference)})
            batches = (images.to(resolved) / 127.5 - 1 for images in reference.split(CHUNK))
            reference = metrics.statistics(_extract(features, images) for images in batches)
        if reference and len(reference.mean) != k:
            raise ValueError(
                f"{fid} holds statistics of {len(reference.mean)} features, but Inception has {k}: give statistics of "
                f"those"
            )
        _check_counts(k, {"-n": n} | ({} if real_images is None else {str(real): len(real_images)}))

    samples = _draw(both, problem, n, seed, calls, refine)
    results: dict[str, Any] = {"n": n, "seed": seed, "calls": calls}
    if refine < 1:
        results["refine"] = refine
    if problem:
        results |= _to_teacher(both, problem, samples, seed, calls)
    if reference:
        chunks = _extract(features, samples).split(CHUNK)
        results[f"fid (n = {n})"] = metrics.frechet_distance(metrics.statistics(chunks), reference)
    if real_images is not None:
        results |= _to_real(features, samples, real_images)
    return results


def _to_teacher(student: Student, problem: Problem, samples: Tensor, seed: int, calls: int) -> dict[str, float]:
    """The error of the first samples (n, C, H, W) to the teacher's, or the distance to others of the teacher."""
    n = len(samples)
    m = min(n, MAX_TEACHER_SAMPLES)
    if calls > 1 and student.adds_noise:  # a sample does not belong to its noise: distributions are compared
        others = _teacher_samples(problem, n, seed + 1, m, exact=False)
        return {f"energy (n = {m})": metrics.energy_distance(samples[:m], others)}
    target = _teacher_samples(problem, n, seed, m, exact=calls > 1 and student.has_path)
    return {f"relative_rmse (n = {m})": metrics.relative_rmse(samples[:m], target)}


def _to_real(features: metrics.Features, samples: Tensor, real: Tensor) -> dict[str, float]:
    """Distances on features between samples and real images, (n, C, H, W) each, and the Fréchet distance's floor."""
    suffix = f"({'pixels' if features is quantize else 'Inception'}, n = {len(samples)}, {len(real)} real)"
    pair = _extract(features, samples), _extract(features, real)
    results = {f"frechet {suffix}": metrics.frechet_distance(*pair)}
    half = len(real) // 2
    if half > pair[1].shape[1]:
        results[f"frechet floor ({half} and {half} real)"] = metrics.floor(metrics.frechet_distance, pair[1], splits=2)
    results[f"precision {suffix}"], results[f"recall {suffix}"] = metrics.precision_recall(*pair)
    return results


def _draw(student: Student, problem: Problem | None, n: int, seed: int, calls: int, refine: float) -> Tensor:
    """Samples (n, C, H, W): noise, labels and what students add between calls come from one generator."""
    generator = torch.Generator().manual_seed(seed)
    if problem is None:
        return student.sample(n, None, generator, calls)
    z, labels = problem.sample_prior(n, generator), problem.sample_labels(n, generator)
    return refined(student, z, labels, calls, generator, refine)


def _check_request(
    student: str | Path | None,
    n: int,
    teacher: str | None,
    fid: str | Path | None,
    inception: str | Path | None,
    real: str | None,
) -> None:
    if not (fid or real or (teacher and student)):
        raise ValueError(
            "there is nothing to compare with: give reference statistics (fid) or real images"
            + (", or a teacher" if student else "")
        )
    if inception and not (fid or real):
        raise ValueError(
            "Inception weights are of no use without reference statistics (fid) or real images: give one of them"
        )
    if teacher and student and n < 2:
        raise ValueError(f"got n = {n}, but a relative error needs at least 2 samples: give a larger -n")


def _check_counts(k: int, counts: dict[str, int]) -> None:
    """Raise if a sample is too small for a covariance of k features, which has rank n - 1 at most."""
    for source, n in counts.items():
        if n <= k:
            raise ValueError(
                f"{n} samples ({source}) are too few for a Fréchet distance of {k} features: expected more than {k}"
            )


def _extract(features: metrics.Features, images: Tensor) -> Tensor:
    """Features (n, k) of images (n, C, H, W), computed in chunks."""
    return torch.cat([features(chunk).flatten(1) for chunk in images.split(CHUNK)])


def _reference(path: str | Path, shape: torch.Size) -> metrics.Statistics | Tensor:
    """Published statistics, or images (M, C, H, W) uint8 of the student's shape."""
    if not _holds_images(Path(path)):
        return metrics.read_statistics(path)
    images = read_images(path)[0]
    if images.shape[1:] != shape:
        raise ValueError(
            f"the images in {path} are {tuple(images.shape[1:])}, but the student's are {tuple(shape)}: resize them, "
            f"or pass others"
        )
    return images


def _holds_images(path: Path) -> bool:
    """Whether a file, or a folder, is of images rather than of statistics."""
    if path.is_dir() or path.suffix.lower() == ".zip":
        return True
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as arrays:
        return "images.npy" in arrays.namelist()


def _real_images(name: str, shape: torch.Size, n: int) -> Tensor:
    """Up to n real images (n, C, H, W), resized to the student's resolution."""
    images = recipes.load_images({"data": name, "resolution": shape[-1]})[0][:n]
    if images.shape[1:] != shape:
        raise ValueError(
            f"the images of {name} are {tuple(images.shape[1:])} but the student's are {tuple(shape)}: "
            f"compare a student of such images"
        )
    return images


def _teacher_samples(problem: Problem, n: int, seed: int, m: int, exact: bool) -> Tensor:
    """The teacher's Euler solutions (m, C, H, W), or exact ones, from the noise of the first m of n samples."""
    generator = torch.Generator().manual_seed(seed)
    # Draw all n, as the student did: the labels follow the noise in the generator's stream.
    z, labels = problem.sample_prior(n, generator), problem.sample_labels(n, generator)
    z, labels = z[:m], None if labels is None else labels[:m]
    if exact and isinstance(problem, Diffusion):
        return problem.exact_samples(z, labels)
    return problem.reference_samples(z, karras_grid(GRID_POINTS, problem.t_end, problem.t_start), labels)
