"""Small tokenizers of several families, and tiny models that read by them."""

from __future__ import annotations

import shutil
import string
from collections.abc import Sequence
from pathlib import Path

import torch
from model_cards import save_card
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE, WordPiece
from tokenizers.trainers import BpeTrainer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from configs.models import ModelShape
from orchestration.inputs.random_models import byte_tokenizer, make_random

TEMPLATE = "{% for m in messages %}[{{ m.role }}] {{ m.content }}</s>{% endfor %}[assistant] "
WORDS = ("train", "dev", "test", "the answer is", "and the answer to that is")
"""What tokenizers are trained on, so that they join letters to tokens."""


def byte_level(texts: Sequence[str] = WORDS, *, merges: int = 24) -> PreTrainedTokenizerFast:
    """Byte-level BPE with a few merges, an end of its own and a template of its own."""
    core = Tokenizer(BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=257 + merges,
        special_tokens=["</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(list(texts) * 4, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>")
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def sentence_piece(pieces: Sequence[str] = ("▁the", "▁a", "▁", "t", "h", "e", "a")) -> PreTrainedTokenizerFast:
    """Pieces as Llama 2 has them: a blank before the first word, and bytes for what is no piece."""
    vocab = {"<s>": 0, "</s>": 1} | {f"<0x{byte:02X}>": 2 + byte for byte in range(256)}
    vocab |= {piece: 258 + at for at, piece in enumerate(pieces)}
    joined = [("▁", "t"), ("▁t", "h"), ("▁th", "e"), ("▁", "a")]
    vocab |= {left + right: len(vocab) + at for at, (left, right) in enumerate(joined) if left + right not in vocab}
    core = Tokenizer(BPE(vocab=vocab, merges=joined, byte_fallback=True, fuse_unk=True))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1, right=0),
        ]
    )
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")


def word_piece() -> PreTrainedTokenizerFast:
    """Pieces as BERT has them."""
    vocab = {"[UNK]": 0, "[SEP]": 1, "the": 2, "t": 3, "##he": 4, "##t": 5, "!": 6}
    core = Tokenizer(WordPiece(vocab=vocab, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]", eos_token="[SEP]")


def words_alone() -> PreTrainedTokenizerFast:
    """A tokenizer whose decoder says nothing about bytes."""
    core = Tokenizer(BPE(vocab={"a</w>": 0, "</s>": 1}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s+"), "removed")
    core.decoder = decoders.BPEDecoder(suffix="</w>")
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>")


def other_model(
    folder: Path,
    tokenizer: PreTrainedTokenizerFast | None = None,
    *,
    layers: int = 1,
    positions: int = 96,
    seed: int = 0,
) -> Path:
    """A random Llama with such a tokenizer, byte-level where none is given; its heads are as wide as engines take them."""
    tokenizer = tokenizer or byte_level()
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=positions,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        pad_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return save_card(folder)


def ascii_teacher(folder: Path, *, positions: int = 512) -> Path:
    """A random byte-level teacher that writes letters and blanks, so that its answers are texts."""
    source = ModelShape(
        layers=4, hidden=64, heads=2, kv_heads=1, mlp=128, vocab=272, tied_embeddings=False, max_positions=positions
    )
    shutil.copytree(make_random(source, seed=0, models_root=folder.parent / "made"), folder)
    model = LlamaForCausalLM.from_pretrained(folder)
    tokenizer = byte_tokenizer()
    plain = [tokenizer.encode(each, add_special_tokens=False)[0] for each in string.ascii_letters + " .,"]
    with torch.no_grad():
        head = model.get_output_embeddings().weight
        others = torch.ones(len(head), dtype=torch.bool)
        others[[*plain, tokenizer.eos_token_id]] = False
        # Their logits are 0, where others are widely spread: greedily they are never chosen.
        head[others] = 0.0
    model.save_pretrained(folder)
    return folder
