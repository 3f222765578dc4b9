"""Tiny models and made-up teacher records for the tests of this folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int32

from cache.records import TeacherRecord, tail_logmass

VOCAB = 97
"""Not a round number, so a vocabulary mask that is off by one shows."""

PADDED = 104
TOP_K = 8


def tiny_llama(path: Path, *, layers: int = 3, hidden: int = 32, tied: bool = True, seed: int = 0) -> Path:
    """A random Llama of about ten thousand weights in `path`, with stand-ins for tokenizer files."""
    # Takes seconds to import, and records need none of it.
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=PADDED,
        hidden_size=hidden,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=tied,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=None,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            # Larger than the usual start: hidden states that differ make mistakes in positions visible.
            parameter.add_(0.1 * torch.randn(parameter.shape))
    model.save_pretrained(path)
    (path / "tokenizer.json").write_text("{}", encoding="utf-8")
    (path / "tokenizer_config.json").write_text('{"made": "for tests"}', encoding="utf-8")
    return path


def record(
    seed: int, *, prompt: int = 4, response: int = 6, k: int = TOP_K, vocab: int = VOCAB, text_only: bool = False
) -> TeacherRecord:
    """A record with random tokens and a random, fairly peaked teacher."""
    draw = np.random.default_rng(seed)
    tokens = draw.integers(3, vocab, size=prompt + response).astype(np.int32)
    if text_only:
        return TeacherRecord(hashlib.sha256(tokens.tobytes()).digest(), tokens, prompt, "stop", "decode")
    return believed(tokens, prompt=prompt, logits=3 * draw.standard_normal((response, vocab)), k=k)


def believed(
    tokens: Int32[np.ndarray, " T"], *, prompt: int, logits: Float[np.ndarray, "S V"], k: int
) -> TeacherRecord:
    """What a teacher of these logits at the response tokens believed of a sequence."""
    logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    order = np.argsort(-logprobs, axis=1)
    top = np.take_along_axis(logprobs, order[:, :k], axis=1)
    answers = tokens[prompt:]
    return TeacherRecord(
        key=hashlib.sha256(tokens.tobytes()).digest(),
        token_ids=tokens,
        prompt_len=prompt,
        finish="stop",
        origin="prefill",
        topk_ids=order[:, :k].astype(np.int32),
        topk_logprobs=top.astype(np.float32),
        target_logprobs=logprobs[np.arange(len(answers)), answers].astype(np.float32),
        target_ranks=(np.argmax(order == answers[:, None], axis=1) + 1).astype(np.int32),
        tail_logmass=tail_logmass(top, vocab=logits.shape[1]),
    )


def records(count: int, *, seed: int = 0, k: int = TOP_K) -> list[TeacherRecord]:
    """Records of many lengths, one of which is a single response token."""
    draw = np.random.default_rng(seed)
    return [
        record(
            1000 * seed + index,
            prompt=int(draw.integers(1, 9)),
            response=1 if index == 0 else int(draw.integers(1, 15)),
            k=k,
        )
        for index in range(count)
    ]
