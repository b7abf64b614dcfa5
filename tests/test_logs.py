"""What a run writes down."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from pidlearn.training import loggers
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

    def test_what_else_was_measured(self, tmp_path: Path) -> None:
        path = tmp_path / "log"
        write = loggers.jsonl(path, every=10, further=lambda step: {"error": 0.5} if step.number == 13 else {})
        for number in range(1, 26):
            write(step(number))
        assert numbers(path) == [10, 13, 20, 25]
        assert [json.loads(line).get("error") for line in path.read_text().splitlines()] == [None, 0.5, None, None]

    def test_a_run_is_worth_more_than_its_log(self, tmp_path: Path) -> None:
        write = loggers.jsonl(tmp_path)
        with pytest.warns(RuntimeWarning, match=f"the log {tmp_path} lacks steps, for it could not be written"):
            write(step(1))

    def test_a_run_that_begins_anew(self, tmp_path: Path) -> None:
        for _ in range(2):
            write = loggers.jsonl(tmp_path / "log")
            for number in (1, 2):
                write(step(number))
        assert numbers(tmp_path / "log") == [1, 2]


class TestTrackers:
    def test_tensorboard(self, tmp_path: Path) -> None:
        pytest.importorskip("tensorboard")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        further = {13: {"error": 0.5}}
        config = {"lr": 0.1, "ema": (0.9,), "distance": "l2"}
        write = loggers.tracker("tensorboard", "mine", tmp_path, config, 10, lambda step: further.get(step.number, {}))
        for number in range(1, 26):
            write(step(number))
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
            ImportError, match=r"wandb needs accelerate and wandb: pip install 'pidlearn\[images\]' wandb"
        ):
            loggers.tracker("wandb", "mine", tmp_path, {})

    def test_one_that_is_unknown(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="one of tensorboard, wandb; got 'mlflow'"):
            loggers.tracker("mlflow", "mine", tmp_path, {})
