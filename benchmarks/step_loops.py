"""Training steps of the pair: ours, from a cache on disk under DeepSpeed, and loops as one writes them by hand.

All learn the same made-up answers with the same student in bfloat16, gradients clipped at 1. What is kept of a teacher
is read anew in every step. The loops by hand compute logits at every position, as a model's `forward` does; their
AdamW works in pure bfloat16, ours on float32 master weights.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.pair import LENGTH, RESPONSE, ROWS, STUDENT_LAYERS, TEACHER_LAYERS, VOCAB, K, device, llama
from benchmarks.synthetic import TEACHER, Rows, zipf_rows
from benchmarks.turns import Turn
from configs.schema import TrainingSettings
from configs.stages import StageConfig
from student_train.feed.steps import Feed
from student_train.models.decoder import StudentModule, take_apart
from student_train.worker_group import join_group

STEPS = 48
"""As many batches are kept; who takes more begins again."""

PROMPT = LENGTH - RESPONSE
LEARNING_RATE = 1e-6


def kept() -> Rows:
    """What a teacher said at each answer position of all batches."""
    return zipf_rows(rows=STEPS * ROWS * RESPONSE, k=K, vocab=VOCAB)


def tokens() -> Tensor:
    """[STEPS, ROWS, LENGTH], any tokens."""
    return torch.randint(3, VOCAB, (STEPS, ROWS, LENGTH), generator=torch.Generator().manual_seed(0))


def from_the_cache(turn: Turn) -> None:
    """Ours: rows are read and decoded, laid out, learned; two steps are read ahead, as in training."""
    group = join_group(None)
    # Imported late: DeepSpeed picks its accelerator from the environment while it is imported.
    from cache import TeacherCache
    from student_train.training.deepspeed_engine import DeepSpeedEngine

    stage = StageConfig.model_validate({"objective": "kd", "steps": 1})
    settings = TrainingSettings(micro_batch_tokens=ROWS * LENGTH)
    module = StudentModule(take_apart(llama(STUDENT_LAYERS)), stage=stage, vocab=VOCAB)
    engine = DeepSpeedEngine(module, stage=stage, settings=settings, group=group)
    with tempfile.TemporaryDirectory() as folder:
        cache, records = TeacherCache.open(Path(folder), TEACHER), kept().records(RESPONSE)
        cache.put(records, vocab=VOCAB)
        view = cache.view([record.key for record in records], dataset="bench", k=K)
        feed = Feed(cache, view, group, settings.micro_batch_tokens, with_targets=True)
        order = np.split(np.random.default_rng(1).permutation(len(view)), STEPS)
        while True:
            steps = feed.steps(order)
            for _ in order:
                turn.begin()
                step = next(steps)
                engine.step(step.batches, places=step.response_tokens, learning_rate=LEARNING_RATE, stop=lambda: False)
                turn.end()


def teacher_at_hand(turn: Turn) -> None:
    """By hand: the teacher runs in each step, and the whole of both distributions is compared."""
    teacher = llama(TEACHER_LAYERS).eval()

    def loss(student: Any, batch: Tensor, _: int) -> Tensor:
        with torch.no_grad():
            theirs = teacher(batch).logits[:, PROMPT - 1 : -1].log_softmax(dim=-1)
        ours = student(batch).logits[:, PROMPT - 1 : -1].log_softmax(dim=-1)
        return (theirs.exp() * (theirs - ours)).sum(dim=-1).mean()

    _by_hand(turn, loss)


def top_k_from_arrays(turn: Turn, *, master: bool = False) -> None:
    """By hand: ids and log-probabilities of the top k lie in two memory maps, without their tail."""
    rows, shape = kept(), (STEPS, ROWS, RESPONSE, K)
    with tempfile.TemporaryDirectory() as folder:
        ids = np.memmap(f"{folder}/ids", dtype=np.int32, mode="w+", shape=shape)
        logprobs = np.memmap(f"{folder}/logprobs", dtype=np.float16, mode="w+", shape=shape)
        ids[:], logprobs[:] = rows.ids.reshape(shape), rows.logprobs.reshape(shape)

        def loss(student: Any, batch: Tensor, step: int) -> Tensor:
            theirs = torch.from_numpy(logprobs[step].astype(np.float32)).to(device())
            kept_ids = torch.from_numpy(ids[step].astype(np.int64)).to(device())
            ours = student(batch).logits[:, PROMPT - 1 : -1].log_softmax(dim=-1).gather(-1, kept_ids)
            return (theirs.exp() * (theirs - ours)).sum(dim=-1).mean()

        _by_hand(turn, loss, master=master)


def top_k_with_master_weights(turn: Turn) -> None:
    """The same with float32 weights under autocast: as exact as ours, where small updates are not rounded away."""
    top_k_from_arrays(turn, master=True)


def _by_hand(turn: Turn, loss: Callable[[Any, Tensor, int], Tensor], *, master: bool = False) -> None:
    student = llama(STUDENT_LAYERS).train()
    if master:
        student = student.float()
    optimizer = torch.optim.AdamW(student.parameters(), lr=LEARNING_RATE, fused=True)
    batches = tokens()
    for at in _again_and_again(partial(range, STEPS)):
        turn.begin()
        with torch.autocast(device().type, torch.bfloat16, enabled=master):
            value = loss(student, batches[at].to(device()), at)
        value.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        turn.end()


def _again_and_again(numbers: Callable[[], range]) -> Iterator[int]:
    while True:
        yield from numbers()
