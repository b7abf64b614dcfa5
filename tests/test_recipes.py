"""Recipes: what ships is the paper's, what is wrong is named by file and field."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from pidlearn import data
from pidlearn.cli.main import main
from pidlearn.data import DATA_SETS
from pidlearn.methods import METHODS, Denoising
from pidlearn.methods.base import Batch, Context
from pidlearn.recipes import UnfinishedError, load_images, names, read, teacher_from_recipe
from pidlearn.teachers import save_teacher
from pidlearn.teachers.files import published
from pidlearn.training.trainer import Trainer
from tests.tiny import RECIPE, recipe
from tests.tiny import teacher as tiny_teacher


@pytest.mark.parametrize("name", names())
def test_every_recipe_that_ships(name: str) -> None:
    found = read(name)
    assert found.name == name
    if isinstance(found.teacher, str):
        assert published.find(found.teacher) is not None
    else:
        assert found.teacher["data"] in DATA_SETS
    assert names()[name].endswith(".")  # a whole sentence


def test_names_are_those_promised() -> None:
    paper = ["cifar10", "cifar10-cond", "imagenet64"]
    small = ["digits", "fashion-mnist", "fashion-mnist-32"]
    others = ["cifar10-cd", "cifar10-pd", "cifar10-flow-map"]
    assert sorted(names()) == sorted([*paper, *(f"{name}-single-gpu" for name in paper), *small, *others])


@pytest.mark.parametrize(
    ("name", "method", "choices"),
    [
        ("cifar10-cd", "cd", {"n": 18, "lr": 4e-4, "batch_size": 512, "optimizer": "radam", "distance": "lpips"}),
        (
            "cifar10-pd",
            "pd",
            {"lr": 1e-4, "batch_size": 128, "distance": "l2", "weight": "truncated_snr", "steps": 750_000},
        ),
        ("cifar10-flow-map", "flow_map", {"lr": 6e-4, "batch_size": 1024, "ema": (0.99995,), "warmup": 0.0125}),
    ],
)
def test_other_methods_of_their_papers(
    name: str, method: str, choices: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = read(name)
    assert type(found.config.method) is METHODS[method]
    assert {key: getattr(found.config, key) for key in choices} == choices
    save_teacher(tiny_teacher(), tmp_path / "teacher.safetensors")
    # A dry run needs no data, and on a small teacher no GPU; LPIPS needs 32 pixels and weights of its own.
    command = ["distill", name, "--teacher", str(tmp_path / "teacher.safetensors"), "--dry-run"]
    brief = ["batch_size=4", "micro_batch=None", *(["distance=l2"] if method == "cd" else [])]
    assert main([*command, "--set", *brief]) == 0
    assert f"{found.config.steps:,} steps of 4 samples by 1 process" in capsys.readouterr().err


PAPER = {
    "optimizer": "radam",
    "beta2": 0.999,
    "ema": (0.999, 0.9999, 0.99995),
    "constant": True,
    "warmup": 0.0,
    "n": 250,
    "distance": "lpips-vgg-average",
    "weight": "uniform",
    "time_sampling": "uniform",
    "derivative": "forward",
    "init": "official",
}
CIFAR = {**PAPER, "batch_size": 512, "lr": 2e-4, "steps": 800_000}
IMAGENET = {**PAPER, "batch_size": 2048, "lr": 1e-4, "steps": 400_000}


@pytest.mark.parametrize(
    ("name", "teacher", "choices"),
    [
        ("cifar10", "edm-cifar10-uncond-vp", {**CIFAR, "precision": "float32"}),
        ("cifar10-cond", "edm-cifar10-cond-vp", {**CIFAR, "precision": "float32"}),
        ("imagenet64", "edm-imagenet-64x64-cond-adm", {**IMAGENET, "micro_batch": 32}),
        ("cifar10-single-gpu", "edm-cifar10-uncond-vp", {**CIFAR, "precision": "float32", "micro_batch": 128}),
        ("cifar10-cond-single-gpu", "edm-cifar10-cond-vp", {**CIFAR, "precision": "float32", "micro_batch": 128}),
        (
            "imagenet64-single-gpu",
            "edm-imagenet-64x64-cond-adm",
            {**IMAGENET, "precision": "float32", "micro_batch": 32},
        ),
    ],
)
def test_hyper_parameters_of_the_paper(name: str, teacher: str, choices: dict[str, Any]) -> None:
    found = read(name)
    assert found.teacher == teacher
    assert {key: getattr(found.config, key) for key in choices} == choices


def test_bases_lie_beneath(tmp_path: Path) -> None:
    recipe(tmp_path, "lower", 'base = "cifar10"\nteacher = "a.pkl"\n[config]\nsteps = 7\nlr = 0.5\n')
    found = read(recipe(tmp_path, "upper", 'base = "lower"\n[config]\nlr = 0.25\n'))
    assert (found.name, found.teacher) == ("upper", "a.pkl")
    assert (found.config.steps, found.config.lr, found.config.batch_size) == (7, 0.25, 512)
    # A teacher that is a table takes the whole place of the base's.
    found = read(recipe(tmp_path, "upper", 'base = "digits"\n[teacher]\ndata = "fashion-mnist"\n'))
    assert found.teacher == {"data": "fashion-mnist"}


def test_a_neighbour_goes_before_one_that_ships(tmp_path: Path) -> None:
    recipe(tmp_path, "digits", 'teacher = "mine.pkl"\n')
    assert read(recipe(tmp_path, "upper", 'base = "digits"\n')).teacher == "mine.pkl"


TRAINED = '[teacher]\ndata = "digits"\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has no teacher: add teacher = NAME or FILE"),
        ("teacher = ", "is not a recipe, for it cannot be read as TOML: "),
        ('teacher = "a"\nteachr = "b"\n', r"has unknown entries teachr: expected base, teacher and \[config\]"),
        ('teacher = "a"\nconfig = 3\n', "config in .* is 3, but config must be a table"),
        (
            'teacher = "a"\n[config]\nstep = 3\nlr = 1.0\n',
            r"\[config\] of .* has unknown entries step: expected .*steps",
        ),
        ('teacher = "a"\n[config]\nsteps = "many"\n', r"\[config\] of .*: got .*, but steps must be a whole number"),
        ('teacher = "a"\n[config]\nlr = -1\n', r"\[config\] of .*: got lr = -1, but lr must be a positive number"),
        ('teacher = "a"\n[config]\nema = 0.9\n', r"\[config\] of .*: got .*, but ema must be a tuple"),
        ('teacher = "a"\n[config]\ndistance = "lpipz"\n', r"\[config\] of .*: got .*, but distance must be one of"),
        ('teacher = "a"\n[config]\ntime_sampling = [1]\n', r"\[config\] of .*: got .*, but time_sampling must be"),
        ("teacher = 3\n", "teacher in .* is 3, but teacher must be a name, a file, or a table"),
        ('[teacher]\ndata = "cats"\n', "table with data = digits | fashion-mnist"),
        ('[teacher]\ndata = ["digits"]\n', "table with data = digits | fashion-mnist"),
        ("[teacher]\nlabels = true\n", "table with data = digits | fashion-mnist"),
        (TRAINED + "size = 8\n", "data, labels, network, resolution, training"),
        (
            TRAINED + "resolution = 8.0\n",
            r"\[teacher\] of .*: got resolution = 8.0, but resolution must be an integer from 1 to 4096",
        ),
        (TRAINED + "resolution = 0\n", "resolution must be an integer from 1 to 4096"),
        (TRAINED + 'labels = "yes"\n', "got labels = 'yes', but labels must be true or false"),
        (TRAINED + "network = 3\n", "teacher.network in .* is 3, but teacher.network must be a table"),
        (
            TRAINED + "[teacher.network]\nwidth = 8\n",
            r"\[teacher.network\] of .* has unknown entries width: expected .*model_channels",
        ),
        (TRAINED + "[teacher.network]\nlabel_dim = 8\n", "has unknown entries label_dim"),
        (
            TRAINED + "[teacher.training]\nn = 8\n",
            r"\[teacher.training\] of .* has unknown entries n: expected .*steps",
        ),
        (TRAINED + "[teacher.training]\nsteps = 0\n", r"\[teacher.training\] of .*: got .*, but steps must be"),
        (TRAINED + "resolution = 100000\n", "got resolution = 100000, but resolution must be an integer"),
        (
            TRAINED + "[teacher.network]\nmodel_channels = 100000000\n",
            r"\[teacher.network\] of .*: got model_channels = 100000000, but model_channels must be at most 4096",
        ),
        (
            TRAINED + "[teacher.network]\nchannel_mult = [1, 9999]\n",
            "got channel_mult = 9999, but channel_mult must be at most 4096",
        ),
        (TRAINED + "[teacher.network]\nnum_blocks = 4096\n", "num_blocks = 4096 at 4 resolutions, but .* at most 512"),
        (TRAINED + "[teacher.network]\nmodel_channels = 4096\n", r"[0-9,]+ weights, but it may have 2,147,483,648"),
        (f"{TRAINED}[teacher.network]\nchannel_mult = {'[' * 5000}{']' * 5000}\n", "cannot be read as TOML: "),
        (f"{TRAINED}[teacher.training]\nsteps = {'9' * 5000}\n", "is not a recipe.* cannot be read as TOML: "),
        ('base = "nowhere"\n', "base = 'nowhere' in .* is not a recipe: expected one in its folder, or one of cifar10"),
        ("base = 3\n", "base = 3 in .* is not a recipe"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, says: str) -> None:
    path = recipe(tmp_path, "mine", text)
    with pytest.raises(ValueError, match=says) as caught:
        read(path)
    assert str(path) in str(caught.value)


def test_a_fault_in_a_base_is_told_of_the_base(tmp_path: Path) -> None:
    recipe(tmp_path, "lower", 'teacher = "a"\n[config]\nstep = 3\n')
    with pytest.raises(ValueError, match=r"lower\.toml has unknown entries step"):
        read(recipe(tmp_path, "upper", 'base = "lower"\n'))


@pytest.mark.parametrize(
    "bases", [{"a": "a"}, {"a": "b", "b": "a"}, {"a": "b", "b": "c", "c": "b"}, {"a": "../{folder}/a"}]
)
def test_bases_that_go_round(tmp_path: Path, bases: dict[str, str]) -> None:
    for name, base in bases.items():
        recipe(tmp_path, name, f'base = "{base.format(folder=tmp_path.name)}"\n')
    with pytest.raises(ValueError, match=r"\.toml is its own base"):
        read(tmp_path / "a.toml")


def test_files_that_are_none(tmp_path: Path) -> None:
    for source in ("cifar11", tmp_path / "nowhere.toml"):
        with pytest.raises(ValueError, match=f"no recipe '{source}': expected a .toml file or one of cifar10"):
            read(source)
    (tmp_path / "latin.toml").write_bytes('teacher = "é"'.encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin\.toml is not a recipe"):
        read(tmp_path / "latin.toml")


def test_a_byte_order_mark_is_no_part_of_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "windows.toml").write_text('teacher = "mine.pkl"', encoding="utf-8-sig")
    assert read(tmp_path / "windows.toml").teacher == "mine.pkl"


@pytest.mark.parametrize("option", ["num_blocks = -1", "dropout = nan"])
def test_a_teacher_that_could_not_be_saved_is_not_trained(tmp_path: Path, option: str) -> None:
    name, value = option.split(" = ")
    path = recipe(tmp_path, "mine", f"{TRAINED}[teacher.network]\nmodel_channels = 4\n{option}\n")
    says = rf"\[teacher.network\] of .*mine.toml cannot be built: got {name} = {value}, but {name} must be a .* number"
    with pytest.raises(ValueError, match=says):
        teacher_from_recipe(read(path), checkpoints=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_images_are_resized() -> None:
    images, labels = load_images({"data": "digits"})
    assert torch.equal(images, data.digits()[0])
    smaller, same = load_images({"data": "digits", "resolution": 4})
    assert smaller.shape == (1797, 1, 4, 4)
    assert torch.equal(same, labels)
    # Averages, not single pixels: each image keeps its mean, which a subsampling would not.
    assert (smaller.mean((1, 2, 3)) - images.mean((1, 2, 3))).abs().max() < 0.1
    assert (images[..., ::2, ::2].mean((1, 2, 3)) - images.mean((1, 2, 3))).abs().max() > 0.2
    larger, _ = load_images({"data": "digits", "resolution": 12})
    assert larger.shape == (1797, 1, 12, 12)
    assert larger.abs().max() <= 1


class TestTeacher:
    def test_is_trained_as_the_recipe_says(self, tmp_path: Path) -> None:
        one = teacher_from_recipe(read(recipe(tmp_path)), progress=False)
        assert (one.event_shape, one.label_dim, one.training) == ((1, 8, 8), 10, False)
        assert one.model.options["model_channels"] == 8
        assert not any(p.requires_grad for p in one.parameters())
        torch.manual_seed(1)  # it has a seed of its own
        two = teacher_from_recipe(read(recipe(tmp_path)), progress=False)
        longer = teacher_from_recipe(
            read(recipe(tmp_path, text=RECIPE.replace("steps = 3", "steps = 4"))), progress=False
        )
        states = [x.state_dict() for x in (one, two, longer)]
        assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
        assert not all(torch.equal(value, states[2][name]) for name, value in states[0].items())

    def test_without_labels_and_at_another_size(self, tmp_path: Path) -> None:
        text = RECIPE.replace("labels = true", "labels = false\nresolution = 4")
        found = teacher_from_recipe(read(recipe(tmp_path, text=text)), progress=False)
        assert (found.event_shape, found.label_dim) == ((1, 4, 4), 0)

    @pytest.mark.parametrize(
        ("old", "new"), [("channels = 8", 'channels = "8"'), ("mult = [1]", "mult = [1, 1, 1, 1, 1]")]
    )
    def test_options_that_make_no_network(self, tmp_path: Path, old: str, new: str) -> None:
        with pytest.raises(ValueError, match=r"\[teacher.network\] of .*tiny(\.toml)? cannot be built: "):
            teacher_from_recipe(read(recipe(tmp_path, text=RECIPE.replace(old, new))))

    def test_that_is_not_at_hand(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"there is no file nowhere\.pkl"):
            teacher_from_recipe(read(recipe(tmp_path, text='teacher = "nowhere.pkl"\n')))

    @pytest.mark.parametrize("how", ["interrupt", "time"])
    def test_that_was_stopped_is_none_and_goes_on(
        self, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        chosen = read(recipe(tmp_path))
        whole = teacher_from_recipe(chosen, progress=False)
        options: dict[str, Any] = {"progress": False, "checkpoints": tmp_path / "saved", "save_every": 1}
        with monkeypatch.context() as patch:
            if how == "interrupt":
                enter = Trainer.enter_stage

                def stopping(trainer: Trainer) -> None:
                    if trainer.step >= 2:
                        raise KeyboardInterrupt
                    enter(trainer)

                patch.setattr(Trainer, "enter_stage", stopping)
                says = "training was stopped: interrupted at step 2"
            else:
                options["max_time"], says = 1e-9, "training was stopped: max_time, 1e-09 s, was over at step 1"
            with pytest.raises(UnfinishedError, match=says):
                teacher_from_recipe(chosen, **options)
        resumed = teacher_from_recipe(chosen, progress=False, checkpoints=tmp_path / "saved")
        pairs = zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
        assert all(torch.equal(one, two) for one, two in pairs)
        other = read(recipe(tmp_path, "other", RECIPE.replace("steps = 3", "steps = 4")))
        with pytest.raises(ValueError, match=r"other settings \(steps = 3, here 4\)"):
            teacher_from_recipe(other, progress=False, checkpoints=tmp_path / "saved")

    def test_that_diverged_is_none(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        loss = Denoising.loss

        def diverging(self: Denoising, context: Context, batch: Batch) -> torch.Tensor:
            return loss(self, context, batch) * (1 if context.step < 2 else math.nan)

        monkeypatch.setattr(Denoising, "loss", diverging)
        with pytest.raises(ValueError, match="the teacher of tiny: training stopped at step 3"):
            teacher_from_recipe(read(recipe(tmp_path)), progress=False)
