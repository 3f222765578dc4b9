"""A teacher and a student with random weights, and one batch: what the benchmarks of a training step share.

The teacher has the shape of SmolLM2-135M (30 layers, hidden 576, 49,152 tokens), the student is 10 layers of it. What
random weights say does not change the time.
"""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from student_train.feed.microbatch import MicroBatch
from student_train.losses.targets import SparseTargets

TEACHER_LAYERS, STUDENT_LAYERS = 30, 10
HIDDEN, VOCAB = 576, 49_152
ROWS, LENGTH, RESPONSE, K = 8, 96, 56, 64
"""Sequences of a step, tokens of each, of which the last are the answer, and tokens kept of the teacher."""


def llama(layers: int) -> LlamaForCausalLM:
    """A random model in bfloat16, the same each time."""
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=HIDDEN, intermediate_size=1536, num_hidden_layers=layers, num_attention_heads=9,
        num_key_value_heads=3, tie_word_embeddings=True, attn_implementation="sdpa",
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(config).to(device(), torch.bfloat16)


def device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def answers() -> MicroBatch:
    """Random tokens with a made-up teacher in the form of the cache."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(3, VOCAB, (ROWS, LENGTH), generator=generator)
    positions = (torch.arange(ROWS)[:, None] * LENGTH + torch.arange(LENGTH - RESPONSE, LENGTH)[None]).flatten()
    count = len(positions)
    # Four times as many tokens make the distribution: the kept ones have most of its mass, not all.
    logprobs = (3 * torch.randn(count, 4 * K, generator=generator)).log_softmax(dim=1)
    kept = logprobs.sort(dim=1, descending=True).values[:, :K]
    targets = SparseTargets(
        ids=torch.stack([torch.randperm(VOCAB, generator=generator)[:K] for _ in range(count)]),
        logprobs=kept,
        tail_logmass=torch.log1p(-kept.exp().sum(dim=1)),
    )
    labels = torch.randint(3, VOCAB, (count,), generator=generator)
    return MicroBatch(tokens, None, positions, labels, targets).to(device())


def parameters(model: LlamaForCausalLM) -> int:
    """Weights of a model, the shared embedding counted once."""
    return sum(weight.numel() for weight in model.parameters())
