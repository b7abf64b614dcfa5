"""The command line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from typing import Any

import pytest

from pidlearn import cli


def test_the_app_is_started_where_its_configuration_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    called: dict[str, Any] = {}

    def instead(command: list[str], cwd: Any) -> subprocess.Popen[bytes]:
        called.update(command=command, cwd=cwd)
        return popen([sys.executable, "-c", "raise SystemExit(3)"])

    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", instead)
    assert cli.main(["app", "--port", "8599", "--no-browser"]) == 3
    assert called["command"][1:4] == ["-m", "streamlit", "run"]
    assert called["command"][4] == str(cli.app_main())
    assert called["command"][5:] == ["--server.port", "8599", "--server.headless", "true"]
    assert (called["cwd"] / ".streamlit" / "config.toml").exists()
    assert cli.app_main().exists()


def test_who_ends_the_command_ends_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    popen, servers = subprocess.Popen, []

    def instead(command: list[str], cwd: Any) -> subprocess.Popen[bytes]:
        servers.append(popen([sys.executable, "-c", "import time; time.sleep(60)"]))
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
        return servers[0]

    monkeypatch.setattr(subprocess, "Popen", instead)
    before = signal.getsignal(signal.SIGTERM)
    assert cli.main(["app"]) == -signal.SIGTERM
    assert servers[0].poll() is not None
    assert signal.getsignal(signal.SIGTERM) is before


def test_without_streamlit_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "find_spec", lambda name: None)
    assert cli.main(["app"]) == 1
    assert "pip install 'pidlearn[app]'" in capsys.readouterr().err


def test_an_unknown_command_is_refused() -> None:
    with pytest.raises(SystemExit):
        cli.main(["fly"])
