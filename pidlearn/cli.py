"""`pidlearn app` and `pidlearn import-teacher`: the command line."""

from __future__ import annotations

import argparse
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="pidlearn", description="Physics-informed distillation.")
    commands = parser.add_subparsers(dest="command", required=True)
    app = commands.add_parser("app", help="see a diffusion model become one step, in the browser")
    app.add_argument("--port", type=int, default=8501)
    app.add_argument("--no-browser", action="store_true", help="do not open one")
    importing = commands.add_parser("import-teacher", help="turn a teacher's file into a safetensors file of ours")
    importing.add_argument("source", nargs="?", help="a .pkl, .pt or .safetensors file, or a published teacher's name")
    importing.add_argument("-o", "--output", help="the .safetensors file to write")
    importing.add_argument("--list", action="store_true", help="list the published teachers")
    given = parser.parse_args(arguments)
    if given.command == "import-teacher":
        if not given.list and not (given.source and given.output):
            importing.error("expected a source and -o OUTPUT, or --list")
        return import_teacher(given.source, given.output, given.list)
    return start_app(given.port, browser=not given.no_browser)


def import_teacher(source: str, output: str, only_list: bool) -> int:
    """Write a teacher as a safetensors file of ours, or list those that have names."""
    from pidlearn import teachers  # torch takes seconds, which the app need not wait for

    if only_list:
        print(teachers.published_teachers())
        return 0
    try:
        print(teachers.import_teacher(source, output))
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def start_app(port: int, browser: bool) -> int:
    """Serve the app until it is interrupted."""
    if find_spec("streamlit") is None:
        print("the app needs Streamlit: pip install 'pidlearn[app]'", file=sys.stderr)
        return 1
    options = ["--server.port", str(port), "--server.headless", str(not browser).lower()]
    command = [sys.executable, "-m", "streamlit", "run", str(app_main()), *options]
    try:
        # Streamlit reads its configuration, the theme among it, from the folder that it is started in.
        return subprocess.call(command, cwd=app_main().parent)
    except KeyboardInterrupt:
        return 0


def app_main() -> Path:
    """The script that Streamlit runs: within an installed package, or beside it in the repository."""
    here = Path(__file__).parent
    installed = here / "_installed" / "app" / "main.py"
    return installed if installed.exists() else here.parent / "app" / "main.py"
