"""A small model of random weights with a byte-level tokenizer: a teacher for trials and tests that nobody downloads."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from configs import ConfigError
from configs.model_files import CARD
from configs.schema import ModelShape
from orchestration.inputs.made_once import make_once

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast

RANDOM_CARD = """\
---
license: cc0-1.0
---

# Random weights

Drawn from a seed by Stillroom: nobody's work, and it says nothing sensible.
"""

RANDOM_TEMPLATE = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|eos|>{% endfor %}<|assistant|>"


def make_random(shape: ModelShape, *, seed: int, models_root: Path) -> Path:
    """The directory of the model of this shape and seed; the same weights on every machine.

    Raises:
        ConfigError: the shape has fewer tokens than the tokenizer.
    """
    tokenizer = byte_tokenizer()
    if shape.vocab < len(tokenizer):
        raise ConfigError(f"random.vocab={shape.vocab} is less than the byte tokenizer's {len(tokenizer)}: raise it")
    digest = hashlib.sha256(f"{shape.model_dump_json()}|{seed}".encode()).hexdigest()
    target = models_root / f"random-{digest[:12]}"

    def save(folder: Path) -> None:
        _random_llama(shape, seed=seed, tokenizer=tokenizer).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        (folder / CARD).write_text(RANDOM_CARD, encoding="utf-8")

    return make_once(target, save)


def _random_llama(shape: ModelShape, *, seed: int, tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    # They take seconds to load, and a model that is made already needs neither.
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        num_hidden_layers=shape.layers,
        hidden_size=shape.hidden,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_size,
        intermediate_size=shape.mlp,
        vocab_size=shape.vocab,
        tie_word_embeddings=shape.tied_embeddings,
        max_position_embeddings=shape.max_positions,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        # Wide weights give peaked next-token distributions, so that there is something to distil.
        initializer_range=0.2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    with torch.no_grad():
        # Padding of the vocabulary is never the best token: its logits are zero where others are widely spread.
        model.get_input_embeddings().weight[len(tokenizer) :] = 0.0
        model.get_output_embeddings().weight[len(tokenizer) :] = 0.0
    return model


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer without merges: 256 bytes and five special tokens."""
    # Not before it is needed: it takes a second to load, and most that names a model makes no tokenizer.
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(BPE(vocab={symbol: index for index, symbol in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<|bos|>", eos_token="<|eos|>", pad_token="<|pad|>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|user|>", "<|assistant|>"]})
    tokenizer.chat_template = RANDOM_TEMPLATE
    return tokenizer
