"""What was forgotten is known by hashes alone, of no teacher, and what cannot be read of it stops everybody."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache import GenerateRequest, ScoreRequest, Signal, SignalRequest
from cache import erasures as module
from cache.erasures import FORGOTTEN, AnyRequest, Erasures, asked_name, forgotten_among, held_name
from configs.errors import CacheError

TOKENS = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=6).map(tuple)


def ask(*prompt: int, seed: int = 0) -> GenerateRequest:
    return GenerateRequest(prompt, stop_ids=(0,), max_new_tokens=5, temperature=1.0, sampling_seed=seed)


def signal(*ids: int, split: int) -> SignalRequest:
    return SignalRequest(ids, split, Signal("class_logits"))


def known(root: Path, *names: str) -> Erasures:
    Erasures.read(root).add(names, root=root)
    return Erasures.read(root)


def notes(root: Path) -> list[Path]:
    return sorted((root / "erasures").glob("*.json"))


@pytest.mark.parametrize(
    ("request_", "forgotten"),
    [
        (ask(1, 2), True),
        (ask(1, 2, seed=9), True),
        (ask(1), False),
        (ask(1, 2, 3), False),
        (ScoreRequest((1, 2, 9), prompt_len=2), True),
        (ScoreRequest((1, 2), prompt_len=1), True),
        (ScoreRequest((1, 2, 9), prompt_len=1), False),
        (signal(1, 2, split=2), True),
        (signal(1, 2, 7, split=2), True),
        (signal(7, 1, 2, split=1), False),
    ],
)
def test_what_holds_a_text_is_not_asked_as_a_whole_or_as_a_prompt(
    request_: AnyRequest, forgotten: bool, tmp_path: Path
) -> None:
    assert known(tmp_path, held_name((1, 2))).reason(request_) == (FORGOTTEN if forgotten else None)


def test_a_prompt_whose_answer_held_it_is_not_asked_and_everything_else_of_it_is(tmp_path: Path) -> None:
    held = known(tmp_path, asked_name((1, 2)))
    assert held.reason(ask(1, 2, seed=4)) == FORGOTTEN
    assert held.reason(ScoreRequest((1, 2, 9), prompt_len=2)) is None
    assert not held.hold(np.array([1, 2]), prompt_len=2)


@given(one=TOKENS, other=TOKENS)
def test_names_are_of_their_tokens_and_of_their_kind(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    assert (held_name(one) == held_name(np.array(other, dtype=np.int32))) == (one == other)
    assert held_name(one) != asked_name(one)


def test_only_what_is_new_is_written_and_in_notes_of_a_bounded_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "NAMES", 2)
    names = [held_name((number,)) for number in range(5)]
    assert Erasures.read(tmp_path).add(names, root=tmp_path) == 5
    assert len(notes(tmp_path)) == 3
    held = Erasures.read(tmp_path)
    assert held.names == frozenset(names)
    assert held.add(names[:3], root=tmp_path) == 0 and len(notes(tmp_path)) == 3
    assert all(len(path.read_bytes()) < 1000 for path in notes(tmp_path))


def test_a_note_holds_no_tokens(tmp_path: Path) -> None:
    known(tmp_path, held_name((123456789,)))
    assert b"123456789" not in notes(tmp_path)[0].read_bytes()


@pytest.mark.parametrize("damage", ["{", "{}", '{"body": {"format": 1, "names": []}, "sha256": "0"}', "another"])
def test_a_note_that_cannot_be_read_stops_whoever_would_ask(damage: str, tmp_path: Path) -> None:
    known(tmp_path, held_name((1,)))
    (path,) = notes(tmp_path)
    if damage == "another":
        note = json.loads(path.read_text())
        note["body"]["names"] = []
        damage = json.dumps(note)
    path.write_text(damage)
    with pytest.raises(CacheError, match=r"says what was forgotten .*: bring it back from a copy") as refusal:
        Erasures.read(tmp_path)
    assert "\n" not in str(refusal.value)


def test_a_place_that_refuses_is_said_before_anything_is_removed(tmp_path: Path) -> None:
    (tmp_path / "erasures").write_text("a file")
    with pytest.raises(CacheError, match="nothing was removed"):
        Erasures().add([held_name((1,))], root=tmp_path)
    with pytest.raises(CacheError, match="says what was forgotten"):
        Erasures.read(tmp_path)


def test_forgotten_requests_are_told_from_refused_ones() -> None:
    assert forgotten_among({ask(1): FORGOTTEN, ask(2): "too long", ask(3): FORGOTTEN}) == 2
