"""Whole training steps of a 0.5 B student: cross-entropy, from the cache, with a live 1.5 B teacher; and its feed.

Both have the shapes of Qwen2.5 and random weights, in bfloat16. A step is forward, backward, gradient clipping and a
fused AdamW. MFU counts the student's operations alone (the teacher's beside them where one runs), attention included,
and is a share of the matrix peak as measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM

from benchmarks.gpu.measure import ON_GPU, Floors, busy_seconds
from benchmarks.kd_step import ask_teacher, teacher_logits, training_step, wait
from benchmarks.memory import peak_bytes
from benchmarks.pair import answers, device
from benchmarks.timing import best_seconds
from configs.stages import StageConfig
from student_train.feed.microbatch import MicroBatch
from student_train.models.decoder import Decoder, StudentModule, take_apart


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a Qwen2 decoder; heads of 64 or 128, input and output matrix shared."""

    hidden: int
    mlp: int
    layers: int
    heads: int
    kv_heads: int
    vocab: int = 151_936

    def flops(self, batch: MicroBatch, *, passes: int) -> float:
        """Operations on a batch; three passes are forward and backward."""
        head_size = self.hidden // self.heads
        attention = 2 * self.hidden * (self.heads + self.kv_heads) * head_size
        weights = self.layers * (attention + 3 * self.hidden * self.mlp)
        rows, length = batch.input_ids.shape
        # Causal: each token attends to half of the others, once for its scores and once for their sum.
        pairs = self.layers * 2 * self.hidden * rows * length * (length / 2)
        products = weights * rows * length + len(batch.positions) * self.hidden * self.vocab
        return 2.0 * passes * (products + pairs)


if ON_GPU:
    STUDENT, TEACHER = Shape(896, 4864, 24, 14, 2), Shape(1536, 8960, 28, 12, 2)
    ROWS, LENGTH, RESPONSE, MICRO_ROWS, MICROS = 8, 1024, 768, 16, 4
    MICRO_SIZES = (4, 8, 16, 32)
else:
    STUDENT, TEACHER = Shape(64, 128, 2, 2, 1, 1000), Shape(128, 256, 2, 2, 1, 1000)
    ROWS, LENGTH, RESPONSE, MICRO_ROWS, MICROS = 2, 64, 48, 2, 2
    MICRO_SIZES = (1, 4)


def qwen2(shape: Shape) -> Decoder:
    """A random model of this shape in bfloat16."""
    config = Qwen2Config(
        vocab_size=shape.vocab, hidden_size=shape.hidden, intermediate_size=shape.mlp,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
        tie_word_embeddings=True, attn_implementation="sdpa",
    )  # fmt: skip
    torch.manual_seed(0)
    # Drawn where it is used: half a billion numbers take a minute on a CPU.
    with torch.device(device()):
        return take_apart(Qwen2ForCausalLM(config).to(torch.bfloat16))


def bench_steps(floors: Floors) -> Iterator[str]:
    """Tokens a second and MFU of the three steps, and what the cache costs over text and saves over a teacher."""
    student, teacher = qwen2(STUDENT), qwen2(TEACHER)
    batch = answers(rows=ROWS, length=LENGTH, response=RESPONSE, vocab=STUDENT.vocab)
    text, kd = (training_step(student, objective=name) for name in ("seqkd", "kd"))
    runs: dict[str, Callable[[], object]] = {
        "cross-entropy": partial(text, batch),
        "cached KD": partial(kd, batch),
        "KD with a live teacher": lambda: kd(replace(batch, targets=ask_teacher(teacher, batch))),
        "the teacher's forward pass alone": lambda: wait(teacher_logits(teacher, batch)),
    }
    asked = TEACHER.flops(batch, passes=1)
    flops = dict.fromkeys(runs, STUDENT.flops(batch, passes=3))
    flops["KD with a live teacher"] += asked
    flops["the teacher's forward pass alone"] = asked
    seconds = best_seconds(runs)
    yield (
        f"step of a student of {_billions(student)} B, {ROWS} x {LENGTH} tokens, {len(batch.positions)} of them "
        f"learned, teacher of {_billions(teacher)} B:"
    )
    for name, run in runs.items():
        yield (
            f"  {name}: {1000 * seconds[name]:.1f} ms, {ROWS * LENGTH / seconds[name]:.0f} tokens/s, "
            f"MFU {flops[name] / seconds[name] / floors.flops:.1%}, {peak_bytes(run) / 2**30:.1f} GiB at the peak"
        )
    yield f"  cached KD / cross-entropy: {seconds['cached KD'] / seconds['cross-entropy']:.3f}"
    yield f"  live teacher / cached KD: {seconds['KD with a live teacher'] / seconds['cached KD']:.3f}"
    yield from _loss_alone(student, batch, seconds=seconds["cached KD"])
    yield from _microbatches(student, floors=floors)


