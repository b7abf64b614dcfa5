"""Training steps at the paper's sizes on one GPU, beside a step as the official code takes it.

    python -m benchmarks.gpu [--sizes cifar10 imagenet64] [--max-time 540] [--price 2.5] [--out FOLDER]
    python -m benchmarks.gpu --trained runs/fashion-mnist-32     rounding along a student that `pidlearn distill` made
    python -m benchmarks.gpu --dry-run                           all of it at toy size, on the CPU

Every variant gets the same weights and draws. Its rounding is that of the residual and of the gradient on one part of a
batch, against the same derivative in float64. Then it is timed: images a second with the l2 distance and with LPIPS on
an untrained trunk, which costs what a trained one does. A row that is there is not measured again, so that a command
that `--max-time` ended goes on where it was.
"""

from __future__ import annotations

import argparse
import copy
import gc
import statistics
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

import pidlearn as pid
from benchmarks.gpu_table import BASELINE, BOUND, LARGEST, OFFICIAL, ROUNDING, Size, rounding_lines, write
from benchmarks.steps import CIFAR10, IMAGENET64, PAPER, OfficialStyle, Ours, draw, teacher_of
from benchmarks.table import RESULTS, Row, Store
from pidlearn.cli.shared import resolve_device
from pidlearn.losses.distances import l2
from pidlearn.methods import Batch
from pidlearn.nets import EDMPrecond
from pidlearn.teachers import load_teacher
from pidlearn.training.execution import overridden, tf32
from pidlearn.utils.fingerprint import digest

SIZES = {
    "cifar10": Size(CIFAR10, 512, 128, 800_000 * 512, (512, 384, 256, 192, 128, 96, 64, 32)),
    "imagenet64": Size(IMAGENET64, 128, 16, 400_000 * 2048, (256, 192, 128, 96, 64, 48, 32, 16, 8)),
}
SMALL = {"img_resolution": 8, "model_channels": 16, "channel_mult": [1], "num_blocks": 1, "attn_resolutions": [8]}
DRY = {
    "toy": Size({**CIFAR10, **SMALL}, 4, 2, 1000, (2, 1), resize=16, matrix=64),
    "toy, adm": Size({**IMAGENET64, **SMALL, "label_dim": 3}, 4, 2, 1000, (2, 1), resize=16, matrix=64),
}

VARIANTS: dict[str, dict[str, Any]] = {
    BASELINE: {},
    "official style, float16": {"half": True},
    "ours, TF32": {},
    "ours, TF32, recomputed": {"recompute": True},
    "ours, bfloat16, differences": {"precision": "bfloat16"},
    "ours, bfloat16, exact": {"precision": "bfloat16", "derivative": "exact"},
}
"""Each in TF32 where it is in nothing smaller. The last but one is here for its rounding to be seen."""
COMPILED = ("ours, TF32", BASELINE, "ours, bfloat16, exact", BOUND, "ours, bfloat16, differences")
"""In this order, for it takes minutes: what is sought first. The compiler itself chooses what to recompute."""

REPEATS, SAMPLES = 3, 256
"""Timings of which the median is taken, and samples along a trained student."""


def step_of(variant: str, teacher: EDMPrecond, backend: str | None, **choices: Any) -> OfficialStyle | Ours:
    """The variant's next training step."""
    given = {**PAPER, "precision": "tf32", **choices, **VARIANTS[variant], "compile": backend}
    return OfficialStyle(teacher, **given) if variant.startswith(OFFICIAL) else Ours(teacher, **given)


