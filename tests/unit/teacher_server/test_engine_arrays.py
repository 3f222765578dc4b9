"""Arrays hold what lists hold, own what they hold, and are used only where a trial has shown it."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from flat_containers import Flat, V, container, logprobs
from numpy.typing import NDArray

from cache.records import GenerateRequest
from configs.errors import EngineError
from teacher_server.engine_arrays import (
    ArrayProcessor,
    EngineArrays,
    Trial,
    keep_arrays,
    keep_lists,
    unknown_version,
)
from teacher_server.flat_logprobs import FlatRows
from teacher_server.logprob_rows import LogprobRows, TopkRows, topk_rows

Step = tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int32]]


def step(table: NDArray[np.float32], targets: list[int], *, k: int) -> Step:
    """What an engine computes for these rows: the real token with its rank, then the k best."""
    best = np.argsort(-table, axis=1)[:, :k]
    ids = np.concatenate([np.array(targets)[:, None], best], axis=1).astype(np.int32)
    values = np.take_along_axis(table, ids, axis=1)
    ranks = 1 + (table > values[:, :1]).sum(axis=1)
    return ids, values, ranks.astype(np.int32)


def arrays(table: NDArray[np.float32], targets: list[int], *, k: int, steps: int = 1, start: int = 0) -> EngineArrays:
    held = EngineArrays(k + 1, start=start)
    for rows in np.array_split(np.arange(len(table)), steps):
        held.append(*step(table[rows], [targets[row] for row in rows], k=k))
    return held


def assert_equal_rows(ours: TopkRows | None, theirs: TopkRows | None) -> None:
    assert ours is not None and theirs is not None
    for name in TopkRows.__slots__:
        mine, other = getattr(ours, name), getattr(theirs, name)
        assert mine.dtype == other.dtype and mine.flags.c_contiguous and mine.flags.writeable
        np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize("steps", [1, 3, 7])
@pytest.mark.parametrize("known", [V, 9, 7])
def test_both_containers_give_the_same_rows(known: int, steps: int) -> None:
    table = logprobs(7, seed=5)
    # Among the best or not: a target stands once or twice in its row, and its rank may count unknown ids.
    order = np.argsort(-table[:, :known], axis=1)
    targets = [int(order[row, row % known]) for row in range(7)]
    k = 4 + V - known
    flat, held = FlatRows(container(table, targets, k=k)), arrays(table, targets, k=k, steps=steps)
    twice = [targets[row] in step(table, targets, k=k)[0][row, 1:] for row in range(7)]
    assert any(twice) and (known < V or not all(twice))
    asked: dict[str, Any] = {"targets": np.array(targets, dtype=np.int32), "k": 4, "vocab": known}
    assert_equal_rows(topk_rows(held, **asked), topk_rows(flat, **asked))


def test_a_prompt_is_skipped_in_both() -> None:
    table, targets = logprobs(6), [1, 2, 3, 4, 5, 6]
    flat = FlatRows(container(table, targets, k=3, empty_first=True))
    held = arrays(table, targets, k=3, steps=2, start=1)
    for first in (1, 4):
        asked: dict[str, Any] = {"targets": np.array(targets[first - 1 :], dtype=np.int32), "k": 3, "vocab": V}
        assert_equal_rows(topk_rows(held, first=first, **asked), topk_rows(flat, first=first, **asked))


def test_too_few_known_ids_give_no_rows_in_both() -> None:
    table = np.tile(np.linspace(-9, -1, V, dtype=np.float32), (2, 1))
    asked: dict[str, Any] = {"targets": np.array([0, 1], dtype=np.int32), "k": 2, "vocab": V - 3}
    assert topk_rows(arrays(table, [0, 1], k=4), **asked) is None
    assert topk_rows(FlatRows(container(table, [0, 1], k=4)), **asked) is None


def test_what_is_added_is_copied_and_cut_to_the_width_of_its_request() -> None:
    table = logprobs(2)
    ids, values, ranks = step(table, [3, 4], k=8)
    held = EngineArrays(4)
    for row in range(2):
        # One row of a step that has a wider request in it; int64 is what torch counts in.
        held.append(ids[row : row + 1], values[row : row + 1], ranks[row : row + 1].astype(np.int64))
    kept = [each.copy() for each in (ids[:, :4], values[:, :4], ranks)]
    for array in (ids, values, ranks):
        array[:] = 0
    block = held.block(first=0)
    for ours, theirs in zip((block.ids, block.logprobs, block.ranks), kept, strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype


@pytest.mark.parametrize("first", [0, 4])
def test_positions_without_rows_are_an_error(first: int) -> None:
    held: LogprobRows = arrays(logprobs(3), [1, 2, 3], k=4, start=1)
    held.block(first=3)
    with pytest.raises(EngineError, match=f"no rows of log-probabilities from position {first}"):
        held.block(first=first)


def test_rows_of_other_lengths_are_an_error() -> None:
    held = EngineArrays(6)
    held.append(*step(logprobs(3), [1, 2, 3], k=4))
    with pytest.raises(EngineError, match="not of one length"):
        held.block(first=0)


@dataclass
class Processor:
    """As vLLM's `LogprobsProcessor`, which appends what a step gave to its lists."""

    num_logprobs: int | None
    num_prompt_logprobs: int | None
    logprobs: Flat | None = None
    prompt_logprobs: Flat | None = None

    def __post_init__(self) -> None:
        if self.num_logprobs is not None:
            self.logprobs = Flat()
        if self.num_prompt_logprobs is not None:
            self.prompt_logprobs = Flat(start_indices=[0])

    def update_from_output(self, output: Any) -> None:
        if output.new_logprobs is not None:
            assert self.logprobs is not None and self.num_logprobs is not None
            _add(self.logprobs, output.new_logprobs, k=self.num_logprobs)
        if output.new_prompt_logprobs_tensors is not None:
            assert self.prompt_logprobs is not None and self.num_prompt_logprobs is not None
            _add(self.prompt_logprobs, output.new_prompt_logprobs_tensors, k=self.num_prompt_logprobs)


