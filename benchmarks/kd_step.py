"""A cached-KD step of a student, against its plain cross-entropy step and against one that asks the teacher each time.

All on the same tokens, in turns, each a whole step: forward, backward, gradient clipping and AdamW.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch

from benchmarks.measurement import Measurement, at_least, at_most
from benchmarks.pair import STUDENT_LAYERS, TEACHER_LAYERS, K, answers, device, llama, parameters
from benchmarks.timing import best_seconds
from configs.stages import StageConfig
from student_train.feed.microbatch import MicroBatch
from student_train.losses.divergences import guarded_logsumexp
from student_train.losses.targets import SparseTargets
from student_train.models.decoder import Decoder, StudentModule, take_apart
from student_train.models.live_decoder import LiveDecoder
from student_train.worker_group import keep_freed_memory


def bench_kd_step() -> Iterator[Measurement]:
    """Seconds of the steps, what the cache costs over text, and what it saves over a teacher at hand."""
    keep_freed_memory()
    teacher, student = take_apart(llama(TEACHER_LAYERS)), take_apart(llama(STUDENT_LAYERS))
    batch = answers()
    text, kd = (training_step(student, objective=name) for name in ("seqkd", "kd"))
    afresh = training_step(student, objective="kd", teacher=teacher)
    seconds = best_seconds(
        {
            "text": partial(text, batch),
            "cached": partial(kd, batch),
            "teacher": lambda: wait(teacher_logits(teacher, batch)),
            "live": lambda: kd(replace(batch, targets=ask_teacher(teacher, batch))),
            "whole": partial(afresh, replace(batch, targets=None)),
        }
    )
    peers = {
        "cross-entropy": seconds["text"],
        "with the teacher's pass": seconds["live"],
        "whole distributions of a live teacher": seconds["whole"],
        "the teacher's pass alone": seconds["teacher"],
    }
    yield Measurement("student step, cached KD", seconds["cached"], "s", peers=peers)
    yield at_most("cached KD step / cross-entropy step", seconds["cached"] / seconds["text"], 1.05, digits=3)
    ratio = parameters(teacher.model) / parameters(student.model)
    yield at_least(
        f"step with the teacher's pass / cached KD step (1 + r/3 = {1 + ratio / 3:.2f}, r = {ratio:.2f})",
        seconds["live"] / seconds["cached"],
        round(0.95 * (seconds["text"] + seconds["teacher"]) / seconds["text"], 2),
    )
    name = "step with a teacher at hand (`teacher: live`) / cached KD step"
    yield Measurement(name, seconds["whole"] / seconds["cached"])


def training_step(student: Decoder, *, objective: str, teacher: Decoder | None = None) -> Callable[[MicroBatch], None]:
    """A whole step of this student on a microbatch, beside a teacher that is asked afresh if there is one.

    When it returns, the device is done.
    """
    live = None if teacher is None else LiveDecoder(teacher, tokens=teacher.vocab)
    stage = StageConfig.model_validate(
        {"objective": objective, "steps": 1, "teacher": "cache" if live is None else "live"}
    )
    module = StudentModule(student, stage=stage, vocab=student.vocab, teacher=live)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-6, fused=True)

    def run(batch: MicroBatch) -> None:
        loss, _ = module(batch)
        (loss / len(batch.labels)).backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        wait(loss)

    return run


def wait(_: object = None) -> None:
    """Return when the device has got so far."""
    if device().type == "cuda":
        torch.cuda.synchronize()


@torch.no_grad()
def teacher_logits(teacher: Decoder, batch: MicroBatch) -> torch.Tensor:
    """The teacher's forward pass."""
    return teacher.hidden(batch) @ teacher.head.T


@torch.no_grad()
def ask_teacher(teacher: Decoder, batch: MicroBatch) -> SparseTargets:
    """The teacher's top-k and tail, from a forward pass over the same tokens."""
    logits = teacher_logits(teacher, batch).float()
    whole = torch.logsumexp(logits, dim=1)
    kept, ids = logits.topk(K, dim=1)
    rest = guarded_logsumexp(logits.scatter_(1, ids, float("-inf")))
    return SparseTargets(ids, kept - whole[:, None], rest - whole)
