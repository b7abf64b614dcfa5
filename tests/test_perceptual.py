"""LPIPS with untrained trunks: the lpips package's numbers, gradients, chunks, and what is said where it cannot be."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request
import warnings
import weakref
from functools import cache

import pytest
import torch
from torch import Tensor

import pidlearn as pid
from pidlearn.losses import distances
from pidlearn.losses.lpips import LPIPS, SMALLEST, TRUNKS
from pidlearn.utils import optional_imports

NETS = ["alex", "squeeze", "vgg"]


@cache
def make(net: str, **options: object) -> LPIPS:
    return LPIPS(net, weights="random", **options)


def images(n: int = 3, size: int = 40, channels: int = 3, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.rand(n, channels, size, size, generator=generator, dtype=torch.float64) - 1).to(dtype)


def packages(net: str) -> torch.nn.Module:
    """The lpips package's own, with the same trunk."""
    import lpips

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    theirs.net.load_state_dict(make(net, resize=None).layers.trunk.state_dict())
    return theirs.double()


@pytest.mark.parametrize("net", NETS)
def test_numbers_and_gradients_are_the_packages(net: str) -> None:
    ours, theirs, size = make(net, resize=None), packages(net), SMALLEST[net] + 2
    a, b = images(2, size).requires_grad_(), images(2, size, seed=1).requires_grad_()
    expected = theirs(a, b).flatten()
    torch.testing.assert_close(ours(a, b), expected, rtol=1e-10, atol=0)
    mine, other = (torch.autograd.grad(d.sum(), [a, b]) for d in (ours(a, b), expected))
    torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-14)


def test_resized_numbers_are_the_packages_of_resized_images() -> None:
    a, b = images(), images(seed=1)
    large = [torch.nn.functional.interpolate(x, size=224, mode="bilinear", align_corners=False) for x in (a, b)]
    torch.testing.assert_close(make("squeeze")(a, b), packages("squeeze")(*large).flatten(), rtol=1e-10, atol=0)


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zero_exactly_where_equal_and_symmetric(net: str, dtype: torch.dtype) -> None:
    d = make(net, resize=None)
    a, b = images(3, 32, dtype=dtype).requires_grad_(), images(3, 32, seed=1, dtype=dtype)
    assert d(a, a.detach()).tolist() == [0, 0, 0]
    assert (d(a, b) > 0).all()
    assert torch.equal(d(a, b), d(b, a))
    assert d(a, b).dtype == dtype
    torch.testing.assert_close(d(a, b).double(), d(a.double(), b.double()), rtol=1e-3, atol=0)


def test_grey_is_three_equal_channels() -> None:
    a, b = images(channels=1), images(channels=1, seed=1)
    d = make("alex", resize=None)
    torch.testing.assert_close(d(a, b), d(a.expand(-1, 3, -1, -1), b.expand(-1, 3, -1, -1)), rtol=1e-12, atol=0)


def test_half_precision_and_autocast_compute_in_float32() -> None:
    d, a = make("alex", resize=None), images(dtype=torch.bfloat16)
    b = a + 0.01 * images(seed=1, dtype=torch.bfloat16)
    expected = d(a.double(), b.double()).float()
    torch.testing.assert_close(d(a, b), expected, rtol=1e-3, atol=0)
    with torch.autocast("cpu", torch.bfloat16):  # which would be several per cent off
        torch.testing.assert_close(d(a, b), expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize("both", [False, True])
def test_chunks_give_the_same_numbers_and_gradients(both: bool) -> None:
    a, b = images(5).requires_grad_(), images(5, seed=1).requires_grad_(both)
    weight = torch.arange(1.0, 6.0, dtype=torch.float64)
    sides = [a, b] if both else [a]
    results = []
    for chunk in (None, 2):
        d = make("alex", resize=None, chunk=chunk)(a, b)
        results.append((d, *torch.autograd.grad((weight * d).sum(), sides)))
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-14)
    with torch.no_grad():
        torch.testing.assert_close(make("alex", resize=None, chunk=2)(a, b), results[0][0].detach(), rtol=1e-10, atol=0)


def test_chunks_keep_images_and_not_activations() -> None:
    class Kept:
        def __init__(self, tensor: Tensor) -> None:
            self.tensor = tensor

    def kept(chunk: int | None) -> int:
        """Bytes that wait for the backward pass."""
        alive: weakref.WeakSet[Kept] = weakref.WeakSet()

        def pack(tensor: Tensor) -> Kept:
            alive.add(packed := Kept(tensor))
            return packed

        a, b = images(6).requires_grad_(), images(6, seed=1)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda packed: packed.tensor):
            d = make("alex", resize=None, chunk=chunk)(a, b)
        assert d.requires_grad
        return sum(packed.tensor.nbytes for packed in alive)

    assert kept(2) == images(6).nbytes
    assert kept(None) > 5 * images(6).nbytes


