"""The GPU benchmark at toy size on a CPU: its results on rounding hold there too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch.autograd import DeviceType
from torch.autograd.profiler_util import EventList, FunctionEvent
from torch.utils.flop_counter import FlopCounterMode

import pidlearn as pid
from benchmarks import steps
from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import machine, tables
from benchmarks.gpu.benchmark import Benchmark
from benchmarks.gpu.machine import Machine, flop, muon_flop
from benchmarks.gpu.rounding import TF32, RecordingL2, to_tf32
from benchmarks.gpu.variants import BASELINE, BOUND, COMPILED, VARIANTS, step_of
from benchmarks.table import RESULTS, Store
from pidlearn.cli import commands
from pidlearn.utils.validation import NotFiniteError
from tests.tiny import recipe

SIZE = gpu.DRY["toy"]
ROW = {"residual": 1.0, "residual error": 0.01, "images/s": 1.0, "images/s, LPIPS": 0.5}
NAN = float("nan")


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only one of the dry run's two networks."""
    monkeypatch.setattr(gpu, "DRY", {"toy": SIZE})
    monkeypatch.setattr(Benchmark, "largest", lambda self, variant: 2)


def measured(folder: Path, *options: str) -> dict[str, dict[str, Any]]:
    gpu.main(["--dry-run", "--out", str(folder), *options])
    kept = folder / "gpu.json"
    return json.loads(kept.read_text())["rows"] if kept.exists() else {}


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """All benchmarks share one untrained LPIPS, which takes seconds to fill with random numbers; and fewer samples."""
    with mock.patch.object(pid, "LPIPS", cache(pid.LPIPS)), mock.patch("benchmarks.gpu.rounding.SAMPLES", 64):
        yield


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Rows without compiled steps, which take a minute to trace with the exact derivative: see `test_all_of_it`.

    Only the first variant is profiled.
    """
    folder, profiled = tmp_path_factory.mktemp("gpu"), []

    def kernels_once(*args: Any) -> dict[str, float]:
        profiled.extend([] if profiled else [machine.kernels(*args)])
        return profiled[0]

    uncompiled = mock.patch.object(Benchmark, "rows", lambda self: list(rows_of(self))[: 1 + len(VARIANTS)])
    profiling = mock.patch("benchmarks.gpu.benchmark.kernels", kernels_once)
    with uncompiled, profiling, mock.patch.object(gpu, "DRY", {"toy": SIZE}):
        return {key.removeprefix("toy / "): row for key, row in measured(folder).items()}


rows_of = Benchmark.rows


@pytest.mark.slow
def test_every_variant_is_measured(rows: dict[str, dict[str, Any]]) -> None:
    assert rows.keys() == {"machine", *VARIANTS}
    for row in list(rows.values())[1:]:
        assert "failed" not in row
        assert min(row["images/s"], row["images/s, LPIPS"]) > 0
        assert sum(row["shares"].values()) == pytest.approx(1)
        assert min(row["shares"].values()) >= 0
        assert list(row["kernels"].values()) == sorted(row["kernels"].values(), reverse=True)
        assert any("conv" in name for name in row["kernels"])


@pytest.mark.slow
def test_rounding_is_told_apart(rows: dict[str, dict[str, Any]]) -> None:
    error = {key: row["residual error"] / row["residual"] for key, row in rows.items() if "residual" in row}
    # z, 80 times as large as the data, is cancelled before it rounds.
    assert 10 * error["ours, TF32"] < error["official style, TF32"] < error["official style, float16"]
    # Differences multiply rounding, an exact derivative does not.
    assert 10 * error["ours, bfloat16, exact"] < error["ours, bfloat16, differences"]
    assert error["ours, TF32"] == error["ours, TF32, recomputed"]


@pytest.mark.slow
def test_flops_are_those_of_a_step(rows: dict[str, dict[str, Any]]) -> None:
    step = step_of(BASELINE, steps.random_teacher(SIZE.network), None, batch_size=2)
    with FlopCounterMode(display=False) as counter:
        step()
    # The first layer's input needs no gradient.
    assert counter.get_total_flops() / 2 == pytest.approx(rows["machine"]["FLOP"], rel=0.05)


@pytest.mark.parametrize(("name", "giga", "total"), [("cifar10", 297, "1.2e20"), ("imagenet64", 1535, "1.3e21")])
def test_the_readme_tells_the_flops_of_the_papers_networks(name: str, giga: int, total: str) -> None:
    size, page = gpu.SIZES[name], RESULTS.with_name("README.md").read_text()
    assert round(flop(size.network) / 1e9) == giga
    assert f"{giga:,}" in page
    assert f"{flop(size.network) * size.images:.1e}".replace("+", "") == total
    assert total in page


@pytest.mark.parametrize(("name", "tera", "images"), [("cifar10", 0.31, 512), ("imagenet64", 4.3, 2048)])
def test_the_readme_tells_what_muon_costs(name: str, tera: float, images: int) -> None:
    network, page = gpu.SIZES[name].network, RESULTS.with_name("README.md").read_text()
    assert round(muon_flop(network) / 1e12, 2 if tera < 1 else 1) == tera
    assert f"{tera:g} TFLOP" in page
    assert muon_flop(network) < 0.0025 * images * flop(network)


@pytest.mark.filterwarnings("ignore:the student computes in")
def test_official_style_and_ours_take_the_same_step() -> None:
    teacher = steps.random_teacher(SIZE.network)
    losses = [[step_of(v, teacher, None, batch_size=4, micro_batch=m)() for m in (None, 2)] for v in VARIANTS]
    torch.testing.assert_close(torch.tensor(losses), torch.full((7, 2), losses[0][0]), rtol=0.1, atol=0)
    exactly = torch.tensor(losses)[[0, 2, 3, 4]]
    torch.testing.assert_close(exactly, exactly[:1, :1].expand(4, 2), rtol=1e-3, atol=0)


def test_labels_reach_both() -> None:
    teacher = steps.random_teacher({**SIZE.network, "label_dim": 3})
    losses = [step_of(v, teacher, None, batch_size=4)() for v in (BASELINE, "ours, TF32")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.usefixtures("toy")
@pytest.mark.slow
def test_an_ended_command_goes_on(tmp_path: Path) -> None:
    assert measured(tmp_path, "--max-time", "0") == {}
    kept = mock.patch.object(Benchmark, "row", side_effect=[ROW, KeyboardInterrupt])
    with kept, pytest.raises(KeyboardInterrupt):
        measured(tmp_path)
    with mock.patch.object(Benchmark, "row", return_value={**ROW, "images/s": 2.0}) as row:
        rates = [found["images/s"] for found in measured(tmp_path).values() if "images/s" in found]
    assert rates == [1.0] + [2.0] * row.call_count
    assert row.call_count == len(VARIANTS) + len(COMPILED) - 1  # one was kept


@pytest.mark.usefixtures("toy")
@pytest.mark.slow
def test_what_does_not_fit_or_compile_is_told(tmp_path: Path) -> None:
    def measure(self: Benchmark, variant: str, backend: str | None, row: dict[str, Any]) -> None:
        row |= ROW
        raise RuntimeError("no such kernel\nat all") if backend else torch.cuda.OutOfMemoryError

    with (
        mock.patch.object(Benchmark, "measure", measure),
        mock.patch.object(Benchmark, "largest", return_value=2),
    ):
        rows = measured(tmp_path)
    assert rows["toy / ours, TF32"]["failed"] == "2 images do not fit into memory"
    assert rows["toy / ours, TF32, compiled"]["failed"] == "RuntimeError: no such kernel"
    assert "| ours, TF32, compiled (RuntimeError: no such kernel) | 1 | 1.00 |" in (tmp_path / "gpu.md").read_text()


@pytest.mark.usefixtures("toy")
def test_the_table_is_there_whenever_it_ends(tmp_path: Path) -> None:
    with (
        mock.patch.object(Benchmark, "row", side_effect=[ROW, KeyboardInterrupt]),
        pytest.raises(KeyboardInterrupt),
    ):
        measured(tmp_path)
    assert "| official style, TF32 | 1 | 1.00 |" in (tmp_path / "gpu.md").read_text()


@pytest.mark.slow
def test_all_of_it(tmp_path: Path) -> None:
    rows = measured(tmp_path)
    compiled = [key for key in rows if key.endswith("compiled")]
    assert len(compiled) == 2 * len(COMPILED)  # of two networks
    for key in compiled:
        plain = rows[key.removesuffix(", compiled")]
        assert rows[key]["residual error"] == pytest.approx(plain["residual error"], rel=0.2)
    page = (tmp_path / "gpu.md").read_text()
    assert page.count("the goal is 2.5 times") == 2
    assert "an extrapolation" in page


def test_kernels_of_a_gpu_are_counted_once() -> None:
    """Operators and annotations report the time of the kernels inside them as well."""

    def event(name: str, start: int, end: int, device: DeviceType, annotated: bool = False) -> FunctionEvent:
        where = {"device_type": device, "use_device": "cuda", "stack": []}
        return FunctionEvent(start, name, 0, start, end, is_user_annotation=annotated, **where)

    gpu_, operator = DeviceType.CUDA, event("conv", 0, 10, DeviceType.CPU)
    operator.append_kernel("sm90_conv", 0, 200)
    kernels = [event("sm90_conv", 20, 220, gpu_), event("sm90_add", 220, 320, gpu_)]
    events = EventList([operator, *kernels, event("Optimizer.step", 20, 320, gpu_, True)], use_device="cuda")
    events._build_tree()
    with mock.patch("benchmarks.gpu.machine.profile") as profile:
        profile.return_value.__enter__.return_value.key_averages = events.key_averages
        assert machine.kernels(mock.Mock(), mock.Mock(cuda=True)) == {"sm90_conv": 2 / 3, "sm90_add": 1 / 3}


@pytest.mark.slow
@pytest.mark.parametrize("network", gpu.DRY)
def test_what_is_compiled_to_tell_rounding_serves_the_steps(network: str) -> None:
    """The rounding check compiles the networks once, and the steps after it compile nothing new."""
    size = gpu.DRY[network]
    toy_benchmark = Benchmark(network, size, Machine(torch.device("cpu")), "eager")
    torch.compiler.reset()
    step = step_of("ours, TF32", toy_benchmark.teacher, "eager", batch_size=size.batch, micro_batch=size.micro_batch)
    step.gradient(RecordingL2(), toy_benchmark.micro_batch(step))
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    step()
    step()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == before


@pytest.mark.usefixtures("toy")
@pytest.mark.slow
def test_a_step_that_fails_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    failing = mock.patch.object(Benchmark, "measure", side_effect=NotFiniteError("the loss became NaN"))
    with failing:
        rows = measured(tmp_path)
    assert rows[f"toy / {BASELINE}"] == {"failed": "NotFiniteError: the loss became NaN"}
    assert len(rows) == 1 + 2 * len(VARIANTS) + len(COMPILED)


def test_the_largest_batch_is_told(tmp_path: Path) -> None:
    store = Store(tmp_path, "gpu", "command")
    store.add("toy / machine", {"TF32": 1e12, "half": 2e12, "FLOP": 1e10})
    store.add(f"toy / {BASELINE}", ROW)
    for variant, most in {BASELINE: 2, "ours, TF32": 4, "ours, bfloat16, exact": None}.items():
        store.add(f"toy / {variant}, {tables.LARGEST}", {tables.LARGEST: most})
    page = tables.write(store, {"toy": replace(SIZE, largest=(4, 2))}, price=2.0)
    assert "A batch of 4 fits without micro-batches with ours, TF32." in page
    assert "| official style, TF32 | 1 | 1.00 | 0 | 1.00 | 1% |  |  | 2 |" in page


def test_the_largest_batch_is_found() -> None:
    toy_benchmark = Benchmark("toy", SIZE, Machine(torch.device("cpu")), "eager")
    tried = []

    def step(variant: str, teacher: Any, backend: None, batch_size: int) -> Any:
        tried.append(batch_size)
        error = RuntimeError("CUDNN_STATUS_ALLOC_FAILED") if batch_size > 1 else None
        return mock.Mock(side_effect=error)

    with mock.patch("benchmarks.gpu.benchmark.step_of", step):
        assert toy_benchmark.largest("ours, TF32") == 1
    assert tried == [2, 1]


def test_products_in_tf32_are_those_of_rounded_factors() -> None:
    x, weight = torch.randn(2, 3, 5, 5), torch.randn(4, 3, 3, 3)
    rounded = to_tf32(x)
    assert ((rounded - x).abs() <= 2.0**-11 * x.abs()).all()
    assert torch.equal(to_tf32(rounded), rounded)
    assert to_tf32(torch.tensor([1 + 2.0**-11, -1 - 2.0**-11, 1 + 2.0**-12])).tolist() == [
        1 + 2.0**-10, -1 - 2.0**-10, 1.0,
    ]  # fmt: skip
    inputs = [t.clone().requires_grad_() for t in (x, weight)]
    with TF32():
        out = torch.nn.functional.conv2d(*inputs)
        (g_weight,) = torch.autograd.grad(out.square().sum(), inputs[1], retain_graph=True)
        product = x[0, 0] @ x[1, 0] + x[0, 1]
    expected = torch.nn.functional.conv2d(rounded, to_tf32(weight))
    torch.testing.assert_close(out, expected)
    assert not torch.equal(out, torch.nn.functional.conv2d(x, weight))
    torch.testing.assert_close(
        g_weight, torch.nn.grad.conv2d_weight(rounded, weight.shape, to_tf32(2 * expected)), rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(product, rounded[0, 0] @ rounded[1, 0] + x[0, 1])
    with TF32():
        attended = torch.nn.functional.scaled_dot_product_attention(x, x, x)
    torch.testing.assert_close(attended, torch.nn.functional.scaled_dot_product_attention(rounded, rounded, rounded))
    assert not torch.allclose(attended, torch.nn.functional.scaled_dot_product_attention(x, x, x), rtol=1e-6, atol=0)


@pytest.mark.slow
def test_rounding_along_a_trained_student(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands.distill(str(recipe(tmp_path)), out=tmp_path / "run", device="cpu")
    gpu.main(["--trained", str(tmp_path / "run"), "--device", "cpu", "--out", str(tmp_path)])
    rows = json.loads((tmp_path / "rounding-run.json").read_text())["rows"]
    error = {key: row["residual error"] / row["residual"] for key, row in rows.items()}
    assert len(rows) == len(VARIANTS) + 1
    for style in ("ours", "official style"):
        assert 2 * error[f"trained / {style}, float32"] < error[f"trained / {style}, TF32"]
    assert 10 * error["trained / ours, float32"] < error["trained / official style, float32"]
    assert error["trained / ours, bfloat16, exact"] < error["trained / ours, bfloat16, differences"]
    other = pid.load(tmp_path / "run" / "student.safetensors")
    next(other.student.parameters()).data += 1
    other.save(tmp_path / "run" / "student.safetensors")
    with pytest.raises(SystemExit):
        gpu.main(["--trained", str(tmp_path / "run"), "--device", "cpu", "--out", str(tmp_path)])
    assert "holds rows of" in capsys.readouterr().err  # of the student that is no longer there


def test_what_is_told_of_a_trained_student(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its teacher's file is in another folder, it has its own grid, and its run was stopped."""
    commands.distill(str(recipe(tmp_path)), out=tmp_path / "a", device="cpu", settings={"n": 40}, max_images=8)
    (tmp_path / "a" / "teacher.safetensors").rename(tmp_path / "teacher.safetensors")
    options = ["--trained", str(tmp_path / "a"), "--device", "cpu", "--out", str(tmp_path)]
    with pytest.raises(SystemExit):
        gpu.main(options)
    assert "there is no" in capsys.readouterr().err
    gpu.main([*options, "--teacher", str(tmp_path / "teacher.safetensors")])
    page = (tmp_path / "rounding-a.md").read_text()
    assert "of a run that stopped early (max_images, 8, were done at step" in page
    assert "on its own 40 grid points" in page


