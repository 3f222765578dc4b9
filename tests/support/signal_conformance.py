"""What every `SignalSource` promises. A test file imports all of this and defines the fixture `seer`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, count

import numpy as np

from cache.protocols import Failure, SignalSource
from cache.signals import Signal, SignalRecord, SignalRequest, signal_key, validate_signal

TEXTS: tuple[tuple[tuple[int, ...], int], ...] = (
    ((2, 4, 3), 3),
    ((2, 4, 5, 6, 3, 7, 8, 3), 5),
    ((2, 9, 3), 3),
    ((2, 5), 1),
    ((2, 4, 5, 6, 3, 7, 8, 3), 8),
)
"""Token ids below 10, and where the second text of a pair begins."""


@dataclass(frozen=True, slots=True)
class Seer:
    """A source under test: what it gives, the width of each, and how far two readings of one text may be apart."""

    source: SignalSource
    widths: dict[Signal, int]
    longest: int
    tolerance: float

    @property
    def every(self) -> list[SignalRequest]:
        """All that it gives of all texts, those of one text in a row."""
        return [SignalRequest(ids, split, signal) for ids, split in TEXTS for signal in self.widths]


def seen(source: SignalSource, requests: Iterable[SignalRequest]) -> list[SignalRecord]:
    found: dict[int, SignalRecord] = {}
    for place, outcome in source.signals(requests):
        assert isinstance(outcome, SignalRecord), outcome
        assert place not in found
        found[place] = outcome
    assert sorted(found) == list(range(len(found)))
    return [found[place] for place in range(len(found))]


def test_every_signal_is_valid_and_named_by_what_was_asked(seer: Seer) -> None:
    digest = seer.source.identity.digest()
    requests = seer.every
    for request, record in zip(requests, seen(seer.source, requests), strict=True):
        validate_signal(record, identity_digest=digest)
        assert (record.key, record.signal, record.split) == (signal_key(digest, request), request.signal, request.split)
        assert tuple(record.token_ids.tolist()) == request.token_ids
        assert record.values.shape == (request.signal.rows(len(request.token_ids)), seer.widths[request.signal])


def test_what_is_said_does_not_depend_on_what_is_asked_beside_it(seer: Seer) -> None:
    requests = seer.every
    together = seen(seer.source, requests)
    for request, expected in zip(reversed(requests), reversed(together), strict=True):
        [alone] = seen(seer.source, [request])
        np.testing.assert_allclose(alone.values, expected.values, rtol=0, atol=seer.tolerance)


def test_the_same_question_is_answered_as_often_as_it_is_asked(seer: Seer) -> None:
    request = seer.every[0]
    first, second, third = seen(seer.source, [request, seer.every[-1], request])
    assert first.key == third.key != second.key
    np.testing.assert_allclose(first.values, third.values, rtol=0, atol=seer.tolerance)


def test_what_it_does_not_give_fails_alone(seer: Seer) -> None:
    [good, *_] = seer.every
    strange = SignalRequest(good.token_ids, good.split, Signal("state", layer=30_000, position="mean"))
    long = SignalRequest((4,) * (seer.longest + 1), seer.longest + 1, good.signal)
    found = dict(seer.source.signals([good, strange, long, good]))
    assert sorted(found) == [0, 1, 2, 3]
    assert [isinstance(found[at], Failure) for at in range(4)] == [False, True, True, False]
    for at in (1, 2):
        failure = found[at]
        assert isinstance(failure, Failure) and failure.reason and "\n" not in failure.reason


def test_requests_are_drawn_as_there_is_room(seer: Seer) -> None:
    """An endless queue is answered from, not read to its end."""
    drawn = count()

    def endless() -> Iterator[SignalRequest]:
        for ids, split in chain.from_iterable([TEXTS] * 10_000):
            next(drawn)
            yield SignalRequest(ids, split, next(iter(seer.widths)))

    outcomes = seer.source.signals(endless())
    assert isinstance(next(iter(outcomes))[1], SignalRecord)
    assert next(drawn) < 10_000


def test_nothing_is_asked_where_nothing_is_wanted(seer: Seer) -> None:
    assert list(seer.source.signals([])) == []
