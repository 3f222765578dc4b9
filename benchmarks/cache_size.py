"""Bytes a token and the price of quantising, on what real weights say and over a large vocabulary.

The real teacher is that of the quickstart, answering its own prompts; the large vocabulary belongs to a small model
with random weights. KL is that of the stored distribution (the head, and the tail as one more outcome) from the true.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from math import log2
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from benchmarks.measurement import Measurement, Row, at_most
from benchmarks.synthetic import TEACHER
from cache import TeacherCache, TeacherRecord, sequence_key
from configs.loading import load_config
from orchestration.inputs.models import materialise
from orchestration.inputs.prompt_splits import load_prompts
from orchestration.inputs.real_paths import resolve_paths

QUICKSTART = Path("configs/quickstart.yaml")
PROMPTS, BATCH, RESPONSE, K = 64, 16, 64, 64
LARGE_VOCAB = 262_144
WEIGHT_RANGE = 0.4
"""Of the random weights: wide enough for rows about as peaked as a small chat model's."""
RANDOM_RESPONSE = 256
LARGEST_KL = 1e-4
SMALL_VOCAB_BITS, SMALL_BYTES, BYTES_A_BIT = 17, 165, 8
"""A token may take 165 bytes up to V = 2^17 and 8 bytes more for each further bit of an id."""


def bench_cache_size() -> Iterator[Row]:
    """Bytes a response token, everything counted, and KL, of both lossy encodings."""
    with torch.inference_mode():
        real, vocab = _real_records()
        yield from _report("SmolLM2", real, vocab=vocab)
        yield from _report("random weights", list(_random_records()), vocab=LARGE_VOCAB)


def _report(name: str, records: Sequence[TeacherRecord], *, vocab: int) -> Iterator[Row]:
    tokens = sum(record.response_len for record in records)
    yield f"{name}: {len(records)} sequences, {tokens:,} response tokens, K={K}, V={vocab:,}"
    limit = SMALL_BYTES + BYTES_A_BIT * max(0.0, log2(vocab) - SMALL_VOCAB_BITS)
    for encoding in ("topk-u8", "topk-f16"):
        with tempfile.TemporaryDirectory() as directory:
            cache = TeacherCache.open(Path(directory), TEACHER)
            report = cache.put(records, vocab=vocab, encoding=encoding)
            assert report is not None
            stored = cache.get_many([record.key for record in records])
        size = report.bytes / tokens
        if encoding == "topk-u8":
            yield at_most(f"{name}, {encoding}", size, limit, digits=1, unit="bytes a token")
        else:
            yield Measurement(f"{name}, {encoding}", size, "bytes a token", digits=1)
        costs = np.concatenate([_kl(found, record) for found, record in zip(stored, records, strict=True) if found])
        yield at_most(f"{name}, {encoding}, mean KL", float(costs.mean()), LARGEST_KL, digits=7, unit="nats")
        yield Measurement(f"{name}, {encoding}, worst KL", float(costs.max()), "nats", digits=7)


def _kl(stored: TeacherRecord, original: TeacherRecord) -> Any:
    """KL(original ‖ stored) at every position, in nats."""
    true, kept = _outcomes(original), _outcomes(stored)
    return np.where(np.isfinite(true), np.exp(true) * (true - kept), 0.0).sum(axis=1)


def _outcomes(record: TeacherRecord) -> Any:
    """Log-probabilities [S, K + 1] of the head and of all the rest, in float64 and normalised."""
    assert record.topk_logprobs is not None and record.tail_logmass is not None
    joined = np.concatenate([record.topk_logprobs, record.tail_logmass[:, None]], axis=1).astype(np.float64)
    return joined - np.log(np.exp(joined).sum(axis=1, keepdims=True))


def _real_records() -> tuple[list[TeacherRecord], int]:
    """Greedy answers of the quickstart's teacher to its own prompts, and V."""
    config = resolve_paths(load_config(QUICKSTART), config_dir=QUICKSTART.parent)
    files = materialise(config.teacher.model, models_root=config.runtime.models_root)
    model = AutoModelForCausalLM.from_pretrained(files.directory, dtype=torch.float32)
    prompts = load_prompts(config.data, tokenizer=files.tokenizer, stop_ids=files.stop_ids, max_new_tokens=RESPONSE)
    rows = sorted((prompt.prompt_ids for prompt in prompts.splits["train"][:PROMPTS]), key=len)
    records: list[TeacherRecord] = []
    for at in range(0, len(rows), BATCH):
        batch = rows[at : at + BATCH]
        records += _answered(model, batch, stop_ids=files.stop_ids, vocab=files.vocab)
    return records, files.vocab


def _answered(
    model: Any, prompts: Sequence[Sequence[int]], *, stop_ids: Sequence[int], vocab: int
) -> Iterator[TeacherRecord]:
    width = max(len(prompt) for prompt in prompts)
    padded = torch.zeros((len(prompts), width), dtype=torch.int64)
    mask = torch.zeros_like(padded)
    for row, prompt in enumerate(prompts):
        padded[row, width - len(prompt) :], mask[row, width - len(prompt) :] = torch.tensor(prompt), 1
    settings = {"max_new_tokens": RESPONSE, "do_sample": False, "eos_token_id": list(stop_ids), "pad_token_id": 0}
    written = model.generate(padded, attention_mask=mask, **settings)
    for prompt, answer in zip(prompts, written[:, width:].tolist(), strict=True):
        ends = [at for at, token in enumerate(answer) if token in stop_ids]
        tokens = [*prompt, *answer[: ends[0] + 1 if ends else None]]
        yield _scored(model, tokens, prompt_len=len(prompt), vocab=vocab)


def _random_records() -> Iterator[TeacherRecord]:
    """Random tokens, as a random model with a large vocabulary sees them."""
    config = LlamaConfig(
        vocab_size=LARGE_VOCAB, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=False, initializer_range=WEIGHT_RANGE,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    rng = np.random.default_rng(0)
    for _ in range(PROMPTS):
        tokens = rng.integers(0, LARGE_VOCAB, size=40 + RANDOM_RESPONSE).tolist()
        yield _scored(model, tokens, prompt_len=40, vocab=LARGE_VOCAB)


def _scored(model: Any, tokens: Sequence[int], *, prompt_len: int, vocab: int) -> TeacherRecord:
    """What the model believed at every response token."""
    ids = torch.tensor([list(tokens)])
    logits: Tensor = model(ids, logits_to_keep=len(tokens) - prompt_len + 1).logits[0, :-1, :vocab].float()
    whole = logits.logsumexp(dim=1, keepdim=True)
    best = logits.topk(K, dim=1)
    target = logits.gather(1, ids[0, prompt_len:, None])
    head = best.values - whole
    rest = (1 - head.double().exp().sum(dim=1)).clamp_min(2.0**-24).log()
    array = np.array(tokens, dtype=np.int32)
    return TeacherRecord(
        key=sequence_key(TEACHER.digest(), array, prompt_len),
        token_ids=array,
        prompt_len=prompt_len,
        finish="length",
        origin="decode",
        topk_ids=best.indices.int().numpy(),
        topk_logprobs=head.numpy(),
        target_logprobs=(target - whole)[:, 0].numpy(),
        target_ranks=(1 + (logits > target).sum(dim=1)).int().numpy(),
        tail_logmass=rest.float().numpy(),
    )
