"""Error messages: what was received, what was expected and what to do, in that order.

Some tests read every message in the source; the last ones raise those that a public call can raise.
"""

from __future__ import annotations

import ast
import gzip
import itertools
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pidlearn as pid
from pidlearn import data, images, metrics, recipes, teachers, viewer
from pidlearn.equations import adaptive, solvers
from pidlearn.equations.from_teacher import problem_from_teacher
from pidlearn.evaluation.evaluate import evaluate
from pidlearn.evaluation.inception import Inception
from pidlearn.methods import METHODS, Batch, Context, Method, Stage, method_of, settings_of
from pidlearn.nets.registry import register_network
from pidlearn.students.build import build_flow_map, build_operator
from pidlearn.students.operator import NeuralOperator
from pidlearn.students.piecewise import PiecewiseTrajectory
from pidlearn.students.progressive import ProgressiveStudent
from pidlearn.training import loggers
from tests.tiny import teacher as image_teacher

SOURCE = Path(pid.__file__).parent

QUOTED = ("RefusedError", "UnknownPartsError", "OtherFormatError")
"""Errors whose text is a part of another message, as in "FILE cannot be read safely: it is empty"."""

EXPECTED = re.compile(r"\bmust\b|\bneeds?\b|\bexpected\b|, but |\ballow\b|\btakes\b|\breads\b|, which ")
NEXT_STEP = re.compile(
    r"[:;.,] .*\b(?:[Aa]dd|build|call|check|choose|compare|compute|[Dd]elete|distill|[Dd]ownload|draw|end|finish|fix|"
    r"flip|give|install|keep|leave|load|loosen|make|move|pass|remove|[Rr]ename|repeat|retry|return|save|set|shorten|start|"
    r"take|train|try|unset|[Uu]se|wait|wrap)\b",
    re.DOTALL,
)
TOO_LATE = re.compile(r"\b(?:must|expected|needs?|takes)\b.*\bgot\b", re.DOTALL)
NOT_SAID = re.compile(
    r"\b(?:told|tells?|asked|asks?|wants?|beside|so many|of another make|held against|mend|apart|bears|figures"
    r"|choices)\b"
)

PARTS = {
    "equations/adaptive.py: {} steps did not lead past",  # ends in ADVICE
    "equations/adaptive.py: no step is short enough at",  # the same
    "distillation.py: {} is given twice",
    "methods/pid/loss.py: pid_loss has no argument",
    "recipes/teacher.py: the teacher of {}: {}",  # the reason why a training stopped, as in the next line
    "recipes/teacher.py: {}",
    "students/files.py: {} cannot be written as JSON",
    "students/files.py: {} is not a finite number",
    "teachers/files/official_pid.py: {} channels are not a multiple",
    "training/loop.py: training stopped at step",  # quotes the cause, and ends in a hint if there is one
    "training/loop.py: the loss became NaN or infinite",
    "training/loop.py: another process failed",
    "training/trainer.py: {} is {} instead of {}",
    "training/trainer.py: {} is {} for a weight {}",
    "utils/downloads.py: the connection ended after",
}
"""Beginnings of messages without a next step: parts of another message, which has one, and lists of what is valid."""

ELSEWHERE = (
    "cli/",
    "data/files",
    "teachers/files/",
    "utils/pickle_machine",
    "utils/torch_archive",
    "utils/safetensors",
    "utils/downloads",
)
"""Commands and file formats, whose errors their own tests raise.

These are test_cli, test_commands, test_data, test_weights and teachers/.
"""

UNREACHED = {
    "evaluation/inception.py: {} does not hold {}: {}",  # needs a file of weights, as the next line: test_features
    "losses/lpips.py: {} does not hold {}: {}",  # test_perceptual
    "recipes/teacher.py: the teacher of {}: {}",  # a training that is cut short: test_recipes, test_commands
    "recipes/teacher.py: {}",
    "recipes/teacher.py: [teacher.network] of {} cannot be built: {}",
    "result.py: {} is damaged, or of another version: {}",  # damaged files, as most of the next lines: test_files
    "run.py: {} holds a record of a teacher that does not fit",
    "students/files.py: {} cannot be written as JSON",
    "students/files.py: its samples are {}, and those of its network {}",
    "students/files.py: has a network of class {}, which is not registered",
    "students/files.py: is a copy of its teacher's network, which is third-party code",
    "students/files.py: is a copy of another teacher's network",
    "students/files.py: {} is not a finite number",
    "students/files.py: {} is damaged, or of another version",
    "teachers/loading.py: {} holds no EDM network",  # test_pickles
    "training/checkpoints.py: {} is a {}, but a checkpoint holds",  # test_checkpoint, as the next lines
    "training/checkpoints.py: {} holds a run of another network",
    "training/checkpoints.py: checkpoint {} is whole but cannot be read",
    "training/distributed.py: several processes need Accelerate",  # several processes, as the next line: test_team
    "training/distributed.py: another process of this run has ended",
    "training/history.py: it has {} losses and {} times",
    "training/loop.py: training stopped at step",  # a call here raises it, by a function that builds it
    "training/loop.py: another process failed",
    "training/trainer.py: batch_size = {} leaves some",
    "training/trainer.py: {} is {} instead of {}",
    "training/trainer.py: {} is {} for a weight {}",
    "utils/broadcast.py: got {}, but a time or noise level",  # a call here raises it, by a function that builds it
    "utils/files.py: {}",  # a disk that is full
}
"""Beginnings of messages that no call in this file reaches."""


@dataclass(frozen=True)
class Message:
    """The text of an error in the source, with {} for what is only known when it is raised."""

    file: str
    lines: range
    error: str
    text: str
    quotes: bool
    """Whether it is raised from another error, whose text it contains."""

    def __str__(self) -> str:
        return f"{self.file}: {self.text}"

    @property
    def is_part(self) -> bool:
        """Whether the text is a part of another message, which has the path of a file or the rest of the sentence."""
        return self.error in QUOTED or self.text.startswith(("it ", "its "))


