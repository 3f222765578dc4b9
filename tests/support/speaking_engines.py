"""A pool of engines that says what functions say, and fills a cache with it as real ones do."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from local_engines import lease_queue

from cache import GenerateRequest, TeacherCache, TeacherIdentity, TeacherRecord
from cache.answers import Request
from cache.keys import sequence_key
from cache.protocols import Failure, Outcome
from orchestration.fill.answers import SequenceAnswers
from orchestration.fill.engine_loop import EngineLoop, FillOrder, FillProgress
from orchestration.inputs.models import ModelFiles
from teacher_server.requests import Asked


@dataclass(slots=True)
class Speaker:
    """One teacher that writes `says` of a prompt, and finds every token of a continuation as likely as `likes` says of
    both; what is None is refused. `called` gets a line for what the pool is told to do."""

    files: ModelFiles
    identity: TeacherIdentity
    says: Callable[[str], str | None] = lambda prompt: ""
    likes: Callable[[str, str], float | None] = lambda prompt, more: -1.0
    asked: list[Request] = field(default_factory=list)
    called: list[str] = field(default_factory=list)

    def check(self, prompts: Sequence[Any], *, stop_ids: Any, bos_id: Any, reference: Any) -> None:
        self.called.append(f"check {len(prompts)}")

    def release(self) -> None:
        self.called.append("release")

    def fill(
        self,
        work: Iterable[tuple[int, Request]],
        order: FillOrder,
        *,
        progress: Any,
        token_budget: int | None,
        seconds_budget: float | None,
    ) -> FillProgress:
        items = list(work)
        self.called.append(f"fill {len(items)}")
        queue = lease_queue(items, token_budget=token_budget)
        cache = TeacherCache.open(order.cache_root, self.identity)
        with cache.writer(vocab=self.files.vocab, encoding=order.encoding) as writer:
            EngineLoop(queue, order, SequenceAnswers(self, writer, k=order.k)).work()
        done: FillProgress = queue.progress()
        return done

    def work(self, asked: Iterable[Asked | None]) -> Generator[list[Outcome], None, None]:
        for place, each in enumerate(asked):
            assert each is not None
            self.asked.append(each.request)
            yield [(place, self._answer(each.request))]

    def _answer(self, request: Request) -> TeacherRecord | Failure:
        tokenizer, identity = self.files.tokenizer, self.identity.digest()
        if isinstance(request, GenerateRequest):
            said = self.says(tokenizer.decode(request.prompt_ids))
            if said is None:
                return Failure("too long")
            answer = [*tokenizer.encode(said), tokenizer.eos_token_id][: request.max_new_tokens]
            ids, prompt_len = np.array([*request.prompt_ids, *answer], np.int32), len(request.prompt_ids)
            finish: Any = "stop" if answer[-1] == tokenizer.eos_token_id else "length"
            return TeacherRecord(sequence_key(identity, ids, prompt_len), ids, prompt_len, finish, "decode")
        ids, prompt_len = np.array(request.token_ids, np.int32), request.prompt_len
        liked = self.likes(*(tokenizer.decode(part) for part in (ids[:prompt_len], ids[prompt_len:])))
        if liked is None:
            return Failure("too long")
        rows = len(ids) - prompt_len
        return TeacherRecord(
            sequence_key(identity, ids, prompt_len), ids, prompt_len, "given", "prefill",
            topk_ids=ids[prompt_len:, None], topk_logprobs=np.full((rows, 1), liked, np.float32),
            tail_logmass=np.full(rows, math.log(-math.expm1(liked)), np.float32),
            target_logprobs=np.full(rows, liked, np.float32), target_ranks=np.ones(rows, np.int32),
        )  # fmt: skip
