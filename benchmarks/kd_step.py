"""A cached-KD step of a student against its plain cross-entropy step, on the same tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.timing import best_seconds
from configs.stages import StageConfig
from student_train.batching import MicroBatch
from student_train.model import StudentModule, take_apart
from student_train.targets import SparseTargets

ROWS, LENGTH, RESPONSE, K, VOCAB = 8, 96, 56, 64, 49_152


def bench_kd_step() -> Iterator[str]:
    """Seconds of both steps (forward and backward), and their ratio."""
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=576, intermediate_size=1536, num_hidden_layers=4, num_attention_heads=9,
        num_key_value_heads=3, tie_word_embeddings=True,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        decoder = take_apart(LlamaForCausalLM(config).to(torch.bfloat16))
        batch = _batch()
    steps = {name: _step(StudentModule(decoder, stage=_stage(name), vocab=VOCAB), batch) for name in ("seqkd", "kd")}
    seconds = best_seconds(steps)
    yield f"student step: cross-entropy {seconds['seqkd']:.2f} s, cached KD {seconds['kd']:.2f} s, ratio " + (
        f"{seconds['kd'] / seconds['seqkd']:.3f}"
    )


def _stage(objective: str) -> StageConfig:
    return StageConfig.model_validate({"objective": objective, "steps": 1})


def _batch() -> MicroBatch:
    """Random tokens with a made-up teacher; what they say does not change the time."""
    tokens = torch.randint(3, VOCAB, (ROWS, LENGTH))
    positions = (torch.arange(ROWS)[:, None] * LENGTH + torch.arange(LENGTH - RESPONSE, LENGTH)[None]).flatten()
    count = len(positions)
    logprobs = torch.log_softmax(3 * torch.randn(count, 4 * K), dim=1).sort(descending=True).values[:, :K]
    targets = SparseTargets(
        ids=torch.stack([torch.randperm(VOCAB)[:K] for _ in range(count)]),
        logprobs=logprobs,
        tail_logmass=torch.log1p(-logprobs.exp().sum(dim=1)),
    )
    return MicroBatch(tokens, positions, torch.randint(3, VOCAB, (count,)), targets)


def _step(module: StudentModule, batch: MicroBatch) -> Callable[[], None]:
    def run() -> None:
        loss, _ = module(batch)
        loss.backward()
        module.zero_grad()

    return run
