"""What an engine says of signals is held against plain passes of transformers before anything is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from signal_builders import CLASSES, SPANS, TAGS, ask
from task_heads import save_classifier, save_span_finder, save_tagger
from transformers import BertConfig, BertForSequenceClassification

from cache import Signal, SignalRecord, SignalRequest, TeacherIdentity
from cache.protocols import Failure
from configs import EngineError
from teacher_server import features
from teacher_server.features import SignalModel
from teacher_server.signal_check import TOLERANCES, check_requests, judge_signals, plain_signals

IDENTITY = TeacherIdentity(weights_sha256="00" * 32, config_sha256="11" * 32, dtype="float32")
STATES = [Signal("state", layer=1, position=place) for place in ("first", "last", "mean")]
SHORT, LONG = (4, 5), (2, 5, 3, 7, 8, 9, 3)


def random_classifier(place: Path) -> Path:
    """A model whose tokens look at each other, with the tokenizer of the tests."""
    torch.manual_seed(3)
    save_classifier(place)
    config = BertConfig(
        vocab_size=10, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64, num_labels=3,
    )  # fmt: skip
    BertForSequenceClassification(config).eval().save_pretrained(place)
    return place


def answers(model_dir: Path, requests: tuple[SignalRequest, ...]) -> list[SignalRecord | Failure]:
    found = dict(SignalModel(model_dir, IDENTITY).signals(requests))
    return [found[at] for at in range(len(requests))]


def judge(model_dir: Path, said: list[SignalRecord | Failure], requests: tuple[SignalRequest, ...]) -> None:
    judge_signals(said, plain_signals(model_dir, requests, dtype="float32"), model_dir=model_dir, dtype="float32")


def test_the_shortest_and_the_longest_text_are_asked_all_that_is_asked_of_them() -> None:
    long = [ask(LONG, CLASSES), ask(LONG, TAGS)]
    requests = [ask((1, 2, 3)), *long, ask(SHORT)]
    assert check_requests(iter(requests)) == (ask(SHORT), *long)
    assert check_requests([ask(SHORT)]) == (ask(SHORT),)
    assert check_requests([]) == ()


@pytest.mark.parametrize(
    ("save", "signals"),
    [
        (random_classifier, [CLASSES, *STATES]),
        (save_classifier, [CLASSES]),
        (save_tagger, [TAGS, *STATES]),
        (save_span_finder, [SPANS]),
    ],
)
def test_a_sound_engine_passes_with_pairs_and_padding(save: Any, signals: list[Signal], tmp_path: Path) -> None:
    model_dir = save(tmp_path)
    requests = tuple(ask(text, one, split=split) for text, split in ((SHORT, 2), (LONG, 3)) for one in signals)
    judge(model_dir, answers(model_dir, requests), requests)


def test_padding_that_is_looked_at_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model_dir = random_classifier(tmp_path)
    monkeypatch.setitem(features.POOLS, "mean", lambda states, _mask: states.mean(dim=1))
    requests = tuple(ask(text, STATES[2]) for text in (SHORT, LONG))
    said = answers(model_dir, requests)
    with pytest.raises(
        EngineError, match=r"says state of layer 1, mean of a text of 2 tokens .*nothing is kept; set"
    ) as told:
        judge(model_dir, said, requests)
    assert "\n" not in str(told.value)
    # The long text has no padding.
    judge(model_dir, said[1:], requests[1:])


def test_other_weights_and_rows_of_another_text_are_caught(tmp_path: Path) -> None:
    model_dir = random_classifier(tmp_path / "one")
    requests = (ask(SHORT), ask(LONG))
    said = answers(model_dir, requests)
    with pytest.raises(EngineError, match="class_logits"):
        judge(model_dir, said[::-1], requests)
    other = save_classifier(tmp_path / "other", labels=("a", "b", "c"))
    with pytest.raises(EngineError, match="class_logits"):
        judge(other, said, requests)
    # A head with another number of classes.
    with pytest.raises(EngineError, match="inf off"):
        judge(save_classifier(tmp_path / "two"), said, requests)


def test_what_is_within_the_rounding_of_a_dtype_passes_and_no_more(tmp_path: Path) -> None:
    model_dir = random_classifier(tmp_path)
    requests = (ask(SHORT),)
    plain = plain_signals(model_dir, requests, dtype="float32")
    (said,) = answers(model_dir, requests)
    assert isinstance(said, SignalRecord)
    allowed = TOLERANCES["bfloat16"] * (1 + float(np.abs(said.values).max()))
    for share, passes in ((0.9, True), (1.1, False)):
        shifted = [plain[0] + np.float32(allowed * share)]
        if passes:
            judge_signals([said], shifted, model_dir=model_dir, dtype="bfloat16")
            continue
        with pytest.raises(EngineError, match=r"0\.05 is allowed in bfloat16"):
            judge_signals([said], [plain[0] - np.float32(allowed * 1.2)], model_dir=model_dir, dtype="bfloat16")


def test_what_cannot_be_answered_is_left_out_unless_it_is_all(tmp_path: Path) -> None:
    model_dir = random_classifier(tmp_path)
    requests = (ask(SHORT), ask(LONG))
    said = answers(model_dir, requests)
    judge(model_dir, [Failure("too long"), said[1]], requests)
    with pytest.raises(EngineError, match="answers nothing of its check: too long"):
        judge(model_dir, [Failure("too long")] * 2, requests)
    broken = [said[0], said[1]]
    assert isinstance(said[0], SignalRecord)
    said[0].values[0, 0] = np.nan
    with pytest.raises(EngineError, match="nan off"):
        judge(model_dir, broken, requests)
