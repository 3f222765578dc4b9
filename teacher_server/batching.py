"""Requests to a server that is far away: in batches, several under way at once, drawn no faster than there is room."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field

from cache.protocols import Failure, Outcome
from cache.records import TeacherRecord
from configs.errors import BudgetReached, EngineError
from teacher_server.requests import Asked

AskBatch = Callable[[Sequence[Asked]], Sequence[TeacherRecord | Failure]]
"""The answers to a batch, in its order. All requests of one are of one kind and ask for the same k."""

Answers = Future[Sequence[TeacherRecord | Failure]]
"""Those of a batch that is under way."""

_ENDED = object()
_LOOK_EVERY_S = 0.2


@dataclass(frozen=True, slots=True)
class Batches:
    """How a server is asked: `ask` runs in up to `at_once` threads, each time with up to `rows` requests.

    `refusal` says why a request is not worth asking, in one line, or None. Once `let_go` is set nobody waits any more.
    No thread keeps the process alive: a server that is away may be waited for long.
    """

    ask: AskBatch
    refusal: Callable[[Asked], str | None]
    rows: int
    at_once: int
    let_go: threading.Event = field(default_factory=threading.Event)

    def work(self, asked: Iterable[Asked | None]) -> Generator[list[Outcome], None, None]:
        """Requests of both kinds side by side; yields what each batch has brought. See `VllmEngine.work`.

        An error of `ask` ends it; batches that have not begun are not asked then. Where a budget is spent those that
        are under way are waited for: they are paid.

        Raises:
            EngineError: it was let go with batches under way.
            BudgetReached: `ask` may not ask any more.
        """
        source, places, ended = iter(asked), itertools.count(), False
        flying: dict[Answers, list[int]] = {}
        room = threading.Semaphore(self.at_once)
        spent: BudgetReached | None = None
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
                        flying |= {self._send(batch, room): at for batch, at in _of_one_kind(drawn)}
                        drawn = []
                    if not isinstance(each, Asked):
                        break
                for batch in self._landed(flying):
                    at = flying.pop(batch)
                    try:
                        answers = batch.result()
                    except BudgetReached as error:
                        spent, ended = error, True
                        continue
                    yield list(zip(at, answers, strict=True))
            if spent is not None:
                raise spent
        finally:
            for batch in flying:
                batch.cancel()

    def _send(self, batch: Sequence[Asked], room: threading.Semaphore) -> Answers:
        """Ask in a thread of its own as soon as there is room."""
        future: Answers = Future()

        def ask() -> None:
            with room:
                if not future.set_running_or_notify_cancel():
                    return
                try:
                    future.set_result(self.ask(batch))
                except BaseException as error:  # noqa: BLE001 (whatever it is, it is handed to whoever asked)
                    future.set_exception(error)

        threading.Thread(target=ask, name="teacher", daemon=True).start()
        return future

    def _landed(self, flying: Iterable[Answers]) -> set[Answers]:
        """Those that are there, one at least if any was sent."""
        waiting, done = set(flying), set[Answers]()
        while waiting and not done:
            if self.let_go.is_set():
                raise EngineError("a server was let go while it was asked")
            done = wait(waiting, timeout=_LOOK_EVERY_S, return_when=FIRST_COMPLETED).done
        return done


def _of_one_kind(drawn: Sequence[tuple[int, Asked]]) -> Iterator[tuple[list[Asked], list[int]]]:
    """What was drawn, by kind and k, which one body has in common; with their places."""
    kinds: dict[tuple[type, int], list[tuple[int, Asked]]] = {}
    for place, asked in drawn:
        kinds.setdefault((type(asked.request), asked.k), []).append((place, asked))
    for same in kinds.values():
        yield [asked for _, asked in same], [place for place, _ in same]
