"""The measurements of `benchmarks.gpu` as tables."""

from __future__ import annotations

from benchmarks.gpu.variants import BASELINE, BOUND, Size
from benchmarks.table import Row, Store

HALVES = ("float16", "bfloat16")
LARGEST = "largest batch"
GOAL = 2.5
"""The speedup over the baseline to reach."""
LARGEST_ERROR = 0.1
"""A rounding error counts as small up to this share of the residual."""

TEXT = (
    "Random weights, so residuals are large; for rounding along a trained student see `rounding-*.md`. Residual and "
    "gradient error: root mean square of the difference from float64, relative to the residual or gradient. A step "
    f"whose residual error is above {LARGEST_ERROR} does not count, however fast it is. MFU: the FLOP of the paper's "
    "step, seven forward passes of the network per image, whatever a variant computes instead, relative to the rate of "
    "a large matrix product in the same precision and run. LPIPS: untrained VGG, images resized to 224 pixels. GiB: "
    "peak of the allocator. Largest batch: without micro-batches, for a step with l2 that is not compiled."
)
ROUNDING = (
    "One batch along the student's own trajectories, compared with the same derivative in float64. A step whose error "
    f"is above {LARGEST_ERROR} of the residual does not count, however fast it is. Without a GPU, TF32 is emulated: "
    "the factors of every product are rounded to its ten bits of mantissa."
)

RATES = {"With l2:": "images/s", "with LPIPS:": "images/s, LPIPS"}
"""Names of the rates in the text, and in a row."""


def counts(row: Row) -> bool:
    """Whether the rounding error is small compared with the residual; one that overflowed is not."""
    small: bool = row["residual error"] <= LARGEST_ERROR * row["residual"]
    return small


def write(store: Store, sizes: dict[str, Size], price: float) -> str:
    """Write the tables of all rows so far; returns the document."""
    sections: dict[str, list[dict[str, str]]] = {}
    paragraphs = [TEXT]
    for name, size in sizes.items():
        rows, largest, machine = split_rows(store, name)
        if rows:
            paragraphs.append(f"{verdict(name, rows)}{whole_batch(size, largest)}")
            sections |= sections_of(name, size, rows, machine, price)
    return store.write("Training steps on a GPU", "\n\n".join(paragraphs), sections)


def split_rows(store: Store, name: str) -> tuple[dict[str, Row], Row, Row]:
    """The rows of a size by variant, each with its largest batch; the largest batches alone; and the machine's row."""
    prefix, suffix = f"{name} / ", f", {LARGEST}"
    rows = {key.removeprefix(prefix): row for key, row in store.rows.items() if key.startswith(prefix)}
    machine = rows.pop("machine", {})
    largest = {key.removesuffix(suffix): row[LARGEST] for key, row in rows.items() if LARGEST in row}
    return (
        {key: {**row, LARGEST: largest.get(key)} for key, row in rows.items() if LARGEST not in row},
        largest,
        machine,
    )


def sections_of(
    name: str, size: Size, rows: dict[str, Row], machine: Row, price: float
) -> dict[str, list[dict[str, str]]]:
    """The tables of a size by heading."""
    sections = {f"{name}: {size.batch} images per step, {size.micro_batch} at a time": speed_lines(rows, machine)}
    if shares := {key: row["shares"] for key, row in rows.items() if "shares" in row}:
        sections[f"{name}: shares of a step with LPIPS"] = [
            {"step": key, **{part: f"{share:.0%}" for part, share in by_part.items()}}
            for key, by_part in shares.items()
        ]
    if kernels := {key: ranking(row["kernels"]) for key, row in rows.items() if "kernels" in row}:
        sections[f"{name}: the most expensive kernels of a step with LPIPS"] = [
            {"step": key, **{f"{rank}.": kernel for rank, kernel in enumerate(ranked, 1)}}
            for key, ranked in kernels.items()
        ]
    if rates := {key: row["images/s, LPIPS"] for key, row in rows.items() if "images/s, LPIPS" in row}:
        heading = f"{name}: the paper's {size.images:,} images at these rates with LPIPS, an extrapolation"
        sections[f"{heading}, at ${price:.2f} per hour"] = [cost(*rate, size, price) for rate in rates.items()]
    return sections


