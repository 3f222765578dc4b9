"""Rollouts of two real engines against what transformers says of both models: tokens, gradients, weights.

The vocabulary is so small that every response can be enumerated, so the truth is exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_process import EngineProcess
from tiny_llama import save_tiny_llama
from torch import Tensor
from transformers import AutoModelForCausalLM

from cache.identity import TeacherIdentity
from cache.records import ScoreRequest
from configs.rollouts import PolicyConfig
from configs.schema import EngineSettings
from orchestration.rollouts.mixture import Tally, sample_rollout
from orchestration.rollouts.sequence import RolloutPrompt, Sampled, Sampling
from student_train.losses.minillm import SampledResponses, minillm_loss

pytestmark = [pytest.mark.slow, pytest.mark.engine, pytest.mark.timeout(600)]

VOCAB, EOS, LENGTH = 16, 2, 3
PROMPT = (1, 7, 9, 4, 11)
SAMPLES, ALPHA = 20_000, 0.2
SETTINGS = EngineSettings(cpus=1, max_model_len=64, max_batched_tokens=2048, max_sequences=512, kv_cache_gib=0.2)
GROUPS = 40
"""Into which the samples are split, so that their spread gives the standard error."""


@dataclass(frozen=True)
class OneEngine:
    """A `RolloutPool`."""

    engine: EngineProcess
    block_tokens: int = 32
    capacity: int = SETTINGS.max_sequences
    shares_processor: bool = True

    def engines(self) -> list[EngineProcess]:
        return [self.engine]


@dataclass(frozen=True)
class Pair:
    """Engines of both models, and each model's logits [prefixes, V]; see `prefix_at`."""

    student: EngineProcess
    teacher: EngineProcess
    teacher_dir: Path
    q: Tensor
    p: Tensor


def identity(digit: str) -> TeacherIdentity:
    return TeacherIdentity(weights_sha256=digit * 64, config_sha256="b" * 64, dtype="float32")


def prefix_at(response: np.ndarray) -> int:
    """The row of the tables that belongs to what follows `response`: one for (), then V, then V * V."""
    row = 0
    for token in response:
        row = row * VOCAB + int(token) + 1
    return row


def all_logits(model_dir: Path) -> Tensor:
    """Logits after the prompt and each response of up to LENGTH - 1 tokens, in float64."""
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float64).eval()
    tables = []
    for length in range(LENGTH):
        tokens = [(*PROMPT, *response) for response in product(range(VOCAB), repeat=length)]
        with torch.inference_mode():
            tables.append(model(input_ids=torch.tensor(tokens)).logits[:, -1])
    return torch.cat(tables).clone()


def start(model_dir: Path, number: int) -> EngineProcess:
    return EngineProcess(
        model_dir,
        identity=identity(str(number)),
        settings=SETTINGS,
        vocab=VOCAB,
        seed=1000 * number,
        max_logprobs=VOCAB,
        purpose="rollout",
    )


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    root = tmp_path_factory.mktemp("models")
    models = [save_tiny_llama(root / str(seed), seed=seed, rows=VOCAB, vocab=VOCAB, tied=True) for seed in (0, 1)]
    tables = [all_logits(model) for model in models]
    with ThreadPoolExecutor(len(models)) as threads:
        engines = list(threads.map(start, models, range(len(models))))
    yield Pair(*engines, models[1], *tables)
    for engine in engines:
        engine.close()
        if engine.process.is_alive():
            engine.process.kill()


@pytest.fixture(scope="module")
def rollout(pair: Pair) -> tuple[list[Sampled], Tally]:
    return sample_rollout(
        [RolloutPrompt(PROMPT, number=number) for number in range(SAMPLES)],
        student=OneEngine(pair.student),
        teacher=OneEngine(pair.teacher),
        sampling=Sampling(alpha=ALPHA, seed=(1,), version=0, max_new_tokens=LENGTH, stop_ids=(EOS,), k=4),
    )


def deviations(counts: np.ndarray, probs: np.ndarray) -> float:
    """Standard deviations by which chi-square exceeds its mean; cells of fewer than 5 expected counts are one."""
    expected = counts.sum() * probs
    large = expected >= 5
    expected = np.append(expected[large], expected[~large].sum())
    counts = np.append(counts[large], counts[~large].sum())
    counts, expected = (each[expected > 0] for each in (counts, expected))
    statistic = ((counts - expected) ** 2 / expected).sum()
    return float((statistic - (len(counts) - 1)) / np.sqrt(2 * (len(counts) - 1)))


def test_tokens_follow_the_mixture_of_probabilities(pair: Pair, rollout: tuple[list[Sampled], Tally]) -> None:
    sampled, tally = rollout
    assert len(sampled) == tally.scored_sequences == SAMPLES and tally.scoring_passes == 1.0
    counts = np.zeros((len(pair.q), VOCAB))
    for each in sampled:
        response = each.record.response_ids
        for at, token in enumerate(response):
            counts[prefix_at(response[:at]), token] += 1
    p, q = pair.p.softmax(dim=1).numpy(), pair.q.softmax(dim=1).numpy()
    logits = (ALPHA * pair.p + (1 - ALPHA) * pair.q).softmax(dim=1).numpy()
    # The prompt alone, and the most frequent beginnings of one and of two tokens.
    order = counts.sum(axis=1).argsort()[::-1]
    rows = [0, *[row for row in order if 0 < row <= VOCAB][:4], *[row for row in order if row > VOCAB][:6]]
    assert counts[rows].sum(axis=1).min() > 200
    exact = [deviations(counts[row], ALPHA * p[row] + (1 - ALPHA) * q[row]) for row in rows]
    mixed_logits = [deviations(counts[row], logits[row]) for row in rows]
    assert max(exact) < 4.5
    assert max(mixed_logits) > 10


