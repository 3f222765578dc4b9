"""Under DeepSpeed on one device: steps, how often the host waits in them, and checkpoints."""

from __future__ import annotations

import gc
import importlib.util
import itertools
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.measure import ON_GPU, Floors, busy_seconds, host_waits
from benchmarks.gpu.steps import LENGTH, RESPONSE, STUDENT, qwen2, timed
from benchmarks.kd_step import wait
from benchmarks.measurement import Measurement, Row
from benchmarks.memory import peak_bytes
from benchmarks.pair import answers
from benchmarks.timing import best_seconds
from configs.schema import TrainingSettings
from configs.stages import StageConfig
from student_train.models.decoder import StudentModule
from student_train.worker_group import join_group

CASES = ((0, 4, 4), (2, 4, 4), (2, 16, 1)) if ON_GPU else ((0, 2, 2), (2, 4, 1))
"""ZeRO stage, rows of a microbatch, and microbatches of a step: the same tokens a step in each."""

MISSING = "left out: DeepSpeed is not installed"


def bench_deepspeed(floors: Floors) -> Iterator[Row]:
    """The cached-KD step as training takes it."""
    if importlib.util.find_spec("deepspeed") is None:
        yield MISSING
        return
    for case in CASES:
        yield from _steps(*case, floors=floors)


def _steps(zero_stage: int, rows: int, micros: int, *, floors: Floors) -> Iterator[Row]:
    batch = answers(rows=rows, length=LENGTH, response=RESPONSE, vocab=STUDENT.vocab).to(torch.device("cpu"))
    with _engine(zero_stage) as engine:
        step = partial(
            engine.step, [batch] * micros, places=micros * len(batch.labels), learning_rate=1e-6, stop=lambda: False
        )
        taken = best_seconds({"step": lambda: wait(step())})["step"]
        flops, tokens = micros * STUDENT.flops(batch, passes=3), micros * rows * LENGTH
        name = f"step under DeepSpeed, ZeRO {zero_stage}, {micros} x {rows * LENGTH:,} tokens"
        yield timed(name, taken, tokens=tokens, flops=flops, peak=peak_bytes(step), floors=floors)
        busy, waits = busy_seconds(step), host_waits(step)
        if busy is not None:
            note = f"{waits} waits of the host"
            yield Measurement(f"{name}, the GPU works for so much of the time", busy / taken, note=note)


def bench_checkpoint(floors: Floors) -> Iterator[Row]:
    """A whole checkpoint: written, hashed, synced, moved into place and read back."""
    if importlib.util.find_spec("deepspeed") is None:
        yield MISSING
        return
    from student_train.training.checkpoint import Checkpoints, CheckpointState

    with tempfile.TemporaryDirectory() as folder, _engine(CASES[0][0]) as engine:
        root, steps = Path(folder), itertools.count(1)
        checkpoints = Checkpoints(root, group=join_group(None))

        def save() -> None:
            state = CheckpointState(next(steps), 0, 0, 0, 1, CASES[0][0], "0" * 64, "0" * 64, (), ())
            checkpoints.save(state, take=engine.save)

        def save_and_settle() -> None:
            save()
            checkpoints.settle()

        taken = best_seconds({"save": save_and_settle}, rounds=2)["save"]
        begun = time.perf_counter()
        save()
        waited = time.perf_counter() - begun
        checkpoints.settle()
        newest = checkpoints.newest()
        assert newest is not None
        size = sum(path.stat().st_size for path in newest[0].rglob("*") if path.is_file())
        rate = f"{size / 2**20:,.1f} MiB, {size / taken / 1e9:.2f} GB/s"
        name = f"checkpoint, ZeRO {CASES[0][0]}, one process"
        yield Measurement(f"{name}, until all is on disk", taken, "s", note=rate)
        yield Measurement(f"{name}, a step waits", waited, "s")
        loaded = best_seconds({"load": lambda: engine.load(newest[0])}, rounds=1)["load"]
        yield Measurement("reading it back into the engine", loaded, "s")


@contextmanager
def _engine(zero_stage: int) -> Iterator[Any]:
    """The student under DeepSpeed, and its memory given back afterwards."""
    group = join_group(None)
    # Imported late: DeepSpeed picks its accelerator from the environment while it is imported.
    from student_train.training.deepspeed_engine import DeepSpeedEngine

    stage = StageConfig.model_validate({"objective": "kd", "steps": 1})
    student = qwen2(STUDENT)
    module = StudentModule(student, stage=stage, vocab=student.vocab)
    settings = TrainingSettings.model_validate({"zero_stage": zero_stage})
    engine = DeepSpeedEngine(module, stage=stage, settings=settings, group=group)
    try:
        yield engine
    finally:
        engine.close()
        del engine, module, student
        gc.collect()
        if ON_GPU:
            torch.cuda.empty_cache()
