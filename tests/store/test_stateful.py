from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from store_builders import STOP, VOCAB, make_record, make_request, open_cache

from cache.records import GenerateRequest, ScoreRequest, TeacherRecord

PROMPTS = st.integers(0, 3)
LENGTHS = st.integers(1, 5)
KS = st.sampled_from([0, 2, 4])


def completion(prompt: int, *, length: int) -> tuple[GenerateRequest, list[int], str]:
    """What the teacher would say: a fixed text of five tokens, cut by the limit."""
    text = [10 + prompt, 20 + prompt, 30 + prompt, 40 + prompt, STOP]
    request = make_request([3, 4, 5 + prompt], limit=length)
    return request, [*request.prompt_ids, *text[:length]], "stop" if length >= 5 else "length"


class StoreMachine(RuleBasedStateMachine):
    """A store, and beside it a dictionary that says what it must answer."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.cache = open_cache(self.root)
        self.other = open_cache(self.root)
        self.reach: dict[int, int] = {}
        self.best: dict[tuple[int, ...], int] = {}

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    def record(self, tokens: list[int], *, k: int, finish: str) -> TeacherRecord:
        self.best[tuple(tokens)] = max(self.best.get(tuple(tokens), 0), k)
        return make_record(tokens, prompt_len=3, k=k, finish=finish)  # type: ignore[arg-type]

    @rule(prompt=PROMPTS, length=LENGTHS, k=KS)
    def generate(self, prompt: int, length: int, k: int) -> None:
        request, tokens, finish = completion(prompt, length=length)
        self.other.put([(self.record(tokens, k=k, finish=finish), request)], vocab=VOCAB)
        self.reach[prompt] = max(self.reach.get(prompt, 0), 99 if finish == "stop" else length)

    @rule(prompt=PROMPTS, length=LENGTHS, k=st.sampled_from([2, 4]))
    def score(self, prompt: int, length: int, k: int) -> None:
        _, tokens, _ = completion(prompt, length=length)
        self.cache.put([self.record(tokens, k=k, finish="given")], vocab=VOCAB)

    @rule()
    def reopen(self) -> None:
        self.cache, self.other = self.other, open_cache(self.root)

    @rule(prompt=PROMPTS, length=LENGTHS, k=KS)
    def ask(self, prompt: int, length: int, k: int) -> None:
        self.cache.refresh()
        request, tokens, finish = completion(prompt, length=length)
        missing = self.cache.missing([request], k=k)
        if self.reach.get(prompt, 0) < length:
            assert missing.generate == (0,)
            assert self.cache.lookup([request]) == [None]
            return
        assert missing.generate == ()
        (key,) = self.cache.lookup([request])
        assert key is not None
        (found,) = self.cache.get_many([key])
        assert found is not None
        assert found.token_ids.tolist() == tokens
        assert found.finish == finish
        assert found.k >= self.best.get(tuple(tokens), 0)
        assert (missing.score == ()) == (found.k >= k)
        if missing.score:
            assert missing.score == ((0, ScoreRequest(tuple(tokens), 3)),)
            return
        view = self.cache.view([key], dataset="d", k=k)
        ((record,),) = open_cache(self.root).iter_blocks(view, [np.array([0])])
        assert record.token_ids.tolist() == tokens
        assert record.k == k

    @invariant()
    def every_sequence_is_there_once(self) -> None:
        self.cache.refresh()
        assert self.cache.stats().records == len(self.best)
        requests = [ScoreRequest(tokens, 3) for tokens in self.best]
        keys = [key for key in self.cache.lookup(requests) if key is not None]
        assert len(keys) == len(self.best)
        assert [record.k for record in self.cache.get_many(keys) if record] >= list(self.best.values())


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=12, stateful_step_count=12, deadline=None, derandomize=True)