class Machine:
    """Where it is measured."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.cuda = self.device.type == "cuda"

    def now(self) -> float:
        """Seconds, once all that was asked of the device is done."""
        if self.cuda:
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def seconds(self, work: Callable[[], Any], repeats: int = REPEATS) -> float:
        """Of the work: the median of so many."""
        taken = []
        for _ in range(repeats):
            started = self.now()
            work()
            taken.append(self.now() - started)
        return statistics.median(taken)

    def peak(self) -> float | None:
        """GiB at the peak since `clear_peak`; of a GPU alone."""
        return torch.cuda.max_memory_allocated(self.device) / 2**30 if self.cuda else None

    def clear(self) -> None:
        """Give back what nobody holds, compiled code too."""
        torch._dynamo.reset()
        gc.collect()
        if self.cuda:
            torch.cuda.empty_cache()

    def clear_peak(self) -> None:
        """Count the peak from here."""
        if self.cuda:
            torch.cuda.reset_peak_memory_stats(self.device)

    def ceilings(self, n: int) -> Row:
        """FLOP/s of an n by n matrix product, in float32 as fast as TF32 makes it, and in bfloat16."""
        found = {}
        with overridden(tf32(True)):
            for name, dtype in (("TF32", torch.float32), ("half", torch.bfloat16)):
                a = torch.randn(n, n, device=self.device).to(dtype)
                torch.mm(a, a)
                found[name] = 2 * n**3 / self.seconds(lambda a=a: torch.mm(a, a), 10)
        return found


class Residuals:
    """The l2 distance, which keeps what it is given the distance of."""

    def __init__(self) -> None:
        self.kept: list[Tensor] = []

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """(B, *event), (B, *event) -> (B,)."""
        self.kept.append((a - b).detach().double())
        return l2(a, b)


@dataclass(frozen=True)
class Truth:
    """Residuals and gradient of a part of a batch in float64, kept where they take no room from what is measured."""

    residuals: Tensor
    gradient: Tensor

    @classmethod
    def of(cls, step: OfficialStyle | Ours, teacher: EDMPrecond, batch: Batch, at_once: int = 8) -> Truth:
        """Of the student and the derivative that the step has; memory holds so many images at a time."""
        z, index, labels = batch
        assert z is not None
        assert index is not None
        taken, student = step.run.config, copy.deepcopy(step.run.student).double()
        choices = {**PAPER, "derivative": taken.derivative, "n": taken.n, "batch_size": len(z), "ema": ()}
        exact = Ours(copy.deepcopy(teacher).double(), student=student, **choices)
        kept, gradient = Residuals(), 0.0
        for rows in torch.arange(len(z), device=z.device).split(at_once):
            some = None if labels is None else labels[rows]
            gradient = gradient + exact.gradient(kept, (z[rows].double(), index[rows], some)) * (len(rows) / len(z))
        return cls(torch.cat(kept.kept).cpu(), gradient.cpu())

    def beside(self, step: OfficialStyle | Ours, batch: Batch) -> Row:
        """How far a step's residuals and gradient are off."""
        kept = Residuals()
        gradient = step.gradient(kept, batch).double().cpu()
        return {
            "residual": _rms(self.residuals),
            "residual error": _rms(torch.cat(kept.kept).cpu() - self.residuals),
            "gradient error": ((gradient - self.gradient).norm() / self.gradient.norm()).item(),
        }


def _rms(x: Tensor) -> float:
    return x.square().mean().sqrt().item()


