"""`pidlearn app`: the command line."""

from __future__ import annotations

import argparse
import signal
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
    given = parser.parse_args(arguments)
    return start_app(given.port, browser=not given.no_browser)


def start_app(port: int, browser: bool) -> int:
    """Serve the app until it is interrupted."""
    if find_spec("streamlit") is None:
        print("the app needs Streamlit: pip install 'pidlearn[app]'", file=sys.stderr)
        return 1
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
    here = Path(__file__).parent
    installed = here / "_installed" / "app" / "main.py"
    return installed if installed.exists() else here.parent / "app" / "main.py"
