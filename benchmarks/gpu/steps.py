"""Whole training steps of a 0.5 B student: cross-entropy, from the cache, with a live 1.5 B teacher.

Both have the shapes of Qwen2.5 and random weights, in bfloat16. A step is forward, backward, gradient clipping and a
fused AdamW. MFU counts the student's operations alone (the teacher's beside them where one runs), attention included,
and is a share of the matrix peak as measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from benchmarks.gpu.measure import ON_GPU, Floors, busy_seconds, judged, share
from benchmarks.kd_step import ask_teacher, teacher_logits, training_step, wait
from benchmarks.measurement import Measurement, Row
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
    ROWS, LENGTH, RESPONSE = 8, 1024, 768
    MICRO_SIZES = (4, 8, 16, 32)
else:
    STUDENT, TEACHER = Shape(64, 128, 2, 2, 1, 1000), Shape(128, 256, 2, 2, 1, 1000)
    ROWS, LENGTH, RESPONSE = 2, 64, 48
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


def bench_steps(floors: Floors) -> Iterator[Row]:
    """Time, tokens a second and MFU of the three steps, and what the cache costs over text and saves over a teacher."""
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
        f"student of {_millions(student)} M, {ROWS} x {LENGTH} tokens a step, {len(batch.positions):,} of them "
        f"learned, teacher of {_millions(teacher)} M"
    )
    for name, run in runs.items():
        peak = peak_bytes(run)
        yield timed(name, seconds[name], tokens=ROWS * LENGTH, flops=flops[name], peak=peak, floors=floors)
    ratio = seconds["cached KD"] / seconds["cross-entropy"]
    yield judged("cached KD step / cross-entropy step", ratio, 1.05, digits=3)
    parts = (seconds["cached KD"] + seconds["the teacher's forward pass alone"]) / seconds["cached KD"]
    live = seconds["KD with a live teacher"] / seconds["cached KD"]
    yield Measurement("step with a live teacher / cached KD step", live, peers={"by the sum of its parts": parts})
    yield from _loss_alone(student, batch, seconds=seconds["cached KD"])
    yield from _microbatches(student, floors=floors)


def timed(name: str, seconds: float, *, tokens: int, flops: float, peak: int, floors: Floors) -> Measurement:
    """Tokens a second, and in words how long it took, MFU and memory."""
    note = (
        f"{1000 * seconds:.1f} ms, MFU {100 * flops / seconds / floors.flops:.1f} %, {peak / 2**30:.1f} GiB at the peak"
    )
    return Measurement(name, tokens / seconds, "tokens/s", digits=0, note=note)


def _loss_alone(student: Decoder, batch: MicroBatch, *, seconds: float) -> Iterator[Row]:
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
    yield Measurement("head and loss alone", 1e3 * taken, "ms", note=f"{share(taken / seconds)} of the cached-KD step")


def _microbatches(student: Decoder, *, floors: Floors) -> Iterator[Row]:
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
        name = f"cached KD, forward and backward of {rows * LENGTH:,} tokens"
        flops = STUDENT.flops(batch, passes=3)
        yield timed(name, taken, tokens=rows * LENGTH, flops=flops, peak=peak_bytes(run), floors=floors)
        if (busy := busy_seconds(run)) is not None:
            yield Measurement(f"{name}, the GPU works for so much of the time", busy / taken)


def _millions(decoder: Decoder) -> str:
    return f"{sum(weight.numel() for weight in decoder.model.parameters()) / 1e6:,.1f}"
