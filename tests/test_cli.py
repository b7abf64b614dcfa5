"""The command line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import warnings
from typing import Any

import pytest

from pidlearn.cli import app, main
from pidlearn.cli.distill import parse_settings


def test_the_app_is_started_where_its_configuration_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    called: dict[str, Any] = {}

    def instead(command: list[str], cwd: Any) -> subprocess.Popen[bytes]:
        called.update(command=command, cwd=cwd)
        return popen([sys.executable, "-c", "raise SystemExit(3)"])

    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", instead)
    assert main.main(["app", "--port", "8599", "--no-browser"]) == 3
    assert called["command"][1:4] == ["-m", "streamlit", "run"]
    assert called["command"][4] == str(app.app_script())
    options = ["--server.port", "8599", "--server.address", "127.0.0.1", "--server.headless", "true"]
    assert called["command"][5:] == options
    assert main.main(["app", "--host", "0.0.0.0"]) == 3
    assert called["command"][7:9] == ["--server.address", "0.0.0.0"]
    assert (called["cwd"] / ".streamlit" / "config.toml").exists()
    assert app.app_script().exists()


def test_who_ends_the_command_ends_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    popen, servers = subprocess.Popen, []

    def instead(command: list[str], cwd: Any) -> subprocess.Popen[bytes]:
        servers.append(popen([sys.executable, "-c", "import time; time.sleep(60)"]))
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
        return servers[0]

    monkeypatch.setattr(subprocess, "Popen", instead)
    before = signal.getsignal(signal.SIGTERM)
    assert main.main(["app"]) == -signal.SIGTERM
    assert servers[0].poll() is not None
    assert signal.getsignal(signal.SIGTERM) is before


def test_without_streamlit_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(app, "find_spec", lambda name: None)
    assert main.main(["app"]) == 1
    assert "pip install 'pidlearn[app]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=False", False), ("a=true", True), ("a=None", None), ("a=.001", 0.001), ("a = 1e-4", 1e-4),
        ("a=[0.9, 0.5]", [0.9, 0.5]), ("a=(0.9,)", (0.9,)), ("a=l1", "l1"), ("a='l1'", "l1"),
        ("a=lpips-alex", "lpips-alex"), ("a=", ""), ("a=x=y", "x=y"), ("a={[]: 1}", "{[]: 1}"),
    ],
)  # fmt: skip
def test_values_as_toml_or_python_has_them(text: str, value: Any) -> None:
    assert parse_settings([text]) == {"a": value}


@pytest.mark.parametrize("text", ["-1", "1.5", str(2**63), "one", "9" * 5000])
def test_what_is_no_seed(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main.main(["sample", "student", "--seed", text])
    assert f"argument --seed: got {text!r:.80}, but it must be an integer of at least 0" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["99999", "65536", "-1", "web", "9" * 5000])
def test_what_is_no_port(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main.main(["app", "--port", text])
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.endswith(f"argument --port: got {text!r:.80}, but a port is an integer from 0 to 65535")


def test_warnings_are_told_without_our_source(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    def instead(*_: object, **__: object) -> int:
        told.append(warnings.formatwarning(UserWarning("the disk is full"), UserWarning, __file__, 1))
        return 0

    monkeypatch.setattr(app, "run", instead)
    before = warnings.formatwarning
    assert main.main(["app"]) == 0
    assert told == ["pidlearn app: the disk is full\n"]
    assert warnings.formatwarning is before


@pytest.mark.parametrize("arguments", [["--help"], ["app", "--help"]])
def test_help_does_not_wait_for_torch(arguments: list[str]) -> None:
    code = f"""
import contextlib, sys
from pidlearn.cli.main import main
with contextlib.suppress(SystemExit):
    main({arguments})
print("torch" in sys.modules)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.startswith("usage: pidlearn")
    assert out.endswith("\nFalse\n")


@pytest.mark.parametrize("command", main.COMMANDS)
def test_every_command_of_the_table(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main([command, "--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: pidlearn {command} ")
    assert len(out.splitlines()) > 6  # it has arguments


def test_an_unknown_command_is_refused() -> None:
    with pytest.raises(SystemExit):
        main.main(["fly"])
