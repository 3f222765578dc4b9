"""What a step waits for its data: from the cache to the device, and how much of that is hidden behind the work.

Microbatches come from memory, copied when needed or ahead on a stream of their own; and, where Zarr is installed, from
a cache on disk, read ahead and laid out as training does. What is already on the device waits for nothing.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu.measure import ON_GPU, Floors, share
from benchmarks.gpu.steps import LENGTH, RESPONSE, STUDENT, qwen2
from benchmarks.kd_step import wait
from benchmarks.measurement import Measurement, Row
from benchmarks.pair import K, answers, device
from benchmarks.timing import best_seconds
from configs.stages import StageConfig
from student_train.feed.microbatch import MicroBatch
from student_train.models.decoder import StudentModule
from student_train.worker_group import WorkerGroup

MICRO_ROWS, MICROS = (16, 4) if ON_GPU else (2, 2)
THERE = "already on the device"
STEPS = 3
"""Steps' worth of rows in the cache that is read from."""


def bench_feed(floors: Floors) -> Iterator[Row]:
    """Tokens a second of each way for the microbatches of a step to come, and the share of time that is waited."""
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
        THERE: lambda: train(iter(there)),
        "copied when needed": lambda: train(micro.to(device()) for micro in micros),
    }
    if ON_GPU:
        pinned = [_changed(micro, Tensor.pin_memory) for micro in micros]
        runs |= {
            "pinned and copied ahead": lambda: train(_ahead(_changed(micro, Tensor.pin_memory) for micro in micros)),
            "copied ahead from pinned memory": lambda: train(_ahead(iter(pinned))),
        }
    with tempfile.TemporaryDirectory() as folder:
        if importlib.util.find_spec("zarr") is not None:
            batches = _from_the_cache(Path(folder))
            runs["read from the cache, copied when needed"] = lambda: train(
                micro.to(device()) for micro in next(batches)
            )
            if ON_GPU:
                runs["read from the cache, pinned and copied ahead"] = lambda: train(
                    _ahead(_changed(micro, Tensor.pin_memory) for micro in next(batches))
                )
        seconds = best_seconds(runs)
    size = sum(part.numel() * part.element_size() for part in _parts(whole))
    yield f"{MICROS} microbatches of {MICRO_ROWS} x {LENGTH} tokens, {size / 2**20:.1f} MiB each, no optimiser"
    for name, taken in seconds.items():
        waited = "" if name == THERE else f"{share(1 - seconds[THERE] / taken)} of the time is waited for data"
        yield Measurement(f"feed, {name}", MICROS * MICRO_ROWS * LENGTH / taken, "tokens/s", digits=0, note=waited)
    if not ON_GPU:
        yield "pinned memory and copies ahead: left out without a GPU"
    if importlib.util.find_spec("zarr") is None:
        yield "from the cache: left out, zarr is not installed"


def _from_the_cache(root: Path) -> Iterator[tuple[MicroBatch, ...]]:
    """Steps without end, of rows that are read, decoded and laid out two steps ahead."""
    # Imported late: the rest does without Zarr.
    from benchmarks.synthetic import PROMPT, TEACHER, zipf_rows
    from cache import TeacherCache
    from student_train.feed.steps import Feed

    answer = LENGTH - PROMPT
    rows = zipf_rows(rows=STEPS * MICROS * MICRO_ROWS * answer, k=K, vocab=STUDENT.vocab)
    cache, records = TeacherCache.open(root, TEACHER), rows.records(answer)
    cache.put(records, vocab=STUDENT.vocab)
    view = cache.view([record.key for record in records], dataset="bench", k=K)
    group = WorkerGroup(0, 1, device())
    feed = Feed(cache, view, group, micro_batch_tokens=MICRO_ROWS * LENGTH, with_targets=True)
    while True:
        for step in feed.steps(np.split(np.random.default_rng(1).permutation(len(view)), STEPS)):
            yield step.batches


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
