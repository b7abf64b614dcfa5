"""EDM's networks: reference values, state-dict names, labels and derivatives."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pidlearn.nets.blocks import Conv2d, Init
from pidlearn.nets.edm import EDMPrecond, SongUNet
from pidlearn.nets.precond import Preconditioned
from tests.reference import load_student_network, load_teacher, tensor

DENOISER = "denoiser_songunet_ddpmpp"
VP: dict[str, Any] = {"augment_dim": 9}
VE: dict[str, Any] = VP | {
    "embedding_type": "fourier",
    "encoder_type": "residual",
    "channel_mult_noise": 2,
    "resample_filter": [1, 3, 3, 1],
}
TINY: dict[str, Any] = {
    "img_resolution": 16,
    "model_channels": 16,
    "channel_mult": [1, 2],
    "num_blocks": 1,
    "attn_resolutions": [8],
}


def tiny(**options: Any) -> SongUNet:
    """A small float64 network in eval mode whose "zero" layers are not nearly zero."""
    torch.manual_seed(0)
    network = SongUNet(**TINY | {"in_channels": 3, "out_channels": 3} | options).double().eval()
    for name, parameter in network.named_parameters():
        if re.search(r"(conv1|proj|aux_conv)\.weight", name):
            nn.init.normal_(parameter, std=0.1)
    return network


def images(batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, 16, 16, dtype=torch.float64, generator=torch.manual_seed(1))


# Reference values


@pytest.mark.parametrize(
    ("dtype", "key", "tolerance"), [(torch.float64, "out64", 1e-10), (torch.float32, "out32", 2e-5)]
)
@torch.no_grad()
def test_denoiser_matches_the_reference(dtype: torch.dtype, key: str, tolerance: float) -> None:
    x, sigma = tensor(DENOISER, "x", dtype), tensor(DENOISER, "sigma")
    out = load_teacher(dtype)(x, sigma)
    assert out.dtype == dtype
    torch.testing.assert_close(out, tensor(DENOISER, key, dtype), rtol=0, atol=tolerance)


@pytest.mark.parametrize("sigma_shape", [(), (1,), (1, 1, 1, 1)])
@torch.no_grad()
def test_one_sigma_serves_the_whole_batch(sigma_shape: tuple[int, ...]) -> None:
    sigma = tensor(DENOISER, "sigma_scalar").reshape(sigma_shape)
    out = load_teacher(torch.float64)(tensor(DENOISER, "x"), sigma)
    expected = tensor(DENOISER, "out64_scalar_nolabel")
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-10)


@torch.no_grad()
def test_student_network_matches_the_reference_trajectory() -> None:
    z, t = tensor("pid_loss", "z"), tensor("pid_loss", "N10/t")
    raw = load_student_network(torch.float64)(z / (0.5**2 + 80**2) ** 0.5, t.log() / 4)
    weight = t[:, None, None, None] / 80
    expected = tensor("pid_loss", "N10/x_t")
    torch.testing.assert_close(weight * z + (1 - weight) * raw, expected, rtol=0, atol=1e-10)


@torch.no_grad()
def test_precision_follows_the_image_not_the_weights() -> None:
    x, sigma = tensor(DENOISER, "x"), tensor(DENOISER, "sigma")
    out = load_teacher(torch.float32)(x, sigma)
    torch.testing.assert_close(out, tensor(DENOISER, "out64"), rtol=0, atol=1e-10)
    assert load_teacher(torch.float64)(x.half(), sigma).dtype == torch.float32


@torch.no_grad()
def test_network_body_in_float16() -> None:
    network, c_noise = load_student_network(torch.float32), torch.tensor([0.5, -1.0])
    x = images().float()
    out = network(x.half(), c_noise)
    assert out.dtype == torch.float16
    torch.testing.assert_close(out.float(), network(x, c_noise), rtol=0, atol=1e-2)


# State dicts

# One line a module: its layers in order, "kind in>out", "+f" for a resampling filter. The blocks
# list norm0, conv0, affine, norm1, conv1, skip and, with attention, norm2, qkv, proj.
TINY_DDPMPP = """
map_label: lin 10>16
map_augment: matrix 9>16
map_layer0: lin 16>64
map_layer1: lin 64>64
enc.16x16_conv: k3 3>16
enc.16x16_block0: norm 16, k3 16>16, lin 64>16, norm 16, k3 16>16, -
enc.8x8_down: norm 16, k3 16>16 +f, lin 64>16, norm 16, k3 16>16, k1 16>16 +f
enc.8x8_block0: norm 16, k3 16>32, lin 64>32, norm 32, k3 32>32, k1 16>32, norm 32, k1 32>96, k1 32>32
dec.8x8_in0: norm 32, k3 32>32, lin 64>32, norm 32, k3 32>32, -, norm 32, k1 32>96, k1 32>32
dec.8x8_in1: norm 32, k3 32>32, lin 64>32, norm 32, k3 32>32, -
dec.8x8_block0: norm 64, k3 64>32, lin 64>32, norm 32, k3 32>32, k1 64>32
dec.8x8_block1: norm 48, k3 48>32, lin 64>32, norm 32, k3 32>32, k1 48>32, norm 32, k1 32>96, k1 32>32
dec.16x16_up: norm 32, k3 32>32 +f, lin 64>32, norm 32, k3 32>32, k1 32>32 +f
dec.16x16_block0: norm 48, k3 48>16, lin 64>16, norm 16, k3 16>16, k1 48>16
dec.16x16_block1: norm 32, k3 32>16, lin 64>16, norm 16, k3 16>16, k1 32>16
dec.16x16_aux_norm: norm 16
dec.16x16_aux_conv: k3 16>3
"""
TINY_NCSNPP = "map_noise: freqs 16" + TINY_DDPMPP.replace("lin 10>16", "lin 10>32").replace(
    "matrix 9>16", "matrix 9>32"
).replace("map_layer0: lin 16>64", "map_layer0: lin 32>64").replace(
    "enc.8x8_block0", "enc.8x8_aux_residual: k3 3>16 +f\nenc.8x8_block0"
)
BLOCK_LAYERS = ("norm0", "conv0", "affine", "norm1", "conv1", "skip", "norm2", "qkv", "proj")


def entries(table: str, taps: int) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes, in order, of the state dict that a table like the above describes."""
    found: list[tuple[str, tuple[int, ...]]] = []
    for line in table.strip().splitlines():
        module, _, description = line.partition(": ")
        layers = description.split(", ")
        names = [f"{module}.{name}" for name in BLOCK_LAYERS] if len(layers) > 1 else [module]
        for name, layer in zip(names, layers, strict=False):
            if layer == "-":
                continue
            kind, sizes = layer.split()[:2]
            *inputs, out = map(int, sizes.split(">"))
            kernel = (int(kind[1]),) * 2 if kind in ("k1", "k3") else ()
            if kind == "freqs":
                found.append((f"{name}.freqs", (out,)))
                continue
            found.append((f"{name}.weight", (out, *inputs, *kernel)))
            if kind != "matrix":
                found.append((f"{name}.bias", (out,)))
            if layer.endswith("+f"):
                found.append((f"{name}.resample_filter", (1, 1, taps, taps)))
    return found