class Benchmark:
    """The rows of one size."""

    def __init__(self, name: str, size: Size, machine: Machine, backend: str) -> None:
        self.name, self.size, self.machine, self.backend = name, size, machine, backend
        self.teacher = teacher_of(size.network, machine.device)
        self.truths: dict[str, Truth] = {}
        # As the official code pools it; made before minutes are spent, for its package may be missing. Chunks smaller
        # than a part take their gradients at once, at every size.
        chunk = min(32, size.part // 2)
        lpips = pid.LPIPS("vgg", pooling="average", weights="random", resize=size.resize, chunk=chunk)
        self.lpips = lpips.to(machine.device)

    def rows(self) -> Iterator[tuple[str, Callable[[], Row]]]:
        """What there is to measure."""
        yield (
            f"{self.name} / machine",
            lambda: {**self.machine.ceilings(self.size.matrix), "FLOP": flop(self.size.network)},
        )
        for variant in VARIANTS:
            yield f"{self.name} / {variant}", partial(self.row, variant, None)
        for variant in COMPILED:
            yield f"{self.name} / {variant}, compiled", partial(self.row, variant, self.backend)
        for variant in VARIANTS:
            key = f"{self.name} / {variant}, {LARGEST}"
            yield key, lambda variant=variant: {LARGEST: self.largest(variant)}

    def row(self, variant: str, backend: str | None) -> Row:
        """All figures of a variant; of one that fails, those that it has, and why."""
        found: Row = {}
        self.machine.clear()
        try:
            self.measure(variant, backend, found)
        except torch.cuda.OutOfMemoryError:
            found["failed"] = f"{self.size.part} images do not fit into memory"
        except Exception as error:  # the others are still worth their minutes
            first, *_ = str(error).strip().split("\n")
            found["failed"] = f"{type(error).__name__}: {first:.200}"
        self.machine.clear()
        return found

    def largest(self, variant: str) -> int | None:
        """The largest batch that can be taken in one part."""
        for batch in self.size.largest:
            self.machine.clear()
            try:
                step_of(variant, self.teacher, None, batch_size=batch)()
            except RuntimeError:  # libraries run out of memory in words of their own
                continue
            return batch
        return None

    def measure(self, variant: str, backend: str | None, found: Row) -> None:
        """Rounding, time, memory, and shares of the time."""
        size, machine = self.size, self.machine
        step = step_of(variant, self.teacher, backend, batch_size=size.batch, micro_batch=size.part)
        truth = self.truth(step)  # the same for all variants, and not part of what they take
        started = machine.now()
        found |= truth.beside(step, self.part(step))
        step()
        found["first steps, s"] = machine.now() - started  # in which what is compiled is compiled
        machine.clear_peak()
        found["images/s"] = size.batch / machine.seconds(step)
        found["GiB"] = machine.peak()
        step.measured_by(self.lpips)
        step()
        machine.clear_peak()
        found["images/s, LPIPS"] = size.batch / machine.seconds(step)
        found["GiB, LPIPS"] = machine.peak()
        found["shares"] = shares(step, machine)
        found["kernels"] = kernels(step, machine)

    def part(self, step: OfficialStyle | Ours) -> Batch:
        """A part of the first batch, the same for all, spread over its times: they come in order."""
        generator = torch.Generator(step.run.problem.rng_device).manual_seed(0)
        every = self.size.batch // self.size.part
        # Laid out as the parts of a step are, or what is compiled for one would be compiled again for the other.
        return tuple(None if x is None else x[::every].contiguous() for x in draw(step.run, generator))

    def truth(self, step: OfficialStyle | Ours) -> Truth:
        """In float64, of the derivative that the step takes."""
        derivative = step.run.config.derivative
        if derivative not in self.truths:
            self.truths[derivative] = Truth.of(step, self.teacher, self.part(step))
        return self.truths[derivative]


def flop(network: dict[str, Any]) -> int:
    """Of a step as the paper takes it, an image: seven times the network's; backward twice what forward takes."""
    net = teacher_of(network, "meta").model
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.empty(1, *net.event_shape, device="meta"), torch.empty(1, device="meta"))  # without labels
    return 7 * counter.get_total_flops()


