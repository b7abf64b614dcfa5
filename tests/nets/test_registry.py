"""The table of networks, by which files build them again."""

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pidlearn as pid
from pidlearn.nets.edm import MODEL_TYPES
from pidlearn.nets.registry import DENOISERS, NETWORKS, register_network
from pidlearn.teachers.files.build import KINDS, build, fill


@pytest.fixture
def affine() -> Iterator[Any]:
    @register_network
    class Affine(nn.Module):
        def __init__(self, event_shape: int | Sequence[int], label_dim: int = 0) -> None:
            super().__init__()
            self.event_shape, self.label_dim = tuple(event_shape), label_dim
            self.scale = nn.Parameter(torch.ones(event_shape))

        def forward(self, x: Tensor, time: Tensor, class_labels: Tensor | None = None) -> Tensor:
            return self.scale * x

    yield Affine
    del NETWORKS["Affine"]


def test_tables_hold_the_networks_of_this_library():
    assert set(NETWORKS) == {"ChebyshevMLP", "DhariwalUNet", "MLP", "SongUNet"}
    assert set(DENOISERS) == {"EDMPrecond", "VEPrecond", "VPPrecond", "iDDPMPrecond"}
    assert {cls: getattr(pid.nets, name) for name, cls in NETWORKS.items()} == {cls: cls for cls in NETWORKS.values()}


@pytest.mark.parametrize("table", [NETWORKS, DENOISERS], ids=["networks", "denoisers"])
def test_files_know_the_type_of_every_option(table: dict[str, type[nn.Module]]):
    for cls in table.values():
        parameters = inspect.signature(cls).parameters.values()
        assert all(p.annotation in KINDS for p in parameters if p.kind is not p.VAR_KEYWORD), cls


def test_another_class_of_a_registered_name_is_refused():
    class MLP(nn.Module):
        pass

    with pytest.raises(ValueError, match=r"pidlearn.nets.mlp has registered another MLP.*Rename"):
        register_network(MLP)
    assert NETWORKS["MLP"] is pid.nets.MLP


def test_an_annotation_that_files_cannot_hold_is_named(affine: Any):
    affine.__init__.__annotations__["label_dim"] = Tensor
    with pytest.raises(ValueError, match=r"label_dim of Affine is annotated as torch.Tensor, which files cannot"):
        fill(affine, {"event_shape": [2]}, {"scale": torch.ones(2)})


def test_a_new_network_is_saved_and_loaded_as_a_student_and_a_teacher(affine: Any, tmp_path: Any):
    network = affine((2,))
    assert network.options == {"event_shape": (2,), "label_dim": 0}
    nn.init.normal_(network.scale)
    teacher = pid.nets.Preconditioned(network, 1.0).eval()
    z = torch.randn(5, 2)
    again: Any = pid.load_teacher(pid.save_teacher(teacher, tmp_path / "teacher.safetensors"))
    assert type(again.model) is affine
    assert torch.equal(again(z, 2.0), teacher(z, 2.0))

    result = pid.distill(pid.toy("ring"), pid.Trajectory(network, event_shape=(2,)), steps=1, progress=False)
    student = pid.load(result.save(tmp_path / "student.safetensors")).student
    assert torch.equal(student(z, 0.002), result.student(z, 0.002))


def test_images_denoisers_in_files_stay_within_the_two_u_nets(affine: Any):
    assert MODEL_TYPES == ("SongUNet", "DhariwalUNet")
    options = {"img_resolution": 8, "img_channels": 3, "model_type": "Affine"}
    with pytest.raises(ValueError, match="model_type is 'Affine'; known are SongUNet, DhariwalUNet"):
        build("EDMPrecond", options, {})
    with pytest.raises(ValueError, match="class 'Affine'; known are"):
        build("Affine", {"event_shape": 2}, {})


def test_teachers_in_files_are_networks_that_take_classes():
    network = pid.nets.ChebyshevMLP(2)
    with pytest.raises(ValueError, match=r"got .*ChebyshevMLP; .*Preconditioned over MLP, DhariwalUNet, SongUNet: "):
        pid.save_teacher(pid.nets.Preconditioned(network), "nowhere.safetensors")