def _loss_alone(student: Decoder, batch: MicroBatch, *, seconds: float) -> Iterator[str]:
    stage = StageConfig.model_validate({"objective": "kd", "steps": 1})
    module = StudentModule(student, stage=stage, vocab=student.vocab)
    with torch.no_grad():
        states = student.hidden(batch)
    states.requires_grad_()

    def run() -> None:
        states.grad = student.head.grad = None
        loss, _ = module.head(states, batch)
        loss.backward()
        wait()

    taken = best_seconds({"loss": run})["loss"]
    yield f"  head and loss alone: {1000 * taken:.1f} ms, {taken / seconds:.0%} of the cached-KD step"


def _microbatches(student: Decoder, *, floors: Floors) -> Iterator[str]:
    """Forward and backward alone: small microbatches leave a fast device waiting for the host."""
    stage = StageConfig.model_validate({"objective": "kd", "steps": 1})
    module = StudentModule(student, stage=stage, vocab=student.vocab)
    for rows in MICRO_SIZES:
        batch = answers(rows=rows, length=LENGTH, response=RESPONSE, vocab=STUDENT.vocab)

        def run(batch: MicroBatch = batch) -> None:
            loss, _ = module(batch)
            loss.backward()
            for parameter in module.parameters():
                parameter.grad = None
            wait()

        taken = best_seconds({"pass": run})["pass"]
        busy = busy_seconds(run)
        yield (
            f"  cached KD, forward and backward of {rows * LENGTH} tokens: {1000 * taken:.1f} ms, "
            f"{rows * LENGTH / taken:.0f} tokens/s, MFU {STUDENT.flops(batch, passes=3) / taken / floors.flops:.1%}, "
            f"{peak_bytes(run) / 2**30:.1f} GiB at the peak"
            f"{'' if busy is None else f', the GPU busy for {busy / taken:.0%} of the time'}"
        )


def bench_feed(floors: Floors) -> Iterator[str]:
    """A step of several microbatches that come from the host: copied when needed, or ahead on another stream."""
    student = qwen2(STUDENT)
    stage = StageConfig.model_validate({"objective": "kd", "steps": 1})
    module = StudentModule(student, stage=stage, vocab=student.vocab)
    whole = answers(rows=MICRO_ROWS, length=LENGTH, response=RESPONSE, vocab=STUDENT.vocab).to(torch.device("cpu"))
    micros = [_changed(whole, torch.clone) for _ in range(MICROS)]
    there = [micro.to(device()) for micro in micros]

    def train(batches: Iterator[MicroBatch]) -> None:
        for batch in batches:
            loss, _ = module(batch)
            loss.backward()
        for parameter in module.parameters():
            parameter.grad = None
        wait()

    runs: dict[str, Callable[[], object]] = {
        "already on the device": lambda: train(iter(there)),
        "copied when needed": lambda: train(micro.to(device()) for micro in micros),
    }
    if ON_GPU:
        pinned = [_changed(micro, Tensor.pin_memory) for micro in micros]
        runs |= {
            "pinned and copied ahead": lambda: train(_ahead(_changed(micro, Tensor.pin_memory) for micro in micros)),
            "copied ahead from pinned memory": lambda: train(_ahead(iter(pinned))),
        }
    seconds = best_seconds(runs)
    tokens = MICROS * MICRO_ROWS * LENGTH
    size = sum(part.numel() * part.element_size() for part in _parts(whole))
    yield f"feed of {MICROS} microbatches of {MICRO_ROWS} x {LENGTH} tokens, {size / 2**20:.1f} MiB each, no optimiser:"
    for name, taken in seconds.items():
        yield f"  {name}: {tokens / taken:.0f} tokens/s, {taken / seconds['already on the device']:.3f} of the time"
    if not ON_GPU:
        yield "  pinned memory: left out without a GPU"


def _ahead(batches: Iterator[MicroBatch]) -> Iterator[MicroBatch]:
    """Each batch on the GPU; while one is worked on the next is on its way."""
    stream = torch.cuda.Stream()

    def sent(batch: MicroBatch) -> tuple[MicroBatch, torch.cuda.Event]:
        with torch.cuda.stream(stream):
            return _changed(batch, lambda part: part.to(device(), non_blocking=True)), stream.record_event()

    coming = None
    for batch in batches:
        ready, coming = coming, sent(batch)
        if ready is not None:
            yield _received(*ready)
    if coming is not None:
        yield _received(*coming)


def _received(batch: MicroBatch, arrived: torch.cuda.Event) -> MicroBatch:
    current = torch.cuda.current_stream()
    current.wait_event(arrived)
    for part in _parts(batch):
        # Its memory came from the other stream: it must not be given away before this one is through with it.
        part.record_stream(current)
    return batch


def _changed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same frozen value with every tensor in it changed."""
    if isinstance(value, Tensor):
        return change(value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{part.name: _changed(getattr(value, part.name), change) for part in fields(value)})
    return value


def _parts(batch: MicroBatch) -> list[Tensor]:
    found: list[Tensor] = []

    def keep(part: Tensor) -> Tensor:
        found.append(part)
        return part

    _changed(batch, keep)
    return found


def _billions(decoder: Decoder) -> str:
    return f"{sum(weight.numel() for weight in decoder.model.parameters()) / 1e9:.2f}"
