"""EDM's networks: reference values, state-dict names, labels and derivatives."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pidlearn.nets import DhariwalUNet, EDMPrecond, Preconditioned, SongUNet, VEPrecond, VPPrecond, iDDPMPrecond
from pidlearn.nets.blocks import Conv2d, Init, self_attention
from pidlearn.nets.inputs import one_hot_labels
from tests.reference import load_student_network, load_teacher, tensor

DENOISER = "denoiser_songunet_ddpmpp"
VP: dict[str, Any] = {"model_type": "SongUNet", "augment_dim": 9}
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


ADM: dict[str, Any] = {"model_type": "DhariwalUNet", "augment_dim": 9, "model_channels": 32, "channel_mult": [1, 4]}


def tiny(model_type: str = "SongUNet", **options: Any) -> Any:
    """A small float64 network in eval mode whose "zero" layers are not zero."""
    torch.manual_seed(0)
    network_type = {"SongUNet": SongUNet, "DhariwalUNet": DhariwalUNet}[model_type]
    network = network_type(**TINY | {"in_channels": 3, "out_channels": 3} | options).double().eval()
    for name, parameter in network.named_parameters():
        if re.search(r"(conv1|proj|aux_conv)\.weight", name) or (name.endswith("weight") and not parameter.any()):
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
TINY_ADM = """
map_augment: matrix 9>32
map_layer0: lin 32>128
map_layer1: lin 128>128
map_label: matrix 10>128
enc.16x16_conv: k3 3>32
enc.16x16_block0: norm 32, k3 32>32, lin 128>64, norm 32, k3 32>32, -
enc.8x8_down: norm 32, k3 32>32 +f, lin 128>64, norm 32, k3 32>32, f
enc.8x8_block0: norm 32, k3 32>128, lin 128>256, norm 128, k3 128>128, k1 32>128, norm 128, k1 128>384, k1 128>128
dec.8x8_in0: norm 128, k3 128>128, lin 128>256, norm 128, k3 128>128, -, norm 128, k1 128>384, k1 128>128
dec.8x8_in1: norm 128, k3 128>128, lin 128>256, norm 128, k3 128>128, -
dec.8x8_block0: norm 256, k3 256>128, lin 128>256, norm 128, k3 128>128, k1 256>128, norm 128, k1 128>384, k1 128>128
dec.8x8_block1: norm 160, k3 160>128, lin 128>256, norm 128, k3 128>128, k1 160>128, norm 128, k1 128>384, k1 128>128
dec.16x16_up: norm 128, k3 128>128 +f, lin 128>256, norm 128, k3 128>128, f
dec.16x16_block0: norm 160, k3 160>32, lin 128>64, norm 32, k3 32>32, k1 160>32
dec.16x16_block1: norm 64, k3 64>32, lin 128>64, norm 32, k3 32>32, k1 64>32
out_norm: norm 32
out_conv: k3 32>3
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
            if layer == "f":
                found.append((f"{name}.resample_filter", (1, 1, taps, taps)))
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
    [
        (VP, TINY_DDPMPP, 2, 149, 189_667),
        (VE, TINY_NCSNPP, 4, 153, 191_459),
        (ADM, TINY_ADM, 2, 150, 2_554_307),
        (ADM | {"augment_dim": 0}, TINY_ADM.replace("map_augment: matrix 9>32\n", ""), 2, 149, 2_554_019),
    ],
    ids=["ddpm++", "ncsn++", "adm", "adm-unaugmented"],
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
        pytest.param(CIFAR | VP | {"augment_dim": 0}, 55_732_739, 32, 424, 8, id="cifar10-pid-student"),
        pytest.param({"img_resolution": 64, "label_dim": 1000}, 295_899_267, 48, 553, 12, id="imagenet64-adm"),
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
    with pytest.raises(ValueError, match=r"got model_type = 'Dhariwal', but model_type must be one of .*SongUNet"):
        EDMPrecond(16, 3, model_type="Dhariwal")
    with pytest.raises(ValueError, match="encoder_type must be one of standard, skip, residual"):
        tiny(encoder_type="resnet")
    with pytest.raises(ValueError, match="img_resolution 15 cannot be halved 1 times: use a multiple of 2"):
        tiny(img_resolution=15)
    for kind in ("SongUNet", "DhariwalUNet"):
        with pytest.raises(ValueError, match="channel_mult must have an entry"):
            tiny(kind, channel_mult=[])
        with pytest.raises(ValueError, match=r"got label_dim = -1, but label_dim must be a whole number from 0"):
            tiny(kind, label_dim=-1)
    for taps in ([1, 2, 1], [1], [1, -1]):
        with pytest.raises(ValueError, match=r"resample_filter = .* expected an even number of taps"):
            tiny(resample_filter=taps)
    for scale in (0.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="sigma_data"):
            Preconditioned(tiny(), scale)


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


