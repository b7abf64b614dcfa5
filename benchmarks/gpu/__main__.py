"""Measure training steps at the paper's sizes on one GPU, and compare them with the official code's style of step.

    python -m benchmarks.gpu [--sizes cifar10 imagenet64] [--max-time 540] [--price 2.5] [--out FOLDER]
    python -m benchmarks.gpu --trained runs/fashion-mnist-32     rounding along a student of `pidlearn distill`
    python -m benchmarks.gpu --dry-run                           everything at toy size, on the CPU

All variants get the same weights and draws. The rounding error of each is measured for the residual and the gradient of
one micro-batch, against the same derivative in float64. Its speed is in images per second, with the l2 distance and
with LPIPS on an untrained network, which costs as much as a trained one. Rows that exist are not measured again: after
`--max-time` has ended a command, the same command continues.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch

import pidlearn as pid
from benchmarks.gpu.benchmark import Benchmark
from benchmarks.gpu.machine import REPEATS, Machine
from benchmarks.gpu.rounding import SAMPLES, measure_trained
from benchmarks.gpu.tables import ROUNDING, rounding_lines, write
from benchmarks.gpu.variants import DRY, SIZES, Size
from benchmarks.steps import PAPER
from benchmarks.table import RESULTS, Store
from pidlearn.cli.shared import resolve_device
from pidlearn.teachers import load_teacher
from pidlearn.utils.fingerprint import digest


def main(arguments: list[str] | None = None) -> None:
    """Measure the missing rows, and write the tables."""
    parser = build_parser()
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if args.sizes and (args.dry_run or args.trained):
        parser.error("got --sizes with --dry-run or --trained, which have their own sizes: leave --sizes out")
    if args.out and args.out.exists() and not args.out.is_dir():
        parser.error(f"--out must be a folder, got the file {args.out}")
    try:
        machine = Machine(resolve_device(args.device or ("cpu" if args.dry_run else "cuda")))
    except ValueError as error:
        parser.error(f"{error}; use --dry-run to run everything at toy size on the CPU")
    out = args.out or (Path(tempfile.mkdtemp(prefix="pidlearn-gpu-")) if args.dry_run else RESULTS)
    # The warning against bfloat16 differences, which are measured to show their rounding error.
    warnings.filterwarnings("ignore", "the student computes in")
    if not args.trained:
        measure_sizes(DRY if args.dry_run else SIZES, args.sizes, machine, out, args.max_time, args.price)
        return
    files = {"student": args.trained / "student.safetensors"}
    files["teacher"] = args.teacher or args.trained / "teacher.safetensors"
    if missing := [path for path in files.values() if not path.is_file()]:
        parser.error(f"there is no {missing[0]}: --trained needs a folder of `pidlearn distill`, and --teacher a file")
    try:
        measure_rounding(files, args.trained.name, machine, out)
    except ValueError as error:
        parser.error(str(error))


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), help="networks to measure (default: all)")
    parser.add_argument("--device", help="default: the GPU; with --dry-run the CPU")
    parser.add_argument(
        "--max-time", type=non_negative, default=float("inf"), help="start no new row after this many seconds"
    )
    parser.add_argument("--price", type=non_negative, default=2.5, help="dollars per GPU-hour, for the extrapolation")
    parser.add_argument("--trained", type=Path, help="folder of `pidlearn distill`, with teacher and student")
    parser.add_argument("--teacher", type=Path, help="the teacher's file, if that folder has none")
    parser.add_argument("--dry-run", action="store_true", help="two networks of toy size, on the CPU")
    parser.add_argument(
        "--out", type=Path, help="folder of the tables (default: benchmarks/results; with --dry-run a temporary folder)"
    )
    return parser


def non_negative(text: str) -> float:
    """Parse a finite number that is not negative."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a finite number of at least 0, got {text}")
    return value


def measure_sizes(
    sizes: dict[str, Size], chosen: list[str] | None, machine: Machine, out: Path, max_time: float, price: float
) -> None:
    """Measure training steps; the tables are rewritten after each row, since the command may be killed at any time."""
    until = time.monotonic() + max_time
    facts = {name: vars(size) for name, size in sizes.items()}
    store = Store(out, "gpu", "python -m benchmarks.gpu", machine.device, paper=PAPER, sizes=facts, repeats=REPEATS)
    for name in chosen or sizes:
        benchmark = Benchmark(name, sizes[name], machine, "inductor" if machine.cuda else "eager")
        for key, row in benchmark.rows():
            if key not in store.rows and time.monotonic() < until:
                store.add(key, row())
                write(store, sizes, price)
                print(key, store.rows[key], flush=True)
        del benchmark
        machine.free_memory()
    print(f"{write(store, sizes, price)}\n{store.path.with_suffix('.md')}")


def measure_rounding(files: dict[str, Path], name: str, machine: Machine, out: Path) -> None:
    """Measure and publish the rounding errors along a trained student.

    Raises:
        ValueError: files that cannot be read, a time span other than the official code's, or a table of other files.
    """
    teacher: Any = load_teacher(files["teacher"]).to(machine.device)
    student = pid.load(files["student"], teacher=teacher)
    span = (student.config.t_max, student.config.t_min)
    if span != (80, 0.002):
        raise ValueError(
            f"the student's paths go from {span[0]:g} to {span[1]:g}, and the official style only supports paths from "
            f"80 to 0.002: use a student with this span"
        )
    steps, stopped = len(student.history["loss"]), student.stopped
    facts: dict[str, Any] = {part: digest(path.read_bytes()) for part, path in files.items()}
    facts |= {"steps": steps, "stopped": stopped, "n": student.config.n}
    command = f"python -m benchmarks.gpu --trained out/{name}"
    store = Store(out, f"rounding-{name}", command, machine.device, paper=PAPER, samples=SAMPLES, **facts)
    measure_trained(student, teacher, machine, store)
    trained = f"{steps:,} steps{f' of a run that stopped early ({stopped})' if stopped else ''}"
    text = f"A student of {trained}, on its own {student.config.n} grid points. {ROUNDING}"
    store.publish("Rounding along a trained student", text, {name: rounding_lines(store)})


if __name__ == "__main__":
    main()
