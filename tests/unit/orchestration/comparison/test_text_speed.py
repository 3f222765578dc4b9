"""Times of models side by side: in turns, warm, with what they hold; one that fails costs the others nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
from task_heads import save_classifier

from configs import EngineError
from orchestration.comparison import text_speed
from orchestration.comparison.text_speed import BATCHES, ROUNDS, TEXTS, measured_on, time_texts


class FakeProcess:
    """Takes a second more each time that any of them is asked; `failing` maps a model to the time it fails at."""

    order: list[tuple[str, object]] = []  # noqa: RUF012 - emptied by each test
    failing: dict[str, int] = {}  # noqa: RUF012

    def __init__(self, stderr: int) -> None:
        self._name, self._asked = "", 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.order.append((self._name, "end"))

    def tell(self, asked: Mapping[str, Any]) -> None:
        self._name = Path(asked["model"]).name if "model" in asked else self._name
        self.order.append((self._name, asked.get("batch", len(asked.get("texts", ())))))

    def ask(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        self.tell(asked)
        return self.hear()

    def hear(self) -> dict[str, Any]:
        self._asked += 1
        if self.failing.get(self._name) == self._asked:
            raise EngineError(f"{self._name} is gone")
        return {"text_s": float(len(self.order)), "peak_bytes": 100 + self._asked}


@pytest.fixture(autouse=True)
def emptied() -> None:
    FakeProcess.order, FakeProcess.failing = [], {}


def test_models_take_turns_and_the_first_round_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_speed, "_Process", FakeProcess)
    found = time_texts({"a": tmp_path / "a", "b": tmp_path / "b"}, [["x"], ["y"]], log=tmp_path / "log")
    assert FakeProcess.order[:6] == [("a", TEXTS), ("b", TEXTS), ("a", 1), ("b", 1), ("a", 32), ("b", 32)]
    assert FakeProcess.order[-2:] == [("b", "end"), ("a", "end")]
    assert not found.failures
    first, second = (found.serving[name].texts for name in "ab")
    assert [each.batch for each in first] == list(BATCHES)
    assert first[0].text_s == (7.0, 11.0, 15.0, 19.0, 23.0) and len(first[0].text_s) == ROUNDS
    assert second[1].text_s == (10.0, 14.0, 18.0, 22.0, 26.0)
    assert found.serving["a"].peak_host_bytes == 100 + 1 + 2 * (ROUNDS + 1)


@pytest.mark.parametrize("at", [1, 4])
def test_one_that_fails_costs_the_others_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    monkeypatch.setattr(text_speed, "_Process", FakeProcess)
    FakeProcess.failing = {"a": at}
    found = time_texts({"a": tmp_path / "a", "b": tmp_path / "b"}, [["x"]], log=tmp_path / "log")
    assert dict(found.failures) == {"a": "a is gone"} and list(found.serving) == ["b"]
    assert len([each for each in FakeProcess.order if each[0] == "a"]) == at + 1


def test_real_processes(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{}")
    models = {"good": save_classifier(tmp_path / "model"), "broken": broken}
    found = time_texts(models, [["sun"], ["rain"]], log=tmp_path / "log")
    assert str(broken) in found.failures["broken"]
    serving = found.serving["good"]
    assert serving.measured_on == measured_on() and "1 thread;" in serving.measured_on
    assert serving.peak_host_bytes > 2**26
    assert all(0 < seconds < 10 for each in serving.texts for seconds in each.text_s)


def test_all_are_told_what_to_load_before_one_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[int] = []

    class Waited(FakeProcess):
        def hear(self) -> dict[str, Any]:
            heard.append(len(self.order))
            return super().hear()

    monkeypatch.setattr(text_speed, "_Process", Waited)
    time_texts({name: tmp_path / name for name in "abc"}, [["x"]], log=tmp_path / "log")
    assert heard[:3] == [3, 3, 3]
