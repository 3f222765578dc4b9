"""A teacher reads surroundings around an example's own tokens, which keep their names; students read no more."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from task_builders import task_of
from task_heads import WORDS, save_classifier, save_span_finder, save_tagger
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from cache import Signal, SignalRequest, TeacherIdentity
from configs import ConfigError, DataError
from configs.task import TaskConfig
from evaluation.tasks.examples import Example, read_examples
from evaluation.tasks.surroundings import Surroundings, WideExample
from orchestration.inputs.task_examples import Beliefs
from orchestration.inputs.task_texts import WHOLE, read_with
from orchestration.inputs.wide_texts import Around, Frame, read_wide, require_aligned
from teacher_server.features import SignalModel

ID = {word: at for at, word in enumerate(WORDS)}
CLASSES = task_of("classification", labels=["good", "bad"])
TAGS = task_of("tagging", labels=["LOC"], template="{{ tokens | join(' ') }}")
SPANS = task_of("extractive_qa", template="{{ context }} {{ question }}")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    """[CLS] text [SEP], and [CLS] one [SEP] other [SEP]; whole words, `sunrain` in two."""
    place = save_span_finder(tmp_path_factory.mktemp("tokenizer"))
    found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(place)
    return found


def ids(text: str) -> tuple[int, ...]:
    return tuple(ID[word] for word in text.split())


def wide(task: TaskConfig, row: dict[str, Any], around: Surroundings) -> WideExample:
    (example,) = read_examples(task, [(0, row)]).usable
    return WideExample.of(example, around)


def read(tokenizer: Any, example: Example, *, task: TaskConfig, max_tokens: int = 32) -> Any:
    (found,) = read_wide(tokenizer, [example], task=task, max_tokens=max_tokens)
    return found


TAGGED = wide(
    TAGS,
    {"tokens": ["sunrain", "oslo"], "tags": ["O", "B-LOC"]},
    Surroundings(before=(("rome", "sun"), ("rain",)), after=(("where", "rome"),)),
)
ASKED = wide(
    SPANS,
    {"context": "sun oslo rome", "question": "where", "answers": ["oslo rome"]},
    Surroundings(before=(("rain sun",),), after=(("rome",),)),
)
TOLD = wide(
    CLASSES,
    {"text": "sun rain", "label": "bad"},
    Surroundings(before=(("oslo",), ("rome",)), after=(("where",),), passage=("rain rain",)),
)


def test_words_of_neighbours_stand_around_the_own_ones(tokenizer: PreTrainedTokenizerBase) -> None:
    found = read(tokenizer, TAGGED, task=TAGS)
    assert found.token_ids == ids("[CLS] rome sun rain sun ##rain oslo where rome [SEP]")
    assert found.units == ((0, 0), (1, 1)) and found.unit_tokens == (4, 6)
    assert (found.gold, found.split, found.context, found.context_cut) == ((0, 1), 10, 5, 0)
    # As the tokenizer reads the whole at once: no token reaches across a boundary.
    words = ["rome", "sun", "rain", "sunrain", "oslo", "where", "rome"]
    assert list(found.token_ids) == tokenizer(words, is_split_into_words=True).input_ids


def test_a_passage_lies_within_a_wider_one(tokenizer: PreTrainedTokenizerBase) -> None:
    found = read(tokenizer, ASKED, task=SPANS)
    assert found.token_ids == ids("[CLS] where [SEP] rain sun sun oslo rome rome [SEP]")
    assert (found.split, found.gold) == (3, (1, 2))
    assert found.units == ((0, 3), (4, 8), (9, 13)) and found.unit_tokens == (5, 6, 7)
    assert list(found.token_ids) == tokenizer("where", "rain sun sun oslo rome rome").input_ids


def test_a_text_is_followed_by_what_stands_around_it(tokenizer: PreTrainedTokenizerBase) -> None:
    found = read(tokenizer, TOLD, task=CLASSES)
    assert found.token_ids == ids("[CLS] sun rain [SEP] rain rain oslo rome where [SEP]")
    assert (found.split, found.units, found.unit_tokens, found.gold) == (4, (WHOLE,), (0,), (1,))
    assert list(found.token_ids) == tokenizer("sun rain", "rain rain oslo rome where").input_ids


@pytest.mark.parametrize("task, example", [(TAGS, TAGGED), (SPANS, ASKED), (CLASSES, TOLD)])
def test_units_are_those_of_a_student_that_reads_the_row_alone(
    task: TaskConfig, example: WideExample, tokenizer: PreTrainedTokenizerBase
) -> None:
    (alone,) = read_with(tokenizer, [example], task=task, max_tokens=32)
    found = read(tokenizer, example, task=task)
    assert (found.units, found.gold) == (alone.units, alone.gold)
    if task is not CLASSES:
        own = [alone.token_ids[token] for token in alone.unit_tokens]
        assert [found.token_ids[token] for token in found.unit_tokens] == own


@pytest.mark.parametrize(
    "room, text, cut",
    [
        (10, "[CLS] rome sun rain sun ##rain oslo where rome [SEP]", 0),
        (9, "[CLS] sun rain sun ##rain oslo where rome [SEP]", 1),
        (7, "[CLS] rain sun ##rain oslo where [SEP]", 3),
        (6, "[CLS] sun ##rain oslo where [SEP]", 4),
        (5, "[CLS] sun ##rain oslo [SEP]", 5),
        (4, "[CLS] sun ##rain [SEP]", 5),
    ],
)
def test_what_is_farthest_is_cut_first_and_own_words_last(
    room: int, text: str, cut: int, tokenizer: PreTrainedTokenizerBase
) -> None:
    found = read(tokenizer, TAGGED, task=TAGS, max_tokens=room)
    assert (found.token_ids, found.context_cut) == (ids(text), cut)
    assert found.cut == (room == 4)


def test_a_side_without_much_leaves_its_room_to_the_other() -> None:
    around = Around((1, 2), (3, 4, 5, 6), (7, 8, 9, 10))
    assert around.within(99) == around
    assert around.within(8) == Around((1, 2), (4, 5, 6), (7, 8, 9))
    assert Around((), (1, 2, 3, 4), (5,)).within(4) == Around((), (2, 3, 4), (5,))
    assert Around((), (1,), (2, 3, 4)).within(3) == Around((), (1,), (2, 3))
    assert around.within(1) == Around((1,), (), ())
    assert around.within(0) == around.within(-3) == Around((), (), ())


def test_a_text_without_room_for_a_second_one_is_read_alone(tokenizer: PreTrainedTokenizerBase) -> None:
    found = read(tokenizer, TOLD, task=CLASSES, max_tokens=5)
    assert found.token_ids == ids("[CLS] sun rain [SEP]") and found.split == 4
    assert (found.context, found.context_cut) == (0, 5)
    more = read(tokenizer, TOLD, task=CLASSES, max_tokens=6)
    assert more.token_ids == ids("[CLS] sun rain [SEP] rain [SEP]") and (more.context, more.context_cut) == (1, 4)


def test_a_question_that_leaves_no_passage_gets_no_context(tokenizer: PreTrainedTokenizerBase) -> None:
    long = wide(SPANS, {"context": "sun", "question": "where sun rain", "answers": ["sun"]}, ASKED.around)
    found = read(tokenizer, long, task=SPANS, max_tokens=7)
    assert found.token_ids == ids("[CLS] where sun rain [SEP] sun [SEP]") and found.context_cut == 3


def test_an_example_without_surroundings_is_read_as_it_was(tokenizer: PreTrainedTokenizerBase) -> None:
    (plain,) = read_examples(CLASSES, [(0, {"text": "sun", "label": "good"})]).usable
    bare = WideExample.of(plain, Surroundings())
    expected = read_with(tokenizer, [plain, bare], task=CLASSES, max_tokens=9)
    assert read_wide(tokenizer, [plain, bare], task=CLASSES, max_tokens=9) == expected
    beside = read_wide(tokenizer, [plain, TOLD], task=CLASSES, max_tokens=9)
    assert beside[0] == expected[0] and beside[1].context
    assert read_wide(tokenizer, [], task=CLASSES, max_tokens=9) == []


def test_tokens_of_bytes_never_join_across_the_boundary() -> None:
    """`b` and `a` beside each other are one token for this tokenizer, and are not where a text ends between them."""
    vocab = {"[CLS]": 0, "[SEP]": 1, "a": 2, "b": 3, "ab": 4, "ba": 5, "Ċ": 6, "Ġ": 7}
    backend = Tokenizer(BPE(vocab, [("b", "a"), ("a", "b")]))
    backend.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    specials = [("[CLS]", 0), ("[SEP]", 1)]
    backend.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=specials
    )
    made = PreTrainedTokenizerFast(tokenizer_object=backend, cls_token="[CLS]", sep_token="[SEP]")
    example = wide(
        SPANS,
        {"context": "ab", "question": "a", "answers": ["ab"]},
        Surroundings(before=(("b",),), after=(("a",),)),
    )
    assert made("bab", add_special_tokens=False).input_ids != [3, 4]
    found = read(made, example, task=SPANS)
    assert found.token_ids == (0, 2, 1, 3, 6, 4, 6, 2, 1)
    assert found.units == ((0, 2),) and found.unit_tokens == (5,)


def test_a_unit_at_another_token_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    (alone,) = read_with(tokenizer, [TAGGED], task=TAGS, max_tokens=32)
    found = read(tokenizer, TAGGED, task=TAGS)
    shifted = replace(found, unit_tokens=tuple(token + 1 for token in found.unit_tokens))
    with pytest.raises(DataError, match=r"unit \(0, 0\) is token 4 of the text alone and 9 with teacher_context"):
        require_aligned(alone, shifted)
    fewer = replace(found, units=found.units[:1], unit_tokens=found.unit_tokens[:1])
    with pytest.raises(DataError, match="1 units are read with teacher_context, and 2 without it"):
        require_aligned(alone, fewer)


def test_a_tokenizer_that_joins_pairs_has_no_place_for_a_context(tmp_path: Path) -> None:
    joined = AutoTokenizer.from_pretrained(save_classifier(tmp_path))
    joined.backend_tokenizer.post_processor = TemplateProcessing(single="$A", pair="$A $B:1", special_tokens=[])
    with pytest.raises(ConfigError, match="puts no token between the two texts of a pair, and teacher_context"):
        read(joined, TOLD, task=CLASSES)


def test_a_tokenizer_that_makes_nothing_of_a_letter_is_refused() -> None:
    backend = Tokenizer(BPE({"b": 0}, []))
    with pytest.raises(ConfigError, match="makes no token of 'a'"):
        Frame.of(PreTrainedTokenizerFast(tokenizer_object=backend), texts=1)


def test_logits_of_own_words_are_those_of_a_plain_pass_over_the_whole(tmp_path: Path) -> None:
    place = save_tagger(tmp_path)
    model = AutoModelForTokenClassification.from_pretrained(place).eval()
    with torch.no_grad():  # attention that mixes places, so that what stands around counts
        for name, weight in model.bert.encoder.named_parameters():
            if name.endswith("weight") and "LayerNorm" not in name:
                weight.normal_(std=0.5, generator=torch.Generator().manual_seed(len(name)))
    model.save_pretrained(place)
    tokenizer = AutoTokenizer.from_pretrained(place)
    identity = TeacherIdentity("a" * 64, "b" * 64, dtype="float32")
    logits = {}
    for name, reader in (("wide", read_wide), ("alone", read_with)):
        (one,) = reader(tokenizer, [TAGGED], task=TAGS, max_tokens=32)
        request = SignalRequest(one.token_ids, one.split, Signal("tag_logits"))
        (((_, record),)) = SignalModel(place, identity).signals([request])
        logits[name] = Beliefs.of(one, record.values).logits
    words = ["rome", "sun", "rain", "sunrain", "oslo", "where", "rome"]
    encoded = tokenizer(words, is_split_into_words=True, return_tensors="pt")
    firsts = [encoded.word_ids().index(word) for word in (3, 4)]
    with torch.no_grad():
        expected = model(**encoded).logits[0, firsts].numpy()
    assert logits["wide"] == pytest.approx(expected, abs=1e-5)
    assert abs(logits["alone"] - expected).max() > 1e-2
