"""What a run writes down."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pidlearn.training import loggers, progress
from pidlearn.training.history import Step


def step(number: int, steps: int = 25) -> Step:
    return Step(number, steps, loss=1 / number, lr=0.1, samples=8 * number, seconds=0.5 * number)


def numbers(path: Path) -> list[int]:
    return [json.loads(line)["number"] for line in path.read_text().splitlines()]


class TestJsonl:
    def test_a_line_a_step_at_once(self, tmp_path: Path) -> None:
        path = tmp_path / "a" / "log.jsonl"
        write = loggers.jsonl(path)
        for number in (1, 2, 3):
            write(step(number))
            assert numbers(path) == list(range(1, number + 1))
        first = json.loads(path.read_text().splitlines()[0])
        assert first == {"number": 1, "steps": 25, "loss": 1.0, "lr": 0.1, "samples": 8, "seconds": 0.5}

    def test_every_so_many_and_the_last(self, tmp_path: Path) -> None:
        write = loggers.jsonl(tmp_path / "log", every=10)
        for number in range(1, 26):
            write(step(number))
        assert numbers(tmp_path / "log") == [10, 20, 25]

    @pytest.mark.parametrize("torn", ["", '{"number": 8, "st', '\0\0\0\0\n{"foo": 3}\n3\n{"number": "4"}\n[]\n'])
    def test_a_run_that_was_killed_and_goes_on(self, tmp_path: Path, torn: str) -> None:
        path = tmp_path / "log"
        for number in range(1, 8):
            loggers.jsonl(path)(step(number))
        path.write_text(path.read_text() + torn)
        write = loggers.jsonl(path)
        assert len(path.read_text().splitlines()) >= 7  # nothing is lost before there is something in its place
        for number in range(5, 10):
            write(step(number))
        assert numbers(path) == list(range(1, 10))

    @pytest.mark.parametrize("every", [0, -1, 2.5, None])
    def test_every_is_noticed_before_training(self, tmp_path: Path, every: Any) -> None:
        with pytest.raises(ValueError, match=f"got every = {every}, but every must be a whole number of at least 1"):
            loggers.jsonl(tmp_path / "log", every=every)

    def test_what_else_was_measured(self, tmp_path: Path) -> None:
        path = tmp_path / "log"
        write = loggers.jsonl(path, every=10)
        for number in range(1, 26):
            write(replace(step(number), metrics=MEASURED.get(number, {})))
        assert numbers(path) == [10, 13, 20, 25]
        assert [json.loads(line).get("error") for line in path.read_text().splitlines()] == [None, 0.5, None, None]

    def test_a_run_is_worth_more_than_its_log(self, tmp_path: Path) -> None:
        write = loggers.jsonl(tmp_path)
        with pytest.warns(RuntimeWarning, match=f"the log {tmp_path} misses steps, because it cannot be written"):
            write(step(1))

    def test_a_run_that_begins_anew(self, tmp_path: Path) -> None:
        for _ in range(2):
            write = loggers.jsonl(tmp_path / "log")
            for number in (1, 2):
                write(step(number))
        assert numbers(tmp_path / "log") == [1, 2]


MEASURED = {13: {"error": 0.5}}


class TestTrackers:
    def test_tensorboard(self, tmp_path: Path) -> None:
        pytest.importorskip("tensorboard")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        config = {"lr": 0.1, "ema": (0.9,), "distance": "l2"}
        write = loggers.tracker("tensorboard", "mine", tmp_path, config, 10)
        for number in range(1, 26):
            write(replace(step(number), metrics=MEASURED.get(number, {})))
        events = EventAccumulator(str(tmp_path / "mine"))
        events.Reload()
        assert {"loss", "lr", "samples"} <= set(events.Tags()["scalars"])
        assert [event.step for event in events.Scalars("loss")] == [10, 13, 20, 25]
        assert [(event.step, event.value) for event in events.Scalars("error")] == [(13, 0.5)]
        assert events.Scalars("loss")[0].value == pytest.approx(0.1)

    @pytest.mark.parametrize("missing", ["wandb", "accelerate"])
    def test_what_is_not_installed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
        find = importlib.util.find_spec
        monkeypatch.setattr(loggers, "find_spec", lambda name: None if name == missing else find("json"))
        with pytest.raises(
            ImportError, match=r"wandb needs the packages accelerate and wandb: pip install 'pidlearn\[images\]' wandb"
        ):
            loggers.tracker("wandb", "mine", tmp_path, {})

    def test_one_that_is_unknown(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="no tracker 'mlflow': expected one of tensorboard, wandb"):
            loggers.tracker("mlflow", "mine", tmp_path, {})


class TestProgress:
    """The lines on a stderr that is no terminal, by a clock of the test's own."""

    @staticmethod
    def shown(capsys: pytest.CaptureFixture[str], times: Iterator[float], steps: int, done: int = 0) -> list[str]:
        """The lines of a run whose steps end at these times."""
        clock = {"now": 0.0}
        with progress.bar(steps, "student", True, done, clock=lambda: clock["now"]) as show:
            for number, clock["now"] in enumerate(times, done + 1):
                show(step(number, steps))
        out, err = capsys.readouterr()
        assert out == ""
        assert "\r" not in err
        return err.splitlines()

    @staticmethod
    def numbers(lines: list[str]) -> list[int]:
        return [int(line.split(" of ")[0].rpartition(" ")[2].replace(",", "")) for line in lines]

    def test_the_first_and_the_last_step_of_a_short_run(self, capsys: pytest.CaptureFixture[str]) -> None:
        lines = self.shown(capsys, iter([5.0, 6.0, 7.0]), 3)
        assert lines == [
            "student: step 1 of 3, loss 1",
            "student: step 3 of 3, loss 0.977, 8 samples/s, 0:00:00 left",  # the first step is not timed
        ]
        assert self.shown(capsys, iter([5.0]), 1) == ["student: step 1 of 1, loss 1"]

    def test_growing_intervals(self, capsys: pytest.CaptureFixture[str]) -> None:
        # A step a second: after 10, 30 and 60 s, then every 10 % of the steps, which take more than 5 minutes.
        lines = self.shown(capsys, map(float, range(4000)), 4000)
        assert self.numbers(lines) == [1, 11, 31, 61, *range(461, 4000, 400), 4000]
        assert lines[1].endswith(", 8 samples/s, 1:06:29 left")
        # Steps are fast: every 5 minutes, which take more than 10 % of the steps.
        lines = self.shown(capsys, (0.5 * i for i in range(4000)), 4000)
        assert self.numbers(lines) == [1, 21, 61, 121, *range(721, 4000, 600), 4000]
        # Steps are slow: every hour.
        lines = self.shown(capsys, (600.0 * i for i in range(300)), 300)
        assert self.numbers(lines) == [1, 2, *range(8, 300, 6), 300]

    def test_a_run_that_is_resumed_or_stopped(self, capsys: pytest.CaptureFixture[str]) -> None:
        lines = self.shown(capsys, iter([0.0, 2.0, 4.0]), 1000, done=500)
        assert self.numbers(lines) == [501, 503]
        assert lines[1].endswith(", 4 samples/s, 0:16:34 left")
        assert self.shown(capsys, iter([]), 1000, done=1000) == []

    def test_metrics_stay_until_they_are_measured_again(self, capsys: pytest.CaptureFixture[str]) -> None:
        with progress.bar(3, "student", True, clock=lambda: 0.0) as show:
            show(step(1, 3))
            show(replace(step(2, 3), metrics={"error": 0.5}))
            show(step(3, 3))
        assert capsys.readouterr().err.splitlines()[-1] == "student: step 3 of 3, loss 0.977, error 0.5"

    def test_nothing_where_it_is_switched_off(self, capsys: pytest.CaptureFixture[str]) -> None:
        with progress.bar(3, "student", False) as show:
            show(step(1, 3))
        assert capsys.readouterr().err == ""

    def test_a_bar_in_a_terminal(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        with progress.bar(3, "student", True) as show:
            for number in (1, 2, 3):
                show(replace(step(number, 3), metrics={"error": 0.5}))
        err = capsys.readouterr().err
        assert "\r" in err
        assert "3/3" in err
