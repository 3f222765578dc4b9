"""Which sequences an engine keeps open, and which it lets go; the engine itself is in `test_vllm_engine`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cache.records import GenerateRequest, ScoreRequest
from teacher_server.requests import Asked
from teacher_server.sessions import Sessions

PARAMS = SimpleNamespace(seed=5)


class Engine:
    """The parts of vLLM's engine that are used, which write down what they are told; a run draws token 9."""

    def __init__(self) -> None:
        self.seeds: list[tuple[str, int]] = []
        self.computed: list[tuple[str, list[int]]] = []
        self.told: list[str] = []
        self.requests: dict[str, Any] = {}
        self.waiting = 0
        self.refuses = False
        self.input_processor = self.output_processor = self.engine_core = self
        self.scheduler = self

    def get_supported_tasks(self) -> tuple[str, ...]:
        return ("generate",)

    def process_inputs(self, name: str, given: list[int], params: Any, **_: Any) -> Any:
        if self.refuses:
            raise ValueError("no")
        return SimpleNamespace(request_id=name, prompt_token_ids=given, resumable=True)

    def add_request(self, request: Any, *rest: Any) -> str:
        if isinstance(request, str):
            self.computed.append((request, rest[0]))
            return f"{request}-inner"
        if not request.resumable:
            self.told.append(request.external_req_id)
            return ""
        name = request.request_id
        self.computed.append((name, request.prompt_token_ids))
        state = self.requests.setdefault(name, SimpleNamespace(all_token_ids=[], num_computed_tokens=0))
        state.all_token_ids = [*state.all_token_ids[: state.num_computed_tokens], *request.prompt_token_ids, 9]
        state.num_computed_tokens = len(state.all_token_ids) - 1
        return ""

    def collective_rpc(self, method: Any, args: tuple[str, int]) -> None:
        self.seeds.append(args)

    def abort_requests(self, names: list[str]) -> None:
        for name in names:
            self.requests.pop(name, None)

    def get_request_counts(self) -> tuple[int, int]:
        return 0, self.waiting

    @property
    def kept(self) -> set[str]:
        return set(self.requests)


def run(prompt: tuple[int, ...], *, noise: int = 1, comes_back: bool = True) -> Asked:
    return Asked(GenerateRequest(prompt, (), 1, temperature=1.0, sampling_seed=noise), 0, comes_back=comes_back)


def ask(sessions: Sessions, name: str, asked: Asked, *, finish: str | None = "length", under_way: int = 0) -> None:
    assert isinstance(asked.request, GenerateRequest)
    sessions.hand_over(name, asked, asked.request.prompt_ids, PARAMS, under_way=under_way)
    if finish is not None:
        sessions.answered(name, asked, finish=finish)


def sessions_of(engine: Engine, *, most: int = 4, keeps: bool = True) -> Sessions:
    return Sessions(engine, as_input=list, keeps=keeps, most=most)


def test_only_what_was_added_is_computed_and_with_the_noise_of_its_run() -> None:
    engine = Engine()
    sessions = sessions_of(engine)
    ask(sessions, "a", run((1, 2, 3)))
    ask(sessions, "b", run((1, 2, 3, 9, 4)))
    ask(sessions, "c", run((1, 2, 3, 9, 4, 9, 5), comes_back=False))
    assert engine.computed == [("a", [1, 2, 3]), ("a", [9, 4]), ("a", [9, 5])]
    # The answers are each run's own.
    assert engine.told == ["a", "b", "c"]
    assert engine.seeds == [("a", 5), ("a", 5)]
    assert engine.kept == set()


@pytest.mark.parametrize("prompt", [(1, 2, 8, 9, 4), (1, 2), (1, 2, 3)])
def test_what_does_not_go_on_where_the_engine_stopped_is_asked_anew(prompt: tuple[int, ...]) -> None:
    engine = Engine()
    sessions = sessions_of(engine)
    ask(sessions, "a", run((1, 2, 3)))
    ask(sessions, "b", run(prompt))
    assert engine.computed[-1] == ("b", list(prompt)) and engine.seeds == [] and engine.kept == {"b"}


def test_a_sequence_ends_with_its_last_run_with_its_stop_and_with_its_engine_s_work() -> None:
    engine = Engine()
    sessions = sessions_of(engine)
    ask(sessions, "a", run((1,)), finish="stop")
    assert engine.kept == set()
    ask(sessions, "b", run((1,), noise=2))
    ask(sessions, "c", run((1,), noise=3), finish=None)
    sessions.end_all()
    assert engine.kept == set()


def test_those_that_rested_longest_make_room() -> None:
    engine = Engine()
    sessions = sessions_of(engine, most=3)
    for noise, name in enumerate("abc"):
        ask(sessions, name, run((1,), noise=noise))
    ask(sessions, "d", run((1, 9, 2), noise=0), finish=None)
    assert engine.kept == {"a", "b", "c"}
    scored = Asked(ScoreRequest((1, 2), 1), 4)
    assert sessions.hand_over("e", scored, (1, 2), PARAMS, under_way=1) == "e-inner"
    assert engine.kept == {"a", "c"}


def test_only_where_nothing_can_run_the_one_that_rested_longest_goes() -> None:
    engine = Engine()
    sessions = sessions_of(engine)
    ask(sessions, "a", run((1,), noise=1))
    ask(sessions, "b", run((1,), noise=2))
    engine.waiting = 2
    sessions.let_go_if_stuck()
    assert engine.kept == {"a", "b"}
    engine.waiting = 3
    sessions.let_go_if_stuck()
    assert engine.kept == {"b"}


def test_two_requests_of_one_noise_at_a_time_and_what_is_not_to_be_kept_stand_for_themselves() -> None:
    engine = Engine()
    sessions = sessions_of(engine)
    ask(sessions, "a", run((1,)), finish=None)
    ask(sessions, "b", run((1,), comes_back=False))
    ask(sessions, "c", run((1,), noise=2, comes_back=False))
    assert engine.kept == {"a"} and engine.told == ["a"]
    plain = Engine()
    ask(sessions_of(plain, keeps=False), "a", run((1,)))
    assert plain.kept == set() and plain.computed == [("a", [1])]


def test_a_refused_run_leaves_nothing() -> None:
    engine = Engine()
    sessions = sessions_of(engine)
    ask(sessions, "a", run((1,)))
    engine.refuses = True
    with pytest.raises(ValueError, match="no"):
        ask(sessions, "b", run((1, 9, 2)))
    assert engine.kept == set()
