"""Requests to a server that is far away: in batches, several under way at once, drawn no faster than there is room."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from cache.protocols import Failure, Outcome
from cache.records import TeacherRecord
from teacher_server.requests import Asked

AskBatch = Callable[[Sequence[Asked]], Sequence[TeacherRecord | Failure]]
"""The answers to a batch, in its order. All requests of one are of one kind and ask for the same k."""

_ENDED = object()


@dataclass(frozen=True, slots=True)
class Batches:
    """How a server is asked: `ask` runs in up to `at_once` threads, each time with up to `rows` requests.

    `refusal` says why a request is not worth asking, in one line, or None.
    """

    ask: AskBatch
    refusal: Callable[[Asked], str | None]
    rows: int
    at_once: int

    def work(self, asked: Iterable[Asked | None]) -> Generator[list[Outcome], None, None]:
        """Requests of both kinds side by side; yields what each batch has brought. See `VllmEngine.work`.

        An error of `ask` ends it; batches that have not begun are not asked then.
        """
        source, places, ended = iter(asked), itertools.count(), False
        flying: dict[Future[Sequence[TeacherRecord | Failure]], list[int]] = {}
        with ThreadPoolExecutor(self.at_once, thread_name_prefix="teacher") as pool:
            try:
                while flying or not ended:
                    drawn: list[tuple[int, Asked]] = []
                    while not ended and len(flying) < self.at_once:
                        each = next(source, _ENDED)
                        ended = each is _ENDED
                        if isinstance(each, Asked):
                            place = next(places)
                            if (reason := self.refusal(each)) is not None:
                                yield [(place, Failure(reason))]
                                continue
                            drawn.append((place, each))
                        if not isinstance(each, Asked) or len(drawn) >= self.rows:
                            flying |= {pool.submit(self.ask, batch): at for batch, at in _of_one_kind(drawn)}
                            drawn = []
                        if not isinstance(each, Asked):
                            break
                    done = wait(flying, return_when=FIRST_COMPLETED).done if flying else ()
                    for batch in done:
                        yield list(zip(flying.pop(batch), batch.result(), strict=True))
            finally:
                for batch in flying:
                    batch.cancel()


def _of_one_kind(drawn: Sequence[tuple[int, Asked]]) -> Iterator[tuple[list[Asked], list[int]]]:
    """What was drawn, by kind and k, which one body has in common; with their places."""
    kinds: dict[tuple[type, int], list[tuple[int, Asked]]] = {}
    for place, asked in drawn:
        kinds.setdefault((type(asked.request), asked.k), []).append((place, asked))
    for same in kinds.values():
        yield [asked for _, asked in same], [place for place, _ in same]
