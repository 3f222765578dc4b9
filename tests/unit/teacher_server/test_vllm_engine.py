"""The real engine on a tiny model: the conformance suite, and agreement with transformers.

One engine is started for the whole file. The last two tests break and close it, so they stand at the end.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conformance import *  # noqa: F403
from conformance import PROMPTS, Subject, greedy, present, records, tokens
from engine_checks import check_engine
from engine_process import EngineProcess, abandoned_shared_memory
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_tensors
from tiny_llama import MATRIX_ROWS, VOCAB, full_logprobs, save_tiny_llama

from cache.identity import TeacherIdentity
from cache.keys import sequence_key
from cache.protocols import Failure
from cache.records import GenerateRequest, ScoreRequest, TeacherRecord
from configs.errors import EngineError, ModelError
from configs.schema import EngineSettings
from orchestration.rollouts.turns import Turns
from teacher_server.requests import Asked

pytestmark = pytest.mark.engine

SETTINGS = EngineSettings(cpus=1, max_model_len=192, max_batched_tokens=192, max_sequences=4, kv_cache_gib=0.05)
IDENTITY = TeacherIdentity(weights_sha256="a" * 64, config_sha256="b" * 64, dtype="float32")
OTHER = TeacherIdentity(weights_sha256="c" * 64, config_sha256="b" * 64, dtype="float32")
NEAR = 2e-2


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("models")
    first, second = (save_tiny_llama(root / str(seed), seed=seed, tied=True) for seed in (0, 1))
    return first, second


@pytest.fixture(scope="module")
def shared_memory() -> set[str]:
    return abandoned_shared_memory()


@pytest.fixture(scope="module")
def engine(models: tuple[Path, Path], shared_memory: set[str]) -> Iterator[EngineProcess]:
    engine = EngineProcess(models[0], identity=IDENTITY, settings=SETTINGS, vocab=VOCAB, seed=11, max_logprobs=VOCAB)
    yield engine
    engine.close()
    if engine.process.is_alive():
        engine.process.kill()


@pytest.fixture
def subject(engine: EngineProcess) -> Subject:
    return Subject(
        source=engine,
        vocab=VOCAB,
        max_sequences=SETTINGS.max_sequences,
        max_model_len=SETTINGS.max_model_len,
        tolerance=NEAR,
    )


def sequence() -> tuple[int, ...]:
    return tuple(int(token) for token in np.random.default_rng(5).integers(3, VOCAB, size=60))


def assert_rows_are_the_model_s(engine: EngineProcess, model_dir: Path, *, k: int) -> None:
    """Scores of one sequence equal the float32 forward pass; ids beyond the vocabulary are folded into the tail."""
    given, prompt_len = sequence(), 7
    [record] = records(engine.score([ScoreRequest(given, prompt_len)], k=k))
    truth = full_logprobs(model_dir, given)[prompt_len - 1 :]
    known = truth[:, :VOCAB]
    targets = np.array(given[prompt_len:])[:, None]
    best = np.argsort(-known, axis=1)[:, :k]
    assert int(present(record.topk_ids).max()) < VOCAB
    np.testing.assert_allclose(
        present(record.target_logprobs), np.take_along_axis(truth, targets, axis=1)[:, 0], atol=NEAR
    )
    np.testing.assert_allclose(present(record.topk_logprobs), np.take_along_axis(known, best, axis=1), atol=NEAR)
    np.testing.assert_allclose(
        np.take_along_axis(truth, present(record.topk_ids), axis=1), present(record.topk_logprobs), atol=NEAR
    )
    head = np.exp(np.take_along_axis(known, best, axis=1).astype(np.float64)).sum(axis=1)
    np.testing.assert_allclose(np.exp(present(record.tail_logmass).astype(np.float64)), 1 - head, atol=2e-3)
    ranks = 1 + (known > np.take_along_axis(known, targets, axis=1)).sum(axis=1)
    assert np.abs(present(record.target_ranks) - ranks).max() <= MATRIX_ROWS - VOCAB


@pytest.mark.parametrize("k", [1, 8, 120])
def test_scores_are_those_of_transformers(engine: EngineProcess, models: tuple[Path, Path], k: int) -> None:
    assert_rows_are_the_model_s(engine, models[0], k=k)


def test_ids_beyond_the_tokenizer_would_have_been_among_the_best(models: tuple[Path, Path]) -> None:
    truth = full_logprobs(models[0], sequence())
    assert (np.argsort(-truth, axis=1)[:, :120] >= VOCAB).any()


def test_written_rows_are_those_of_transformers(engine: EngineProcess, models: tuple[Path, Path]) -> None:
    for record in records(engine.generate([greedy(prompt, new=16) for prompt in PROMPTS], k=8)):
        truth = full_logprobs(models[0], tokens(record))[record.prompt_len - 1 :]
        np.testing.assert_allclose(
            present(record.target_logprobs),
            np.take_along_axis(truth, record.response_ids[:, None], axis=1)[:, 0],
            atol=NEAR,
        )
        np.testing.assert_allclose(present(record.topk_logprobs), -np.sort(-truth[:, :VOCAB], axis=1)[:, :8], atol=NEAR)


def test_sampling_follows_the_model_s_distribution(engine: EngineProcess, models: tuple[Path, Path]) -> None:
    draws = 400
    requests = [GenerateRequest(PROMPTS[0], (), 1, temperature=1.0, replicate=each) for each in range(draws)]
    drawn = np.array([record.response_ids[0] for record in records(engine.generate(requests, k=0))])
    probs = np.exp(full_logprobs(models[0], (*PROMPTS[0], 3))[-1])
    best = int(probs.argmax())
    spread = float(np.sqrt(probs[best] * (1 - probs[best]) / draws))
    assert abs(float((drawn == best).mean()) - float(probs[best])) < 4 * spread
    assert len(set(drawn.tolist())) > 1


def test_new_weights_take_the_place_of_the_old(engine: EngineProcess, models: tuple[Path, Path]) -> None:
    # A prompt longer than a KV block, so a prefix cache that outlived its weights would show.
    asked = greedy(tuple(5 + place % 90 for place in range(150)), new=8)
    [before] = records(engine.generate([asked], k=4))
    engine.load(models[1], identity=OTHER)
    try:
        assert_rows_are_the_model_s(engine, models[1], k=8)
        [after] = records(engine.generate([asked], k=4))
        truth = full_logprobs(models[1], tokens(after))[after.prompt_len - 1 :]
        np.testing.assert_allclose(present(after.topk_logprobs), -np.sort(-truth[:, :VOCAB], axis=1)[:, :4], atol=NEAR)
        assert after.key == sequence_key(OTHER.digest(), tokens(after), after.prompt_len)
        assert tokens(after) != tokens(before)
    finally:
        engine.load(models[0], identity=IDENTITY)
    [again] = records(engine.generate([asked], k=4))
    assert (again.key, tokens(again)) == (before.key, tokens(before))


def test_checksums_are_those_of_the_weights_in_the_engine(engine: EngineProcess, models: tuple[Path, Path]) -> None:
    before = engine.checksums()
    [path] = models[0].glob("*.safetensors")
    saved = load_file(path)
    # These two are held as they were saved; the packed one is read back exactly.
    for held, name in (
        ("norm.weight", "norm.weight"),
        ("layers.1.mlp.down_proj.packed", "layers.1.mlp.down_proj.weight"),
    ):
        assert before[f"0.model.{held}"] == hashlib.sha256(saved[f"model.{name}"].tobytes()).hexdigest()
    assert engine.checksums() == before
    engine.load(models[1], identity=OTHER)
    changed = engine.checksums()
    engine.load(models[0], identity=IDENTITY)
    assert {name for name in before if changed[name] == before[name]} == {name for name in before if "norm" in name}
    assert engine.checksums() == before


@dataclass(frozen=True, slots=True)
class Sent:
    """Tensors of a model in another order, up to one that is missing."""

    model_dir: Path
    missing: str = ""

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(tensor.shape) for name, tensor in self._tensors().items()}

    def __call__(self, process: int, device: torch.device) -> Iterator[tuple[str, torch.Tensor]]:
        assert process == 0
        for name, tensor in reversed(self._tensors().items()):
            if name == self.missing:
                raise RuntimeError("the sender is gone")
            yield name, tensor.to(device)

    def _tensors(self) -> dict[str, torch.Tensor]:
        return load_tensors(self.model_dir / "model.safetensors")


def test_weights_that_are_sent_are_those_that_a_directory_gives(
    engine: EngineProcess, models: tuple[Path, Path]
) -> None:
    engine.load(models[1], identity=OTHER)
    loaded = engine.checksums()
    engine.load(models[0], identity=IDENTITY)
    sent = Sent(models[1])
    engine.receive(sent, shapes=sent.shapes(), identity=OTHER)
    try:
        assert engine.checksums() == loaded
        assert_rows_are_the_model_s(engine, models[1], k=8)
        fewer = dict(list(sent.shapes().items())[1:])
        with pytest.raises(ModelError, match=r"the weights that were sent: tensor .* has shape None"):
            engine.receive(sent, shapes=fewer, identity=IDENTITY)
        assert engine.checksums() == loaded
    finally:
        engine.load(models[0], identity=IDENTITY)


def test_it_works_in_turns_on_both_kinds_of_requests(engine: EngineProcess) -> None:
    short, long = (Asked(greedy(PROMPTS[0], new=new), 1) for new in (2, 40))
    first = dict(engine.turn([(7, short), (9, long), (8, Asked(ScoreRequest(sequence(), 7), 4))], leave=1))
    assert sorted(first) == [7, 8]
    assert {tag: len(record.response_ids) for tag, record in first.items()} == {7: 2, 8: 53}
    with pytest.raises(EngineError, match="serves another call"):
        engine.checksums()
    last = dict(engine.turn([(3, short)], leave=0))
    assert sorted(last) == [3, 9]
    assert tokens(last[9])[: len(tokens(last[3]))] == tokens(last[3]) == tokens(first[7])
    engine.turn([(1, long), (2, short)], leave=1)
    engine.finish()
    assert [tag for tag, _ in engine.turn([(5, short)], leave=0)] == [5]
    engine.finish()


def in_runs(
    engine: Any, *, count: int, comes_back: bool, runs: int = 4, most: int | None = None
) -> tuple[list[list[int]], int, int]:
    """Sequences that are drawn two tokens at a time, with a token of somebody else behind each run.

    Their tokens, the number of tokens that the engine computed, and of requests that it holds afterwards.
    """
    scheduler = engine._engine.engine_core.engine_core.scheduler
    turns, computed = Turns(engine), 0

    def schedule(*arguments: Any, **named: Any) -> Any:
        nonlocal computed
        step = honest(*arguments, **named)
        computed += step.total_num_scheduled_tokens
        return step

    with pytest.MonkeyPatch.context() as patch:
        honest = scheduler.schedule
        patch.setattr(scheduler, "schedule", schedule)
        if most is not None:
            patch.setattr(engine._sessions, "_most", most)
        texts = [[*range(5, 20), 20 + number % 60] for number in range(count)]
        for left in reversed(range(runs)):
            asked = [
                (number, Asked(run_of(text, number=number), 1, comes_back=comes_back and left > 0))
                for number, text in enumerate(texts)
            ]
            for number, record in turns.turn(asked, leave=0):
                # A model that knows nothing may write an id that the tokenizer does not have.
                if isinstance(record, TeacherRecord):
                    texts[number] = [*record.token_ids.tolist(), 7]
        held = len(scheduler.requests)
        turns.finish()
    return texts, computed, held + len(scheduler.requests)


def run_of(text: list[int], *, number: int) -> GenerateRequest:
    return GenerateRequest(tuple(text), (), 2, temperature=1.0, sampling_seed=1000 + number)


@pytest.mark.parametrize(("count", "let_go"), [(SETTINGS.max_sequences, False), (SETTINGS.max_sequences + 2, True)])
def test_a_sequence_that_comes_back_is_computed_once_and_draws_what_it_would_have(
    engine: EngineProcess, count: int, let_go: bool
) -> None:
    anew, again, _ = engine.inside(partial(in_runs, count=count, comes_back=False))
    engine.inside(forget_prefixes)
    kept, once, held = engine.inside(partial(in_runs, count=count, comes_back=True))
    assert kept == anew and len({tuple(text[16:]) for text in kept}) == count
    assert held == 0
    # Nobody has computed the last token that was drawn, nor the one behind it.
    least = sum(len(text) - 2 for text in kept)
    assert again >= once > least if let_go else again > once == least


def forget_prefixes(engine: Any) -> None:
    engine.forget_prefixes()


def test_sequences_that_rest_on_all_blocks_give_way(engine: EngineProcess) -> None:
    count = engine.inside(blocks_of) + 20
    _, computed, _ = engine.inside(partial(in_runs, count=count, comes_back=True, runs=2, most=10 * count))
    assert computed > count * 16


def blocks_of(engine: Any) -> int:
    return int(engine._engine.engine_core.engine_core.scheduler.kv_cache_manager.block_pool.num_gpu_blocks)


def test_a_model_of_another_shape_is_refused_and_changes_nothing(
    engine: EngineProcess, models: tuple[Path, Path], tmp_path: Path
) -> None:
    deeper = save_tiny_llama(tmp_path / "deeper", seed=0, layers=3)
    with pytest.raises(ModelError, match="num_hidden_layers=3"):
        engine.load(deeper, identity=OTHER)
    assert_rows_are_the_model_s(engine, models[0], k=8)


def test_the_startup_check_passes_on_the_right_model_alone(engine: EngineProcess, models: tuple[Path, Path]) -> None:
    for agreement in check_engine(engine, model_dir=models[0], prompts=PROMPTS[:3:2], expected_bos=1):
        assert agreement.mean_nats < NEAR and agreement.top1 > 0.9
    with pytest.raises(EngineError, match="not the model that transformers loads"):
        check_engine(engine, model_dir=models[1], prompts=PROMPTS[:3:2])


def test_a_grammar_is_refused_where_none_are_read_and_the_engine_goes_on(engine: EngineProcess) -> None:
    held = GenerateRequest(PROMPTS[0], (), 4, grammar='start: "a"')
    [(_, refused), (_, answered)] = engine.generate([held, greedy(PROMPTS[0], new=4)], k=0)
    assert refused == Failure("it reads no grammars") and isinstance(answered, TeacherRecord)


def test_it_listens_on_the_loopback_alone_and_has_no_children(engine: EngineProcess) -> None:
    sockets = engine.sockets()
    assert set(sockets.listening) <= {"127.0.0.1", "::1"}
    assert sockets.children == ()


def test_it_says_what_it_is(engine: EngineProcess, models: tuple[Path, Path]) -> None:
    described = engine.describe()
    assert described["model_dir"] == str(models[0])
    assert described["identity"] == IDENTITY.digest()


def read_through_lists(engine: Any) -> None:
    from teacher_server.engine_arrays import keep_lists

    engine._reading = keep_lists


def tried_again(engine: Any) -> tuple[str, list[str]]:
    """The trial of an engine's start once more: how it reads from then on, and what it warned of."""
    heard: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger("teacher_server")
    log.addHandler(handler)
    try:
        engine._choose_reading()
    finally:
        log.removeHandler(handler)
    return engine.describe()["logprobs"], heard


