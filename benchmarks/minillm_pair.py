"""MiniLLM on a small real pair: what it does to the reverse KL of a student that SeqKD has trained.

The teacher is that of `benchmarks.student_starts`, a Llama of six layers trained here on a made-up language; the
student has two of its layers. The reverse KL is that of whole answers to held-out prompts, on what each student itself
writes.
"""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from benchmarks.measurement import Measurement, at_most
from benchmarks.student_starts import VOCAB, language, trained_teacher
from benchmarks.timing import one_thread
from configs.rollouts import PolicyConfig
from configs.stages import StageConfig
from evaluation.sampled import SampledReverseKL, sampled_reverse_kl
from student_train.feed.microbatch import MicroBatch
from student_train.losses.advantages import PolicyTerms, policy_terms
from student_train.losses.targets import SparseTargets
from student_train.models.decoder import StudentModule, take_apart
from student_train.starts.derive import derive_student

PROMPT, ANSWER, PROMPTS, K = 8, 24, 64, 16
SEEDS, ALPHA = 5, 0.2
SEQKD_BATCHES, SEQKD_PASSES, ROLLOUTS, PASSES, PARTS = 16, 4, 8, 2, 4
SEQKD = StageConfig(objective="seqkd", steps=SEQKD_BATCHES * SEQKD_PASSES)
MINILLM = StageConfig.model_validate({"objective": "minillm", "rollout": {"count": ROLLOUTS, "alpha": ALPHA}})
T_95 = 2.776
"""Student's t for a two-sided 95 % interval from five seeds."""


@dataclass(frozen=True, slots=True)
class Gain:
    """One seed: reverse KL of the SeqKD student and of what MiniLLM made of it, in nats a token."""

    start: SampledReverseKL
    end: SampledReverseKL


def bench_minillm_pair() -> Iterator[Measurement]:
    """One line a seed, then the mean difference with its interval."""
    with one_thread(), tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
        yield from _lines(list(gains(Path(folder))))


def gains(folder: Path) -> Iterator[Gain]:
    """Train the pair in `folder`, then a SeqKD student and MiniLLM from it for every seed."""
    teacher_dir = trained_teacher(folder / "teacher")
    teacher = AutoModelForCausalLM.from_pretrained(teacher_dir).eval()
    start_dir = derive_student(teacher_dir, folder / "start", keep_layers=2)
    torch.manual_seed(SEEDS)
    lessons = [_written(teacher, teacher, _prompts(seed=1_000 + number), alpha=0.0) for number in range(SEQKD_BATCHES)]
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        student = AutoModelForCausalLM.from_pretrained(start_dir)
        _seqkd(student, lessons)
        start = _reverse_kl(student, teacher, seed=seed)
        improved = copy.deepcopy(student)
        _minillm(improved, teacher, seed=seed)
        yield Gain(start, _reverse_kl(improved, teacher, seed=seed))


def _lines(found: list[Gain]) -> Iterator[Measurement]:
    for seed, gain in enumerate(found):
        widths = [f"± {1.96 * kl.a_token_stderr:.3f}" for kl in (gain.end, gain.start)]
        what, peers = f"small pair, seed {seed}, reverse KL after MiniLLM", {"after SeqKD": gain.start.a_token}
        yield Measurement(what, gain.end.a_token, "nats a token", digits=3, peers=peers, note=" and ".join(widths))
    differences = np.array([gain.end.a_token - gain.start.a_token for gain in found])
    width = T_95 * differences.std(ddof=1) / math.sqrt(len(differences))
    yield Measurement(
        "small pair, MiniLLM - SeqKD", differences.mean(), "nats a token", digits=3, note=f"± {width:.3f}"
    )
    what = "small pair, MiniLLM - SeqKD, upper end of the interval"
    yield at_most(what, differences.mean() + width, 0.0, unit="nats a token", digits=3)


