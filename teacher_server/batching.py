"""Requests to a server that is far away: in batches, several under way at once, drawn no faster than there is room."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from cache.protocols import Failure
from configs.errors import BudgetReached, EngineError

Question = TypeVar("Question")
"""What is asked; never None."""

Answer = TypeVar("Answer")


class _End:
    """What stands behind the last question."""


_ENDED = _End()
_LOOK_EVERY_S = 0.2


def kind_of_asked(asked: Any) -> Hashable:
    """Of requests for sequences (`teacher_server.requests.Asked`) one body has those of one kind and one k."""
    return type(asked.request), asked.k


@dataclass(frozen=True, slots=True)
class Batches(Generic[Question, Answer]):
    """How a server is asked: `ask` runs in up to `at_once` threads, each time with up to `rows` requests.

    It gives the answers to a batch in its order; all questions of one are of one `kind`. `refusal` says why a request
    is not worth asking, in one line, or None. Once `let_go` is set nobody waits any more. No thread keeps the process
    alive: a server that is away may be waited for long.
    """

    ask: Callable[[Sequence[Question]], Sequence[Answer]]
    refusal: Callable[[Question], str | None]
    rows: int
    at_once: int
    let_go: threading.Event = field(default_factory=threading.Event)
    kind: Callable[[Question], Hashable] = kind_of_asked

    def work(self, asked: Iterable[Question | None]) -> Generator[list[tuple[int, Answer | Failure]], None, None]:
        """Requests of all kinds side by side; yields what each batch has brought. See `VllmEngine.work`.

        An error of `ask` ends it; batches that have not begun are not asked then. Where a budget is spent those that
        are under way are waited for: they are paid.

        Raises:
            EngineError: it was let go with batches under way.
            BudgetReached: `ask` may not ask any more.
        """
        source, places, ended = iter(asked), itertools.count(), False
        flying: dict[Future[Sequence[Answer]], list[int]] = {}
        room = threading.Semaphore(self.at_once)
        spent: BudgetReached | None = None
        try:
            while flying or not ended:
                drawn: list[tuple[int, Question]] = []
                while not ended and len(flying) < self.at_once:
                    each = next(source, _ENDED)
                    ended = isinstance(each, _End)
                    if each is not None and not isinstance(each, _End):
                        place = next(places)
                        if (reason := self.refusal(each)) is not None:
                            yield [(place, Failure(reason))]
                            continue
                        drawn.append((place, each))
                    waits = each is None or ended
                    if waits or len(drawn) >= self.rows:
                        flying |= {self._send(batch, room): at for batch, at in self._of_one_kind(drawn)}
                        drawn = []
                    if waits:
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

    def _send(self, batch: Sequence[Question], room: threading.Semaphore) -> Future[Sequence[Answer]]:
        """Ask in a thread of its own as soon as there is room."""
        future: Future[Sequence[Answer]] = Future()

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

    def _landed(self, flying: Iterable[Future[Sequence[Answer]]]) -> set[Future[Sequence[Answer]]]:
        """Those that are there, one at least if any was sent."""
        waiting, done = set(flying), set[Future[Sequence[Answer]]]()
        while waiting and not done:
            if self.let_go.is_set():
                raise EngineError("a server was let go while it was asked")
            done = wait(waiting, timeout=_LOOK_EVERY_S, return_when=FIRST_COMPLETED).done
        return done

    def _of_one_kind(self, drawn: Sequence[tuple[int, Question]]) -> Iterator[tuple[list[Question], list[int]]]:
        """What was drawn, by what one body has in common; with their places."""
        kinds: dict[Hashable, list[tuple[int, Question]]] = {}
        for place, asked in drawn:
            kinds.setdefault(self.kind(asked), []).append((place, asked))
        for same in kinds.values():
            yield [asked for _, asked in same], [place for place, _ in same]
