"""Tiny random language models that change texts: a BERT that fills gaps and a Llama that writes on."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import WordLevel, WordPiece
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertForMaskedLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

POSITIONS = 16

WORDS = (
    "please", "move", "my", "booking", "to", "friday", "cancel", "the", "table", "for", "tonight", "what", "does", "room",
    "cost", "it", "rains", "in", "rome", "is", "wet", "today", "x", "2", "no", "yes",
)  # fmt: skip
"""What the vocabularies hold as whole words."""

ENTRIES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "##ing", "##s", ",", ".", "a,b")
"""The vocabulary of the BERT."""

BEGIN, END = "<s>", "</s>"


def save_masked(place: Path, *, seed: int = 0, mask: str | None = "[MASK]") -> Path:
    """A BERT whose candidates differ from gap to gap; its logits have 3 columns more than its tokenizer has entries."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(ENTRIES) + 3,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=POSITIONS,
        initializer_range=0.6,
    )
    BertForMaskedLM(config).save_pretrained(place)
    backend = Tokenizer(WordPiece({entry: at for at, entry in enumerate(ENTRIES)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    specials = [(word, ENTRIES.index(word)) for word in ("[CLS]", "[SEP]")]
    backend.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=specials)
    PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token=mask, model_max_length=POSITIONS,
    ).save_pretrained(place)  # fmt: skip
    return place


def save_writer(place: Path, *, seed: int = 0) -> Path:
    """A Llama that writes `WORDS`, and in the two columns that its tokenizer has no entry for believes most."""
    torch.manual_seed(seed)
    entries = (BEGIN, END, "<unk>", *WORDS)
    config = LlamaConfig(
        vocab_size=len(entries) + 2,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=POSITIONS,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config)
    # A penalty that generation must not apply, and padding of the vocabulary that it must not choose.
    model.generation_config.repetition_penalty = 5.0
    with torch.no_grad():
        model.lm_head.weight[len(entries) :] *= 20.0
    model.save_pretrained(place)
    backend = Tokenizer(WordLevel({entry: at for at, entry in enumerate(entries)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = TemplateProcessing(single=f"{BEGIN} $A", special_tokens=[(BEGIN, 0)])
    PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token=BEGIN, eos_token=END, model_max_length=POSITIONS
    ).save_pretrained(place)
    return place