@pytest.mark.parametrize("options", [VP, VE, ADM], ids=["ddpm++", "ncsn++", "adm"])
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
    with pytest.raises(ValueError, match=rf"got class labels .*{wrong}.* 0\.\.9"):
        tiny(label_dim=10)(images(), torch.zeros(1), torch.tensor([5, wrong]))


def test_labels_of_the_wrong_shape_are_refused() -> None:
    network, x, c_noise = tiny(label_dim=10), images(), torch.zeros(1)
    with pytest.raises(ValueError, match=r"integer class labels of shape \(2, 10\); expected \(B,\)"):
        network(x, c_noise, torch.zeros(2, 10, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"floating class labels of shape \(2, 9\); expected \(B, 10\)"):
        network(x, c_noise, torch.zeros(2, 9))
    with pytest.raises(TypeError, match="got class labels of type list; expected a tensor"):
        network(x, c_noise, [1, 2])


def test_numbers_that_do_not_fit_the_images_are_refused() -> None:
    network, x, c_noise = tiny(label_dim=10), images(), torch.zeros(1)
    with pytest.raises(ValueError, match="got 3 class labels for 2 images; expected one for all, or one per image"):
        network(x, c_noise, torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="got 3 noise levels for 2 images"):
        network(x, torch.zeros(3))
    with pytest.raises(ValueError, match=r"got sigma of shape \(3,\); expected a number, or one for each of 2 samples"):
        Preconditioned(network)(x, torch.ones(3))
    for other in (x[:, :1], x[..., :8], x[..., :15, :15], x.repeat(1, 1, 2, 2), x[0]):
        with pytest.raises(ValueError, match=r"got .* takes samples of shape \(3, 16, 16\)"):
            network(other, c_noise)


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
    denoiser = EDMPrecond(img_channels=3, **TINY | VP).double()
    denoiser.model = tiny(**VP)
    x, sigma = images(), torch.tensor([0.5, 20.0])
    plain = denoiser(x, sigma)
    torch.testing.assert_close(denoiser(x, sigma, augment_labels=torch.zeros(2, 9)), plain)
    assert (denoiser(x, sigma, augment_labels=torch.ones(2, 9)) - plain).abs().max() > 1e-3


# Attention


@pytest.mark.parametrize("heads", [1, 2])
def test_attention_is_the_softmax_over_pixels(heads: int) -> None:
    """Written out, with q, k and v in turn along the channels of each head; so are its gradients."""
    qkv = torch.randn(2, 24, 3, 4, dtype=torch.float64, generator=torch.manual_seed(0)).requires_grad_()
    features = 24 // (3 * heads)
    rows = []
    for image in qkv.flatten(2):
        for head in image.chunk(heads):
            q, k, v = head[0::3], head[1::3], head[2::3]
            rows.append(v @ (q.T @ k / features**0.5).softmax(1).T)
    expected = torch.cat(rows).reshape(2, 8, 3, 4)
    out = self_attention(qkv, heads)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-14)
    direction = torch.randn(out.shape, dtype=torch.float64, generator=torch.manual_seed(1))
    ours, written_out = (torch.autograd.grad((y * direction).sum(), qkv)[0] for y in (out, expected))
    torch.testing.assert_close(ours, written_out, rtol=0, atol=1e-14)


def test_attention_keeps_no_map_of_all_pairs_of_pixels() -> None:
    """What a backward pass holds grows with the pixels, not with their square."""
    held: list[int] = []
    qkv = torch.randn(1, 3 * 8, 32, 32, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: held.append(x.numel()) or x, lambda x: x):
        self_attention(qkv, 1)
    assert max(held) < 1024 * 1024 / 4


# Preconditioning and derivatives


def denoiser_of(kind: Any, **options: Any) -> Any:
    """A small one over a network whose last layers are not zero."""
    torch.manual_seed(0)
    denoiser = kind(img_channels=3, **TINY | {"model_type": "SongUNet"} | options).double().eval()
    for name, parameter in denoiser.named_parameters():
        if re.search(r"(conv1|proj|aux_conv)\.weight", name):
            nn.init.normal_(parameter, std=0.1)
    return denoiser


@torch.no_grad()
def test_score_sde_teachers_predict_the_noise() -> None:
    x, sigma = images(), torch.tensor([0.05, 20.0]).double()
    s = sigma[:, None, None, None]
    ve = denoiser_of(VEPrecond)
    torch.testing.assert_close(ve(x, sigma), x + s * ve.model(x, (sigma / 2).log()))
    assert (ve.sigma_min, ve.sigma_max) == (0.02, 100)

    vp = denoiser_of(VPPrecond)
    # 1 + sigma(t)^2 = exp(19.9 t^2 / 2 + 0.1 t): at t = 0.3 by hand.
    t = 0.3
    sigma = torch.full((2,), math.expm1(19.9 * t * t / 2 + 0.1 * t) ** 0.5, dtype=torch.float64)
    s = sigma[:, None, None, None]
    noise = vp.model(x / (s**2 + 1).sqrt(), torch.full_like(sigma, 999 * t))
    torch.testing.assert_close(vp(x, sigma), x - s * noise)
    assert vp.sigma_min == pytest.approx(0.00100050, abs=1e-8)
    assert vp.sigma_max == pytest.approx(152.2, abs=0.1)


