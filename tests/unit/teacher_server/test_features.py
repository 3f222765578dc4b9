"""Signals of tiny random models, held against passes of transformers over each sequence alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from signal_conformance import *  # noqa: F403
from signal_conformance import Seer
from task_heads import save_classifier, save_span_finder, save_tagger
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    LlamaConfig,
    LlamaForSequenceClassification,
)

from cache import TeacherIdentity
from cache.protocols import Failure
from cache.signals import PER_TOKEN, Signal, SignalRecord, SignalRequest, validate_signal
from configs import ModelError, text_windows
from teacher_server.features import SignalModel

IDENTITY = TeacherIdentity(weights_sha256="00" * 32, config_sha256="11" * 32, dtype="float32")

SEQUENCES = [((2, 4, 3), 3), ((2, 4, 5, 6, 3, 7, 8, 3), 5), ((2, 9, 3, 4, 4, 4, 4, 3), 8), ((2, 5), 1)]

STATES = [Signal("state", layer=layer, position=at) for layer in (0, 1, 2) for at in ("first", "last", "mean")]


def bert_config(**changes: Any) -> BertConfig:
    sizes = {"vocab_size": 10, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    return BertConfig(**sizes, intermediate_size=32, max_position_embeddings=64, **({"num_labels": 3} | changes))


def save(model: Any, place: Path) -> Path:
    """A random model with the tokenizer of the tests."""
    save_classifier(place)
    model.eval().save_pretrained(place)
    return place


def llama() -> LlamaForSequenceClassification:
    sizes = {"vocab_size": 10, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(**sizes, intermediate_size=32, max_position_embeddings=64, num_labels=3, pad_token_id=0)
    return LlamaForSequenceClassification(config)


KINDS = {
    "class_logits": lambda: BertForSequenceClassification(bert_config()),
    "tag_logits": lambda: BertForTokenClassification(bert_config()),
    "span_logits": lambda: BertForQuestionAnswering(bert_config(num_labels=2)),
    "decoder": llama,
    "no head": lambda: BertModel(bert_config()),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Iterator[tuple[str, Any]]:
    torch.manual_seed(3)
    yield request.param, KINDS[request.param]().eval()


@pytest.fixture
def seer(tmp_path: Path) -> Seer:
    torch.manual_seed(3)
    source = SignalModel(save(KINDS["class_logits"](), tmp_path / "seer"), IDENTITY)
    widths = {Signal("class_logits"): 3, **dict.fromkeys(STATES, 16)}
    return Seer(source, widths, longest=64, tolerance=2e-6)


def answers(model: SignalModel, requests: list[SignalRequest]) -> list[SignalRecord | Failure]:
    found = dict(model.signals(iter(requests)))
    assert sorted(found) == list(range(len(requests)))
    return [found[at] for at in range(len(requests))]


def test_signals_are_those_of_the_model_whatever_shares_the_batch(kind: tuple[str, Any], tmp_path: Path) -> None:
    name, model = kind
    given = {"decoder": "class_logits", "no head": None}.get(name, name)
    asked = [*STATES, *([Signal(given)] if given else [])]
    requests = [SignalRequest(tokens, split, signal) for tokens, split in SEQUENCES for signal in asked]
    found = answers(SignalModel(save(model, tmp_path), IDENTITY), requests)
    for request, record in zip(requests, found, strict=True):
        assert isinstance(record, SignalRecord)
        validate_signal(record, identity_digest=IDENTITY.digest())
        np.testing.assert_allclose(record.values, alone(model, request), atol=2e-6)


@torch.no_grad()
def alone(model: Any, request: SignalRequest) -> np.ndarray:
    """What transformers says of one sequence without padding."""
    ids = torch.tensor([request.token_ids])
    inputs = {"input_ids": ids}
    if "Bert" in type(model).__name__:
        inputs["token_type_ids"] = (torch.arange(ids.shape[1])[None] >= request.split).long()
    output = model(**inputs, output_hidden_states=True)
    signal = request.signal
    if signal.layer is not None:
        states = output.hidden_states[signal.layer][0]
        found = {"first": states[:1], "last": states[-1:], "mean": states.mean(dim=0, keepdim=True)}[signal.position]
    elif signal.name == "span_logits":
        found = torch.stack([output.start_logits[0], output.end_logits[0]], dim=1)
    else:
        found = output.logits if signal.name not in PER_TOKEN else output.logits[0]
    result: np.ndarray = found.numpy()
    return result


def test_all_signals_of_a_sequence_cost_one_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = SignalModel(save(KINDS["class_logits"](), tmp_path), IDENTITY)
    lengths: list[list[int]] = []
    plan = text_windows.length_batches
    monkeypatch.setattr(
        "teacher_server.features.length_batches", lambda given: lengths.append(list(given)) or plan(given)
    )
    asked = [Signal("class_logits"), *STATES]
    answers(model, [SignalRequest(tokens, split, signal) for signal in asked for tokens, split in SEQUENCES])
    assert lengths == [[len(tokens) for tokens, _ in SEQUENCES]]


@pytest.mark.parametrize(
    ("saved", "request_", "reason"),
    [
        (save_classifier, SignalRequest((4,) * 65, 65, Signal("class_logits")), "65 tokens, and the model reads 62"),
        (save_classifier, SignalRequest((4,), 1, Signal("tag_logits")), "not what its head gives (class_logits)"),
        (save_tagger, SignalRequest((4,), 1, Signal("span_logits")), "not what its head gives (tag_logits)"),
        (save_span_finder, SignalRequest((4,), 1, STATES[-1]), "the model has 1 layers"),
    ],
)
def test_what_cannot_be_answered_is_said_and_loses_nothing_else(
    saved: Any, request_: SignalRequest, reason: str, tmp_path: Path
) -> None:
    model = SignalModel(saved(tmp_path), IDENTITY)
    fine = SignalRequest((4, 5), 2, Signal("state", layer=1, position="first"))
    bad, good = answers(model, [request_, fine])
    assert isinstance(bad, Failure) and reason in bad.reason
    assert isinstance(good, SignalRecord)


def test_a_signal_that_is_no_number_is_a_failure(tmp_path: Path) -> None:
    broken = KINDS["class_logits"]()
    with torch.no_grad():
        broken.classifier.bias[1] = torch.inf
    (found,) = answers(SignalModel(save(broken, tmp_path), IDENTITY), [SignalRequest((4,), 1, Signal("class_logits"))])
    assert isinstance(found, Failure) and "is not finite" in found.reason


def test_the_dtype_is_that_of_the_identity(tmp_path: Path) -> None:
    place = save(KINDS["class_logits"](), tmp_path)
    identity = TeacherIdentity(weights_sha256="00" * 32, config_sha256="11" * 32, dtype="bfloat16")
    request = SignalRequest((2, 4, 3), 3, Signal("class_logits"))
    (exact,), (rough,) = (answers(SignalModel(place, each), [request]) for each in (IDENTITY, identity))
    assert isinstance(exact, SignalRecord) and isinstance(rough, SignalRecord)
    assert exact.key != rough.key
    assert 0 < float(np.abs(exact.values - rough.values).max()) < 0.05


def test_nothing_is_asked_of_a_model_without_requests(tmp_path: Path) -> None:
    assert answers(SignalModel(save_classifier(tmp_path), IDENTITY), []) == []
    assert AutoTokenizer.from_pretrained(tmp_path).pad_token == "[PAD]"


def test_a_model_that_does_not_load_is_refused(tmp_path: Path) -> None:
    (save_classifier(tmp_path) / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="does not load"):
        SignalModel(tmp_path, IDENTITY)
