"""A visitor's own points as a teacher: read from CSV or drawn, brought to the scale of the toys, made a mixture."""

from __future__ import annotations

import base64
import binascii
import csv
import io
import math
import re

import numpy as np

__all__ = ["LARGEST", "MOST", "centred", "clustered", "from_address", "read_csv", "to_address"]

LARGEST, MOST = 2_000_000, 5_000
"""Bytes of a file, and points, that are read."""
CENTRES = 150
"""Gaussians that the points are drawn together to: as many as the browser evaluates without a stutter."""
STEP = 1 / 50
"""Of the grid that points are rounded to in the address bar: a quarter of the narrowest blur."""


def read_csv(content: bytes) -> np.ndarray:
    """Two columns of numbers, (M, 2), with or without a header; comma, semicolon, tab or blank apart.

    Where a semicolon or a tab separates, a comma may be the decimal point.

    Raises:
        ValueError: a file that is too large or holds no such points, and in which line.
    """
    if len(content) > LARGEST:
        raise ValueError(f"the file holds {len(content) / 1e6:.1f} MB; at most {LARGEST / 1e6:.0f} MB are read")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError("the file is not text: save it as CSV in UTF-8") from error
    if not text.strip():
        raise ValueError("the file is empty: expected two numbers in every line")
    apart = next((mark for mark in ";\t," if mark in text), " ")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=apart, skipinitialspace=True, strict=True)
    rows: list[tuple[float, float]] = []
    try:
        for number, row in enumerate(filter(any, reader)):
            while not row[-1].strip():
                row.pop()
            try:
                x, y = (float(value if apart == "," else value.replace(",", ".")) for value in row)
            except ValueError:
                if number == 0 and not any(map(numeric, row)):
                    continue  # the header
                said = apart.join(row)[:40]
                wanted = "expected two numbers and nothing else, as in 0.5,1.25"
                raise ValueError(f"line {reader.line_num} says {said!r}: {wanted}") from None
            if not (math.isfinite(x) and math.isfinite(y)):
                raise ValueError(f"line {reader.line_num} holds a point at infinity or NaN: leave it out")
            rows.append((x, y))
            if len(rows) > MOST:
                raise ValueError(f"the file holds more than {MOST:,} points: take a sample of them")
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num} cannot be read ({error}): is a quotation mark left open?") from error
    return np.array(rows).reshape(-1, 2)


def numeric(text: str) -> bool:
    """Whether it is a number, in one notation or another."""
    return bool(re.fullmatch(r"\s*[-+−]?[\d.,]+(e[-+]?\d+)?\s*", text, re.IGNORECASE))


def centred(points: np.ndarray) -> np.ndarray:
    """The points about their mean, with a standard deviation of 0.7 as the toys have: EDM's grid expects about that.

    Raises:
        ValueError: fewer than two places, or points so far out that nothing is left of the others.
    """
    if len(points) < 2:
        raise ValueError(f"{len(points)} point{'s' * (len(points) != 1)} will not do: give at least two")
    with np.errstate(over="ignore", invalid="ignore"):
        apart = points - points.mean(0)
        spread = math.sqrt(float((apart**2).mean()))
    if not math.isfinite(spread):
        raise ValueError("the points lie too far out for their spread to be a number: use other units")
    if not spread > 1e-9 * float(np.abs(points).max()):
        raise ValueError("all points are the same: give at least two places")
    return 0.7 * apart / spread


def clustered(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """A mixture of the points: means (K, 2), weights (K,) and the one standard deviation of its Gaussians.

    Every place is a mean as long as there are few; more are drawn together by k-means. The blur is what Scott's rule
    asks of so many points, but never below 0.08, which a small student can follow.
    """
    from scipy.cluster.vq import kmeans2

    blur = max(0.08, 0.35 * len(points) ** (-1 / 6) * float(points.std()))
    places, times = np.unique(points, axis=0, return_counts=True)
    if len(places) <= CENTRES:
        return places, times / len(points), blur
    means, label = kmeans2(points, CENTRES, minit="++", seed=np.random.default_rng(0))
    counts = np.bincount(label, minlength=CENTRES)
    return means[counts > 0], counts[counts > 0] / counts.sum(), blur


def to_address(points: np.ndarray) -> str:
    """Up to `CENTRES` points as letters for the address bar, each rounded to `STEP`; nothing for more."""
    if not 0 < len(points) <= CENTRES:
        return ""
    whole = np.clip(np.round(points / STEP), -127, 127).astype(np.int8)
    return base64.urlsafe_b64encode(whole.tobytes()).decode().rstrip("=")


def from_address(text: str) -> np.ndarray:
    """What `to_address` wrote, (M, 2).

    Raises:
        ValueError: letters that no points give.
    """
    try:
        content = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("the points in the address cannot be read") from error
    if not content or len(content) % 2 or len(content) > 2 * CENTRES:
        raise ValueError("the points in the address cannot be read")
    return np.frombuffer(content, np.int8).reshape(-1, 2) * STEP