@pytest.mark.parametrize(
    ("options", "table", "taps", "n_entries", "n_parameters"),
    [(VP, TINY_DDPMPP, 2, 149, 189_667), (VE, TINY_NCSNPP, 4, 153, 191_459)],
    ids=["ddpm++", "ncsn++"],
)
def test_state_dict_names(options: dict[str, Any], table: str, taps: int, n_entries: int, n_parameters: int) -> None:
    with torch.device("meta"):
        denoiser = EDMPrecond(img_channels=3, label_dim=10, **TINY | options)
    expected = [(f"model.{name}", shape) for name, shape in entries(table, taps)]
    assert [(name, tuple(value.shape)) for name, value in denoiser.state_dict().items()] == expected
    assert len(expected) == n_entries
    assert sum(p.numel() for p in denoiser.parameters()) == n_parameters


CIFAR: dict[str, Any] = {"img_resolution": 32, "channel_mult": [2, 2, 2]}
FFHQ: dict[str, Any] = {"img_resolution": 64, "channel_mult": [1, 2, 2, 2]}


@pytest.mark.parametrize(
    ("options", "n_parameters", "n_buffers", "n_entries", "n_filters"),
    [
        pytest.param(CIFAR | VP, 55_733_891, 32, 425, 8, id="cifar10-uncond-vp"),
        pytest.param(CIFAR | VP | {"label_dim": 10}, 55_735_299, 32, 427, 8, id="cifar10-cond-vp"),
        pytest.param(CIFAR | VE, 56_397_827, 288, 432, 10, id="cifar10-uncond-ve"),
        pytest.param(CIFAR | VE | {"label_dim": 10}, 56_400_643, 288, 434, 10, id="cifar10-cond-ve"),
        pytest.param(FFHQ | VP, 61_805_571, 48, 553, 12, id="ffhq-vp"),
        pytest.param(FFHQ | VE, 62_761_091, 368, 563, 15, id="ffhq-ve"),
        pytest.param(CIFAR, 55_732_739, 32, 424, 8, id="cifar10-pid-student"),
    ],
)
def test_sizes_of_the_released_models(
    options: dict[str, Any], n_parameters: int, n_buffers: int, n_entries: int, n_filters: int
) -> None:
    with torch.device("meta"):
        denoiser = EDMPrecond(img_channels=3, **options)
    names = list(denoiser.state_dict())
    assert sum(p.numel() for p in denoiser.parameters()) == n_parameters
    assert sum(b.numel() for b in denoiser.buffers()) == n_buffers
    assert len(names) == n_entries
    assert sum(name.endswith("resample_filter") for name in names) == n_filters


