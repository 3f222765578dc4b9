from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE, Unigram
from transformers import AutoModelForMaskedLM, AutoTokenizer, BertForSequenceClassification, PreTrainedTokenizerFast

from configs import ModelError
from orchestration.inputs import augment_masked
from orchestration.inputs.augment_choices import Gap
from orchestration.inputs.augment_masked import MaskedWords, whole_words
from tests.support.augment_models import ENTRIES, POSITIONS, WORDS, save_masked, save_writer

SENTENCES = (
    "please move my booking to friday",
    "cancel the table, for tonight.",
    "what does the room cost",
    "yes",
    "moving no cats in rome",
)

GAPS = [Gap(tuple(text.split()), at) for text in SENTENCES for at in range(len(text.split()))]


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_masked(tmp_path_factory.mktemp("masked"))


def by_hand(directory: Path, ids: list[int], count: int) -> list[str]:
    """The likeliest words of one unpadded text, in order; `ids` hold one mask."""
    model = AutoModelForMaskedLM.from_pretrained(directory).eval()
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0, ids.index(ENTRIES.index("[MASK]"))]
    return sorted(WORDS, key=lambda word: -float(logits[ENTRIES.index(word)]))[:count]


@pytest.mark.parametrize("logits", [2**26, 1])
def test_candidates_are_those_of_an_independent_pass(
    logits: int, masked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(augment_masked, "LOGITS", logits)
    monkeypatch.setattr(augment_masked, "READ_TOGETHER", 7)
    told: list[tuple[int, int]] = []
    model = MaskedWords(masked, label="it", report=lambda done, total: told.append((done, total)))
    found = model.likeliest(GAPS, 5)
    tokenizer = AutoTokenizer.from_pretrained(masked)
    for gap, words in zip(GAPS, found, strict=True):
        text = f"{gap.before}[MASK]{gap.after}"
        assert sorted(words) == sorted(by_hand(masked, tokenizer(text).input_ids, 5))
    assert told == [(7, 22), (14, 22), (21, 22), (22, 22)]
    assert len({tuple(sorted(words)) for words in found}) > 10


def test_a_word_of_several_pieces_is_one_mask(masked: Path) -> None:
    tokens = ("[CLS]", "[MASK]", "no", "[UNK]", "in", "rome", "[SEP]")
    (found,) = MaskedWords(masked, label="it").likeliest([Gap(("moving", "no", "cats", "in", "rome"), 0)], 3)
    assert sorted(found) == sorted(by_hand(masked, [ENTRIES.index(token) for token in tokens], 3))


def test_more_candidates_than_there_are_words_are_all_words(masked: Path) -> None:
    (found,) = MaskedWords(masked, label="it").likeliest([Gap(("yes",), 0)], 1000)
    assert sorted(found) == sorted(WORDS)


@pytest.mark.parametrize(("at", "first"), [(0, 0), (3, 0), (20, 13), (38, 26), (39, 26)])
def test_of_a_long_text_the_words_around_the_gap_are_read(at: int, first: int, masked: Path) -> None:
    words = tuple(WORDS[place % len(WORDS)] for place in range(40))
    (found,) = MaskedWords(masked, label="it").likeliest([Gap(words, at)], 4)
    shown = [*words[:at], "[MASK]", *words[at + 1 :]][first : first + POSITIONS - 2]
    ids = [ENTRIES.index(token) for token in ("[CLS]", *shown, "[SEP]")]
    assert len(ids) == POSITIONS
    assert sorted(found) == sorted(by_hand(masked, ids, 4))


def test_a_mask_in_the_text_is_not_the_gap(masked: Path) -> None:
    (found,) = MaskedWords(masked, label="it").likeliest([Gap(("[MASK]", "is", "wet"), 1)], 4)
    tokenizer = AutoTokenizer.from_pretrained(masked)
    model = AutoModelForMaskedLM.from_pretrained(masked).eval()
    with torch.no_grad():
        logits = model(**tokenizer("[MASK] [MASK] wet", return_tensors="pt")).logits[0, 2]
    assert sorted(found) == sorted(sorted(WORDS, key=lambda word: -float(logits[ENTRIES.index(word)]))[:4])


def test_nothing_asked_is_nothing_answered(masked: Path) -> None:
    assert MaskedWords(masked, label="it").likeliest([], 3) == []


def test_words_of_a_byte_level_vocabulary_begin_with_a_space() -> None:
    backend = Tokenizer(BPE())
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    corpus = ["a móving cat, the cat moved"] * 9
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, mask_token="<mask>", eos_token=AddedToken("END", lstrip=True)
    )
    words = whole_words(tokenizer)
    assert {"cat", "the", "móving", "moved"} <= set(words.values())
    assert "END" not in words.values()
    assert all(tokenizer.convert_ids_to_tokens(id_) == tokenizer.tokenize(f" {word}")[0] for id_, word in words.items())
    assert all(tokenizer.convert_ids_to_tokens(id_).startswith("Ġ") for id_ in words)


def test_words_of_a_sentencepiece_vocabulary_begin_with_its_mark() -> None:
    pieces = [("<unk>", 0.0), ("▁", -4.0), ("▁x", -3.0), ("▁cat", -2.0), ("s", -3.0), ("▁the", -2.0), ("▁.", -2.0)]
    backend = Tokenizer(Unigram(pieces, unk_id=0))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    assert whole_words(PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")) == {
        2: "x", 3: "cat", 5: "the"
    }  # fmt: skip


def test_a_tokenizer_without_a_mask_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"^bert: its tokenizer has no mask token: name a masked language model"):
        MaskedWords(save_masked(tmp_path, mask=None), label="bert")


def test_a_model_that_fills_no_gaps_is_refused(tmp_path: Path) -> None:
    writer = save_writer(tmp_path / "writer")
    tokenizer = AutoTokenizer.from_pretrained(writer)
    tokenizer.add_special_tokens({"mask_token": "<mask>"})
    tokenizer.save_pretrained(writer)
    with pytest.raises(ModelError, match=r"^llama: does not load as a masked language model \([^\n]+\): name one"):
        MaskedWords(writer, label="llama")


def test_a_model_whose_head_is_another_is_refused(tmp_path: Path, masked: Path) -> None:
    place = save_masked(tmp_path)
    BertForSequenceClassification.from_pretrained(masked).save_pretrained(place)
    assert json.loads((place / "config.json").read_text())["architectures"] == ["BertForSequenceClassification"]
    with pytest.raises(ModelError, match=r"^bert is not a masked language model: its files lack cls\.predictions"):
        MaskedWords(place, label="bert")


def test_logits_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    place = save_masked(tmp_path)
    model = AutoModelForMaskedLM.from_pretrained(place)
    with torch.no_grad():
        model.bert.embeddings.LayerNorm.weight.fill_(torch.nan)
    model.save_pretrained(place)
    with pytest.raises(ModelError, match=r"^bert: its logits are not finite"):
        MaskedWords(place, label="bert").likeliest(GAPS[:1], 3)
