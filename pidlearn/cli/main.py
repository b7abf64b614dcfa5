"""The command line: `pidlearn app | distill | sample | evaluate | import-teacher`."""

from __future__ import annotations

import argparse
import ast
import re
import signal
import subprocess
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

__all__ = ["main"]

INTERRUPTED, TERMINATED = 130, 143
"""What shells call a command that SIGINT or SIGTERM ended."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    given = _parser().parse_args(arguments)
    command = {
        "app": lambda: start_app(given.port, browser=not given.no_browser),
        "distill": lambda: distill(given),
        "sample": lambda: sample(given),
        "evaluate": lambda: evaluate(given),
        "import-teacher": lambda: import_teacher(given),
    }[given.command]
    before = warnings.formatwarning
    warnings.formatwarning = lambda message, *_: f"pidlearn {given.command}: {message}\n"  # without our source
    try:
        return command()
    except (OSError, ValueError, ImportError) as error:
        print(f"pidlearn {given.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        warnings.formatwarning = before


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pidlearn", description="Physics-informed distillation.")
    commands = parser.add_subparsers(dest="command", required=True)

    app = commands.add_parser("app", help="see a diffusion model become one step, in the browser")
    app.add_argument("--port", type=int, default=8501)
    app.add_argument("--no-browser", action="store_true", help="do not open one")

    several: dict[str, Any] = {"nargs": "+", "action": "extend", "default": []}
    distilling = commands.add_parser("distill", help="distil a teacher of images as a recipe says")
    distilling.add_argument("recipe", nargs="?", help="a recipe's name, or a TOML file")
    distilling.add_argument("--list", action="store_true", help="list the recipes")
    distilling.add_argument("--teacher", help="a file or a published name, in place of the recipe's")
    distilling.add_argument("--out", help="folder of the run: runs/RECIPE; an earlier run in it is continued")
    distilling.add_argument(
        "--set", metavar="NAME=VALUE", help="fields of Config, as in TOML; None unsets one", **several
    )
    distilling.add_argument("--dry-run", action="store_true", help="measure a few steps, tell the plan, keep nothing")
    distilling.add_argument("--max-time", type=duration, help="stop after so long: 90, 30m, 12h or 2d")
    distilling.add_argument("--max-images", type=count, help="stop after so many samples")
    distilling.add_argument("--save-every", type=count, default=500, help="steps between two checkpoints")
    distilling.add_argument("--reference", type=count, default=0, help="follow the error of so many samples")
    distilling.add_argument("--track", choices=["tensorboard", "wandb"], **several)
    distilling.add_argument("--device", help="cpu, cuda, ...; a GPU if there is one")

    sampling = commands.add_parser("sample", help="images of a student, one call each, as a PNG")
    sampling.add_argument("student", help="a student's file, ours or the official PID code's")
    sampling.add_argument("-o", "--out", default="samples.png")
    sampling.add_argument("-n", type=count, default=64)
    sampling.add_argument("--seed", type=seed, default=0)
    sampling.add_argument("--label", type=int, help="one class for all")
    sampling.add_argument("--teacher", help="show its images from the same noise too")
    sampling.add_argument("--device")

    judging = commands.add_parser("evaluate", help="figures of a student: error to its teacher, FID, precision, recall")
    judging.add_argument("student")
    judging.add_argument("--teacher", help="measure the error to its own samples from the same noise")
    judging.add_argument("-n", type=count, default=1000, help="samples; published FIDs take 50000")
    judging.add_argument("--seed", type=seed, default=0)
    judging.add_argument("--fid", help="an .npz of mu and sigma, such as EDM's references")
    judging.add_argument("--inception", help="weights of the Inception network, if not in torch's cache")
    judging.add_argument("--real", choices=["digits", "fashion-mnist"], help="real images to compare with")
    judging.add_argument("--device")

    importing = commands.add_parser("import-teacher", help="turn a teacher's file into a safetensors file of ours")
    importing.add_argument("source", nargs="?", help="a .pkl, .pt or .safetensors file, or a published teacher's name")
    importing.add_argument("-o", "--output", help="the .safetensors file to write")
    importing.add_argument("--list", action="store_true", help="list the published teachers")
    return parser


def duration(text: str) -> float:
    """Seconds of "90", "30m", "12h" or "2d"."""
    found = re.fullmatch(r"(\d+\.?\d*|\.\d+)([smhd]?)", text)
    seconds = float(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}.get(found[2], 1) if found else 0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"expected seconds, or as in 30m, 12h or 2d; got {text!r}")
    return seconds


def count(text: str) -> int:
    """A whole number of at least 1."""
    return _whole(text, 1)


def seed(text: str) -> int:
    """A whole number from 0 to 2^63 - 1."""
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    if not (text.isdecimal() and least <= int(text) < 2**63):
        raise argparse.ArgumentTypeError(f"expected a whole number of at least {least} and below 2^63, got {text!r}")
    return int(text)


def choices(settings: list[str]) -> dict[str, Any]:
    """NAME=VALUE pairs, the values as TOML or Python has them; a word without quotation marks is a word."""
    found: dict[str, Any] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise ValueError(f"--set takes NAME=VALUE, as in lr=1e-4, and goes after the recipe; got {setting!r}")
        found[name.strip()] = _value(value)
    return found


def _value(text: str) -> Any:
    """What was meant in TOML, or in Python, which has None: a choice that a base recipe made is unset with it."""
    from pidlearn.recipes import tomllib

    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError):
        return text


def distill(given: argparse.Namespace) -> int:
    """Distil by a recipe, or list those there are; what a signal or NaN ended does not end with 0."""
    from pidlearn import recipes
    from pidlearn.cli import commands  # torch takes seconds, which the app need not wait for
    from pidlearn.training import driver

    if given.list:
        for name, title in recipes.names().items():
            print(f"{name:24} {title}")
        return 0
    chosen = choices(given.set)
    if given.recipe is None:
        raise ValueError("expected a recipe: a .toml file, or a name that --list tells")
    try:
        result = commands.distill(
            given.recipe,
            teacher=given.teacher,
            out=given.out,
            choices=chosen,
            device=given.device,
            dry_run=given.dry_run,
            max_time=given.max_time,
            max_images=given.max_images,
            save_every=given.save_every,
            reference=given.reference,
            trackers=given.track,
        )
        stopped = (result and result.stopped) or ""
    except recipes.UnfinishedError as error:
        print(f"{error}; the same command goes on with it", file=sys.stderr)
        stopped = error.reason
    ends = {driver.TERMINATED: TERMINATED, driver.INTERRUPTED: INTERRUPTED, driver.UNSAVED: 1, "training stopped": 1}
    return next((status for reason, status in ends.items() if stopped.startswith(reason)), 0)


def sample(given: argparse.Namespace) -> int:
    """Draw images of a student."""
    from pidlearn.cli import commands

    options = {"n": given.n, "seed": given.seed, "label": given.label, "teacher": given.teacher}
    print(commands.sample(given.student, given.out, device=given.device, **options))
    return 0


def evaluate(given: argparse.Namespace) -> int:
    """Print figures of a student as JSON."""
    from pidlearn.cli import commands

    names = ("teacher", "n", "seed", "fid", "inception", "real", "device")
    print(commands.told(commands.evaluate(given.student, **{name: getattr(given, name) for name in names})))
    return 0


def import_teacher(given: argparse.Namespace) -> int:
    """Write a teacher as a safetensors file of ours, or list those that have names."""
    from pidlearn import teachers

    if given.list:
        print(teachers.published_teachers())
        return 0
    if not (given.source and given.output):
        raise ValueError("expected a source and -o OUTPUT, or --list")
    print(teachers.import_teacher(given.source, given.output))
    return 0


def start_app(port: int, browser: bool) -> int:
    """Serve the app until it is interrupted."""
    if find_spec("streamlit") is None:
        raise ImportError("the app needs Streamlit: pip install 'pidlearn[app]'")
    options = ["--server.port", str(port), "--server.headless", str(not browser).lower()]
    command = [sys.executable, "-m", "streamlit", "run", str(app_main()), *options]
    # Streamlit reads its configuration, the theme among it, from the folder that it is started in.
    with subprocess.Popen(command, cwd=app_main().parent) as server:
        before = signal.signal(signal.SIGTERM, lambda *_: server.terminate())  # or it would stay, and keep the port
        try:
            return server.wait()
        except KeyboardInterrupt:
            return 0
        finally:
            signal.signal(signal.SIGTERM, before)


def app_main() -> Path:
    """The script that Streamlit runs: within an installed package, or beside it in the repository."""
    here = Path(__file__).parents[1]
    installed = here / "_installed" / "app" / "main.py"
    return installed if installed.exists() else here.parent / "app" / "main.py"
