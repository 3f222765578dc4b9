"""Texts become the tokens that a fill makes of them, with their places; what cannot is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from signal_doors import words_and_pairs
from task_builders import task_of
from task_heads import save_classifier, save_span_finder
from transformers import AutoTokenizer

from evaluation.tasks.examples import Example
from orchestration.inputs.task_texts import read_with
from teacher_server.http.signals.texts import ReadText, SignalTexts
from teacher_server.http.texts import TextError

CLS, SEP = 2, 3
SUN, RAIN, WHERE, INNER_RAIN = 4, 5, 8, 9


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> SignalTexts:
    return words_and_pairs(tmp_path_factory.mktemp("tokenizer"))


def test_a_text_a_pair_and_words_are_read_with_their_places(texts: SignalTexts) -> None:
    assert texts.text("rain  sun") == ReadText((CLS, RAIN, SUN, SEP), 4, (None, (0, 0, 4), (0, 6, 9), None))
    pair = texts.text("where", "sun rain")
    assert pair.token_ids == (CLS, WHERE, SEP, SUN, RAIN, SEP) and pair.split == 3
    assert pair.places == (None, (0, 0, 5), None, (1, 0, 3), (1, 4, 8), None)
    words = texts.words(["sun", " ", "sunrain"])
    assert words.token_ids == (CLS, SUN, SUN, INNER_RAIN, SEP)
    assert words.places == (None, (0, 0, 3), (2, 0, 3), (2, 3, 7), None)


def test_a_fill_makes_the_same_tokens_of_them(texts: SignalTexts, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(save_span_finder(tmp_path))
    parts = ("where sun", "rain rome")
    given = Example(0, "", "", "", (), (), parts[1], None, parts, labelled=False)
    [read] = read_with(tokenizer, [given], task=task_of("extractive_qa"), max_tokens=32)
    mine = texts.text(*parts)
    assert (mine.token_ids, mine.split) == (read.token_ids, read.split)


@pytest.mark.parametrize("text", ["", "  ", "\n"])
def test_what_makes_no_token_is_refused(texts: SignalTexts, text: str) -> None:
    for said in ((text,), ("sun", text), (text, "sun")):
        with pytest.raises(TextError, match="of which no token is made"):
            texts.text(*said)
    with pytest.raises(TextError, match="of which no token is made"):
        texts.words([text])


def test_what_spells_a_special_token_is_refused(texts: SignalTexts) -> None:
    for read in (
        lambda: texts.text("sun [SEP] rain"),
        lambda: texts.text("sun", "[CLS]"),
        lambda: texts.words(["[PAD]"]),
    ):
        with pytest.raises(TextError, match="spells the special token"):
            read()


def test_a_pair_that_nothing_keeps_apart_is_refused(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(save_classifier(tmp_path))
    tokenizer.backend_tokenizer.post_processor = None
    with pytest.raises(TextError, match="puts nothing between two texts"):
        SignalTexts(tokenizer).text("sun", "rain")