def _seqkd(student: Any, lessons: list[Tensor]) -> None:
    module = StudentModule(take_apart(student.train()), stage=SEQKD, vocab=VOCAB)
    optimiser = torch.optim.AdamW(module.parameters(), lr=2e-3, weight_decay=0.0)
    for _ in range(SEQKD_PASSES):
        for number in torch.randperm(len(lessons)).tolist():
            _step(module, optimiser, _batch(lessons[number]))


def _minillm(student: Any, teacher: Any, *, seed: int) -> None:
    module = StudentModule(take_apart(student), stage=MINILLM, vocab=VOCAB)
    optimiser = torch.optim.AdamW(module.parameters(), lr=3e-4, weight_decay=0.0)
    for number in range(ROLLOUTS):
        tokens = _written(student, teacher, _prompts(seed=50_000 * (seed + 1) + number), alpha=ALPHA)
        old, beliefs = _logprobs(student, tokens), _logprobs(teacher, tokens)
        answers = tokens[:, PROMPT:, None]
        table = policy_terms(
            beliefs.gather(2, answers)[..., 0].double(),
            old.gather(2, answers)[..., 0].double(),
            torch.ones_like(answers[..., 0], dtype=torch.bool),
            alpha=ALPHA,
            policy=PolicyConfig(),
        )
        terms = table.rows()
        for _ in range(PASSES):
            for rows in torch.randperm(len(tokens)).chunk(PARTS):
                top = beliefs[rows].flatten(0, 1).topk(K)
                tail = torch.log1p(-top.values.exp().sum(dim=1).clamp_max(1 - 1e-6))
                targets = SparseTargets(top.indices, top.values, tail)
                own = PolicyTerms.joined([terms[row] for row in rows.tolist()])
                _step(module, optimiser, _batch(tokens[rows], targets=targets, policy=own))


def _step(module: StudentModule, optimiser: torch.optim.Optimizer, batch: MicroBatch) -> None:
    module.train()
    loss, _ = module(batch)
    (loss / len(batch.labels)).backward()
    torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
    optimiser.step()
    optimiser.zero_grad()


def _batch(tokens: Tensor, *, targets: SparseTargets | None = None, policy: PolicyTerms | None = None) -> MicroBatch:
    """The answers of [B, T] sequences."""
    width = tokens.shape[1] - 1
    places = torch.arange(len(tokens))[:, None] * width + torch.arange(PROMPT - 1, width)
    return MicroBatch(tokens[:, :-1], None, places.flatten(), tokens[:, PROMPT:].flatten(), targets, policy)


def _prompts(*, seed: int) -> Tensor:
    return torch.cat([language(seed=2 * seed), language(seed=2 * seed + 1)])[:PROMPTS, :PROMPT]


@torch.no_grad()
def _written(student: Any, teacher: Any, tokens: Tensor, *, alpha: float) -> Tensor:
    """Answers token by token, each from alpha p + (1 - alpha) q."""
    student.eval()
    for _ in range(ANSWER):
        mixed = student(tokens).logits[:, -1].softmax(dim=1)
        if alpha > 0.0:
            mixed = alpha * teacher(tokens).logits[:, -1].softmax(dim=1) + (1.0 - alpha) * mixed
        tokens = torch.cat([tokens, torch.multinomial(mixed, 1)], dim=1)
    return tokens


@torch.no_grad()
def _logprobs(model: Any, tokens: Tensor) -> Tensor:
    """What a model believes at each answer token, [B, S, V] in nats."""
    return model.eval()(tokens[:, :-1]).logits[:, PROMPT - 1 :].log_softmax(dim=2)


def _reverse_kl(student: Any, teacher: Any, *, seed: int) -> SampledReverseKL:
    tokens = torch.cat(
        [_written(student, student, _prompts(seed=900_000 + 10 * seed + part), alpha=0.0) for part in range(4)]
    )
    answers = tokens[:, PROMPT:, None]
    ours, theirs = (_logprobs(model, tokens).gather(2, answers)[..., 0].numpy() for model in (student, teacher))
    return sampled_reverse_kl(zip(ours, theirs, strict=True))