def test_weights_are_frozen_and_evaluated() -> None:
    d = make("squeeze", resize=None)
    assert not any(p.requires_grad for p in d.parameters())
    before = d(images(), images(seed=1))
    assert torch.equal(d.train()(images(), images(seed=1)), before)  # no dropout
    assert torch.equal(LPIPS("squeeze", weights="random", resize=None)(images(), images(seed=1)), before)


@torch.no_grad()
def test_weights_are_never_changed_in_place() -> None:
    """A copy left by a transform or by inference mode would crash or poison all later calls."""
    d, a, b = make("squeeze", resize=None), images(2, 17), images(2, 17, seed=1)
    expected = d(a, b)
    _, slope = torch.func.jvp(lambda a: d(a, b), (a,), (b,))
    with torch.inference_mode():
        torch.testing.assert_close(d(a.float(), b.float()).double(), expected, rtol=1e-3, atol=0)
        assert torch.equal(d(a, b), expected)
    with torch.enable_grad():
        x = a.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(d(x, b).sum(), x)
    torch.testing.assert_close((gradient * b).flatten(1).sum(1), slope)
    torch.testing.assert_close(torch.func.grad(lambda a: d(a, b).sum())(a), gradient)
    torch.testing.assert_close(torch.func.vmap(lambda a, b: d(a[None], b[None])[0])(a, b), expected)


def test_building_leaves_random_numbers_alone() -> None:
    state = torch.get_rng_state()
    LPIPS("squeeze", weights="random")
    assert torch.equal(torch.get_rng_state(), state)


def test_average_pools_stand_where_maximum_pools_stood() -> None:
    usual, average = make("squeeze", resize=None), make("squeeze", resize=None, pooling="average")
    kinds = [[type(m) for m in d.layers.trunk.modules() if "Pool" in type(m).__name__] for d in (usual, average)]
    assert kinds == [[torch.nn.MaxPool2d] * 3, [torch.nn.AvgPool2d] * 3]
    x = images(1, 14)
    expected = torch.nn.functional.avg_pool2d(x, 3, 2, ceil_mode=True)  # SqueezeNet's pools, averaging
    assert torch.equal(average.layers.trunk.slice2[0](x), expected)
    assert not torch.equal(average(images(), images(seed=1)), usual(images(), images(seed=1)))


@pytest.mark.parametrize("net", NETS)
def test_smallest_images(net: str) -> None:
    d, size = make(net, resize=None), SMALLEST[net]
    assert d(images(1, size), images(1, size, seed=1)).isfinite().all()
    with pytest.raises(
        ValueError,
        match=rf"got images of \({size - 1}, {size - 1}\) pixels; {net} takes images of at least {size} pixels",
    ):
        d(images(1, size - 1), images(1, size - 1))
    with pytest.raises(RuntimeError):  # so the limit is the trunk's own
        d.layers.trunk(images(1, size - 1, dtype=torch.float32))
    with pytest.raises(ValueError, match=rf"got resize={size - 1}; .* for {net}, at least {size} pixels"):
        LPIPS(net, weights="random", resize=size - 1)


def test_plain_lpips_is_a_pseudo_metric() -> None:
    """a differs from b, and LPIPS does not see it: here a pattern that bilinear resizing to half the size averages out.

    Theorem 1 needs d(a, b) = 0 only where a = b: LPIPS alone does not promise that, LPIPS + l2 does.
    """
    a = (images(2, 64) * 8).round() / 8
    pattern = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64).repeat(32, 32)
    assert make("alex", resize=32)(a, a + 0.25 * pattern).tolist() == [0, 0]
    assert (make("alex", resize=None)(a, a + 0.25 * pattern) > 0).all()


def state_of(net: str) -> dict[str, Tensor]:
    """A trunk's weights under the names of torchvision's classifier."""
    trunk = make(net, resize=None).layers.trunk.state_dict()
    return {f"features.{key.split('.', 1)[1]}": value.float() for key, value in trunk.items()}