def tried_with_an_array_that_lies(engine: Any) -> tuple[str, list[str]]:
    from teacher_server.engine_arrays import EngineArrays

    def spoilt(self: EngineArrays, ids: Any, logprobs: Any, ranks: Any) -> None:
        honest(self, ids[:, ::-1], logprobs, ranks)

    with pytest.MonkeyPatch.context() as patch:
        honest = EngineArrays.append
        patch.setattr(EngineArrays, "append", spoilt)
        return tried_again(engine)


def tried_with_another_version(engine: Any) -> tuple[str, list[str]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vllm.__version__", "0.33.1")
        return tried_again(engine)


def answers(engine: EngineProcess) -> list[TeacherRecord]:
    """Of writing and scoring with several numbers of log-probabilities side by side, in the order that was asked."""
    asked = [(3, Asked(greedy(PROMPTS[0], new=9), 5)), (1, Asked(ScoreRequest(sequence(), 7), 120))]
    asked += [(0, Asked(greedy(PROMPTS[2], new=12), 1)), (2, Asked(greedy(PROMPTS[1], new=6), 0))]
    found = dict(engine.turn(asked, leave=0))
    engine.finish()
    return [found[tag] for tag in sorted(found)]


def test_arrays_are_kept_and_hold_what_lists_hold(engine: EngineProcess) -> None:
    """The tests before this one were about arrays, then; a request of a step is not as wide as the next."""
    assert engine.describe()["logprobs"] == "arrays"
    as_arrays = answers(engine)
    engine.inside(read_through_lists)
    try:
        as_lists = answers(engine)
    finally:
        assert engine.inside(tried_again) == ("arrays", [])
    assert [record.k for record in as_arrays] == [1, 120, 0, 5]
    for ours, theirs in zip(as_arrays, as_lists, strict=True):
        for name in TeacherRecord.__slots__:
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


@pytest.mark.parametrize(
    ("tried", "reason"),
    [
        (tried_with_an_array_that_lies, r"vllm 0\.32\.0.*: when writing, they hold other ids"),
        (tried_with_another_version, r"vllm 0\.33\.1: .* only the processor of 0\.32\.0 is known"),
    ],
)
def test_arrays_that_cannot_be_trusted_are_not_used(engine: EngineProcess, tried: Any, reason: str) -> None:
    used, [warning] = engine.inside(tried)
    try:
        assert used == "lists"
        assert re.match(reason, warning)
        assert [record.k for record in answers(engine)] == [1, 120, 0, 5]
    finally:
        assert engine.inside(tried_again) == ("arrays", [])


@pytest.mark.slow
def test_an_engine_whose_new_weights_came_in_part_refuses_everything(models: tuple[Path, Path]) -> None:
    engine = EngineProcess(models[0], identity=IDENTITY, settings=SETTINGS, vocab=VOCAB, seed=11, max_logprobs=VOCAB)
    sent = Sent(models[1], missing="model.layers.0.mlp.up_proj.weight")
    try:
        with pytest.raises(EngineError, match="it died of RuntimeError: the sender is gone"):
            engine.receive(sent, shapes=sent.shapes(), identity=OTHER)
        for later in (engine.checksums, lambda: list(engine.generate([greedy(PROMPTS[0])], k=2))):
            with pytest.raises(EngineError, match="cannot be used: it died"):
                later()
        with pytest.raises(EngineError, match="cannot be used: it died"):
            engine.load(models[0], identity=IDENTITY)
    finally:
        engine.close()


def test_a_dead_engine_says_so_and_stays_dead(engine: EngineProcess) -> None:
    engine.break_down()
    with pytest.raises(EngineError, match=r"RuntimeError: planted fault with a second line$"):
        list(engine.generate([greedy(PROMPTS[0])], k=2))
    with pytest.raises(EngineError, match="planted fault"):
        list(engine.score([ScoreRequest((1, 5, 6), 1)], k=2))


def test_closing_leaves_nothing_behind(engine: EngineProcess, shared_memory: set[str]) -> None:
    left = engine.close()
    assert left is not None
    assert left.children == ()
    assert left.listening == ()
    assert engine.process.exitcode == 0
    assert abandoned_shared_memory() <= shared_memory