def test_both_engines_say_what_transformers_says(pair: Pair, rollout: tuple[list[Sampled], Tally]) -> None:
    p, q = pair.p.log_softmax(dim=1).numpy(), pair.q.log_softmax(dim=1).numpy()
    by_teacher, tokens = 0, 0
    for each in rollout[0]:
        response = each.record.response_ids
        rows = [prefix_at(response[:at]) for at in range(len(response))]
        np.testing.assert_allclose(each.record.target_logprobs, p[rows, response], atol=5e-3)
        own = ~each.sources
        np.testing.assert_allclose(each.student_logprobs[own], q[rows, response][own], atol=5e-3)
        by_teacher += int(each.sources.sum())
        tokens += len(response)
    assert abs(by_teacher / tokens - ALPHA) < 4 * np.sqrt(ALPHA * (1 - ALPHA) / tokens)


def exact_gradient(pair: Pair) -> Tensor:
    """Of the reverse KL between whole responses, on the student's logits [prefixes, V]."""
    logits = pair.q.clone().requires_grad_()
    logq, logp = logits.log_softmax(dim=1), pair.p.log_softmax(dim=1)

    def divergence(response: tuple[int, ...]) -> Tensor:
        row = prefix_at(np.array(response))
        later = logq.new_zeros(VOCAB)
        if len(response) < LENGTH - 1:
            rest = [0.0 if token == EOS else divergence((*response, token)) for token in range(VOCAB)]
            later = torch.stack([torch.as_tensor(each, dtype=torch.float64) for each in rest])
        return (logq[row].exp() * (logq[row] - logp[row] + later)).sum()

    divergence(()).backward()
    assert logits.grad is not None
    return logits.grad


def sampled_gradients(pair: Pair, sampled: list[Sampled], *, importance: str) -> Tensor:
    """[GROUPS, prefixes, V]: the loss's gradient over each group of responses."""
    ids = torch.full((len(sampled), LENGTH), EOS)
    rows = torch.zeros_like(ids)
    mask = torch.zeros_like(ids, dtype=torch.bool)
    for number, each in enumerate(sampled):
        response = each.record.response_ids
        ids[number, : len(response)] = torch.tensor(response.tolist())
        rows[number, : len(response)] = torch.tensor([prefix_at(response[:at]) for at in range(len(response))])
        mask[number, : len(response)] = True
    gradients = []
    for group in torch.arange(len(sampled)).chunk(GROUPS):
        logits = pair.q.clone().requires_grad_()
        at, drawn = rows[group], ids[group].unsqueeze(2)
        written = SampledResponses(
            ids=ids[group],
            mask=mask[group],
            old_logprobs=pair.q.log_softmax(dim=1)[at].gather(2, drawn)[:, :, 0],
            teacher_logprobs=pair.p.log_softmax(dim=1)[at].gather(2, drawn)[:, :, 0],
            alpha=ALPHA,
        )
        policy = PolicyConfig(importance=importance, length_normalised=False)
        loss = minillm_loss(logits[at], written, pair.p[at], policy=policy, reduction="sequences")
        loss.total.backward()
        assert logits.grad is not None
        gradients.append(logits.grad)
    return torch.stack(gradients)


def error_in_standard_errors(gradients: Tensor, exact: Tensor) -> Tensor:
    """Along the exact gradient, and at each logit of the first token."""
    along = (gradients * exact).sum(dim=(1, 2)) / exact.norm()
    values = torch.cat([along[:, None], gradients[:, 0]], dim=1)
    truth = torch.cat([exact.norm()[None], exact[0]])
    return (values.mean(dim=0) - truth) / (values.std(dim=0) / GROUPS**0.5)


def test_the_expected_gradient_is_that_of_the_sequence_kl(pair: Pair, rollout: tuple[list[Sampled], Tally]) -> None:
    exact = exact_gradient(pair)
    errors = error_in_standard_errors(sampled_gradients(pair, rollout[0], importance="per_decision"), exact)
    unweighted = error_in_standard_errors(sampled_gradients(pair, rollout[0], importance="none"), exact)
    assert float(errors.abs().max()) < 4
    assert float(unweighted.abs().max()) > 8


def test_loaded_weights_are_those_of_an_engine_started_with_them(pair: Pair) -> None:
    """Stands last, since the student's engine ends with the teacher's weights."""
    before, wanted = pair.student.checksums(), pair.teacher.checksums()
    assert before.keys() == wanted.keys() and len(before) > 10
    # Every weight of these two models is random but for the norms, which are all ones.
    changed = {name for name in before if before[name] != wanted[name]}
    assert changed == {name for name in before if "norm" not in name}
    assert {"0.model.embed_tokens.weight", "0.lm_head.weight"} <= changed
    pair.student.load(pair.teacher_dir, identity=identity("2"))
    assert pair.student.checksums() == wanted
    sequence = ScoreRequest((*PROMPT, 5, 8, 13), len(PROMPT))
    [(_, ours)], [(_, theirs)] = (list(each.score([sequence], k=VOCAB)) for each in (pair.student, pair.teacher))
    np.testing.assert_allclose(ours.target_logprobs, theirs.target_logprobs, atol=1e-4)