class TestWeights:
    @pytest.fixture(autouse=True)
    def cache(self, tmp_path, monkeypatch):
        """torch's cache, empty, on a machine without a network."""

        def refuse(*_: object, **__: object) -> None:
            raise urllib.error.URLError("no network")

        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        monkeypatch.setattr(urllib.request, "urlopen", refuse)
        distances._built.cache_clear()
        yield tmp_path / "hub" / "checkpoints"
        distances._built.cache_clear()

    @pytest.mark.parametrize("net", ["alex", "squeeze"])
    def test_from_a_file_or_the_cache(self, net: str, cache, tmp_path) -> None:
        state = {key: value + 0.01 for key, value in state_of(net).items()}
        cache.mkdir(parents=True)
        for path in (cache / TRUNKS[net].name, tmp_path / "mine.pth"):  # torchvision still has some in the old format
            zipped = path.name == "mine.pth"
            torch.save({**state, "classifier.1.weight": torch.ones(2)}, path, _use_new_zipfile_serialization=zipped)
        a, b = images(), images(seed=1)
        given, found = LPIPS(net, weights=tmp_path / "mine.pth", resize=None), LPIPS(net, resize=None)
        assert torch.equal(given(a, b), found(a, b))
        assert not torch.equal(given(a, b), make(net, resize=None)(a, b))
        loaded = found.layers.trunk.state_dict()
        assert all(torch.equal(loaded[key], state[f"features.{key.split('.', 1)[1]}"]) for key in loaded)

    def test_of_another_network(self, tmp_path) -> None:
        torch.save(state_of("squeeze"), tmp_path / "mine.pth")
        with pytest.raises(ValueError, match=r"mine.pth does not hold the AlexNet weights"):
            LPIPS("alex", weights=tmp_path / "mine.pth")

    @pytest.mark.parametrize(
        ("name", "file"),
        [
            ("lpips", "vgg16-397923af.pth"),
            ("lpips-vgg-average", "vgg16-397923af.pth"),
            ("lpips-alex", "alexnet-owt-7be5be79.pth"),
            ("lpips-squeeze", "squeezenet1_1-b8a52dc0.pth"),
        ],
    )
    def test_missing_ones_are_named_before_any_training(self, name: str, file: str, cache) -> None:
        teacher = pid.EmpiricalDenoiser(images(2, 8, dtype=torch.float32))
        pid.Config(distance=name)  # choosing costs nothing yet, so a saved configuration reads anywhere
        with pytest.raises(ValueError, match=rf"{cache / file} \(the .* weights of LPIPS\) is missing"):
            pid.steps(teacher, distance=name, n=4)

    def test_missing_packages_are_named(self, monkeypatch) -> None:
        for name in ("lpips", "torchvision"):
            with monkeypatch.context() as patch:
                patch.setitem(sys.modules, name, None)
                with pytest.raises(ImportError, match=rf"LPIPS needs .*{name}.*pip install 'pidlearn\[images\]'"):
                    LPIPS()

    def test_a_run_by_name_builds_one_trunk(self, cache, monkeypatch) -> None:
        cache.mkdir(parents=True)
        torch.save(state_of("squeeze"), cache / TRUNKS["squeeze"].name)
        built = []
        init = LPIPS.__init__
        monkeypatch.setattr(LPIPS, "__init__", lambda self, *a, **k: (built.append(a), init(self, *a, **k))[1])
        teacher = pid.EmpiricalDenoiser(images(2, 17, dtype=torch.float32))
        options = {"n": 4, "steps": 2, "batch_size": 2, "progress": False}
        named = pid.distill(teacher, distance="lpips-squeeze", **options)
        again = pid.distill(teacher, distance="lpips-squeeze", **options)
        assert len(built) == 1
        passed = pid.distill(teacher, distance=LPIPS("squeeze"), **options)
        assert (named.history["loss"] == again.history["loss"]).all()
        assert (named.history["loss"] == passed.history["loss"]).all()
        assert (named.history["loss"] > 0).all()


@pytest.mark.parametrize(
    ("a", "b", "says"),
    [
        (images(channels=2), images(channels=2), r"got \(3, 2, 40, 40\) .* C = 1 or 3"),
        (images(), images()[:1], r"got \(3, 3, 40, 40\) .* and \(1, 3, 40, 40\)"),
        (images()[0], images()[0], r"B, C, H, W"),
        (images()[:0], images()[:0], r"\(0, 3"),
        (images().int(), images().int(), "int32"),
    ],
)
def test_what_are_not_images(a: Tensor, b: Tensor, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make("alex", resize=None)(a, b)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"net": "resnet"}, "got net = 'resnet', but net must be one of"),
        ({"pooling": "min"}, "pooling must be one of max, average"),
        ({"chunk": 0}, "got chunk = 0, but chunk must be a whole number of at least 1, or None"),
    ],
)
def test_choices_that_are_none(options: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        LPIPS(**options)


def test_torchvisions_other_failures_are_its_own(monkeypatch) -> None:
    # That of an operator which does not exist is mended; the other tests here stand on it beside a CPU build of torch.
    def fail(name: str) -> None:
        raise RuntimeError(f"{name} needs something else")

    monkeypatch.setattr(optional_imports, "import_module", fail)
    with pytest.raises(RuntimeError, match="torchvision needs something else"):
        LPIPS()