def test_unknown_options_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"model_type must be one of .*SongUNet.*'Dhariwal'"):
        EDMPrecond(16, 3, model_type="Dhariwal")
    with pytest.raises(ValueError, match="encoder_type must be one of standard, skip, residual"):
        tiny(encoder_type="resnet")
    with pytest.raises(ValueError, match="img_resolution 15 cannot be halved 1 times"):
        tiny(img_resolution=15)


# Resampling


def conv(kernel: int, resample: Any, taps: list[int]) -> Conv2d:
    torch.manual_seed(0)
    init = Init("xavier", "uniform", bias=1.0)
    return Conv2d(3, 3, kernel, resample=resample, resample_filter=taps, init=init).double()


def test_box_filter_averages_and_doubles() -> None:
    x = images()
    mean = nn.functional.avg_pool2d(x, 2)
    torch.testing.assert_close(conv(0, "down", [1, 1])(x), mean)
    nearest = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(conv(0, "up", [1, 1])(x), nearest)


@torch.no_grad()
def test_fused_downsampling_convolves_before_it_filters() -> None:
    x = images()
    layer = conv(3, "fused_down", [1, 3, 3, 1])
    assert layer.bias is not None
    # Both paddings are applied at once, so the filter sees no zeros of its own.
    fine = nn.functional.conv2d(nn.functional.pad(x, (2, 2, 2, 2)), layer.weight)
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x.dtype) / 8
    coarse = torch.einsum("bchwij,i,j->bchw", fine.unfold(2, 4, 2).unfold(3, 4, 2), taps, taps)
    torch.testing.assert_close(layer(x), coarse + layer.bias[:, None, None])


# Class labels


@pytest.mark.parametrize("options", [VP, VE], ids=["ddpm++", "ncsn++"])
@torch.no_grad()
def test_integer_labels_equal_one_hot_labels(options: dict[str, Any]) -> None:
    denoiser = Preconditioned(tiny(label_dim=10, **options))
    x, sigma, labels = images(), torch.tensor([0.5, 20.0]), torch.tensor([0, 9])
    one_hot = nn.functional.one_hot(labels, 10)
    out = denoiser(x, sigma, labels)
    torch.testing.assert_close(out, denoiser(x, sigma, one_hot.double()), rtol=0, atol=0)
    torch.testing.assert_close(denoiser(x, sigma), denoiser(x, sigma, torch.zeros(2, 10)))
    assert (out - denoiser(x, sigma)).abs().max() > 1e-3


@pytest.mark.parametrize("wrong", [-1, 10])
def test_labels_out_of_range_are_refused(wrong: int) -> None:
    with pytest.raises(ValueError, match=rf"0\.\.9, got .*{wrong}"):
        tiny(label_dim=10)(images(), torch.zeros(1), torch.tensor([5, wrong]))


