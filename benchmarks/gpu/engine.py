"""A step under DeepSpeed on one device: tokens a second, MFU, memory, and how often the host waits in it."""

from __future__ import annotations

import gc
import importlib.util
from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.gpu.measure import ON_GPU, Floors, host_waits
from benchmarks.gpu.steps import LENGTH, MICRO_ROWS, RESPONSE, STUDENT, qwen2
from benchmarks.kd_step import wait
from benchmarks.memory import peak_bytes
from benchmarks.pair import answers
from benchmarks.timing import best_seconds
from configs.schema import TrainingSettings
from configs.stages import StageConfig
from student_train.models.decoder import StudentModule
from student_train.worker_group import join_group

MICROS = 2


def bench_deepspeed(floors: Floors) -> Iterator[str]:
    """The cached-KD step as training takes it, with each ZeRO stage that a device alone makes sense of."""
    if importlib.util.find_spec("deepspeed") is None:
        yield "DeepSpeed: left out, it is not installed"
        return
    group = join_group("auto")
    # Imported late: DeepSpeed picks its accelerator from the environment while it is imported.
    from student_train.training.deepspeed_engine import DeepSpeedEngine

    stage = StageConfig.model_validate({"objective": "kd", "steps": 1})
    batch = answers(rows=MICRO_ROWS, length=LENGTH, response=RESPONSE, vocab=STUDENT.vocab).to(torch.device("cpu"))
    yield f"step under DeepSpeed, {MICROS} microbatches of {MICRO_ROWS} x {LENGTH} tokens, one process:"
    for zero_stage in (0, 2):
        student = qwen2(STUDENT)
        module = StudentModule(student, stage=stage, vocab=student.vocab)
        settings = TrainingSettings.model_validate({"zero_stage": zero_stage})
        engine = DeepSpeedEngine(module, stage=stage, settings=settings, group=group)
        step = partial(
            engine.step, [batch] * MICROS, global_tokens=MICROS * len(batch.labels), learning_rate=1e-6,
            stop=lambda: False,
        )  # fmt: skip

        seconds = best_seconds({"step": lambda step=step: wait(step())})["step"]
        flops = MICROS * STUDENT.flops(batch, passes=3)
        tokens = MICROS * MICRO_ROWS * LENGTH
        waits = host_waits(step)
        yield (
            f"  ZeRO {zero_stage}: {1000 * seconds:.1f} ms, {tokens / seconds:.0f} tokens/s, MFU "
            f"{flops / seconds / floors.flops:.1%}, {peak_bytes(step) / 2**30:.1f} GiB at the peak, "
            f"{'no GPU to wait for' if waits is None else f'the host waited {waits} times'}"
        )
        engine.close()
        del engine, module, student, step
        gc.collect()
        if ON_GPU:
            torch.cuda.empty_cache()