def text_of(node: ast.AST | None, functions: dict[str, ast.FunctionDef]) -> str:
    """The text of an expression; that of a call is what the function of that name in the same file returns."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(text_of(part, functions) for part in parts)
        case ast.BinOp(left=one, right=two) | ast.IfExp(body=one, orelse=two):
            return text_of(one, functions) + text_of(two, functions)
        case ast.Call(func=ast.Name(id=name)) if name in functions:
            return "".join(text_of(part.value, functions) for part in returns(functions[name]))
    return "{}"


def returns(function: ast.FunctionDef) -> Iterator[ast.Return]:
    return (node for node in ast.walk(function) if isinstance(node, ast.Return))


def messages_in(path: Path) -> Iterator[Message]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = list(ast.walk(tree))
    functions = {node.name: node for node in nodes if isinstance(node, ast.FunctionDef)}
    quoting = {id(node.exc) for node in nodes if isinstance(node, ast.Raise) and node.cause}
    for node in nodes:
        error = ast.unparse(node.func).rpartition(".")[2] if isinstance(node, ast.Call) else ""
        # An AttributeError has the wording of Python's own.
        if isinstance(node, ast.Call) and node.args and error.endswith("Error") and error != "AttributeError":
            lines = range(node.lineno, (node.end_lineno or 0) + 1)
            text = text_of(node.args[0], functions)
            yield Message(path.relative_to(SOURCE).as_posix(), lines, error, text, id(node) in quoting)


@cache
def messages() -> list[Message]:
    return list(itertools.chain(*map(messages_in, sorted(SOURCE.rglob("*.py")))))


def without(found: list[Message], known: set[str]) -> tuple[list[str], set[str]]:
    """The messages that begin like none of the known ones, and the known ones that do not begin exactly one."""
    new = [str(message) for message in found if not any(str(message).startswith(start) for start in known)]
    return new, {start for start in known if sum(str(message).startswith(start) for message in found) != 1}


def test_messages_are_found() -> None:
    assert len(messages()) > 400
    assert any("expected one of {}" in message.text for message in messages() if message.file == "teachers/loading.py")


def test_what_was_received_comes_first() -> None:
    assert [str(message) for message in messages() if TOO_LATE.search(message.text)] == []


def test_every_message_says_what_is_expected_or_what_to_do() -> None:
    ends = [message for message in messages() if not (message.is_part or message.quotes)]
    bare = [message for message in ends if not (EXPECTED.search(message.text) or NEXT_STEP.search(message.text))]
    assert without(bare, PARTS) == ([], set())


def test_words_and_length() -> None:
    assert [str(message) for message in messages() if NOT_SAID.search(message.text)] == []
    assert [str(message) for message in messages() if len(re.findall(r"[.!?] [A-Z]", message.text)) > 1] == []


RING, SYSTEM = pid.toy("ring"), pid.system("logistic")
Z, IMAGES = torch.linspace(-1, 1, 8).reshape(4, 2), torch.zeros(2, 1, 8, 8)
LABELS = torch.zeros(4, dtype=torch.int64)
SPAN = {"t_start": 0.0, "t_end": 1.0}
NAN = float("nan")

Call = Callable[[], Any]


def net(**options: Any) -> pid.nets.MLP:
    return pid.nets.MLP(2, width=8, depth=2, fourier=4, **options)


def path(**options: Any) -> pid.Trajectory:
    return pid.Trajectory(net(), **options)


def normal(n: int, generator: torch.Generator | None = None) -> Tensor:
    return torch.randn(n, 2, generator=generator)


def loss(**changes: Any) -> Tensor:
    arguments = {"trajectory": path(), "ode": pid.DenoiserODE(RING), "z": Z, "grid": pid.karras_grid(5)}
    return pid.pid_loss(**{**arguments, "index": LABELS, **changes})


def operator(network: Any = None, times: Any = (1.0, 0.002)) -> NeuralOperator:
    return NeuralOperator(network or net(times=2), times=times)


def run(**options: Any) -> Any:
    """A run of one step from the ring to a small network."""
    return pid.steps(**{"teacher": RING, "student": net(), "steps": 1, "batch_size": 4, "n": 5, **options})


class Side(pid.DenoiserODE):
    """Eq. 9 with a function of its left side."""

    def __init__(self, change: Any) -> None:
        super().__init__(RING)
        self.change = change

    def lhs(self, x: Tensor, dxdt: Tensor, t: Any) -> Tensor:
        changed: Tensor = self.change(super().lhs(x, dxdt, t))
        return changed


def ode_run(f: Any = lambda x, t: -x, **options: Any) -> Any:
    return run(**{"teacher": pid.VelocityODE(f), "prior": normal, "windows": 1, **SPAN, **options})


def solve(
    f: Any = lambda x, t: -x, method: Any = "euler", grid: Any = (0.0, 1.0), x: Any = Z, **options: Any
) -> Tensor:
    return pid.solve(pid.VelocityODE(f), x, grid, method, **options)


def teach(**options: Any) -> Any:
    return pid.train_denoiser(
        **{"data": Z, "network": net(), "steps": 1, "batch_size": 4, "progress": False, **options}
    )


def unet(**options: Any) -> pid.nets.SongUNet:
    sizes = {"img_resolution": 8, "in_channels": 1, "out_channels": 1, "model_channels": 16, "channel_mult": [1]}
    return pid.nets.SongUNet(**{**sizes, "num_blocks": 1, "attn_resolutions": [], **options})


def pipeline(config: dict[str, Any], scheduler: Any = None, module: str = "mine") -> Any:
    """A network as those of diffusers, read with a scheduler."""
    network = type("Identity", (nn.Identity,), {"__module__": module})()
    network.config = SimpleNamespace(in_channels=1, **config)
    return teachers.from_diffusers(network, scheduler or scheduler_of())


def scheduler_of(name: str = "Scheduler", **attributes: Any) -> Any:
    return type(name, (), {"config": SimpleNamespace(prediction_type="epsilon"), **attributes})()


@dataclass
class Endpoint(Method[Any]):
    """A method whose parts can be replaced by wrong ones."""

    needs: ClassVar[Any] = "noise"
    t_max: Any = None
    value: Any = None
    batch: Any = None
    lengths: tuple[int, ...] = (1,)

    def draw(self, context: Context, n: int, generator: torch.Generator) -> Batch:
        if isinstance(self.batch, Iterator):
            return next(self.batch)
        return (torch.randn(n, 2, generator=generator),) if self.batch is None else self.batch

    def loss(self, context: Context, batch: Batch) -> Tensor:
        out = context.student(batch[0], 0.002).square().mean(1)
        return out if self.value is None else self.value(out)

    def stages(self, context: Context, steps: int) -> list[Stage]:
        return [Stage(context.student, length) for length in self.lengths]


@dataclass
class Needy(Endpoint):
    """A method with a setting that has no default."""

    scale: float = field(kw_only=True)


def needy() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(METHODS, "needy", Needy)
        return run(method="needy")


class Plain(Endpoint):
    """A method with a field and without a decorator."""

    scale: float = 1.0


class Own(pid.Trajectory):
    """A student of a class that no file describes."""


class First(nn.Linear):
    """A network that returns the first channel of its input."""

    def forward(self, x: Tensor, *others: Any) -> Tensor:
        return x[:, :1]


class Bare(nn.Linear):
    """A student that is a path x(z, t) = z + what it is made with."""

    def __init__(self, plus: Any = 0.0, t_max: float = 80.0, t_min: float = 0.002) -> None:
        super().__init__(2, 2)
        self.plus, self.t_max, self.t_min = plus, t_max, t_min

    def forward(self, z: Tensor, t: Any) -> Any:
        return self.plus(z, t) if callable(self.plus) else z + self.plus


@dataclass
class DataEndpoint(Endpoint):
    """The same, on data."""

    needs: ClassVar[Any] = "data"


class Diverging:
    """Losses that are finite once."""

    calls = 0

    def __call__(self, out: Tensor) -> Tensor:
        self.calls += 1
        return out / (self.calls < 2)


def distill(**options: Any) -> Any:
    arguments = {"teacher": RING, "student": net(), "steps": 1, "batch_size": 4, "n": 5, "progress": False}
    return pid.distill(**{**arguments, **options})


def files(folder: Path) -> list[tuple[Call, str]]:
    """Calls that read or write files."""

    def written(name: str, contents: bytes | str) -> Path:
        (folder / name).write_bytes(contents if isinstance(contents, bytes) else contents.encode())
        return folder / name

    def idx(name: str, *shape: int, fill: int = 0) -> Path:
        header = b"\0\0\x08" + bytes([len(shape)]) + np.array(shape, ">u4").tobytes()
        return written(name, header + bytes([fill]) * int(np.prod(shape)))

    def recipe(text: str) -> Call:
        file = written(f"recipe{next(numbers)}.toml", text)
        return lambda: recipes.read(file)

    def statistics(mu: Any, sigma: Any) -> Call:
        file = folder / f"statistics{next(numbers)}.npz"
        np.savez(file, mu=np.array(mu), sigma=np.array(sigma))
        return lambda: metrics.read_statistics(file)

    numbers = itertools.count()
    idx("train-images-idx3-ubyte", 2, 28, 28), idx("train-labels-idx1-ubyte", 2, fill=10)
    result, student, trained = distill(), folder / "student.safetensors", "data = 'digits'\n"
    result.save(student)
    own = distill(student=Own(net())).save(folder / "own.safetensors")
    teacher = pid.save_teacher(pid.nets.Preconditioned(net()), folder / "teacher.safetensors")
    distill(checkpoints=folder / "run")
    (folder / "old").mkdir(), written("old/step-000000001-0123456789abcdef.pt", b"")
    (folder / "part").mkdir(), written("part/config.json", b"{}")
    os.mkfifo(folder / "fifo")
    text = written("text", "no teacher")
    return [
        (lambda: data.read_idx(written("cut.gz", gzip.compress(b"abc" * 9)[:-9])), "is not a complete gzip file"),
        (lambda: data.read_idx(text), "is not an IDX file"),
        (lambda: data.read_idx(written("short", b"\0\0\x08\x01\0\0\0\x09ab")), "has 10 bytes, but its header"),
        (lambda: during(missing("sklearn.datasets"), data.digits), "the digits come with scikit-learn"),
        (lambda: data.fashion_mnist(folder / "none"), "pass the folder of Fashion-MNIST's IDX files"),
        (lambda: data.fashion_mnist(folder), "with labels up to 10: expected"),
        (lambda: recipes.read("none"), "there is no recipe 'none': expected"),
        (recipe("steps = 3"), "unknown entries steps: expected"),
        (recipe("[config]"), "has no teacher: add"),
        (recipe("teacher = 'a'\n[config]\nn = 1"), "got n = 1, but n must be"),
        (recipe("teacher"), "is not a recipe, for it cannot be read as TOML"),
        (recipe("base = 'none'"), "base = 'none' in"),
        (recipe("base = 'recipe5'"), "is its own base"),
        (recipe("config = 3"), "is 3, but config must be a table"),
        (recipe("[config]\nmany = 3"), "has unknown entries many: expected"),
        (recipe("teacher = 3"), "is 3, but teacher must be"),
        (recipe(f"[teacher]\n{trained}resolution = 0"), "got resolution = 0, but resolution must be"),
        (recipe(f"[teacher]\n{trained}labels = 1"), "got labels = 1, but labels must be"),
        (recipe(f"[teacher]\n{trained}network.model_channels = 99999"), "got model_channels = 99999, but"),
        (recipe(f"[teacher]\n{trained}network.num_blocks = 999"), "cannot be built: got num_blocks = 999 at"),
        (recipe(f"[teacher]\n{trained}network.model_channels = 4096"), "weights, but it may have 2,147,483,648: use"),
        (recipe(f"[teacher]\n{trained}training.steps = 0"), "got steps = 0, but steps must be"),
        (lambda: metrics.read_statistics(text), "is not an .npz file of the arrays mu and sigma"),
        (statistics([0.0], [0.0]), "mu and sigma have shapes (1,), (1,): expected"),
        (statistics([NAN], [[1.0]]), "mu or sigma holds NaN or infinity: compute"),
        (statistics([0.0], [[-1.0]]), "sigma is not a covariance"),
        (lambda: pid.load(student, pid.toy("moons")), "holds the student of another teacher"),
        (lambda: pid.load(own), "cannot be built from its file"),
        (lambda: pid.load(own, student=net()), "got a MLP as student=, a network whose times and scales the teacher"),
        (lambda: pid.load(own, student=First(2, 1)), "holds another kind of student than student=, a First: pass"),
        (lambda: pid.load(folder / "none"), "none: check the path"),
        (lambda: metrics.read_statistics(folder / "none"), "none: pass the .npz of mu and sigma"),
        (lambda: pid.load(student).evaluate(), "loaded without its teacher: pidlearn.load(path, teacher=...)"),
        (lambda: result.save(folder / "fifo"), "is a device, FIFO or socket"),
        (lambda: result.save(folder), "is a folder: pass the path of a file"),
        (lambda: metrics.read_statistics(folder), "is a folder: pass the path of a file"),
        (lambda: pid.load_official_student(folder), "is a folder: pass the path of a file"),
        (lambda: result.watch(foo=3), "got the options ['foo'], but watch takes only ['starts',"),
        (lambda: result.plot(folder), "is a folder: pass the path of a file"),
        (lambda: pid.load(folder), "is a folder: pass the path of a file"),
        (lambda: result.save("/proc/none/student"), "/proc/none"),
        (lambda: pid.load_teacher("none.pkl"), "there is no file none.pkl"),
        (lambda: pid.load_teacher(folder), "is not a file: load_teacher reads"),
        (lambda: pid.load_teacher(folder / "part"), "pass the pipeline's folder"),
        (lambda: pid.load_teacher(text), "begins with b'no teache'"),
        (lambda: pid.load_teacher(teacher, precond="EDMPrecond"), "leave it out"),
        (lambda: pid.load_teacher(teacher, precond="vp"), "got precond = 'vp', but precond must be one of"),
        (lambda: distill(checkpoints=text), "is a file, but checkpoints go into a folder"),
        (lambda: distill(checkpoints=folder / "old"), "holds checkpoints of pidlearn 0.1"),
        (lambda: distill(checkpoints=folder / "run", teacher=pid.toy("ring", modes=9)),
         "a run with another teacher of"),
        (lambda: distill(checkpoints=folder / "run", lr=1.0), "holds a run with other settings"),
        (lambda: distill(checkpoints=folder / "new", callbacks=[lambda step: distill(checkpoints=folder / "new")]),
         "another run uses"),
        (lambda: loggers.jsonl(folder / "log", every=0), "got every = 0, but every must be"),
        (lambda: during(mock.patch.object(loggers, "find_spec", return_value=None), lambda: loggers.check("wandb")),
         "wandb needs the packages accelerate and wandb: pip install"),
        (lambda: loggers.check("mlflow"), "there is no tracker 'mlflow': expected one of"),
    ]  # fmt: skip


def equations() -> list[tuple[Call, str]]:
    """Calls of equations, solvers, teachers and metrics."""
    counter = itertools.count()
    wide = teachers.from_network(net(), "edm", sigma_max=50.0)
    still = ode_run(lambda x, t: 0 * x, prior=lambda n, generator=None: torch.ones(n, 2)).result()
    plain = ode_run().result()
    gap = Bare(lambda z, t: torch.where(t[:, None] > 1, NAN, z))
    one, two = torch.zeros(3, 2), torch.zeros(3, 3)
    return [
        (lambda: solve(lambda x, t: x / 0, "dopri5", [1.0, 2.0]), "the vector field is NaN or infinite at t ="),
        (lambda: solve(lambda x, t: x**2, "dopri5", [0.0, 2.0], torch.ones(1, 1)), "no step is short enough at"),
        (lambda: during(mock.patch.object(adaptive, "MAX_STEPS", 1), lambda: solve(method="dopri5")),
         "1 steps did not lead past"),
        (lambda: run(teacher=lambda x, sigma: x), "has no event_shape: pass event_shape="),
        (
            lambda: run(teacher=mock.Mock(spec=["std"], std="wide")),
            "the teacher's attribute std is 'wide', but must be the standard deviation of the data",
        ),
        *(
            (
                lambda stated=stated: run(teacher=mock.Mock(spec=[*stated], **stated), event_shape=(2,)),
                f"the teacher's attribute {next(iter(stated))} is {received}, but must be {expected}",
            )
            for stated, received, expected in (
                ({"sigma_min": one[0]}, "(2,) torch.float32", "a noise level"),
                ({"sigma_max": float("nan")}, "nan", "a noise level"),
                ({"device": "gpu"}, "'gpu'", "a torch.device"),
                ({"label_dim": "ten"}, "'ten'", "the number of classes"),
            )
        ),
        (lambda: run(t_start=0.001), "but a diffusion runs from"),
        (lambda: run(t_start=0.1), "is below the standard deviation of the data"),
        (lambda: run(teacher=wide, t_start=80.0), "exceeds the teacher's noise levels"),
        (lambda: run(teacher=pid.GaussianMixture), "got the class GaussianMixture, but a teacher must be"),
        (lambda: run(teacher=3), "got a teacher of type int, but it must be a callable denoiser"),
        (lambda: run(prior=normal), "leave prior out"),
        (lambda: run(spacing=lambda n, t_min, t_max: 3), "the function spacing= returned int, but must return"),
        (lambda: run(spacing=lambda n, t_min, t_max: pid.karras_grid(n + 1)), "returned (6,) torch.float64, but must"),
        (lambda: run(spacing=lambda n, t_min, t_max: pid.karras_grid(n)[:1]), "returned (1,) torch.float64, but must"),
        (lambda: run(spacing=lambda n, t_min, t_max: 1j * pid.karras_grid(n)), "returned (5,) torch.complex128, but"),
        (lambda: run(spacing=lambda n: 3), "the function spacing= fails ("),
        (lambda: pid.DenoiserODE(RING).lhs(Z, Z[:1], 1.0), "but a derivative has the shape of x: make"),
        (lambda: pid.karras_grid(5, rho=0.01), "got rho = 0.01, but rho must be"),
        (lambda: pid.karras_grid(5, rho=1e308), "coincide after rounding: use fewer points"),
        (lambda: pid.karras_grid(1), "got n = 1, but a grid needs"),
        (lambda: pid.karras_grid(5, 80.0, 0.002), "got t_min = 80.0, t_max = 0.002, but"),
        (lambda: pid.log_grid(5, 0.0), "but this grid needs t_min > 0: use"),
        (lambda: pid.karras_grid(5, NAN), "got t_min = nan, but t_min must be a finite number"),
        (lambda: run(teacher=pid.VelocityODE(lambda x, t: x)), "got a bare ODE without prior or span: pass"),
        (lambda: ode_run(t_end=0.0), "but a span needs two different, finite times"),
        (lambda: ode_run(prior=lambda n, generator=None: torch.full((n, 2), 1.0 * next(counter))), "differs from call"),
        (lambda: ode_run(prior=lambda: 3), "but prior must be a function"),
        (lambda: ode_run(prior=lambda n, generator=None: 3), "prior(2) returned int, but must return"),
        (lambda: pid.VelocityODE(3), "got f of type int, but VelocityODE needs"),
        (lambda: pid.DenoiserODE(3), "got a denoiser of type int, but DenoiserODE needs"),
        (lambda: solve(lambda x, t: x[:, :1]), "returned (4, 1), but must return the shape of x"),
        (lambda: solve(lambda x, t: 1j * x), "returned torch.complex64, but must return real values: give"),
        (lambda: solve(lambda x, t: 1 / 0 if isinstance(x, int) else x.missing), "fails on x (4, 2)"),
        (lambda: solve(nn.Linear(2, 2).double()), "move or convert one of them"),
        (lambda: solve(method="scipy", order=1), "got the unknown options ['order']: leave them out"),
        (lambda: solve(rtol=1.0), "got the options ['rtol']: only"),
        (lambda: solve(method="rk45"), "got method = 'rk45', but method must be one of"),
        (lambda: solve(method="dpm"), "got a grid with times that are not positive, but dpm"),
        (lambda: solve(method=lambda: 3), "method returned int, but method must make a Solver"),
        (lambda: solve(x=[1.0]), "got list for x, but x must be"),
        (lambda: solve(x=Z / 0), "x holds NaN or infinity: pass"),
        (lambda: solve(x=Z.to("meta")), "x is on the meta device and has no values: move"),
        (lambda: solve(grid=[0.0, 0.0]), "got a grid of shape (2,), but it must hold"),
        (lambda: solve(grid="ab"), "got grid = 'ab', but grid must be real numbers"),
        (lambda: solve(grid=[0.0, 1j]), "but grid must be real numbers in a dense tensor"),
        (lambda: solve(lambda x, t: x / 0), "the path became NaN or infinite between"),
        (lambda: solve(method="dopri5", rtol=-1.0), "got rtol = -1.0, but tolerances are positive"),
        (lambda: solve(method="scipy", integrator="ode45"), "got integrator = 'ode45', but integrator must be one of"),
        (lambda: solve(lambda x, t: x**2, "scipy", [0.0, 2.0], torch.ones(1, 1)), "shorten the span"),
        (lambda: during(mock.patch.object(solvers, "MAX_CALLS", 1), lambda: solve(method="scipy")),
         "called the vector field 1 times"),
        (lambda: solve(lambda x, t: x / 0, "scipy"), "the vector field is NaN or infinite at t = 0"),
        (lambda: solve(class_labels=[0]), "got list for class_labels, but class_labels must be"),
        (lambda: pid.system("pendulums"), "got 'pendulums', but system must be one of"),
        (lambda: pid.System(abs, (0.0,), (1.0, 2.0), 0.0, 1.0, ("x",)), "but they must have one entry for each"),
        (lambda: pid.System(abs, (2.0,), (1.0,), 0.0, 1.0, ("x",)), "but low must be finite and not above high: swap"),
        (lambda: pid.System(abs, (0.0,), (1.0,), 1.0, 1.0, ("x",)), "got t_start = t_end = 1.0, but they must differ"),
        (lambda: evaluate(3, path(), Z, 4, 0), "cannot evaluate a int: expected"),
        (lambda: run().result().evaluate(2), "got n = 2, but the energy distance's floor needs"),
        (lambda: replace(run().result(), student=Bare(NAN)).sample(2, calls=3),
         "the student's samples hold NaN or infinity, so that its errors"),
        (lambda: replace(run().result(), student=gap).sample(2, calls=3),
         "the student returned NaN or infinity at t = 1."),
        (lambda: run().result().sample(2, refine=0.5), "got calls = 1, but refine spends more on some samples: pass"),
        (lambda: run().result().evaluate(4, rtol=1.0), "got rtol, but a diffusion is compared"),
        (lambda: plain.evaluate(4, calls=2), "got calls = 2, but the student of an ODE"),
        (lambda: plain.evaluate(4, integrator="foo"), "integrator must be one of dopri5, DOP853, Radau"),
        (lambda: still.evaluate(4), "reference paths are one constant"),
        (lambda: images.to_uint8(LABELS), "but images must be a floating-point tensor"),
        (lambda: images.image_grid(IMAGES[:0]), "but a grid shows at least one image"),
        (lambda: images.image_grid(IMAGES, columns=2**30), "got columns = 1073741824 and zoom = 1, which make"),
        (lambda: images.comparison({}), "but a comparison needs at least one row"),
        (lambda: metrics.relative_rmse(Z, 0 * Z), "so an error relative to them is undefined: use rmse"),
        (lambda: metrics.statistics([]), "got no batches, but statistics need"),
        (lambda: metrics.Statistics.of(Z[:0]), "got features (0, 2), but statistics need"),
        (lambda: metrics.Statistics(Z[0], torch.eye(3)), "but statistics are finite, (k,) and (k, k): pass"),
        (lambda: metrics.Statistics(Z[0], torch.eye(2)) + metrics.Statistics.of(Z), "give both their n"),
        (lambda: metrics.frechet_distance(Z[:2], Z), "are too few for a covariance of 2 features"),
        (lambda: metrics.frechet_distance(metrics.Statistics.of(Z), metrics.Statistics(two[0], torch.eye(3))),
         "have 2 and 3 features: use the same features"),
        (lambda: metrics.precision_recall(one, two, k=1), "have 2 and 3 features: use the same features"),
        (lambda: metrics.precision_recall(Z, Z, k=4), "k = 4 with samples of 4 and 4: expected"),
        (lambda: metrics.energy_distance(one, two), "have 2 and 3 coordinates: compare"),
        (lambda: metrics.energy_distance(Z[:1], Z), "got 1 and 4 samples, but the energy distance needs"),
        (lambda: metrics.sliced_wasserstein(Z, Z[:1]), "but sliced Wasserstein pairs sorted samples: pass"),
        (lambda: metrics.floor(metrics.energy_distance, Z[:1]), "got 1 samples, but a floor compares"),
        (lambda: metrics.statistics([Z], lambda x: 3), "for 4 samples: return one row per sample"),
        (lambda: metrics.statistics([Z / 0]), "the features contain NaN or infinity: check"),
        (lambda: metrics.rmse("a", Z), "got str for a, but a must be a dense tensor"),
        (lambda: metrics.energy_distance(Z[0], Z), "got (2,) torch.float32 for a, but a must be samples"),
        (lambda: metrics.rmse(Z, Z[:1]), "but two batches of the same shape are compared: pair"),
        (lambda: pid.EmpiricalDenoiser(LABELS), "but data must be floating"),
        (lambda: pid.EmpiricalDenoiser(Z / 0), "got NaN or infinity, but data must be finite: leave"),
        (lambda: pid.EmpiricalDenoiser(Z)(Z, 1.0, LABELS), "an EmpiricalDenoiser is unconditional: leave"),
        (lambda: pid.EmpiricalDenoiser(Z)(Z, 0.0), "is undefined for sigma = 0 and bandwidth = 0: take"),
        (lambda: pid.EmpiricalDenoiser(Z)(Z.long(), 1.0), "got (4, 2) torch.int64 for x, but x must be (B, 2)"),
        (lambda: pid.EmpiricalDenoiser(Z)(Z, -1.0), "got sigma = -1, but a noise level must be at least 0"),
        (lambda: pid.EmpiricalDenoiser(Z)(Z, torch.ones(3)), "got (3,), but a time or noise level must be"),
        (lambda: pid.GaussianMixture([0.0], 1.0), "got means of shape (1,), or NaN, but means must be"),
        (lambda: pid.GaussianMixture(Z[:1], torch.full((1, 2, 2), NAN)), "full covariances have NaN or infinity, but"),
        (lambda: pid.GaussianMixture(Z[:1], [[[1.0, 1.0], [0.0, 1.0]]]), "but must be symmetric: pass"),
        (lambda: pid.GaussianMixture(Z, torch.ones(3)), "got covs of shape (3,), but covs must be"),
        (lambda: pid.GaussianMixture(Z, -1.0), "got variances from -1 to -1, but covs must be"),
        (lambda: pid.GaussianMixture(Z, 1.0, [1.0]), "got weights of shape (1,), but weights must be 4"),
        (lambda: RING(Z, 1.0, LABELS), "a GaussianMixture is unconditional: leave"),
        (lambda: pid.toy("rings"), "got 'rings', but toy must be one of"),
        (lambda: pid.SubspaceMixture(RING, torch.eye(3), torch.zeros(4), 0.1), "got a basis of shape (3, 3), but"),
        (lambda: pid.SubspaceMixture(RING, torch.ones(3, 2), torch.zeros(3), 0.1), "are not orthonormal, but must be"),
        (lambda: pid.SubspaceMixture.fit(Z / 0, 1, 1), "or NaN, but data must be finite"),
        (lambda: pid.SubspaceMixture.fit(Z, 9, 9), "got 9 directions and 9 components; 4 data in 2 dimensions allow"),
        (lambda: during(missing("sklearn.mixture"), lambda: pid.SubspaceMixture.fit(Z, 1, 1)),
         "needs scikit-learn: pip"),
        (lambda: pid.toy("ring", mode=3), "toy 'ring' has no option mode: expected"),
        (lambda: teachers.from_flow(3, event_shape=2), "got a velocity of type int; expected"),
        (lambda: teachers.from_flow(net(), event_shape=2, data_at=2), "got data_at = 2; expected"),
        (lambda: teachers.from_flow(net(), event_shape=0, data_at=0), "got event_shape = 0, but event_shape must hold"),
        (lambda: teachers.from_flow(lambda x, t: (x,), event_shape=2)(Z, 1.0), "wrap it in a function that"),
        (lambda: teachers.from_network(3, "edm"), "got a network of type int; expected"),
        (lambda: teachers.from_network(net(), "edm", sigma_max=0.0), "expected 0 <= min < max"),
        (lambda: teachers.from_network(net(), "ddpm"), "got parametrization = 'ddpm'; expected"),
        (lambda: teachers.from_network(net(), [0.5, 0.9]), "got alphas_cumprod that do not decrease strictly"),
        (lambda: teachers.from_diffusers(net()), "got a MLP; expected a UNet2DModel"),
        (lambda: teachers.from_diffusers(SimpleNamespace(components={"transformer": 1})), "for a DiT, use"),
        (lambda: teachers.from_diffusers(SimpleNamespace(components={"vae": 1})), "this pipeline has vae in addition"),
        (lambda: pipeline({}, module="diffusers.models"), "a Identity is not called like a UNet2DModel: for a"),
        (lambda: pipeline({}, 3), "got a scheduler of type int; expected"),
        (lambda: pipeline({"cross_attention_dim": 8}), "this network attends to a text: wrap it"),
        (lambda: pipeline({"time_embedding_type": "learned"}), "has one learned embedding per timestep"),
        (lambda: pipeline({"class_embed_type": "identity"}), "does not determine the classes: wrap"),
        (lambda: pipeline({"out_channels": 3}), "has 3 output channels for 1 input channels; expected"),
        (lambda: pipeline({}), "a Scheduler has no alphas_cumprod"),
        (lambda: pipeline({}, scheduler_of("CMStochasticIterativeScheduler")), "belongs to a consistency model"),
        (lambda: pipeline({}, type("KarrasVeScheduler", (), {})()), "wrap that call in a module"),
        (lambda: pipeline({}, scheduler_of("EDMEulerScheduler", config=3)), "prediction_type = None; expected epsilon"),
        (lambda: pipeline({}, scheduler_of(config=SimpleNamespace(prediction_type="v_prediction",
                                                                  timestep_type="continuous"))), "the timestep: use"),
        (lambda: pipeline({}, scheduler_of(alphas_cumprod=Z, config=3)), "got prediction_type = None; expected"),
    ]  # fmt: skip


def training() -> list[tuple[Call, str]]:
    conditional = pid.nets.Preconditioned(net(label_dim=3))
    third_party = teachers.from_network(First(2, 2), "edm", event_shape=(1, 8, 8))
    plain_unet = teachers.from_network(unet(), "vp", event_shape=(1, 8, 8))
    """Calls of losses, networks, students and runs."""
    chain = PiecewiseTrajectory([path(t_min=1.0), path(t_max=1.0)])
    chebyshev, scene = pid.nets.ChebyshevMLP(2, width=8, depth=2), viewer.Scene("a", np.ones(3), [])
    frozen, meta = net().requires_grad_(False), net().to("meta")

    def step(**options: Any) -> Any:
        return next(iter(run(**options)))

    def endpoint(**parts: Any) -> Any:
        return step(method=Endpoint(**parts))

    def same_name() -> None:
        register_network(type("MLP", (nn.Module,), {}))

    def no_gradient() -> None:
        with torch.no_grad():
            step()

    return [
        (lambda: pid.l2(Z, Z[:1]), "but the two batches must be of the same shape"),
        (lambda: pid.l2([1.0], Z), "got list for a, but a must be (B, *event)"),
        (lambda: pid.pseudo_huber(Z, Z, c=0), "got c = 0, but c must be a positive number in units of the data: pass"),
        (lambda: Inception.forward(SimpleNamespace(), Z), "Inception takes images"),
        (lambda: pid.LPIPS("vgg", resize=1), "got resize=1; resize must be"),
        (lambda: pid.LPIPS.forward(SimpleNamespace(), Z, Z), "but LPIPS compares"),
        (lambda: pid.LPIPS.forward(SimpleNamespace(resize=None, net="vgg"), *2 * [torch.ones(1, 3, 4, 4)]),
         "got images of (4, 4) pixels; vgg takes"),
        (lambda: method_of("no"), "got method = 'no', but method must be one of"),
        (lambda: method_of(Plain()), "Plain is not a dataclass, but a method must be: add"),
        (lambda: loss(trajectory=net()), "without t_max, but a trajectory needs"),
        (lambda: loss(z=LABELS), "got (4,) torch.int64 for z, but z must be"),
        (lambda: loss(ode=3), "got int for ode, but ode must be"),
        (lambda: loss(index=[0]), "got list for index, but index must be"),
        (lambda: loss(index=LABELS - 1), "got index -1..-1, but"),
        (lambda: loss(index=LABELS.to("meta")), "index is on meta but z is on cpu: move one of them"),
        (lambda: loss(z=Z / 0), "z holds NaN or infinity: pass"),
        (lambda: loss(last_interval="keep"), "got last_interval = 'keep', but last_interval must be"),
        (lambda: loss(grid=[1.0]), "got list, but a grid must be"),
        (lambda: loss(grid=torch.tensor([80.0, 80.0])), "but a grid must be finite and strictly monotone"),
        (lambda: loss(grid=torch.tensor([1.0, 80.0])), "but it must start at t_max = 80"),
        (lambda: loss(grid=torch.tensor([80.0, 0.0])), "but a denoiser's must fall from t_max to a t_min > 0"),
        (lambda: loss(trajectory=pid.Trajectory(lambda x, t: x / 0)), "the student returned NaN or infinity: check"),
        (lambda: loss(ode=pid.DenoiserODE(lambda x, s: x / 0)), "the teacher returned NaN or infinity for 4 of 4"),
        (lambda: loss(distance=lambda a, b: a), "the distance returned (4, 2), but must return"),
        (lambda: loss(derivative=lambda *a: 3), "the function derivative= returned int, but must return"),
        (lambda: loss(weight=lambda t: 3), "the weight function returned int, but must return"),
        (lambda: loss(weight=lambda t: 1j * t), "the weight function returned (4,) torch.complex128, but must return"),
        (lambda: loss(trajectory=Bare(1j)), "the student returned torch.complex64, but must return real values"),
        (lambda: loss(weight=lambda t: -t), "choose one that is finite and at least 0"),
        (lambda: loss(trajectory=Bare(lambda z, t: 3)), "the student returned int, but must return a tensor"),
        (lambda: loss(trajectory=Bare(lambda z, t: z[:, :1])), "the student returned (4, 1), but must return"),
        (lambda: loss(past=3), "pid_loss has no argument past"),
        (lambda: loss(weight="edm"), "got weight = 'edm', but weight must be one of"),
        (lambda: loss(class_labels=LABELS + 9, trajectory=pid.Trajectory(net(label_dim=3))),
         "got class labels 9..9, but"),
        (lambda: step(time_sampling=lambda t, s: t + 1j), "time_sampling returned (4,) torch.complex128, but must"),
        (lambda: step(time_sampling=lambda *a: 3), "time_sampling returned int, but must give"),
        (lambda: ode_run(student=None, windows=2), "1 steps cannot train 2 windows: use"),
        (lambda: ode_run(lambda x, t: x / 0, student=None, n=None), "where its paths start, at t = 0: check"),
        (lambda: net(label_dim=3)(Z, LABELS, [0] * 4), "got list class_labels for 4 samples and label_dim = 3: pass"),
        (lambda: net(label_dim=3)(Z, LABELS, LABELS[:, None]), "got integer class labels of shape (4, 1); expected"),
        (lambda: net(label_dim=3)(Z, LABELS, Z), "got floating class labels of shape (4, 2); expected"),
        (lambda: net(label_dim=3)(Z, LABELS, LABELS - 1), "got class labels -1..-1, but class labels must lie in 0..2"),
        (lambda: net(label_dim=3)(Z, LABELS, Z.to(torch.complex64)),
         "got class labels (4, 2) torch.complex64; expected"),
        (lambda: unet(label_dim=3)(IMAGES, torch.ones(2), [0, 0]), "got class labels of type list; expected"),
        (lambda: net()(Z.double(), LABELS), "got torch.float64 on cpu, but the network's weights are torch.float32"),
        (lambda: net()(Z, LABELS > 0), "got time (4,) torch.bool for x"),
        (lambda: net()(Z, torch.ones(3)), "got 3 times for 4 samples; expected"),
        (lambda: net(directions=3), "got 3 directions for samples of 2 dimensions: choose at most as many"),
        (lambda: net(directions=1).orient(torch.ones(2, 2)),
         "got (2, 2) torch.float32 for basis, but basis must be (d, directions) = (2, 1)"),
        (lambda: net(directions=1).orient(torch.zeros(2, 1)),
         "got (2, 1) torch.float32 for basis, zero, or with NaN or infinity, but basis must be finite real numbers"),
        (lambda: pid.nets.MLP(2, width=2**30), "the MLP would hold about 10^19 numbers, but memory holds"),
        (lambda: chebyshev(Z[:0], Z[:0, 0]), "got a batch of no samples, but a ChebyshevMLP"),
        (lambda: chebyshev(Z, torch.ones(3)), "got times of shape (3,) for 4 samples; expected"),
        (lambda: pid.nets.Preconditioned(net())(Z, torch.ones(4, device="meta")),
         "on meta, without values, but it must be"),
        (lambda: unet(num_blocks=999), "got num_blocks = 999 at 1 resolutions, but a U-Net has at most"),
        (lambda: unet(augment_dim=2)(IMAGES, torch.ones(2), None, torch.ones(2, 3)),
         "got augment_labels of shape (2, 3); expected"),
        (lambda: net()(Z, LABELS, LABELS), "build the MLP with label_dim"),
        (lambda: net()(Z[:, :1], LABELS), "got (1,), but the network takes samples of shape (2,)"),
        (lambda: pid.nets.MLP(2, width=0), "got width = 0, but width must be a whole number from 1 to 2^31"),
        (lambda: unet(model_channels=18), "which cannot be split into"),
        (lambda: unet(channel_mult=[]), "got channel_mult = [], but channel_mult must have"),
        (lambda: unet(channel_mult=[1] * 5), "cannot be halved 4 times: use"),
        (lambda: unet(resample_filter=[1]), "got resample_filter = [1]; expected"),
        (lambda: unet()(IMAGES, torch.zeros(3)), "got 3 noise levels for 2 images; expected"),
        (lambda: unet(encoder_type="none"), "got encoder_type = 'none', but encoder_type must be one of"),
        (lambda: pid.nets.iDDPMPrecond(8, 1, M=1), "got M = 1, but M must be a number of noise levels from 2 to"),
        (lambda: pid.nets.iDDPMPrecond(8, 1, M=2**17), "got M = 131072, but M must be a number of"),
        (lambda: image_teacher()(IMAGES, torch.ones(3)), "got sigma of shape (3,); expected"),
        (lambda: pid.nets.Preconditioned(First(2, 2))(Z, 1.0), "but must keep the shape of x"),
        (same_name, "has registered another MLP"),
        (lambda: pid.Trajectory(net(label_dim=3)).generate(Z), "got no class_labels, but this student was trained"),
        (lambda: pid.nets.Preconditioned(net())(Z, -1.0), "got sigma = -1, but a noise level must be positive and"),
        (lambda: run(student=3), "got a int, but a student is a torch.nn.Module"),
        (lambda: run(student=frozen), "the student has no weights to train"),
        (lambda: run(student=meta), "the student is on the meta device"),
        (lambda: run(teacher=image_teacher(label_dim=3), student=unet()),
         "the teacher is class-conditional (3 classes)"),
        (lambda: run(student=path(t_max=70.0)), "the student starts at t_max = 70 but the paths at 80: make"),
        (lambda: run(student=path(t_min=1.0)), "the student ends at t_min = 1 but the paths at 0.002: make"),
        (lambda: run(student=Bare(lambda z, t: 3)), "the student returned int, but must return the shape of z"),
        (lambda: run(student=Bare(NAN)), "the student returns NaN or infinity at t = 80 before any training"),
        (lambda: run(student=pid.nets.MLP(2, end_time=True)),
         "got a Trajectory of a network that takes two times, but only method='flow_map' trains such a network: build"),
        (lambda: run(method="cd", student=torch.nn.Linear(2, 2), data=Z), "the student fails on x (8, 2) torch"),
        (lambda: run(method="pd", student=pid.nets.MLP(2, times=4)), "got a FlowMap of a network of times = 4, but"),
        (lambda: run(method="cd", data=lambda n: Z[:n]), "the function data= fails ("),
        (lambda: run(method="cd", data=LABELS[:, None].expand(-1, 2)), "got data (4, 2) torch.int64, but this"),
        (lambda: run(method="cd", data=lambda n, generator: torch.zeros(n, 3)), "got data (1, 3) torch.float32 for 1"),
        (lambda: run(method="cd", student=pid.ConsistencyFunction(net(end_time=True)), data=Z),
         "but this method trains a ConsistencyFunction of a network that takes one time (build it without end_time)"),
        (lambda: run(student=Bare(lambda z, t: torch.where(t[:, None] < 1, NAN, z))),
         "the student returns NaN or infinity at t = 0.002"),
        (lambda: run(student=Bare(9.0)), "the student does not start at z"),
        (lambda: run(student=PiecewiseTrajectory([path()])), "got a student of several windows, but a diffusion"),
        (lambda: run(student=chain, windows=1), "got windows = 1, but the student has 2: leave windows out"),
        (lambda: run(student=None, windows=2), "got windows = 2, but a diffusion is solved in one window"),
        (lambda: run(student=None, init="none"), "got init = 'none', but init must be"),
        (lambda: run(data=Z), "got data, but PID needs none: leave"),
        (lambda: run(teacher=Side(lambda side: side + 0.5), event_shape=(2,)), "Side.lhs(3 x, 3 dxdt, t) must be 3"),
        (lambda: run(teacher=Side(torch.tanh), event_shape=(2,)), "move what is constant to rhs, and what"),
        (lambda: run(teacher=Side(lambda side: side * torch.ones(3)), event_shape=(2,)),
         "Side.lhs failed for x and dxdt of shape (5,) ("),
        (lambda: run(method=type("Wrong", (Endpoint,), {"needs": "pairs"})()), "Wrong.needs = 'pairs', but it must be"),
        (lambda: run(config=pid.Config(method=Endpoint(t_max=80.0), t_max=70.0)),
         "t_max is set both in the method and"),
        (lambda: run(method=type("Wrong", (Endpoint,), {"uses": ("lr",)})()), "got Wrong.uses = ('lr',), but it holds"),
        (lambda: run(method=type("Wrong", (Endpoint,), {"defaults": lambda *a: {"rate": 1}})()),
         "Wrong.defaults returned ['rate'], but must return"),
        (lambda: settings_of(3), "got 3, but settings_of takes a method"),
        (lambda: run(method=Endpoint(), stop_gradient=False), "got stop_gradient, which Endpoint does not use: leave"),
        (lambda: run(method=DataEndpoint(), teacher=teachers.from_network(net(), "edm")),
         "got no data, but this method needs them: pass"),
        (lambda: run(method=DataEndpoint(), data=LABELS), "but data must be a floating-point tensor (M, *event), a"),
        (lambda: run(method=DataEndpoint(), data=torch.zeros(5, 3)), "got data (5, 3) torch.float32, but this"),
        (lambda: run(method=DataEndpoint(), data=Z, teacher=conditional, student=None),
         "got data without labels, but the teacher is"),
        (lambda: run(method="pd", student=None, teacher_steps=8, calls=8, n=64),
         "got n = 64, but 8 calls of 8 steps of the teacher have a grid of 65 points: leave n out"),
        (lambda: run(method="pd", student=None, n=129), "1 steps cannot train 4 stages: use more steps or fewer calls"),
        (lambda: ProgressiveStudent([pid.FlowMap(net())], [1]).generate(Z, calls=3),
         "got calls = 3, but this student takes 1 steps: choose"),
        (lambda: ProgressiveStudent([pid.FlowMap(net())], [2, 1]), "but each stage has its number and all have one"),
        (lambda: ProgressiveStudent([pid.FlowMap(net())] * 2, [3, 2]), "got 4 times for 3, 2 steps, but the largest"),
        (lambda: run(method="pd", student=ProgressiveStudent([pid.FlowMap(net())], [2])),
         "got a ProgressiveStudent of 2 steps, but with calls = 8 the stages take 8, 4, 2, 1: set calls to"),
        (lambda: run(student=pid.FlowMap(net())), "got a FlowMap as student, but this method trains a path"),
        (lambda: run(student=path(time="end")), "got a student whose network does not see t (time='end', as method="),
        (lambda: run(method="corrector", student=pid.ConsistencyFunction(net())),
         "as 'flow_map', 'cd' or 'pd' do. Or set first to the method that trained this student, or share=0 to correct"),
        (lambda: build_flow_map(problem_from_teacher(plain_unet), end_time=True),
         "got a teacher whose network, SongUNet, takes one time, but this"),
        (lambda: build_operator(problem_from_teacher(plain_unet), "teacher", 4),
         "got a teacher whose network, SongUNet, has no temporal layers, but this"),
        (lambda: run(method="boot", student=path(boundary="increment")),
         "got a Trajectory with the boundary increment, but the equation of BOOT holds for hard only"),
        (lambda: run(method="boot", student=Bare()), "but BOOT trains a Trajectory of a diffusion: pass one"),
        (lambda: run(method="flow_map", student=path()), "but this method trains a FlowMap of a network that takes"),
        (lambda: run(method="flow_map", identity="semigroup", student=None, n=18),
         "got n = 18, but steps that double need a grid of 2^k + 1 points: use 33"),
        (lambda: run(method="flow_map", identity="semigroup", student=None, n=9, at_end=0.5),
         "got at_end = 0.5, but the steps of semigroup double: leave it out"),
        (lambda: run(method="flow_map", identity="semigroup", student=None, n=9, rho=3.0),
         "got another spacing than karras with rho = 7, on whose points `generate` takes its steps, which semigroup"),
        (lambda: run(method="reflow", student=path()), "this method trains a FlowMap of a network that takes one time"),
        (lambda: pid.nets.MLP(2)(Z, Z[:, 0], end_time=Z[:, 0]),
         "got an end_time, but this network takes a single time"),
        (lambda: build_flow_map(problem_from_teacher(third_party), "random", end_time=False),
         "got init='random', but a third-party network can only start with init=\"teacher\""),
        (lambda: build_flow_map(problem_from_teacher(third_party), end_time=True),
         "but this method's student takes two"),
        (lambda: operator(times=[0.002]), "but an operator has two or more times that fall from below t_max to t_min"),
        (lambda: operator(network=net(times=3)), "got a network of times = 3, but the operator has 2 times: build it"),
        (lambda: operator()(Z, 2.0), "got t = 2, but this operator is defined at t_max and its 2 times, 1, 0.002: use"),
        (lambda: operator(network=net(times=2)).network(Z[:3], Z[:3, 0]), "got 3 rows, but a network built with times"),
        (lambda: run(student=operator()), "got a NeuralOperator as student, which has 2 times only, but this method"),
        (lambda: run(method="dsno", times=8, student=operator(network=net(times=2))),
         "got times = 8, but the student has 2: leave times out"),
        (lambda: run(student=net(times=2)), "a network of times = 2, but only method='dsno' trains such a network"),
        (lambda: build_operator(problem_from_teacher(third_party), "teacher", 4),
         "but this method's student needs them: pass a network of your own as student"),
        (lambda: pid.distill(pid.system("pendulum"), method="dsno"),
         "but an operator is of a diffusion: use the method pid"),
        (lambda: pid.distill(pid.system("pendulum"), method="corrector"), "but the corrector compares scores, which"),
        (lambda: pid.distill(pid.system("pendulum"), method="boot"), "but BOOT needs the denoiser of a diffusion"),
        (lambda: run(method="corrector", share=0.0, student=ProgressiveStudent([pid.FlowMap(net())], [2])),
         "got a ProgressiveStudent of 2 steps, but samples of one step are corrected: pass a student that"),
        (lambda: pid.FlowMap(net()).generate(Z, torch.zeros(2, dtype=torch.int64)), "got 2 class_labels for"),
        (lambda: pid.distill(pid.system("pendulum"), method="endpoint"), "regression trains the end of a path alone"),
        (lambda: run(method="corrector"), "1 steps leave a stage without any at share = 0.6: use more, or another"),
        (lambda: pid.distill(pid.system("pendulum"), method="cd"),
         "but this method trains a student of a diffusion: use the method pid"),
        (lambda: pid.FlowMap(net())(Z, 1.0, 5.0), "got times s = 1 and t = 5, but a flow map carries from noise to"),
        (lambda: pid.FlowMap(net(), 0.002, t_min=80.0), "a flow map runs from noise to data: swap them"),
        (lambda: run(method=DataEndpoint(), data=[1, 2]), "got data whose items are int, but data must be"),
        (lambda: run(method=DataEndpoint(), data=torch.cat([Z, Z / 0])), "got data that hold NaN or infinite values"),
        (lambda: run(method=DataEndpoint(), data=lambda n, generator: Z[:n] / 0), "got data that hold NaN or infinite"),
        (lambda: run(method=DataEndpoint(), data=3), "got data of type int, but"),
        (lambda: run(teacher=image_teacher(label_dim=3), student=None, method="cd", data=[(torch.ones(1, 8, 8), "a")]),
         "got data with the class label 'a', but the teacher has 3 classes: give each item a"),
        (lambda: run(stepz=3), "unknown setting stepz"),
        (lambda: run(t_start=80.0, t_max=70.0), "t_max is given twice"),
        (lambda: run(config=3), "must be a pidlearn.Config"),
        (lambda: step(optimizer="radam", matrix_lr=0.1), "got matrix_lr = 0.1, but radam has one rate for all weights"),
        (lambda: step(optimizer=lambda parameters, config: 3), "the function optimizer= returned 3, but must return"),
        (lambda: step(distance=lambda a, b: (a - b).detach().mean(1)), "the loss does not depend on the weights"),
        (lambda: step(teacher=image_teacher(), student=None, recompute=True, derivative="exact"),
         "recompute does not work with a derivative by forward-mode"),
        (lambda: run(teacher=teachers.from_network(First(2, 2),
         "edm", event_shape=(1, 8, 8)), student=None, init="random"),
         "got init='random', but a third-party network"),
        (lambda: during(mock.patch.dict(os.environ, WORLD_SIZE="two"), run), "WORLD_SIZE is 'two', but must be"),
        (lambda: during(missing("lpips"), lambda: pid.LPIPS(weights="random")),
         "needs the packages torchvision and lpips"),
        (lambda: step(precision="bfloat16"), "needs a student with a SongUNet"),
        (lambda: endpoint(batch=3), "the method drew int, but draw returns"),
        (lambda: endpoint(batch=iter(())), "the data ended at step 1, but must last"),
        (lambda: run(method=pid.methods.Denoising(Z)), "got Denoising, but it trains teachers: use"),
        (needy, "got method = 'needy' without settings that it needs ("),
        (lambda: endpoint(value=lambda out: out.sum()), "but must be one value per sample"),
        (lambda: endpoint(value=lambda out: out.long()), "the method's loss is torch.int64, but must be floating"),
        (lambda: endpoint(lengths=(0,)), "Endpoint.stages returned Stage("),
        (lambda: endpoint(value=lambda out: out / 0), "the loss became NaN or infinite"),
        (lambda: endpoint(lengths=(2,)), "have 2 steps in total, but the run has 1"),
        (no_gradient, "gradients are switched off: train"),
        (lambda: list(run(steps=3, method=Endpoint(value=Diverging(), lengths=(3,)))), "training stopped at step 2"),
        (lambda: distill(callbacks=3), "got callbacks = 3, but callbacks must be a list"),
        (lambda: distill(max_images=0), "got max_images = 0, but max_images must be"),
        (lambda: distill(max_time=0), "got max_time = 0, but max_time must be"),
        (lambda: distill(save_every=0), "got save_every = 0, but save_every must be"),
        (lambda: distill(track_error=1, reference=1), "got both track_error= and reference=, its old name: pass"),
        (lambda: run(last_interval="drop", last="drop"), "got both last_interval= and last=, its old name: pass"),
        (lambda: teach(data=LABELS), "but data must be a finite floating tensor"),
        (lambda: teach(data=0 * Z), "without variation, but"),
        (lambda: teach(class_labels=LABELS[:1]), "got (1,) torch.int64 for class_labels, but they must be"),
        (lambda: teach(network=frozen), "the network has no weights to train"),
        (lambda: pid.Trajectory(3), "got a int, but a network is a function"),
        (lambda: path(t_max=1.0, t_min=1.0), "got t_max = 1.0, t_min = 1.0, but a span needs"),
        (lambda: path(t_max=0.0, t_min=1.0), "the hard boundary divides by t_max, which is 0: use"),
        (lambda: path(t_min=-1.0), "but time='log' needs positive times: use"),
        (lambda: path(boundary="firm"), "got boundary = 'firm', but boundary must be one of"),
        (lambda: pid.Trajectory(lambda x, t: 3)(Z, 1.0), "the student's network returned int, but must keep"),
        (lambda: path()(Z, 90.0), "got times from 90 to 90, but this student is defined"),
        (lambda: path().generate(Z, calls=2), "got calls = 2, but a Trajectory has no multi-step sampler: leave"),
        (lambda: pid.picard(pid.DenoiserODE(pid.toy("ring")), Z, [2.0, 1.0]), "got a path of 4 states for 2 times:"),
        (lambda: pid.picard(pid.DenoiserODE(pid.toy("ring")), torch.ones(2, 4, 2), [0.0, 1.0]),
         "got a grid with times that are not positive, but a denoiser's path falls from t_max > 0"),
        (lambda: pid.picard(pid.DenoiserODE(pid.toy("ring")), torch.ones(2, 4, 2).cumsum(0) / torch.tensor([1, 0])
                            [:, None, None], [2.0, 1.0]), "path holds NaN or infinity: pass finite states, such as"),
        (lambda: pid.solve(pid.DenoiserODE(pid.toy("ring")), Z, [2.0, 1.0], start=pid.FlowMap(net(end_time=True))),
         "which has no path x(z, t): pass a student that is defined at grid[0], such as PID's"),
        (lambda: pid.solve(pid.DenoiserODE(pid.toy("ring")), Z, [2.0, 1.0], start=lambda z, t: z[:1]),
         "start returned (1, 2) torch.float32, but must keep the shape of x, (4, 2): pass"),
        (lambda: run(method="flow_map", student=None).result().error_estimate(Z), "got a FlowMap, but errors are"),
        (lambda: path().sample(2), "this student has no event_shape, so it cannot draw noise: pass"),
        (lambda: pid.students.Student()(Z, 1.0), "generates samples but has no path x(z, t): use"),
        (lambda: chain(Z, 1.0, LABELS[:1]), "got class_labels (1,) torch.int64 for 4 samples; expected"),
        (lambda: PiecewiseTrajectory([]), "got no windows, but a piecewise trajectory needs"),
        (lambda: PiecewiseTrajectory([path(), path()]), "but windows must join"),
        (lambda: PiecewiseTrajectory([path(t_min=1.0), path(t_max=1.0, t_min=2.0)]),
         "got windows that change direction"),
        (lambda: pid.watch(teachers.from_network(net(), "edm", event_shape=(3, 4, 4))),
         "but only 2-D points and one-channel images can be drawn as a scene: draw a figure with result.plot()"),
        (lambda: pid.watch(SYSTEM, axes=(0, 9)), "got axes = (0, 9), but axes must be two coordinates in 0..1"),
        (lambda: pid.watch(SYSTEM, Bare(lambda z, t: 3)), "int, but must return the shape of z, ("),
        (lambda: scene.seen(3), "got view of type int, but view must be a pidlearn.viewer.View"),
        (lambda: scene.save(""), "got path = '', but path must be a path"),
    ]  # fmt: skip


def during(change: Any, call: Call) -> Any:
    """Call within a context, such as a patch."""
    with change:
        return call()


@contextmanager
def missing(package: str) -> Iterator[None]:
    """A time in which that package cannot be imported; others that are imported meanwhile stay."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, package, None)
        yield