@torch.no_grad()
def test_iddpm_teachers_know_a_table_of_noise_levels() -> None:
    denoiser = denoiser_of(iDDPMPrecond)
    u = denoiser.u
    assert u.dtype == torch.float64  # as the weights
    assert u.shape == (1001,)
    assert u[1000] == 0
    assert (u.diff() < 0).all()
    assert (denoiser.sigma_min, denoiser.sigma_max) == pytest.approx((u[999].item(), u[0].item()))

    # The cosine schedule: 1 + u[j]^2 = 1 / alpha_bar while its steps are below the bound.
    def alpha_bar(j: float) -> float:
        return math.sin(math.pi / 2 * j / (1000 * 1.008)) ** 2

    assert (1 + u[500] ** 2).item() == pytest.approx(alpha_bar(1000) / alpha_bar(500), rel=1e-5)
    sigma = denoiser.u[[300, 800]] * 1.0001
    torch.testing.assert_close(denoiser.round_sigma(sigma), u[[300, 800]])
    x, s = images(), sigma[:, None, None, None]
    both = denoiser.model(x / (s**2 + 1).sqrt(), torch.tensor([699.0, 199.0]).double())
    assert both.shape == (2, 6, 16, 16)
    torch.testing.assert_close(denoiser(x, sigma), x - s * both[:, :3])
    assert "u" in denoiser.state_dict()


def test_denoisers_remember_all_their_options() -> None:
    denoiser = EDMPrecond(img_channels=3, **TINY | VP)
    again = EDMPrecond(**denoiser.options)  # type: ignore[arg-type]  # of each its own type
    assert again.options == denoiser.options
    assert {"sigma_data": 0.5, "augment_dim": 9, "label_dim": 0}.items() <= denoiser.options.items()


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
] + [
    pytest.param(VE, id="ncsn++"),
    pytest.param(VE | {"decoder_type": "skip"}, id="ncsn++-skip"),
    pytest.param(ADM | {"attn_resolutions": [4, 8]}, id="adm"),
]


@pytest.mark.parametrize("options", VARIANTS)
def test_every_parameter_gets_a_gradient(options: dict[str, Any]) -> None:
    network = tiny(**{"label_dim": 10, "channel_mult": [1, 2, 2]} | options)
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
    denoiser = Preconditioned(tiny(**{"label_dim": 10} | options))
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


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("options", [VP, ADM], ids=["ddpm++", "adm"])
@torch.no_grad()
def test_derivatives_do_not_depend_on_how_channels_lie_in_memory(options: dict[str, Any]) -> None:
    network, x, c = tiny(**options), images(), torch.tensor([0.4, -0.3]).double()
    outs = []
    for layout in (torch.contiguous_format, torch.channels_last):
        network.to(memory_format=layout)
        outs.append(torch.func.jvp(lambda c: network(x, c), (c,), (torch.ones_like(c),)))
    for one, two in zip(*outs, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-12)


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")  # fused attention, batched by torch
def test_labels_inside_transforms() -> None:
    """There nothing can look at them without breaking what it is in: one out of range makes NaN."""
    network, c_noise = tiny(label_dim=10), torch.zeros(1, dtype=torch.float64)
    x, labels = images(), torch.tensor([3, 7])

    def total(x: Tensor, labels: Tensor) -> Tensor:
        return network(x, c_noise, labels).sum()

    gradient = torch.func.grad(total)(x, labels)
    batched = torch.func.vmap(torch.func.grad(total))(x[:, None], labels[:, None])
    torch.testing.assert_close(batched[:, 0], gradient)
    assert torch.func.vmap(lambda x, label: network(x[None], c_noise, label[None]))(x, labels + 3)[1].isnan().all()
    rows = torch.compile(one_hot_labels, backend="eager", fullgraph=True)
    for where in ("cpu", "meta"):
        out = rows(labels.to(where), 10, dtype=torch.float64, device=torch.device(where))
        assert out.shape == (2, 10)


def test_a_table_first_used_in_inference_mode_can_be_differentiated_afterwards() -> None:
    noise_parametrization = iDDPMPrecond(**TINY | VP, img_channels=3).noise_parametrization
    sigma = torch.tensor([3.0], requires_grad=True)
    with torch.inference_mode():
        noise_parametrization(sigma)
    noise_parametrization(sigma).c_noise.sum().backward()
    assert sigma.grad is not None
    assert sigma.grad > 0