def verdict(name: str, rows: dict[str, Row]) -> str:
    """Whether the goal is reached, and by which speedup."""
    bound = rows.get(BOUND, {}).get("residual error")
    if bound is None:
        return f"**{name}**: the rounding error of the official style in float16, the bound for ours, was not measured."
    ours = {key: row for key, row in rows.items() if key.startswith("ours") and "residual" in row and counts(row)}
    # Written so that a bound of NaN, from a float16 step that overflowed, excludes nothing.
    eligible = {key: row for key, row in ours.items() if not row["residual error"] > bound}
    speedups = [f"{label} {speedup(rate, rows.get(BASELINE, {}), eligible)}" for label, rate in RATES.items()]
    return (
        f"**{name}**: the goal is {GOAL} times the speed of the official style in TF32, by a step that counts and "
        f"rounds no more than the official style in float16. {'; '.join(speedups)}."
    )


def whole_batch(size: Size, largest: Row) -> str:
    """The steps that need no micro-batches, as a sentence."""
    if not largest or size.batch > max(size.largest):
        return ""
    fitting = [key for key, batch in largest.items() if batch and batch >= size.batch]
    return f" A batch of {size.batch} fits without micro-batches with {', '.join(fitting) or 'none of them'}."


def speedup(rate: str, baseline: Row, eligible: dict[str, Row]) -> str:
    """The speedup of the fastest step at that rate, and whether it reaches the goal."""
    rates = {key: row[rate] for key, row in eligible.items() if rate in row}
    if rate not in baseline or not rates:
        return f"{'no such step of ours' if rate in baseline else 'no baseline'} was measured"
    best = max(rates, key=lambda key: rates[key])
    ratio = rates[best] / baseline[rate]
    return f"{ratio:.2f} times ({best}), {'met' if ratio >= GOAL else 'missed'}"


def speed_lines(rows: dict[str, Row], machine: Row) -> list[dict[str, str]]:
    """Speed, memory and rounding of each variant."""
    baseline = rows.get(BASELINE, {})

    def name(key: str, row: Row) -> str:
        excluded = "does not count" if "residual" in row and not counts(row) else ""
        notes = [note for note in (excluded, row.get("failed", "")) if note]
        return f"{key} ({'; '.join(notes)})" if notes else key

    def times(row: Row, rate: str) -> str:
        return _format(row[rate] / baseline[rate], ".2f") if rate in row and rate in baseline else ""

    def line(key: str, row: Row) -> dict[str, str]:
        peak = machine["half" if any(half in key for half in HALVES) else "TF32"]
        rate = row.get("images/s")
        return {
            "step": name(key, row),
            "images/s": _format(rate, ".0f"),
            "times as fast": times(row, "images/s"),
            "with LPIPS": _format(row.get("images/s, LPIPS"), ".0f"),
            "times as fast, LPIPS": times(row, "images/s, LPIPS"),
            "MFU": _format(rate and rate * machine["FLOP"] / peak, ".0%"),
            "GiB": _format(row.get("GiB"), ".1f"),
            "GiB, LPIPS": _format(row.get("GiB, LPIPS"), ".1f"),
            LARGEST: _format(row.get(LARGEST), "d"),
            "residual error": _format("residual" in row and row["residual error"] / row["residual"], ".1e"),
            "gradient error": _format(row.get("gradient error"), ".1e"),
            "first steps, s": _format(row.get("first steps, s"), ".0f"),
        }

    return [line(key, row) for key, row in rows.items()]


def ranking(kernels: dict[str, float]) -> list[str]:
    """Kernels with their shares, cut to fit into a table."""
    return [f"{share:.0%} `{name[:40].replace('|', '/')}`" for name, share in kernels.items()]


def cost(key: str, rate: float, size: Size, price: float) -> dict[str, str]:
    """Cost of the paper's whole training at this rate: an extrapolation, not a run."""
    hours = size.images / rate / 3600
    return {"step": key, "GPU-hours": f"{hours:,.0f}", "dollars": f"{hours * price:,.0f}"}


def rounding_lines(store: Store) -> list[dict[str, str]]:
    """Residuals along a trained student, and their rounding errors."""
    return [
        {
            "step": key.removeprefix("trained / "),
            "residual": f"{row['residual']:.2e}",
            "its error": f"{row['residual error']:.1e}",
            "error / residual": f"{row['residual error'] / row['residual']:.1e}",
            f"below {LARGEST_ERROR}": "yes" if counts(row) else "no",
            "gradient error": f"{row['gradient error']:.1e}",
        }
        for key, row in store.rows.items()
    ]


def _format(value: float | None, spec: str) -> str:
    return format(value, spec) if value else ""