def reached(folder: Path) -> tuple[list[str], set[Message]]:
    """The calls that end in another message than they should, and the messages that they all end in."""
    wrong, found = [], set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for call, says in (*files(folder), *equations(), *training()):
            try:
                call()
            except Exception as error:
                if says not in str(error):
                    wrong.append(f"{says}: {error!r}")
                found |= raised(error)
            else:
                wrong.append(f"{says}: nothing is raised")
    return wrong, found


def raised(error: BaseException | None) -> set[Message]:
    """The messages of an error and of those that led to it."""
    if error is None or (trace := error.__traceback__) is None:
        return set()
    while trace.tb_next is not None:
        trace = trace.tb_next
    file = os.path.relpath(trace.tb_frame.f_code.co_filename, SOURCE)
    here = {m for m in messages() if m.file == file and trace.tb_lineno in m.lines}
    return here | raised(error.__cause__ or error.__context__)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], set[Message]]:
    return reached(tmp_path_factory.mktemp("messages"))


def test_each_call_ends_in_its_message(outcomes: tuple[list[str], set[Message]]) -> None:
    assert outcomes[0] == []


def test_each_message_has_a_call(outcomes: tuple[list[str], set[Message]]) -> None:
    missed = [m for m in messages() if m not in outcomes[1] and not m.file.startswith(ELSEWHERE)]
    assert without(missed, UNREACHED) == ([], set())
