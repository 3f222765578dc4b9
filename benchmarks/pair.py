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
HIDDEN, MLP, VOCAB = 576, 1536, 49_152
ROWS, LENGTH, RESPONSE, K = 8, 96, 56, 64
"""Sequences of a step, tokens of each, of which the last are the answer, and tokens kept of the teacher."""


def llama(layers: int) -> LlamaForCausalLM:
    """A random model in bfloat16, the same each time."""
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=HIDDEN, intermediate_size=MLP, num_hidden_layers=layers, num_attention_heads=9,
        num_key_value_heads=3, tie_word_embeddings=True, attn_implementation="sdpa",
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(config).to(device(), torch.bfloat16)


def device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def answers(*, rows: int = ROWS, length: int = LENGTH, response: int = RESPONSE, vocab: int = VOCAB) -> MicroBatch:
    """Random tokens with a made-up teacher in the form of the cache."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(3, vocab, (rows, length), generator=generator)
    positions = (torch.arange(rows)[:, None] * length + torch.arange(length - response, length)[None]).flatten()
    count = len(positions)
    targets = beliefs(count, vocab=vocab, generator=generator)
    labels = torch.randint(3, vocab, (count,), generator=generator)
    return MicroBatch(tokens, None, positions, labels, targets).to(device())


def beliefs(count: int, *, vocab: int, generator: torch.Generator) -> SparseTargets:
    """What a made-up teacher believes at `count` positions: K tokens and the mass of all others."""
    # Four times as many tokens make the distribution: the kept ones have most of its mass, not all.
    logprobs = (3 * torch.randn(count, 4 * K, generator=generator)).log_softmax(dim=1)
    kept = logprobs.sort(dim=1, descending=True).values[:, :K]
    # Each of K classes of ids gives one, so that none comes twice.
    ids = torch.randint(vocab // K, (count, K), generator=generator) * K + torch.arange(K)
    return SparseTargets(ids, kept, torch.log1p(-kept.exp().sum(dim=1)))


def parameters(model: LlamaForCausalLM) -> int:
    """Weights of a model, the shared embedding counted once."""
    return sum(weight.numel() for weight in model.parameters())