def _add(flat: Flat, given: Any, *, k: int) -> None:
    for ids, values, rank in zip(*(each.tolist() for each in given[:3]), strict=True):
        flat.start_indices.append(len(flat.token_ids))
        flat.token_ids += ids[: k + 1]
        flat.logprobs += values[: k + 1]
        flat.ranks += [rank, *range(1, k + 1)]


@dataclass
class Engine:
    """The part of `LLMEngine` where the states of its requests lie, and steps of known content."""

    states: dict[str, Any] = field(default_factory=dict)

    @property
    def output_processor(self) -> Any:
        return SimpleNamespace(request_states=self.states)

    def take_in(self, name: str, *, sampled: int | None, prompt: int | None) -> Any:
        self.states[name] = SimpleNamespace(logprobs_processor=Processor(sampled, prompt))
        return self.states[name]

    def step(self, name: str, *, seed: int, written: bool) -> None:
        """One row a step of what is written, three of a prompt; every step is 8 wide."""
        given = step(logprobs(1 if written else 3, seed=seed), [2] if written else [2, 3, 4], k=8)
        output = SimpleNamespace(
            new_logprobs=(*given, None) if written else None,
            new_prompt_logprobs_tensors=None if written else (*map(torch.from_numpy, given), None, None),
        )
        self.states[name].logprobs_processor.update_from_output(output)


def test_a_request_s_own_state_is_changed_and_no_other() -> None:
    engine = Engine()
    for name in ("arrays", "lists"):
        engine.take_in(name, sampled=4, prompt=3)
    keep_arrays(engine, "arrays")
    keep_lists(engine, "lists")
    for seed, written in enumerate((False, False, True, True)):
        # Prompts that come in chunks, then tokens.
        for name in engine.states:
            engine.step(name, seed=seed, written=written)
    ours, theirs = (engine.states[name].logprobs_processor for name in ("arrays", "lists"))
    assert isinstance(ours, ArrayProcessor) and isinstance(theirs, Processor)
    for held, flat, first, count, k in (
        (ours.logprobs, theirs.logprobs, 0, 2, 4),
        (ours.prompt_logprobs, theirs.prompt_logprobs, 1, 6, 3),
    ):
        assert isinstance(held, EngineArrays) and flat is not None
        targets = held.block(first=first).ids[:, 0].copy()
        assert len(targets) == count
        asked: dict[str, Any] = {"targets": targets, "k": k, "vocab": V, "first": first}
        assert_equal_rows(topk_rows(held, **asked), topk_rows(FlatRows(flat), **asked))