def shares(step: OfficialStyle | Ours, machine: Machine) -> dict[str, float]:
    """Shares of a step's time; the distance's includes its own gradient, which it takes at once."""
    spent: Counter[str] = Counter()

    def watched(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            started = machine.now()
            try:
                return call(*args, **kwargs)
            finally:
                spent[name] += machine.now() - started

        return timed

    calls = {**step.calls(), "distance": [(pid.LPIPS, "forward")], "backward": [(Tensor, "backward")]}
    with ExitStack() as patches:
        for name, places in calls.items():
            for owner, attribute in places:
                call = getattr(owner, attribute)
                patches.enter_context(mock.patch.object(owner, attribute, watched(name, call)))
        started = machine.now()
        step()
        whole = machine.now() - started
    return {name: spent[name] / whole for name in calls} | {"the rest": 1 - spent.total() / whole}


def kernels(step: OfficialStyle | Ours, machine: Machine, most: int = 8) -> dict[str, float]:
    """What takes most of a step's time on the device, as shares of it: kernels of a GPU, operators of a CPU."""
    with profile(activities=[ProfilerActivity.CUDA if machine.cuda else ProfilerActivity.CPU]) as profiler:
        step()
        machine.now()
    # Of a GPU its kernels alone: operators and annotations tell the time of those that they start, too.
    where = DeviceType.CUDA if machine.cuda else DeviceType.CPU
    events = [e for e in profiler.key_averages() if e.device_type == where and not e.is_user_annotation]
    took = {e.key: e.self_device_time_total if machine.cuda else e.self_cpu_time_total for e in events}
    whole = sum(took.values())
    return {key: took[key] / whole for key in sorted(took, key=lambda key: -took[key])[:most]}


def rounding(student: pid.Result, teacher: EDMPrecond, machine: Machine, store: Store) -> None:
    """Rounding along a trained student, whose residuals are small, in each precision."""
    truths: dict[str, Truth] = {}
    for variant, choices in VARIANTS.items():
        if f"trained / {variant}" in store.rows or choices.get("recompute"):
            continue
        own = copy.deepcopy(student.student).to(machine.device)
        step = step_of(variant, teacher, None, student=own, batch_size=SAMPLES, n=student.config.n)
        generator = torch.Generator(step.run.problem.rng_device).manual_seed(0)
        batch, derivative = draw(step.run, generator), step.run.config.derivative
        if derivative not in truths:
            truths[derivative] = Truth.of(step, teacher, batch)
        store.add(f"trained / {variant}", truths[derivative].beside(step, batch))


def main(arguments: list[str] | None = None) -> None:
    """Measure what is missing, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), help="all of them if not given")
    parser.add_argument("--device", help="a GPU's; of a dry run the CPU")
    parser.add_argument("--max-time", type=number, default=float("inf"), help="seconds after which no row is begun")
    parser.add_argument("--price", type=number, default=2.5, help="dollars an hour of this GPU, to extrapolate with")
    parser.add_argument("--trained", type=Path, help="a folder of `pidlearn distill`, with teacher and student")
    parser.add_argument("--teacher", type=Path, help="its teacher's file, where the folder has none")
    parser.add_argument("--dry-run", action="store_true", help="two networks of toy size, into a folder of its own")
    parser.add_argument("--out", type=Path, help="where tables go; benchmarks/results, and of a dry run a new folder")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if args.sizes and (args.dry_run or args.trained):
        parser.error("--sizes are of the whole benchmark: a dry run and a trained student have their own")
    if args.out and args.out.exists() and not args.out.is_dir():
        parser.error(f"--out must be a folder, and {args.out} is a file")
    try:
        machine = Machine(resolve_device(args.device or ("cpu" if args.dry_run else "cuda")))
    except ValueError as error:
        parser.error(f"{error}; --dry-run does the same at toy size on the CPU")
    out = args.out or (Path(tempfile.mkdtemp(prefix="pidlearn-gpu-")) if args.dry_run else RESULTS)
    # Of differences in bfloat16, which are here to be seen.
    warnings.filterwarnings("ignore", "the student computes in")
    if args.trained:
        files = {"student": args.trained / "student.safetensors"}
        files["teacher"] = args.teacher or args.trained / "teacher.safetensors"
        if missing := [path for path in files.values() if not path.is_file()]:
            parser.error(
                f"there is no {missing[0]}: --trained takes a folder of `pidlearn distill`, and --teacher a file"
            )
        try:
            along(files, args.trained.name, machine, out)
        except ValueError as error:
            parser.error(str(error))
    else:
        measure(DRY if args.dry_run else SIZES, args.sizes, machine, out, args.max_time, args.price)


def number(text: str) -> float:
    """A finite one that is not negative."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError
    return value


def along(files: dict[str, Path], name: str, machine: Machine, out: Path) -> None:
    """The table of `rounding`.

    Raises:
        ValueError: for files that are none, a span that the official style does not know, and rows of other files.
    """
    teacher = load_teacher(files["teacher"]).to(machine.device)
    student = pid.load(files["student"], teacher=teacher)
    span = (student.config.t_max, student.config.t_min)
    if span != (80, 0.002):
        raise ValueError(f"the official style knows paths from 80 to 0.002, and this student goes from {span}")
    facts = {part: digest(path.read_bytes()) for part, path in files.items()}
    facts |= {"steps": len(student.history["loss"]), "stopped": student.stopped, "n": student.config.n}
    command = f"python -m benchmarks.gpu --trained out/{name}"
    store = Store(out, f"rounding-{name}", command, machine.device, paper=PAPER, samples=SAMPLES, **facts)
    rounding(student, teacher, machine, store)
    trained = f"{facts['steps']:,} steps{f', of a run that stopped: {student.stopped}' if student.stopped else ''}"
    text = f"A student of {trained}, on its own {student.config.n} grid points. {ROUNDING}"
    store.publish("Rounding along a trained student", text, {name: rounding_lines(store)})


def measure(
    sizes: dict[str, Size], chosen: list[str] | None, machine: Machine, out: Path, max_time: float, price: float
) -> None:
    """The tables of training steps, written anew with every row: what ends the command may not ask."""
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
        machine.clear()
    print(f"{write(store, sizes, price)}\n{store.path.with_suffix('.md')}")


if __name__ == "__main__":
    main()
