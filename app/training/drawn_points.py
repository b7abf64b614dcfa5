"""A visitor's points as a teacher: read from CSV or drawn, standardized, and turned into a mixture of Gaussians."""

from __future__ import annotations

import base64
import binascii
import csv
import io
import math
import re
from typing import Any

import numpy as np

__all__ = [
    "MAX_BYTES",
    "MAX_CENTRES",
    "MAX_POINTS",
    "STEP",
    "decode",
    "encode",
    "fit_mixture",
    "from_canvas",
    "read_csv",
    "standardize",
]

MAX_BYTES, MAX_POINTS = 2_000_000, 5_000
"""Limits of a file's size and of the number of points."""
MAX_CENTRES = 150
"""Limit of Gaussians in the mixture: the browser evaluates this many without stuttering."""
STEP = 1 / 50
"""Grid spacing that points are rounded to in the address bar: a quarter of `MIN_STD`."""
MIN_STD = 0.08
"""The narrowest Gaussian of a mixture; a small student can follow it."""


def read_csv(content: bytes) -> np.ndarray:
    """Read two columns of numbers, (M, 2), with or without a header.

    Columns are separated by comma, semicolon, tab or space. With semicolon or tab, numbers may have decimal commas.

    Raises:
        ValueError: says what is wrong with the file, and in which line.
    """
    if len(content) > MAX_BYTES:
        raise ValueError(f"the file has {len(content) / 1e6:.1f} MB: at most {MAX_BYTES / 1e6:.0f} MB are allowed")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError("the file is not text: save it as CSV in UTF-8") from error
    if not text.strip():
        raise ValueError("the file is empty: expected two numbers per line")
    separator = next((mark for mark in ";\t," if any(mark in line.strip() for line in text.splitlines())), " ")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
    rows: list[tuple[float, float]] = []
    try:
        lines = (row for row in reader if any(map(str.strip, row)))  # without blank ones
        for number, row in enumerate(lines):
            while not row[-1].strip():
                row.pop()
            try:
                x, y = (float(value if separator == "," else value.replace(",", ".")) for value in row)
            except ValueError:
                if number == 0 and not any(map(numeric, row)):
                    continue  # the header
                content_of_line = separator.join(row)[:40]
                expected = "expected two numbers and nothing else, as in 0.5,1.25"
                raise ValueError(f"line {reader.line_num} is {content_of_line!r}: {expected}") from None
            if not (math.isfinite(x) and math.isfinite(y)):
                raise ValueError(f"line {reader.line_num} has a coordinate that is infinity or NaN: remove the line")
            rows.append((x, y))
            if len(rows) > MAX_POINTS:
                raise ValueError(f"the file has more than {MAX_POINTS:,} points: upload a subset of them")
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num} cannot be read ({error}): is a quotation mark not closed?") from error
    return np.array(rows).reshape(-1, 2)


def numeric(text: str) -> bool:
    """Return whether the text looks like a number, with decimal point or comma."""
    return bool(re.fullmatch(r"\s*[-+−]?[\d.,]+(e[-+]?\d+)?\s*", text, re.IGNORECASE))


def from_canvas(report: Any) -> np.ndarray | None:
    """Return the points that the canvas reports, (M, 2), or None if they are not points, too many or too far out.

    The canvas observes these limits itself, but a browser can send anything, and k-means takes a minute for 100,000
    points. The bound on coordinates is that of the address.
    """
    if not isinstance(report, list) or len(report) > MAX_CENTRES:
        return None
    try:
        points = np.array(report, float) if report else np.zeros((0, 2))
    except (TypeError, ValueError, OverflowError):
        return None
    inside = points.shape == (len(report), 2) and bool((np.abs(points) <= 128 * STEP).all())
    return points if inside else None  # NaN is not inside


def standardize(points: np.ndarray) -> np.ndarray:
    """Shift points to mean 0 and scale them to a standard deviation of 0.7, the scale that EDM's grid is made for.

    Raises:
        ValueError: there are fewer than two distinct points, or they are too far apart to be scaled.
    """
    if len(points) < 2:
        raise ValueError(f"there {'is 1 point' if len(points) == 1 else 'are 0 points'}: give at least two")
    with np.errstate(over="ignore", invalid="ignore"):
        centred = points - points.mean(0)
        spread = math.sqrt(float((centred**2).mean()))
    if not math.isfinite(spread):
        raise ValueError("the coordinates are too large for their standard deviation to be computed: use other units")
    if not spread > 1e-9 * float(np.abs(points).max()):
        raise ValueError("all points are the same: give at least two different ones")
    return 0.7 * centred / spread


def fit_mixture(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Return a mixture of Gaussians: means (K, 2), weights (K,) and their common standard deviation.

    Up to `MAX_CENTRES` distinct points are the means themselves; more are clustered by k-means. The standard deviation
    follows Scott's rule, scaled by 0.35, but is at least `MIN_STD`.
    """
    from scipy.cluster.vq import kmeans2

    std = max(MIN_STD, 0.35 * len(points) ** (-1 / 6) * float(points.std()))
    distinct, counts = np.unique(points, axis=0, return_counts=True)
    if len(distinct) <= MAX_CENTRES:
        return distinct, counts / len(points), std
    means, label = kmeans2(points, MAX_CENTRES, minit="++", seed=np.random.default_rng(0))
    counts = np.bincount(label, minlength=MAX_CENTRES)
    return means[counts > 0], counts[counts > 0] / counts.sum(), std


def encode(points: np.ndarray) -> str:
    """Encode up to `MAX_CENTRES` points, rounded to `STEP`, as text for the address bar; more give an empty text."""
    if not 0 < len(points) <= MAX_CENTRES:
        return ""
    integers = np.clip(np.round(points / STEP), -127, 127).astype(np.int8)
    return base64.urlsafe_b64encode(integers.tobytes()).decode().rstrip("=")


def decode(text: str) -> np.ndarray:
    """Decode points from the address bar, (M, 2).

    Raises:
        ValueError: the text does not encode points.
    """
    try:
        content = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("the points in the address cannot be decoded: they are ignored") from error
    if not content or len(content) % 2 or len(content) > 2 * MAX_CENTRES:
        raise ValueError("the points in the address cannot be decoded: they are ignored")
    return np.frombuffer(content, np.int8).reshape(-1, 2) * STEP
