"""One teacher that gives signals behind the door: read through its cache, asked once, written back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from cache import SignalRecord, SignalRequest, TeacherCache
from cache.protocols import Failure
from configs.errors import RecordError
from teacher_server.http.desk import Desk, KeepingTerms, log_not_kept

Reply = Sequence[SignalRecord | Failure]


class AskingSignals(Protocol):
    """Whoever really answers: a model of this process, or many of a cluster."""

    async def signals(self, requests: Sequence[SignalRequest]) -> Reply:
        """The answers to questions about one text, in their order.

        Raises:
            EngineError: an engine died of it, or with it.
        """
        ...


class SignalDesk(Desk[SignalRequest, SignalRecord]):
    """Answers about texts; what is asked about one text is read in one pass."""

    def __init__(self, cache: TeacherCache, asking: AskingSignals, terms: KeepingTerms) -> None:
        super().__init__(cache, terms)
        self._asking = asking

    def together(self, questions: Iterable[SignalRequest]) -> list[tuple[SignalRequest, ...]]:
        """See `Desk`."""
        found: dict[tuple[tuple[int, ...], int], list[SignalRequest]] = {}
        for each in questions:
            found.setdefault((each.token_ids, each.split), []).append(each)
        return [tuple(about) for about in found.values()]

    def most_tokens(self, together: Sequence[SignalRequest]) -> int:
        """See `Desk`."""
        return len(together[0].token_ids)

    def tokens(self, records: Iterable[SignalRecord]) -> int:
        """See `Desk`."""
        texts = {(record.token_ids.tobytes(), record.split): len(record.token_ids) for record in records}
        return sum(texts.values())

    def request(self, question: SignalRequest) -> SignalRequest:
        """See `Desk`."""
        return question

    def find(self, questions: Sequence[SignalRequest]) -> list[SignalRecord | None]:
        """See `Desk`."""
        store = self._cache.signals
        return store.get_many(store.keys(questions))

    async def _asked(self, together: tuple[SignalRequest, ...]) -> dict[SignalRequest, SignalRecord | Failure]:
        said = await self._insist(lambda: self._asking.signals(together))
        replies = [said] * len(together) if isinstance(said, Failure) else said
        return dict(zip(together, replies, strict=True))

    def _write(self, fresh: Mapping[SignalRequest, SignalRecord]) -> None:
        """One segment for each width."""
        by_width: dict[int, list[SignalRecord]] = defaultdict(list)
        for record in fresh.values():
            by_width[record.width].append(record)
        terms = self.terms
        for records in by_width.values():
            with self._cache.signals.writer(
                encoding=terms.encoding, provenance=terms.provenance, licence=terms.licence
            ) as writer:
                for record in records:
                    try:
                        writer.add(record)
                    except RecordError as error:
                        log_not_kept(error)
                writer.commit()