def test_a_student_of_another_span_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands.distill(str(recipe(tmp_path)), out=tmp_path / "a", device="cpu", settings={"t_max": 40.0}, max_images=8)
    with pytest.raises(SystemExit):
        gpu.main(["--trained", str(tmp_path / "a"), "--device", "cpu", "--out", str(tmp_path)])
    assert "only supports paths from 80 to 0.002" in capsys.readouterr().err


def page_of(folder: Path, **rows: dict[str, Any] | None) -> str:
    """The table of a toy's rows: official style in TF32, in float16, and ours in bfloat16; None leaves a row out."""
    names = {"base": BASELINE, "half": BOUND, "ours": "ours, bfloat16, exact"}
    store = Store(folder, "gpu", "command")
    store.add("toy / machine", {"TF32": 1e12, "half": 2e12, "FLOP": 1e10})
    for name, variant in names.items():
        row = {**ROW, **(rows.get(name, {}) or {})}
        if rows.get(name, {}) is not None:
            store.add(f"toy / {variant}", {key: value for key, value in row.items() if value is not None})
    return tables.write(store, {"toy": SIZE}, price=2.0)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ({"ours": {"images/s": 2.5}}, "With l2: 2.50 times (ours, bfloat16, exact), met; with LPIPS: 1.00 times"),
        ({"ours": {"images/s, LPIPS": 2.0}}, "With l2: 1.00 times (ours, bfloat16, exact), missed; with LPIPS: 4.00"),
        ({"ours": {"residual error": 0.02}}, "With l2: no such step of ours was measured"),  # rounds more than float16
        ({"half": {"residual error": NAN}}, "With l2: 1.00 times"),  # which overflowed
        ({"ours": {"residual error": NAN}}, "With l2: no such step of ours was measured"),
        (
            {"half": {"residual error": 0.3}, "ours": {"residual error": 0.2}},
            "With l2: no such step of ours was measured",
        ),
        ({"half": {"residual error": None, "residual": None}}, "the bound for ours, was not measured"),
        ({"half": None}, "the bound for ours, was not measured"),
        ({"base": {"images/s, LPIPS": None}}, "missed; with LPIPS: no baseline was measured"),
        ({"base": None}, "With l2: no baseline was measured"),
    ],
)
def test_the_goal_is_told_of_steps_that_count(tmp_path: Path, rows: dict[str, Any], expected: str) -> None:
    assert expected in page_of(tmp_path, **rows)


