"""A tiny random Llama on disk, and what transformers says about it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from model_cards import save_card
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

MATRIX_ROWS = 160
VOCAB = 150
"""Ids of the imagined tokenizer: fewer than the model's matrix has rows, as in many published models."""


def save_tiny_llama(
    model_dir: Path,
    *,
    seed: int,
    layers: int = 2,
    dtype: torch.dtype = torch.float32,
    rows: int = MATRIX_ROWS,
    vocab: int = VOCAB,
    tied: bool = False,
) -> Path:
    """Peaked enough that every mistake shows; the rows beyond the vocabulary have logit 0, so they are seldom drawn."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=rows,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=256,
        tie_word_embeddings=tied,
        initializer_range=0.4,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.lm_head.weight[vocab:] = 0.0
    model.to(dtype).save_pretrained(model_dir)
    return save_card(model_dir)


def full_logprobs(model_dir: Path, tokens: tuple[int, ...]) -> NDArray[np.float32]:
    """[T - 1, MATRIX_ROWS]: row i predicts token i + 1. Float32, nats."""
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32).eval()
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([list(tokens)])).logits[0, :-1]
    logprobs: NDArray[np.float32] = torch.log_softmax(logits, dim=-1).numpy()
    return logprobs
