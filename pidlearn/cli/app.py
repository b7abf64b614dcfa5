"""`pidlearn app`: serve the app with Streamlit."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

__all__ = ["add_arguments", "app_script", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``pidlearn app``."""
    parser.add_argument("--port", type=port, default=8501, help="port of the local server (default: 8501)")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to serve at (default: 127.0.0.1, this machine only; 0.0.0.0 is every network it is in)",
    )
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")


def run(arguments: argparse.Namespace) -> int:
    """Serve the app until it is interrupted."""
    if find_spec("streamlit") is None:
        raise ImportError("Streamlit, which the app needs, is not installed: pip install 'pidlearn[app]'")
    options = ["--server.port", str(arguments.port), "--server.address", arguments.host]
    options += ["--server.headless", str(arguments.no_browser).lower()]
    command = [sys.executable, "-m", "streamlit", "run", str(app_script()), *options]
    # Streamlit reads .streamlit/config.toml, which holds the theme, from its working directory.
    with subprocess.Popen(command, cwd=app_script().parent) as server:
        # Pass SIGTERM on: otherwise the server would outlive this process and keep the port.
        original_handler = signal.signal(signal.SIGTERM, lambda *_: server.terminate())
        try:
            return server.wait()
        except KeyboardInterrupt:
            return 0
        finally:
            signal.signal(signal.SIGTERM, original_handler)


def port(text: str) -> int:
    """Argument type: the number of a port."""
    if not (text.isdecimal() and len(text) < 6 and int(text) < 2**16):
        raise argparse.ArgumentTypeError(f"got {text!r:.80}, but a port is an integer from 0 to 65535")
    return int(text)


def app_script() -> Path:
    """Path of the script that Streamlit runs: inside an installed package, or next to it in the repository."""
    package = Path(__file__).parents[1]
    installed = package / "_installed" / "app" / "main.py"
    return installed if installed.exists() else package.parent / "app" / "main.py"
