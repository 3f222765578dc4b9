"""Task heads on tiny models whose weights are set so that the answer is known by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from task_heads import WORDS, save_classifier, save_span_finder, save_tagger

from configs import ModelError, text_windows
from teacher_server.encoder import TaskHead


def test_a_class_is_what_the_first_token_says(tmp_path: Path) -> None:
    head = TaskHead(save_classifier(tmp_path))
    logits = head.classify([("sun",), ("rain",), ("sun sun rain",)])
    assert head.labels == ("good", "bad")
    assert logits.shape == (3, 2)
    assert logits.argmax(axis=1).tolist() == [0, 1, 0]


def test_batches_change_no_logit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = TaskHead(save_classifier(tmp_path))
    texts = [("sun",), ("rain " * 9,), ("sun rain",), ("rain",), ("sun " * 40,)]
    together = head.classify(texts)
    monkeypatch.setattr(text_windows, "BATCH_TOKENS", 1)
    np.testing.assert_allclose(head.classify(texts), together, atol=1e-5)


def test_a_text_longer_than_the_model_is_cut(tmp_path: Path) -> None:
    head = TaskHead(save_classifier(tmp_path))
    assert head.classify([("sun " * 500,)]).argmax(axis=1).tolist() == [0]


def test_a_word_is_tagged_by_its_first_token(tmp_path: Path) -> None:
    head = TaskHead(save_tagger(tmp_path))
    # "sunrain" is the tokens sun and ##rain.
    (logits,) = head.tag([["oslo", "sunrain", "rain"]])
    assert [head.labels[at] for at in logits.argmax(axis=1)] == ["B-LOC", "O", "O"]


def test_a_long_row_is_tagged_in_windows(tmp_path: Path) -> None:
    row = ["oslo" if at % 7 == 0 else "sunrain" for at in range(300)]
    head = TaskHead(save_tagger(tmp_path))
    short, long = head.tag([["rain"], row])
    assert short.shape == (1, 2)
    assert [head.labels[at] for at in long.argmax(axis=1)] == ["B-LOC" if at % 7 == 0 else "O" for at in range(300)]


def test_a_word_without_a_token_has_no_logits(tmp_path: Path) -> None:
    (logits,) = TaskHead(save_tagger(tmp_path)).tag([["rain", "", "oslo"]])
    assert np.isnan(logits).all(axis=1).tolist() == [False, True, False]


@pytest.mark.parametrize("before", [0, 200])
def test_a_span_begins_and_ends_where_its_words_say(tmp_path: Path, before: int) -> None:
    """The head finds `oslo` as the beginning and `rome` as the end, also in a window that is not the first."""
    context = "sun " * before + "rain oslo sun rome rain"
    (windows,) = TaskHead(save_span_finder(tmp_path)).find_spans(["where"], [context])
    assert (len(windows) > 1) == bool(before)
    best = max(windows, key=lambda window: float(window.start.max() + window.end.max()))
    begin, end = best.characters[int(best.start.argmax())][0], best.characters[int(best.end.argmax())][1]
    assert context[begin:end] == "oslo sun rome"


def test_nothing_is_asked_of_no_rows(tmp_path: Path) -> None:
    assert TaskHead(save_tagger(tmp_path / "t")).tag([]) == []
    assert TaskHead(save_span_finder(tmp_path / "s")).find_spans([], []) == []
    assert TaskHead(save_classifier(tmp_path / "c")).classify([]).shape == (0, 2)


def test_pickled_weights_and_models_without_a_head_are_refused(tmp_path: Path) -> None:
    model = save_classifier(tmp_path / "c")
    (model / "model.safetensors").unlink()
    torch.save({}, model / "pytorch_model.bin")
    with pytest.raises(ModelError, match="safetensors"):
        TaskHead(model)
    (model / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    with pytest.raises(ModelError, match="has no task head"):
        TaskHead(model)


def test_a_head_that_does_not_load_is_one_line(tmp_path: Path) -> None:
    model = save_classifier(tmp_path)
    (model / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match=r"does not load \(.*\): save model and tokenizer into one directory"):
        TaskHead(model)


def test_the_words_of_these_tests_are_tokens() -> None:
    assert isinstance(WORDS, Sequence) and {"sun", "oslo", "##rain"} <= set(WORDS)
