"""The command line."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from pidlearn import cli


def test_the_app_is_started_where_its_configuration_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    called: dict[str, Any] = {}

    def call(command: list[str], cwd: Any) -> int:
        called.update(command=command, cwd=cwd)
        return 3

    monkeypatch.setattr(subprocess, "call", call)
    assert cli.main(["app", "--port", "8599", "--no-browser"]) == 3
    assert called["command"][1:4] == ["-m", "streamlit", "run"]
    assert called["command"][4] == str(cli.app_main())
    assert called["command"][5:] == ["--server.port", "8599", "--server.headless", "true"]
    assert (called["cwd"] / ".streamlit" / "config.toml").exists()
    assert cli.app_main().exists()


def test_without_streamlit_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "find_spec", lambda name: None)
    assert cli.main(["app"]) == 1
    assert "pip install 'pidlearn[app]'" in capsys.readouterr().err


def test_an_unknown_command_is_refused() -> None:
    with pytest.raises(SystemExit):
        cli.main(["fly"])
