"""Time and memory of a device, and where a training step spends them."""

from __future__ import annotations

import gc
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

import pidlearn as pid
from benchmarks.steps import TrainingStep, random_teacher
from pidlearn.training.muon import Muon, orthogonalized
from pidlearn.utils.overrides import overridden, tf32

REPEATS = 3
"""Timings per measurement; their median counts."""


class Machine:
    """The device that is measured."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.cuda = device.type == "cuda"

    def time(self) -> float:
        """The current time in seconds, read after all work queued on the device is done."""
        if self.cuda:
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def median_seconds(self, work: Callable[[], Any], repeats: int = REPEATS) -> float:
        """Return the median duration of ``work`` over ``repeats`` calls."""
        seconds = []
        for _ in range(repeats):
            started = self.time()
            work()
            seconds.append(self.time() - started)
        return statistics.median(seconds)

    def peak_memory(self) -> float | None:
        """GiB at the peak since `reset_peak_memory`; None on a CPU."""
        return torch.cuda.max_memory_allocated(self.device) / 2**30 if self.cuda else None

    def reset_peak_memory(self) -> None:
        """Measure peak memory from here on."""
        if self.cuda:
            torch.cuda.reset_peak_memory_stats(self.device)

    def free_memory(self) -> None:
        """Free unused memory and compiled code."""
        torch.compiler.reset()
        gc.collect()
        if self.cuda:
            torch.cuda.empty_cache()

    def matmul_rates(self, n: int) -> dict[str, float]:
        """FLOP/s of an (n, n) matrix product, in TF32 (float32 on a CPU) and in bfloat16."""
        rates = {}
        with overridden(tf32(True)):
            for name, dtype in (("TF32", torch.float32), ("half", torch.bfloat16)):
                a = torch.randn(n, n, device=self.device).to(dtype)
                torch.mm(a, a)
                rates[name] = 2 * n**3 / self.median_seconds(partial(torch.mm, a, a), 10)
        return rates


def flop(network: dict[str, Any]) -> int:
    """FLOP per image of the paper's training step: seven forward passes of the network.

    The student's two forward passes, the teacher's one, and the student's two backward passes, which count twice.
    """
    net = random_teacher(network, "meta").model
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.empty(1, *net.event_shape, device="meta"), torch.empty(1, device="meta"))  # without labels
    return 7 * counter.get_total_flops()


def muon_flop(network: dict[str, Any]) -> int:
    """FLOP per update of the products with which Muon orthogonalises the network's matrices, whatever the batch."""
    weights = [*random_teacher(network, "meta").model.requires_grad_(True).parameters()]
    matrices = [p for group in Muon(weights, 1e-3).param_groups if "momentum" in group for p in group["params"]]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        for p in matrices:
            orthogonalized(p.flatten(1)[None])
    return int(counter.get_total_flops())


def shares(step: TrainingStep, machine: Machine) -> dict[str, float]:
    """Shares of a step's time by part; that of the distance includes its own gradient, taken in its forward pass."""
    spent: dict[str, float] = defaultdict(float)

    def timed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            started = machine.time()
            try:
                return call(*args, **kwargs)
            finally:
                spent[name] += machine.time() - started

        return wrapped

    calls = {**step.parts(), "distance": [(pid.LPIPS, "forward")], "backward": [(Tensor, "backward")]}
    with ExitStack() as patches:
        for name, places in calls.items():
            for owner, attribute in places:
                call = getattr(owner, attribute)
                patches.enter_context(mock.patch.object(owner, attribute, timed(name, call)))
        started = machine.time()
        step()
        total = machine.time() - started
    return {name: spent[name] / total for name in calls} | {"the rest": 1 - sum(spent.values()) / total}


def kernels(step: TrainingStep, machine: Machine, count: int = 8) -> dict[str, float]:
    """The ``count`` kernels (on a CPU: operators) with the largest shares of a step's device time, and the shares."""
    with profile(activities=[ProfilerActivity.CUDA if machine.cuda else ProfilerActivity.CPU]) as profiler:
        step()
        machine.time()
    # On a GPU only kernels count: operators and annotations repeat the time of the kernels that they launch.
    device_type = DeviceType.CUDA if machine.cuda else DeviceType.CPU
    events = [e for e in profiler.key_averages() if e.device_type == device_type and not e.is_user_annotation]
    times = {e.key: e.self_device_time_total if machine.cuda else e.self_cpu_time_total for e in events}
    total = sum(times.values())
    return {key: times[key] / total for key in sorted(times, key=lambda key: -times[key])[:count]}
