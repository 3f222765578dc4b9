"""Lots are claimed as they are drawn and looked at behind that; what is drawn is ours and nobody has answered it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from fill_builders import Filling, ask, prompts, teacher_set
from local_engines import Watched, lease_queue, run_engine_loop

from cache import GenerateRequest
from cache.answers import Request
from cache.claims import Claims
from cache.disk.local_storage import LocalStorage
from orchestration.fill import lots
from orchestration.fill.lots import Claimed, passes
from orchestration.fill.sequences import WantedSequences
from orchestration.fill.work import Work


@dataclass
class Place:
    """A cache, what is wanted of it, and another pipeline that looks at the claims."""

    filling: Filling
    others: Claims
    work: Work[Request]

    def claimed(self) -> Claimed[Request]:
        storage = LocalStorage(self.filling.root / self.wanted.identity)
        return Claimed(self.work, self.wanted, Claims(storage))

    @property
    def wanted(self) -> WantedSequences:
        return WantedSequences([teacher_set(self.work.requests)], self.filling.cache, self.work.order)

    def held(self) -> list[int]:
        """The first tokens of the prompts that are claimed."""
        names = self.wanted.names(self.work.requests)
        return first_ids([self.work.requests[at] for at in np.flatnonzero(self.others.held(names, k=0))])


def first_ids(requests: Sequence[Request]) -> list[int]:
    return [request.prompt_ids[0] for request in requests if isinstance(request, GenerateRequest)]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(lots, "LOT", 4)
    filling = Filling(tmp_path / "cache")
    wanted = WantedSequences([teacher_set(prompts(10))], filling.cache, filling.order())
    (work,) = wanted.open_work(())
    return Place(filling, Claims(LocalStorage(tmp_path / "cache" / wanted.identity)), work)


def test_a_lot_is_claimed_when_those_before_it_are_drawn(place: Place) -> None:
    with place.claimed() as ours:
        assert place.held() == [] and len(ours) == 0
        assert ours.more() and place.held() == [3, 4, 5, 6]
        drawn = iter(ours)
        assert [position for position, _ in islice(drawn, 4)] == [0, 1, 2, 3]
        assert place.held() == [3, 4, 5, 6]
        assert next(drawn) == (4, ask(7))
        assert place.held() == list(range(3, 11))
        assert [position for position, _ in drawn] == [5, 6, 7, 8, 9]
        assert len(ours) == 10 and ours.at(9) == ask(12) and ours.requests == prompts(10)
    assert place.held() == []


def test_a_claim_is_released_once_a_look_behind_finds_all_of_its_lot(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lots, "BEHIND", 1)
    with place.claimed() as ours:
        drawn = iter(ours)
        answered = [request for _, request in islice(drawn, 4)]
        put(place, answered)
        next(drawn)
        assert place.held() == list(range(3, 11))
        list(islice(drawn, 4))
        # Of the second lot nothing is answered.
        assert place.held() == list(range(7, 13))
        assert first_ids([*ours.lacking(()).values()]) == list(range(7, 13))
        assert list(ours.lacking({ask(8): "too long"})) == [4, 6, 7, 8, 9]
        assert ours.kept().rows == 4


def test_what_others_ask_or_have_answered_is_not_ours(place: Place) -> None:
    names = place.wanted.names(place.work.requests)
    put(place, [ask(5)])
    with place.others.claim(names[:2], k=0), place.claimed() as ours:
        assert [(position, first_ids([request])[0]) for position, request in ours] == [
            *enumerate([6, 7, 8, 9, 10, 11, 12])
        ]
        assert ours.at(0) == ask(6)
    with place.others.claim(names, k=0), place.claimed() as ours:
        assert not ours.more() and list(ours) == []


def test_a_large_work_is_asked_in_passes(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [piece.requests for piece in passes(place.work)] == [prompts(10)]
    monkeypatch.setattr(lots, "PASS", 6)
    assert [tuple(piece.requests) for piece in passes(place.work)] == [prompts(6), prompts(4, first=9)]
    scored = replace(place.work, claimed_k=4)
    assert {piece.claimed_k for piece in passes(scored)} == {4}


def put(place: Place, requests: Sequence[Request]) -> None:
    """Have another pipeline answer them, whoever has claimed them."""
    run_engine_loop(lease_queue([*enumerate(requests)], token_budget=None), place.work.order, lambda _: Watched())
