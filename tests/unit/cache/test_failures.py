"""What a teacher could not answer is known by hashes, on one version of its engine, and lost without harm."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache import GenerateRequest, ScoreRequest, Signal, SignalRequest
from cache.disk.local_storage import LocalStorage
from cache.failures import Failures, count_failures, drop_failures, in_words, read_failures
from cache.protocols import QUOTED

DIGEST = "ab" * 32
ENGINE = {"vllm": "0.32.0", "max_model_len": 64}


def ask(*prompt: int, limit: int = 5, replicate: int = 0) -> GenerateRequest:
    return GenerateRequest(prompt, stop_ids=(0,), max_new_tokens=limit, temperature=1.0, replicate=replicate)


def opened(root: Path, *, identity: str = DIGEST, **engine: str | int | float) -> Failures:
    return Failures(LocalStorage(root), identity=identity, engine=ENGINE | engine)


def notes(root: Path) -> list[Path]:
    return sorted((root / "failures").glob("*"))


def test_a_failure_holds_for_its_request_teacher_and_engine_alone(tmp_path: Path) -> None:
    signal = SignalRequest((1, 2), 2, Signal("class_logits"))
    known = {ask(1, 2): "too long", ScoreRequest((1, 2, 3), prompt_len=1): "unknown id", signal: "not finite"}
    opened(tmp_path).add(known)
    held = opened(tmp_path)
    assert [held.reason(request) for request in known] == list(known.values())
    others = [ask(1), ask(1, 2, limit=6), ask(1, 2, replicate=1), ScoreRequest((1, 2), prompt_len=1)]
    assert [held.reason(request) for request in others] == [None] * 4
    for other in (opened(tmp_path, vllm="0.33.0"), opened(tmp_path, top_k=4), opened(tmp_path, identity="cd" * 32)):
        assert other.reason(ask(1, 2)) is None
    # An engine that is what it was finds again what it could not answer.
    opened(tmp_path, vllm="0.33.0").add({ask(7): "no"})
    assert opened(tmp_path).reason(ask(1, 2)) == "too long"


def test_notes_are_added_and_none_is_changed(tmp_path: Path) -> None:
    one, two = opened(tmp_path), opened(tmp_path)
    one.add({ask(1): "a"})
    (first,) = notes(tmp_path)
    content = first.read_bytes()
    one.add({ask(1): "another reason"})
    assert notes(tmp_path) == [first]
    two.add({ask(2): "b"})
    assert len(notes(tmp_path)) == 2 and first.read_bytes() == content
    held = opened(tmp_path)
    assert (held.reason(ask(1)), held.reason(ask(2))) == ("a", "b")


def test_no_text_and_no_token_of_a_row_stands_in_it(tmp_path: Path) -> None:
    secret = (70_001, 70_002, 70_003)
    opened(tmp_path).add({ask(*secret): f"vllm refused the request{QUOTED}'Marguerite' is not a grammar"})
    (note,) = notes(tmp_path)
    content = note.read_bytes()
    assert b"Marguerite" not in content and not any(str(each).encode() in content for each in secret)
    assert opened(tmp_path).reason(ask(*secret)) == "vllm refused the request"


def test_a_reason_is_one_line_that_does_nothing_to_a_terminal(tmp_path: Path) -> None:
    opened(tmp_path).add({ask(1): "b\x1b[2J\n" + "x" * 1000})
    reason = opened(tmp_path).reason(ask(1))
    assert reason is not None and reason.startswith("b\\x1b[2J\\n") and len(reason) == 300


def test_failures_are_counted_by_engine_once_each_and_dropped(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    one, two = opened(tmp_path), opened(tmp_path)
    one.add({ask(1): "a", ask(2): "b"})
    two.add({ask(2): "b"})
    opened(tmp_path, vllm="1").add({ask(2): "b"})
    assert count_failures(storage, identity=DIGEST) == {
        "max_model_len=64, vllm=0.32.0": 2,
        in_words({"vllm": "1", "max_model_len": 64}): 1,
    }
    drop_failures(storage)
    assert notes(tmp_path) == [] and opened(tmp_path).reason(ask(1)) is None


def test_many_failures_take_several_notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cache.failures.ENTRIES", 3)
    opened(tmp_path).add({ask(number): "no" for number in range(7)})
    assert len(notes(tmp_path)) == 3
    assert [opened(tmp_path).reason(ask(number)) for number in range(8)] == ["no"] * 7 + [None]


@given(damage=st.binary(max_size=40), at=st.integers(0, 400), cut=st.integers(0, 400))
def test_a_damaged_note_says_nothing_and_the_others_stay(
    damage: bytes, at: int, cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("failed")
    opened(root).add({ask(1): "a"})
    (hurt,) = notes(root)
    content = hurt.read_bytes()
    hurt.write_bytes(content[:at] + damage + content[at + cut :])
    opened(root).add({ask(2): "b"})
    held = opened(root)
    assert held.reason(ask(1)) == ("a" if hurt.read_bytes() == content else None)
    assert held.reason(ask(2)) == "b"
    shutil.rmtree(root)


@pytest.mark.parametrize(
    "change", [{"format": 2}, {"failures": [["x", "y"]]}, {"failures": 3}, {"identity": "cd" * 32}]
)
def test_what_another_format_or_teacher_wrote_is_left_out(change: dict[str, object], tmp_path: Path) -> None:
    import hashlib

    opened(tmp_path).add({ask(1): "a"})
    (note,) = notes(tmp_path)
    body = json.loads(note.read_bytes())["body"] | change
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    note.write_text(json.dumps({"body": body, "sha256": hashlib.sha256(text.encode()).hexdigest()}))
    assert opened(tmp_path).reason(ask(1)) is None
    assert sum(count_failures(LocalStorage(tmp_path), identity=DIGEST).values()) == 0


@pytest.mark.parametrize("kind", ["pipe", "nowhere", "folder"])
def test_what_is_not_a_note_is_left_alone(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "failures" / "a.json"
    path.parent.mkdir()
    {"pipe": os.mkfifo, "nowhere": lambda at: at.symlink_to("nowhere"), "folder": Path.mkdir}[kind](path)
    held = opened(tmp_path)
    held.add({ask(1): "a"})
    assert held.reason(ask(1)) == "a"
    assert opened(tmp_path).reason(ask(1)) == "a"
    assert len(list(read_failures(LocalStorage(tmp_path), identity=DIGEST))) == 1


def test_a_disk_that_refuses_costs_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "failures").write_text("a file in the place of the folder")
    with caplog.at_level(logging.WARNING):
        held = opened(tmp_path)
        held.add({ask(1): "a"})
    assert held.reason(ask(1)) == "a"
    assert "what could not be answered is asked again" in caplog.text
