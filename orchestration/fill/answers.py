"""How one engine of a fill answers, and where its answers wait for a commit: sequences, or signals.

A request that cannot be answered, or whose answer cannot be kept, costs that request alone, and the reason is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Protocol

from cache import (
    CommitReport,
    GenerateRequest,
    SegmentWriter,
    SignalRecord,
    SignalRequest,
    SignalWriter,
    TeacherRecord,
)
from cache.answers import Request
from cache.disk.spending import Spent
from cache.keys import generation_key
from cache.protocols import Failure, Outcome
from configs import RecordError
from orchestration.fill.engine_loop import FillProgress, Questions, longest
from teacher_server.requests import Asked, StepwiseSource

Reply = Sequence[SignalRecord | Failure]
"""The answers to the questions about one text, in their order."""


class PassingSource(Protocol):
    """A model that hands over what each of its forward passes says, all at once (`SignalModel`)."""

    def passes(self, requests: Iterable[SignalRequest]) -> Iterator[list[tuple[int, SignalRecord | Failure]]]:
        """See `SignalModel.passes`."""
        ...


class SequenceAnswers:
    """Sequences of an engine, each with `k` log-probabilities a position, into one writer."""

    def __init__(self, engine: StepwiseSource, writer: SegmentWriter, *, k: int) -> None:
        self._engine, self._writer, self._k = engine, writer, k

    def steps(self, items: Iterator[Request]) -> Generator[list[Outcome], None, None]:
        """See `engine_loop.Answering`."""
        return self._engine.work(Asked(request, self._k) for request in items)

    def take(self, item: Request, said: TeacherRecord | Failure) -> FillProgress:
        """See `engine_loop.Answering`."""
        took = FillProgress(settled_tokens=longest(item))
        if isinstance(said, Failure):
            took.failures.append((0, said.reason))
            return took
        took.forward_tokens = len(said.token_ids)
        try:
            if isinstance(item, GenerateRequest):
                key = generation_key(self._writer.identity_digest, item)
                self._writer.add(said, generation_key=key, max_new_tokens=item.max_new_tokens)
            else:
                self._writer.add(said)
        except RecordError as error:
            took.failures.append((0, str(error)))
            return took
        took.rows, took.response_tokens = 1, said.response_len
        return took

    @property
    def pending_rows(self) -> int:
        """See `engine_loop.Answering`."""
        return self._writer.pending_rows

    def due(self, commit_every_s: float) -> bool:
        """See `engine_loop.Answering`."""
        return self._writer.due(commit_every_s)

    def commit(self, spent: Spent) -> Iterator[CommitReport]:
        """See `engine_loop.Answering`."""
        report = self._writer.commit(spent)
        if report is not None:
            yield report


class SignalAnswers:
    """Signals of a model. A segment has one width, so each width has a writer of its own, which `writer` makes.

    The tokens of a text are counted once, however many signals are asked of it: they cost one forward pass.
    """

    def __init__(self, model: PassingSource, writer: Callable[[], SignalWriter]) -> None:
        self._model, self._new_writer = model, writer
        self._writers: dict[int, SignalWriter] = {}

    def steps(self, items: Iterator[Questions]) -> Generator[list[tuple[int, Reply]], None, None]:
        """See `engine_loop.Answering`."""
        # By the place of its item: where the first question of it stands among all, and what is not answered yet.
        owner: dict[int, tuple[int, int]] = {}
        open_replies: dict[int, tuple[list[SignalRecord | Failure | None], int]] = {}

        def asked() -> Iterator[SignalRequest]:
            number = 0
            for place, questions in enumerate(items):
                open_replies[place] = ([None] * len(questions), len(questions))
                for offset, request in enumerate(questions):
                    owner[number] = (place, offset)
                    number += 1
                    yield request

        for finished in self._model.passes(asked()):
            whole: list[tuple[int, Reply]] = []
            for number, outcome in finished:
                place, offset = owner.pop(number)
                reply, left = open_replies.pop(place)
                reply[offset] = outcome
                if left > 1:
                    open_replies[place] = (reply, left - 1)
                else:
                    whole.append((place, [one for one in reply if one is not None]))
            yield whole

    def take(self, item: Questions, said: Reply) -> FillProgress:
        """See `engine_loop.Answering`."""
        took = FillProgress(settled_tokens=longest(item))
        for offset, outcome in enumerate(said):
            if isinstance(outcome, Failure):
                took.failures.append((offset, outcome.reason))
                continue
            took.forward_tokens = len(outcome.token_ids)
            try:
                self._writer(outcome.width).add(outcome)
            except RecordError as error:
                took.failures.append((offset, str(error)))
                continue
            took.rows += 1
        return took

    @property
    def pending_rows(self) -> int:
        """See `engine_loop.Answering`."""
        return sum(writer.pending_rows for writer in self._writers.values())

    def due(self, commit_every_s: float) -> bool:
        """See `engine_loop.Answering`."""
        # As a list, because another thread may add a writer.
        return any(writer.due(commit_every_s) for writer in list(self._writers.values()))

    def commit(self, spent: Spent) -> Iterator[CommitReport]:
        """See `engine_loop.Answering`; what was spent is shared by rows."""
        rows = self.pending_rows
        for writer in self._writers.values():
            report = writer.commit(spent.share(writer.pending_rows, of=rows))
            if report is not None:
                yield report

    def _writer(self, width: int) -> SignalWriter:
        if width not in self._writers:
            self._writers[width] = self._new_writer()
        return self._writers[width]
