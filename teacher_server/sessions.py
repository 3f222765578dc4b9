"""Sequences that an engine keeps open, to go on where it stopped.

A sequence that two models write in turn comes back to an engine again and again, a few tokens longer each time. A
request is over once it is answered, and of what was computed for it only whole KV blocks are found again: on a CPU,
what is computed a second time takes longer than what is written. vLLM can keep a request open whose input goes on later
("resumable", vllm/v1/core/sched/scheduler.py): its KV blocks stay, and what was added is all that is computed.

For whoever asks nothing changes. Each run of tokens is a request with an answer and noise of its own, and an engine
that has let a sequence go computes all of it again. vLLM's scheduler is told of one request that grows, its output side
of one request a run. That takes private names of vLLM, so it is done with versions that were looked at.
See docs/decisions/0061-open-sequences.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

from cache.records import GenerateRequest
from teacher_server.requests import Asked


@dataclass(slots=True)
class _Open:
    """A sequence in the scheduler, by the name of its first run; `run` is the one under way, None between two."""

    name: str
    run: str | None = None


class Sessions:
    """Hands requests to one engine, and keeps the sequences open that come back.

    Args:
        engine: A `vllm.v1.LLMEngine` whose scheduler lives in this process.
        as_input: Makes of token ids what the engine takes.
        keeps: Whether sequences are kept open at all; else each request stands for itself.
        most: Sequences that may be open or under way at once: the engine has room for the KV blocks of so many.
    """

    def __init__(self, engine: Any, *, as_input: Callable[[list[int]], Any], keeps: bool, most: int) -> None:
        self._engine, self._as_input, self._keeps, self._most = engine, as_input, keeps, most
        # By the noise of who writes a sequence, which all of its runs share; whoever was asked last stands last.
        self._open: dict[int, _Open] = {}

    def hand_over(self, name: str, asked: Asked, prompt: Sequence[int], params: Any, *, under_way: int) -> str:
        """Hand a request to the engine beside those that are under way; returns the engine's own name of it.

        `params` are `vllm.SamplingParams`.

        Raises:
            ValueError: the engine refuses the request; nothing of it is left.
        """
        noise = self._noise_of_run(asked)
        if noise is not None:
            return self._hand_over_run(name, noise, list(prompt), params, under_way=under_way)
        self._make_room(under_way)
        taken: str = self._engine.add_request(name, self._as_input(list(prompt)), params)
        return taken

    def answered(self, name: str, asked: Asked, *, finish: str | None) -> None:
        """A request is over: if it was a run, its sequence rests until it comes back, or ends."""
        if not isinstance(asked.request, GenerateRequest):
            return
        session = self._open.get(asked.request.sampling_seed)
        if session is None or session.run != name:
            return
        session.run = None
        if not asked.comes_back or finish != "length":
            self._end(asked.request.sampling_seed)

    def let_go_if_stuck(self) -> None:
        """Let go of the sequence that has rested longest where nothing can run: it holds the KV blocks that lack."""
        running, waiting = self._scheduler.get_request_counts()
        resting = self._resting()
        if resting and running == 0 and waiting > len(resting):
            self._end(resting[0])

    def end_all(self) -> None:
        """Let go of every sequence."""
        for noise in list(self._open):
            self._end(noise)

    def _noise_of_run(self, asked: Asked) -> int | None:
        """The noise of a sequence that comes back, or has, if a request is a run of one."""
        if not self._keeps or not isinstance(asked.request, GenerateRequest) or asked.request.grammar:
            return None
        noise = asked.request.sampling_seed
        session = self._open.get(noise)
        is_run = asked.comes_back if session is None else session.run is None
        return noise if is_run else None

    def _hand_over_run(self, name: str, noise: int, prompt: list[int], params: Any, *, under_way: int) -> str:
        held = self._held(noise, prompt)
        if not held:
            self._end(noise)
        session = self._open[noise] = self._open.pop(noise, _Open(name))
        session.run = name
        self._make_room(under_way)
        try:
            given = self._engine.input_processor.process_inputs(
                session.name,
                self._as_input(prompt[held:]),
                params,
                supported_tasks=self._engine.get_supported_tasks(),
                resumable=True,
            )
        except ValueError:
            self._end(noise)
            raise
        if held and params.seed is not None:
            self._engine.collective_rpc(_draw_from, args=(session.name, params.seed))
        given.external_req_id = name
        # A list of its own: both sides would extend the same one.
        answered = copy(given)
        answered.resumable, answered.prompt_token_ids = False, prompt[held:]
        self._engine.output_processor.add_request(answered, None, None, 0)
        self._engine.engine_core.add_request(given)
        return session.name

    def _make_room(self, under_way: int) -> None:
        """Let go of the sequences that have rested longest, so that one more has room beside those under way."""
        resting = self._resting()
        for noise in resting[: max(0, under_way + len(resting) + 1 - self._most)]:
            self._end(noise)

    @property
    def _scheduler(self) -> Any:
        return self._engine.engine_core.engine_core.scheduler

    def _resting(self) -> list[int]:
        return [noise for noise, each in self._open.items() if each.run is None]

    def _end(self, noise: int) -> None:
        if (session := self._open.pop(noise, None)) is not None:
            self._engine.engine_core.abort_requests([session.name])

    def _held(self, noise: int, prompt: list[int]) -> int:
        """Tokens of a prompt that the engine has computed for its sequence; 0 where it does not go on with one."""
        session = self._open.get(noise)
        if session is None:
            return 0
        state = self._scheduler.requests.get(session.name)
        if state is None:
            return 0
        held = int(state.num_computed_tokens)
        goes_on = held < len(prompt) and list(state.all_token_ids[:held]) == prompt[:held]
        return held if goes_on else 0


def _draw_from(worker: Any, name: str, seed: int) -> None:
    """Let what a worker draws for an open sequence come from the seed of its next run, as if it was asked anew."""
    worker.model_runner.requests[name].generator.manual_seed(seed)