def test_what_rounds_as_much_as_it_measures_does_not_count(tmp_path: Path) -> None:
    page = page_of(tmp_path, ours={"residual error": 0.2, "failed": "why"})
    assert "| ours, bfloat16, exact (does not count; why) | 1 | 1.00 | 0 | 1.00 | 0% |" in page
    assert "| official style, float16 | 1 | 1.00 |" in page
    # 1,000 images at half an image a second, of a row that has no shares.
    assert "| ours, bfloat16, exact | 1 | 1 |" in page.partition("an extrapolation")[2]


def test_rounding_is_measured_over_all_times() -> None:
    """Half of the batch has times over the whole grid, not its first half."""
    toy_benchmark = Benchmark("toy", SIZE, Machine(torch.device("cpu")), "eager")
    step = step_of(BASELINE, toy_benchmark.teacher, None, batch_size=SIZE.batch, micro_batch=SIZE.micro_batch)
    z, index, labels = toy_benchmark.micro_batch(step)
    assert z is not None
    assert index is not None
    assert len(z) == len(index) == SIZE.micro_batch
    assert index.min() < 125 <= index.max()
    assert labels is None


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--price", "-3"], "expected a finite number of at least 0"),
        (["--price", "nan"], "expected a finite number of at least 0"),
        (["--sizes", "cifar10"], "leave --sizes out"),
        (["--out", __file__], "must be a folder"),
        (
            ["--trained", "nowhere"],
            "there is no nowhere/student.safetensors",
        ),
    ],
)
def test_options_that_cannot_be_are_refused(
    capsys: pytest.CaptureFixture[str], options: list[str], expected: str
) -> None:
    with pytest.raises(SystemExit):
        gpu.main(["--dry-run", *options])
    assert expected in capsys.readouterr().err


def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with mock.patch.object(torch.cuda, "is_available", return_value=False), pytest.raises(SystemExit):
        gpu.main([])
    assert "use --dry-run to run everything at toy size" in capsys.readouterr().err