def test_labels_of_the_wrong_shape_are_refused() -> None:
    network, x, c_noise = tiny(label_dim=10), images(), torch.zeros(1)
    with pytest.raises(ValueError, match=r"integer class labels must be \(B,\)"):
        network(x, c_noise, torch.zeros(2, 10, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"floating class labels must be \(B, 10\)"):
        network(x, c_noise, torch.zeros(2, 9))
    with pytest.raises(ValueError, match="3 noise levels or labels do not fit 2 images"):
        network(x, c_noise, torch.zeros(3, dtype=torch.int64))


@torch.no_grad()
def test_unconditional_networks_ignore_labels() -> None:
    network, x, c_noise = tiny(), images(), torch.zeros(1)
    torch.testing.assert_close(network(x, c_noise, torch.tensor([3, 99])), network(x, c_noise))


@torch.no_grad()
def test_label_dropout_acts_in_training_only() -> None:
    network = tiny(label_dim=10, label_dropout=1.0, dropout=0.0)
    x, c_noise, labels = images(), torch.zeros(1, dtype=torch.float64), torch.tensor([3, 7])
    unconditional = network(x, c_noise)
    assert (network(x, c_noise, labels) - unconditional).abs().max() > 1e-3
    torch.testing.assert_close(network.train()(x, c_noise, labels), unconditional)


@torch.no_grad()
def test_augment_labels_of_zero_mean_an_unaugmented_image() -> None:
    denoiser = EDMPrecond(img_channels=3, augment_dim=9, **TINY).double()
    denoiser.model = tiny(augment_dim=9)
    x, sigma = images(), torch.tensor([0.5, 20.0])
    plain = denoiser(x, sigma)
    torch.testing.assert_close(denoiser(x, sigma, augment_labels=torch.zeros(2, 9)), plain)
    assert (denoiser(x, sigma, augment_labels=torch.ones(2, 9)) - plain).abs().max() > 1e-3


# Preconditioning and derivatives


def test_preconditioning_works_for_any_event_shape() -> None:
    class Zero(nn.Module):
        def forward(self, x: Tensor, c_noise: Tensor, class_labels: Tensor | None) -> Tensor:
            assert c_noise.shape == (5,)
            return torch.zeros_like(x)

    x, sigma = torch.ones(5, 2, dtype=torch.float64), torch.linspace(0.1, 10, 5)
    shrunk = Preconditioned(Zero(), sigma_data=2.0)(x, sigma)
    torch.testing.assert_close(shrunk, x * (4 / (4 + sigma.double() ** 2))[:, None])


VARIANTS = [
    pytest.param(VP | {"encoder_type": enc, "decoder_type": dec}, id=f"{enc}-{dec}")
    for enc in ("standard", "skip")
    for dec in ("standard", "skip")
] + [pytest.param(VE, id="ncsn++"), pytest.param(VE | {"decoder_type": "skip"}, id="ncsn++-skip")]


@pytest.mark.parametrize("options", VARIANTS)
def test_every_parameter_gets_a_gradient(options: dict[str, Any]) -> None:
    network = tiny(label_dim=10, channel_mult=[1, 2, 2], **options)
    labels = torch.tensor([3, 7])
    out = network(images(), torch.tensor([0.3, -0.7]).double(), labels, torch.ones(2, 9))
    assert out.shape == (2, 3, 16, 16)
    out.square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


# torch itself calls the deprecated function when it first loads its forward-mode rules.
@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("options", VARIANTS)
@torch.no_grad()
def test_forward_mode_derivative_matches_differences(options: dict[str, Any]) -> None:
    denoiser = Preconditioned(tiny(label_dim=10, **options))
    labels = torch.tensor([3, 7])
    at = (images(), torch.tensor([0.4, 3.0]).double())
    along = (images().flip(0), torch.tensor([0.2, -1.0]).double())

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return denoiser(x, sigma, labels)

    _, derivative = torch.func.jvp(denoise, at, along)
    step = 1e-5
    ahead, behind = (denoise(*(a + side * step * b for a, b in zip(at, along, strict=True))) for side in (1, -1))
    difference = (ahead - behind) / (2 * step)
    torch.testing.assert_close(derivative, difference, rtol=1e-6, atol=1e-7)


def test_labels_are_checked_inside_transforms() -> None:
    network, c_noise = tiny(label_dim=10), torch.zeros(1, dtype=torch.float64)
    x, labels = images(), torch.tensor([3, 7])

    def total(x: Tensor, labels: Tensor) -> Tensor:
        return network(x, c_noise, labels).sum()

    gradient = torch.func.grad(total)(x, labels)
    batched = torch.func.vmap(torch.func.grad(total), in_dims=(0, None))(x[None], labels)
    torch.testing.assert_close(batched[0], gradient)
    with pytest.raises(ValueError, match=r"0\.\.9, got 6\.\.10"):
        torch.func.grad(total)(x, labels + 3)