def test_a_request_without_log_probabilities_is_left_alone() -> None:
    engine = Engine()
    state = engine.take_in("text", sampled=None, prompt=None)
    keep_arrays(engine, "text")
    assert isinstance(state.logprobs_processor, Processor)


def test_only_versions_that_were_looked_at_are_tried() -> None:
    assert unknown_version("0.32.0") is None
    assert unknown_version("0.32.0+cu129") is None
    assert unknown_version("0.33.0") == "only the processor of 0.32.0 is known"


def run(trial: Trial) -> Engine:
    """Let a made-up engine answer the requests of a trial."""
    engine = Engine()
    for place, asked in enumerate(trial.requests):
        writes = isinstance(asked.request, GenerateRequest)
        engine.take_in(str(place), sampled=asked.k if writes else None, prompt=None if writes else asked.k)
        trial(engine, str(place))
    for seed in range(2):
        for place, asked in enumerate(trial.requests):
            engine.step(str(place), seed=10 * place + seed, written=isinstance(asked.request, GenerateRequest))
    return engine


def test_the_trial_reads_both_ways_and_gives_vllm_s_own_answers() -> None:
    trial = Trial(vocab=5, most=6)
    assert {asked.k for asked in trial.requests} == {1, 6}
    engine = run(trial)
    assert trial.verdict() is None
    for place, asked in enumerate(trial.requests):
        processor = engine.states[str(place)].logprobs_processor
        flat = processor.logprobs or processor.prompt_logprobs
        assert isinstance(flat, Flat) and len(flat.token_ids) % (asked.k + 1) == 0 and flat.token_ids


@pytest.mark.parametrize(
    ("damage", "verdict"),
    [
        ("ids", "when writing, they hold other ids"),
        ("logprobs", "when writing, they hold other logprobs"),
        ("ranks", "when writing, they hold other ranks"),
        ("lost", "when writing, they hold other ids"),
        ("narrow", "EngineError: the engine's log-probability rows are not of one length"),
        ("gone", "AttributeError: nothing of that name"),
    ],
)
def test_an_array_that_lies_is_noticed(monkeypatch: pytest.MonkeyPatch, damage: str, verdict: str) -> None:
    honest = EngineArrays.append

    def spoilt(self: EngineArrays, ids: Any, logprobs: Any, ranks: Any) -> None:
        if damage == "gone":
            raise AttributeError("nothing of that name")
        if damage == "lost" and self._ids:
            return
        if damage == "narrow":
            ids, logprobs = ids[:, :1], logprobs[:, :1]
        honest(self, ids + (damage == "ids"), logprobs + (damage == "logprobs"), ranks + (damage == "ranks"))

    monkeypatch.setattr(EngineArrays, "append", spoilt)
    trial = Trial(vocab=V, most=6)
    run(trial)
    assert trial.verdict() == verdict


def test_a_lie_about_prompts_alone_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = ArrayProcessor.update_from_output

    def spoilt(self: ArrayProcessor, output: Any) -> None:
        if (read := output.new_prompt_logprobs_tensors) is not None:
            output.new_prompt_logprobs_tensors = (*(tensor.flip(0) for tensor in read[:3]), None, None)
        honest(self, output)

    monkeypatch.setattr(ArrayProcessor, "update_from_output", spoilt)
    trial = Trial(vocab=V, most=6)
    run(trial)
    assert trial.verdict() == "when scoring, they hold other ids"


def test_a_trial_that_was_not_held_says_nothing_for_the_arrays() -> None:
    assert Trial(vocab=V, most=6).verdict() == "the engine took in 0 of 4 requests of its trial"
    trial = Trial(vocab=V, most=6)
    trial(SimpleNamespace(), "0")
    assert trial.verdict() == "AttributeError: 'types.SimpleNamespace' object has no attribute 'output_processor'"
