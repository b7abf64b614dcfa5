"""Distil a real student end to end, kill its run on the way, and compare it with its teacher's own solvers.

    python -m benchmarks.student [--recipe fashion-mnist] [--device D] [--parts main starts derivatives points]

The part "main" runs `pidlearn distill RECIPE` in its own process, kills it once after half of its steps, and starts it
again. Short runs measure what single settings change: how the copy of the teacher's network starts, how dx/dt is
computed, and the number N of grid points. WORK/RECIPE holds teacher, student and logs. An existing run is resumed, and
an interrupted command continues when it is repeated. ``--dry-run`` does everything in seconds, at toy size and in a
temporary folder.
"""

from __future__ import annotations

import argparse
import signal
import tempfile
from pathlib import Path

import torch

from benchmarks.student import full_run, short_runs
from benchmarks.student.settings import SIZES, SWEEPS, TOY, TOY_SIZE
from benchmarks.student.study import Study
from benchmarks.student.tables import publish
from benchmarks.table import RESULTS
from pidlearn.cli.shared import resolve_device

PARTS = ("main", *SWEEPS, "points")


def main(arguments: list[str] | None = None) -> None:
    """Measure the missing rows, and publish the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.student", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", choices=SIZES, default="fashion-mnist")
    parser.add_argument("--device", help="cpu, cuda, ... (default: a GPU if there is one)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure (default: all)")
    parser.add_argument("--dry-run", action="store_true", help="toy size, on the CPU, in a temporary folder")
    parser.add_argument("--out", type=Path, help="folder of the table (default: benchmarks/results)")
    parser.add_argument("--work", type=Path, help="folder of the folders of runs (default: out)")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    study = dry_study(args.out, args.work) if args.dry_run else study_of(args)
    if "main" not in args.parts and not (study.folder / "teacher.safetensors").exists():
        parser.error(f"there is no teacher in {study.folder} yet: run the part main first, with the same --work")
    for part in sorted(args.parts, key=PARTS.index):  # main first: it trains the teacher
        if part == "main":
            full_run.measure(study)
        elif part == "points":
            short_runs.measure_points(study)
        else:
            short_runs.measure_sweep(study, part)
    publish(study.store, study.recipe, study.size)


def study_of(args: argparse.Namespace) -> Study:
    """The study of a recipe that the command names."""
    command = f"python -m benchmarks.student --recipe {args.recipe}"
    device, work, out = resolve_device(args.device), args.work or Path("out"), args.out or RESULTS
    return Study(args.recipe, SIZES[args.recipe], device, work, out, command)


def dry_study(out: Path | None, work: Path | None) -> Study:
    """The study of a dry run, in a temporary folder unless others are given."""
    folder = Path(tempfile.mkdtemp(prefix="pidlearn-student-"))
    out, work = out or folder, work or folder
    print(f"Table: {out}. Run: {work}")
    work.mkdir(parents=True, exist_ok=True)
    source = work / "toy.toml"
    source.write_text(TOY, encoding="utf-8")
    return Study(str(source), TOY_SIZE, torch.device("cpu"), work, out, "python -m benchmarks.student --dry-run")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    main()
