"""Tiny models with task heads that look at the token of a place and nothing else, so that their answers are known.

A BERT of one layer whose attention and MLP add nothing: what leaves it is the layer norm of a token's own embedding,
and the embeddings are unit vectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from model_cards import save_card
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    PreTrainedTokenizerFast,
)

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "sun", "rain", "oslo", "rome", "where", "##rain")
SUN_OR_RAIN = MappingProxyType({"sun": 0, "rain": 1})
HIDDEN = 16
POSITIONS = 64


def save_classifier(
    place: Path,
    *,
    labels: tuple[str, ...] = ("good", "bad"),
    more_words: tuple[str, ...] = (),
    says: Mapping[str, int] = SUN_OR_RAIN,
) -> Path:
    """Says the first label of a text that begins with `sun`, else the second, or what a first word `says` instead.

    It knows `more_words` than `WORDS`.
    """
    words = (*WORDS, *more_words)
    model = BertForSequenceClassification(_config(labels, words=words))
    _look_at_one_token(model, words=words)
    with torch.no_grad():
        # The pooler reads the first place, which is [CLS]: the tokenizer of a classifier adds none.
        model.bert.pooler.dense.weight.copy_(torch.eye(_hidden(words)))
        model.bert.pooler.dense.bias.zero_()
        _set_head(model.classifier, dict.fromkeys(says.items(), 5.0), words=words)
    return _save(model, place, template="$A", words=words)


def save_tagger(place: Path, *, labels: tuple[str, ...] = ("O", "B-LOC")) -> Path:
    """Says the second label of `oslo` and `rome`, and also of `##rain`, which is never a first token; else the first."""
    model = BertForTokenClassification(_config(labels))
    _look_at_one_token(model)
    with torch.no_grad():
        _set_head(
            model.classifier,
            {("oslo", 1): 5.0, ("rome", 1): 5.0, ("##rain", 1): 5.0, ("sun", 0): 5.0, ("rain", 0): 5.0},
        )
    return _save(model, place, template="[CLS] $A [SEP]")


def save_span_finder(place: Path) -> Path:
    """Finds answers that begin with `oslo` and end with `rome`."""
    model = BertForQuestionAnswering(_config(("start", "end")))
    _look_at_one_token(model)
    with torch.no_grad():
        _set_head(model.qa_outputs, {("oslo", 0): 5.0, ("rome", 1): 5.0})
    return _save(model, place, template="[CLS] $A [SEP]")


def _hidden(words: tuple[str, ...]) -> int:
    return max(HIDDEN, len(words))


def _config(labels: tuple[str, ...], *, words: tuple[str, ...] = WORDS) -> BertConfig:
    return BertConfig(
        vocab_size=len(words),
        hidden_size=_hidden(words),
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=HIDDEN,
        max_position_embeddings=POSITIONS,
        id2label=dict(enumerate(labels)),
        label2id={label: at for at, label in enumerate(labels)},
    )


def _look_at_one_token(model: Any, *, words: tuple[str, ...] = WORDS) -> None:
    with torch.no_grad():
        for name, weight in model.bert.named_parameters():
            if "LayerNorm" not in name and "word_embeddings" not in name:
                weight.zero_()
        model.bert.embeddings.word_embeddings.weight.copy_(torch.eye(_hidden(words))[: len(words)])


def _set_head(head: Any, weights: dict[tuple[str, int], float], *, words: tuple[str, ...] = WORDS) -> None:
    head.weight.zero_()
    head.bias.zero_()
    for (word, label), weight in weights.items():
        head.weight[label, words.index(word)] = weight


def _save(model: Any, place: Path, *, template: str, words: tuple[str, ...] = WORDS) -> Path:
    model.save_pretrained(place)
    backend = Tokenizer(WordPiece({word: at for at, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = Whitespace()
    specials = [(word, WORDS.index(word)) for word in ("[CLS]", "[SEP]")]
    pair = "[CLS] $A [SEP] $B:1 [SEP]:1"
    backend.post_processor = TemplateProcessing(single=template, pair=pair, special_tokens=specials)
    PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    ).save_pretrained(place)  # fmt: skip
    return save_card(place)
