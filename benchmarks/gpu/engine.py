"""A step under DeepSpeed on one device: tokens a second, MFU, memory, and how often the host waits in it."""

from __future__ import annotations

import gc
import importlib.util
from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.gpu.measure import ON_GPU, Floors, busy_seconds, host_waits
from benchmarks.gpu.steps import LENGTH, RESPONSE, STUDENT, qwen2
from benchmarks.kd_step import wait
from benchmarks.memory import peak_bytes
from benchmarks.pair import answers
from benchmarks.timing import best_seconds
from configs.schema import TrainingSettings
from configs.stages import StageConfig
from student_train.models.decoder import StudentModule
from student_train.worker_group import join_group

CASES = ((0, 4, 4), (2, 4, 4), (2, 16, 1)) if ON_GPU else ((0, 2, 2), (2, 4, 1))
"""ZeRO stage, rows of a microbatch, and microbatches of a step: the same tokens a step in each."""


def bench_deepspeed(floors: Floors) -> Iterator[str]:
    """The cached-KD step as training takes it."""
    if importlib.util.find_spec("deepspeed") is None:
        yield "DeepSpeed: left out, it is not installed"
        return
    group = join_group(None)
    # Imported late: DeepSpeed picks its accelerator from the environment while it is imported.
    from student_train.training.deepspeed_engine import DeepSpeedEngine

    stage = StageConfig.model_validate({"objective": "kd", "steps": 1})
    for zero_stage, rows, micros in CASES:
        batch = answers(rows=rows, length=LENGTH, response=RESPONSE, vocab=STUDENT.vocab).to(torch.device("cpu"))
        student = qwen2(STUDENT)
        module = StudentModule(student, stage=stage, vocab=student.vocab)
        settings = TrainingSettings.model_validate({"zero_stage": zero_stage})
        engine = DeepSpeedEngine(module, stage=stage, settings=settings, group=group)
        step = partial(
            engine.step, [batch] * micros, places=micros * len(batch.labels), learning_rate=1e-6,
            stop=lambda: False,
        )  # fmt: skip
        taken = best_seconds({"step": lambda step=step: wait(step())})["step"]
        flops, tokens = micros * STUDENT.flops(batch, passes=3), micros * rows * LENGTH
        busy, waits = busy_seconds(step), host_waits(step)
        yield (
            f"step under DeepSpeed, ZeRO {zero_stage}, {micros} x {rows * LENGTH} tokens, one process: "
            f"{1000 * taken:.1f} ms, {tokens / taken:.0f} tokens/s, MFU {flops / taken / floors.flops:.1%}, "
            f"{peak_bytes(step) / 2**30:.1f} GiB at the peak"
            f"{'' if busy is None else f', the GPU busy for {busy / taken:.0%} of the time, {waits} waits of the host'}"
        )
        engine.close()
        del engine, module, student, step
        gc.collect()
        if ON_GPU:
            torch.cuda.empty_cache()
