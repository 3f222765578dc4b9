"""What is found in a text, what becomes of it, and how it is counted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pipeline_builders import experiment
from screening_builders import find_digits

from orchestration.inputs.screen import Look, Screen, Screened, count_looks


@pytest.fixture
def blocked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    find_digits(monkeypatch)
    (tmp_path / "blocked.txt").write_text("nutmeg")
    return {"blocklist": str(tmp_path / "blocked.txt")}


def reasons(root: Path, *texts: str, answers: bool = False, **blocks: Any) -> str | None:
    screen = Screen.of(experiment(root, **blocks), answers=answers, guard=None)
    return screen.why_dropped([screen.look(text) for text in texts])


def test_what_becomes_of_a_row_is_what_its_block_says(tmp_path: Path, blocked: dict[str, Any]) -> None:
    private = "it holds what is private (PHONE)"
    assert reasons(tmp_path, "call", "555", privacy={"prompts": "drop"}) == private
    assert reasons(tmp_path, "nobody", privacy={"prompts": "drop"}) is None
    assert reasons(tmp_path, "555", privacy={"prompts": "redact"}) is None
    assert reasons(tmp_path, "555", privacy={"prompts": "drop"}, answers=True) is None
    assert reasons(tmp_path, "555", privacy={"answers": "drop"}, answers=True) == private
    assert reasons(tmp_path, "nutmeg", content=blocked) == "it holds a phrase of the blocklist"
    assert reasons(tmp_path, "nutmeg", content=blocked | {"prompts": "count"}) is None


def test_where_nothing_is_asked_for_nothing_is_loaded(tmp_path: Path) -> None:
    screen = Screen.of(experiment(tmp_path, privacy={"prompts": "off"}), answers=False, guard=None)
    assert not screen.is_on and screen.look("zoe@example.com") == Look()
    assert not Screen.of(experiment(tmp_path), answers=True, guard=None).is_on


def test_what_was_found_is_counted_by_kind_and_said(tmp_path: Path, blocked: dict[str, Any]) -> None:
    screen = Screen.of(experiment(tmp_path, privacy={}, content=blocked), answers=False, guard=None)
    counts = Counter[str]()
    for texts in (["555 and 556", "nutmeg"], ["nothing"]):
        looks = [screen.look(text) for text in texts]
        count_looks(counts, looks, dropped=screen.why_dropped(looks) is not None)
    found = Screened.of(counts)
    assert found == Screened(2, {"PHONE": 2}, 1, 1)
    assert found.in_words("rows") == "2 rows looked at: 2 PHONE; 1 are not wanted; 1 left out."
    assert Screened(3, {}, 0, 0).in_words("rows") == "3 rows looked at: nothing private."
    assert found.metrics("x")["screened/x/found/PHONE"] == 2.0 and len(found.metrics("x")) == 4
