"""The two kinds of rows of a store, by number: what writers that are killed, or run at once, are to write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from signal_builders import CLASSES, STATES, TAGS, ask, assert_same_signal, respond
from store_builders import VOCAB, answer, assert_same_text, make_request

from cache.committing import Writer
from cache.keys import generation_key
from cache.records import GenerateRequest
from cache.signals import SignalRequest
from cache.store import TeacherCache
from cache.views import CacheView

DIGITS = VOCAB - 10


def digits(number: int) -> list[int]:
    """Tokens that are of this number alone."""
    return [3, *(5 + number // DIGITS**place % DIGITS for place in (2, 1, 0))]


def numbered_request(number: int) -> GenerateRequest:
    """The request of this number, which stands in the prompt."""
    return make_request(digits(number))


def numbered_requests(first: int, count: int) -> list[GenerateRequest]:
    """The requests of so many numbers from the first on."""
    return [numbered_request(number) for number in range(first, first + count)]


class Sequences:
    """Answers to prompts, with eight log-probabilities a token."""

    name = "sequences"

    def missing(self, cache: TeacherCache, numbers: Sequence[int]) -> list[int]:
        """The numbers of which nothing is held."""
        wanted = [numbered_request(number) for number in numbers]
        return [numbers[at] for at in cache.missing(wanted, k=8).generate]

    def writer(self, cache: TeacherCache) -> Writer:
        return cache.writer(vocab=VOCAB)

    def add(self, writer: Any, number: int) -> None:
        record, request = answer(numbered_request(number))
        writer.add(record, generation_key=generation_key(writer.identity_digest, request), max_new_tokens=8)

    def keys(self, cache: TeacherCache, numbers: Sequence[int]) -> list[bytes | None]:
        """The key of each number, `None` where it is not held."""
        return cache.lookup([numbered_request(number) for number in numbers], k=8)

    def view(self, cache: TeacherCache, keys: Sequence[bytes]) -> CacheView:
        return cache.view(keys, dataset="d", k=8)

    def assert_right(self, cache: TeacherCache, numbers: Sequence[int]) -> None:
        """All of these numbers are there and are what was written."""
        keys = self.keys(cache, numbers)
        assert None not in keys, f"of {numbers} something is gone"
        records = cache.get_many([key for key in keys if key is not None])
        for number, record in zip(numbers, records, strict=True):
            assert_same_text(record, answer(numbered_request(number))[0])

    def count(self, cache: TeacherCache) -> int:
        return cache.stats().records


class Signals:
    """Class logits, tag logits and states of short texts."""

    name = "signals"

    def request(self, number: int) -> SignalRequest:
        return ask(digits(number), (CLASSES, TAGS, STATES[0])[number % 3], split=2 if number % 2 else None)

    def missing(self, cache: TeacherCache, numbers: Sequence[int]) -> list[int]:
        """The numbers of which nothing is held."""
        return [numbers[at] for at in cache.signals.missing([self.request(number) for number in numbers])]

    def writer(self, cache: TeacherCache) -> Writer:
        return cache.signals.writer()

    def add(self, writer: Any, number: int) -> None:
        writer.add(respond(self.request(number)))

    def keys(self, cache: TeacherCache, numbers: Sequence[int]) -> list[bytes | None]:
        """The key of each number, `None` where it is not held."""
        absent = set(self.missing(cache, numbers))
        found = cache.signals.keys([self.request(number) for number in numbers])
        return [None if number in absent else key for number, key in zip(numbers, found, strict=True)]

    def view(self, cache: TeacherCache, keys: Sequence[bytes]) -> CacheView:
        return cache.signals.view(keys, dataset="d")

    def assert_right(self, cache: TeacherCache, numbers: Sequence[int]) -> None:
        """All of these numbers are there and are what was written."""
        requests = [self.request(number) for number in numbers]
        for request, record in zip(requests, cache.signals.get_many(cache.signals.keys(requests)), strict=True):
            assert_same_signal(record, respond(request))

    def count(self, cache: TeacherCache) -> int:
        return cache.stats().signals


Kind = Sequences | Signals
KINDS: dict[str, Kind] = {kind.name: kind for kind in (Sequences(), Signals())}
