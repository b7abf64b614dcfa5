"""What `benchmarks.gpu` measured, as tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks.table import Row, Store

OFFICIAL, BASELINE, BOUND = "official style, ", "official style, TF32", "official style, float16"
HALVES = ("float16", "bfloat16")
LARGEST = "largest batch"
GOAL, COUNTS = 2.5, 0.1
"""So many times as fast as the baseline; and the share of the residual up to which an error of rounding counts as
small."""


@dataclass(frozen=True)
class Size:
    """A network and how it is trained.

    Attributes:
        network: options of `EDMPrecond`.
        batch: images a step.
        part: of them in memory at a time.
        images: of a whole training in the paper.
        largest: batches that are tried in one part, from the largest.
        resize: pixels a side that LPIPS sees.
        matrix: side of the products that the machine's ceiling is measured with.
    """

    network: dict[str, Any]
    batch: int
    part: int
    images: int
    largest: tuple[int, ...]
    resize: int = 224
    matrix: int = 8192


TEXT = (
    "Random weights, so that residuals are large; rounding along a trained student is in `rounding-*.md`. Residual and "
    "gradient error: root mean square of what is off from float64, over that of the residual or gradient. A step whose "
    f"residual error is above {COUNTS} does not count, however fast. MFU counts the paper's step, seven forward passes "
    "of the network an image, whatever a variant does in its place, against the rate of a large matrix product of that "
    "precision in the same run. LPIPS: VGG, untrained, images resized to 224 pixels. GiB: the allocator's peak. "
    "Largest batch: in one part, of a step with l2 that is not compiled."
)
ROUNDING = (
    "One batch along the student's own paths, against the same derivative in float64. A path whose error is above "
    f"{COUNTS} of the residual does not count, however fast. TF32 is plain float32 where there is no GPU."
)


RATES = {"With l2:": "images/s", "with LPIPS:": "images/s, LPIPS"}
"""What is told of a rate, and its name in a row."""


def counts(row: Row) -> bool:
    """Whether rounding is small beside what it rounds, which what overflows is not."""
    small: bool = row["residual error"] <= COUNTS * row["residual"]
    return small


def write(store: Store, sizes: dict[str, Size], price: float) -> str:
    """The tables of what has been measured."""
    sections: dict[str, list[dict[str, str]]] = {}
    told = [TEXT]
    for name, size in sizes.items():
        rows = _rows(store, name)
        machine = rows.pop("machine", {})
        found = {key: row[LARGEST] for key, row in rows.items() if LARGEST in row}
        rows = {key: row for key, row in rows.items() if key not in found}
        if not rows:
            continue
        largest = {key.removesuffix(f", {LARGEST}"): most for key, most in found.items()}
        rows = {key: {**row, LARGEST: largest.get(key)} for key, row in rows.items()}
        told.append(f"{verdict(name, rows)}{whole_batch(size, largest)}")
        sections[f"{name}: {size.batch} images a step, {size.part} at a time"] = speed_lines(rows, machine)
        if shared := {key: row["shares"] for key, row in rows.items() if "shares" in row}:
            sections[f"{name}: shares of a step with LPIPS"] = [
                {"step": key, **{part: f"{share:.0%}" for part, share in shares.items()}}
                for key, shares in shared.items()
            ]
        if ranked := {key: top(row["kernels"]) for key, row in rows.items() if "kernels" in row}:
            sections[f"{name}: what takes the time of a step with LPIPS"] = [
                {"step": key, **{f"{rank}.": kernel for rank, kernel in enumerate(kernels, 1)}}
                for key, kernels in ranked.items()
            ]
        if rates := {key: row["images/s, LPIPS"] for key, row in rows.items() if "images/s, LPIPS" in row}:
            heading = f"{name}: the paper's {size.images:,} images at these rates with LPIPS, an extrapolation"
            sections[f"{heading}, at ${price:.2f} an hour"] = [cost(*rate, size, price) for rate in rates.items()]
    return store.write("Training steps on a GPU", "\n\n".join(told), sections)


def _rows(store: Store, name: str) -> dict[str, Row]:
    """The rows of a size by variant."""
    prefix = f"{name} / "
    return {key.removeprefix(prefix): row for key, row in store.rows.items() if key.startswith(prefix)}


def verdict(name: str, rows: dict[str, Row]) -> str:
    """The goal, and by how much it is met or missed."""
    bound = rows.get(BOUND, {}).get("residual error")
    if bound is None:
        return f"**{name}**: what the official style in float16 rounds, which bounds ours, was not measured."
    ours = {key: row for key, row in rows.items() if key.startswith("ours") and "residual" in row and counts(row)}
    fit = {key: row for key, row in ours.items() if not row["residual error"] > bound}  # what overflows bounds nothing
    told = [f"{how} {against(rate, rows.get(BASELINE, {}), fit)}" for how, rate in RATES.items()]
    return (
        f"**{name}**: the goal is {GOAL} times the official style in TF32, by a step that counts and rounds no more "
        f"than the official style in float16. {'; '.join(told)}."
    )


def whole_batch(size: Size, largest: Row) -> str:
    """Which steps take a batch in one part."""
    if not largest or size.batch > max(size.largest):
        return ""
    able = [key for key, most in largest.items() if most and most >= size.batch]
    return f" A batch of {size.batch} fits in one part with {', '.join(able) or 'none of them'}."


def against(rate: str, base: Row, fit: dict[str, Row]) -> str:
    """The fastest at that rate, and whether it is as fast as it should be."""
    found = {key: row[rate] for key, row in fit.items() if rate in row}
    if rate not in base or not found:
        return f"{'no such step of ours' if rate in base else 'nothing to compare with'} was measured"
    best = max(found, key=lambda key: found[key])
    ratio = found[best] / base[rate]
    return f"{ratio:.2f} times ({best}), {'met' if ratio >= GOAL else 'missed'}"


def speed_lines(rows: dict[str, Row], machine: Row) -> list[dict[str, str]]:
    """Time, memory and rounding."""
    base = rows.get(BASELINE, {})

    def name(key: str, row: Row) -> str:
        useless = "does not count" if "residual" in row and not counts(row) else ""
        notes = [note for note in (useless, row.get("failed", "")) if note]
        return f"{key} ({'; '.join(notes)})" if notes else key

    def times(row: Row, rate: str) -> str:
        return _shown(row[rate] / base[rate], ".2f") if rate in row and rate in base else ""

    def line(key: str, row: Row) -> dict[str, str]:
        ceiling = machine["half" if any(half in key for half in HALVES) else "TF32"]
        rate = row.get("images/s")
        return {
            "step": name(key, row),
            "images/s": _shown(rate, ".0f"),
            "times as fast": times(row, "images/s"),
            "with LPIPS": _shown(row.get("images/s, LPIPS"), ".0f"),
            "times as fast, LPIPS": times(row, "images/s, LPIPS"),
            "MFU": _shown(rate and rate * machine["FLOP"] / ceiling, ".0%"),
            "GiB": _shown(row.get("GiB"), ".1f"),
            "GiB, LPIPS": _shown(row.get("GiB, LPIPS"), ".1f"),
            LARGEST: _shown(row.get(LARGEST), "d"),
            "residual error": _shown("residual" in row and row["residual error"] / row["residual"], ".1e"),
            "gradient error": _shown(row.get("gradient error"), ".1e"),
            "first steps, s": _shown(row.get("first steps, s"), ".0f"),
        }

    return [line(key, row) for key, row in rows.items()]


def top(kernels: dict[str, float]) -> list[str]:
    """Kernels with their shares, in so few letters that they fit into a table."""
    return [f"{share:.0%} `{name[:40].replace('|', '/')}`" for name, share in kernels.items()]


def cost(key: str, rate: float, size: Size, price: float) -> dict[str, str]:
    """What the paper's whole training would take at this rate: an extrapolation, not a run."""
    hours = size.images / rate / 3600
    return {"step": key, "GPU-hours": f"{hours:,.0f}", "dollars": f"{hours * price:,.0f}"}


def rounding_lines(store: Store) -> list[dict[str, str]]:
    """Residuals and errors along a trained student."""
    return [
        {
            "step": key.removeprefix("trained / "),
            "residual": f"{row['residual']:.2e}",
            "its error": f"{row['residual error']:.1e}",
            "error / residual": f"{row['residual error'] / row['residual']:.1e}",
            "gradient error": f"{row['gradient error']:.1e}",
            "counts": "yes" if counts(row) else "no",
        }
        for key, row in store.rows.items()
    ]


def _shown(value: float | None, form: str) -> str:
    return format(value, form) if value else ""
