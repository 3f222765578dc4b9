"""How the parts of a training step grow: with rows in the cache, K, V and processes, each flat or linear as it should.

Processor time on one thread, so that other programs say little. A line that grows as the power p of what it is drawn
against is flat at p = 0 and linear at p = 1. `STILLROOM_GROWTH=docs/growth.svg` draws the lines into a file.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.cache_growth import SEGMENT_ROWS, growing_cache
from benchmarks.cache_growth import K as SMALL_K
from benchmarks.dealing import RANKS, dealt_seconds, step_lengths
from benchmarks.growth_chart import Line, draw_growth
from benchmarks.measurement import Measurement, at_most
from benchmarks.pair import LENGTH, RESPONSE
from benchmarks.synthetic import TEACHER, zipf_rows
from benchmarks.timing import best_seconds, one_thread
from cache import CacheView, TeacherCache
from cache.disk.key_objects import Table, key_bytes
from student_train.feed.steps import Feed
from student_train.losses.fused import fused_divergence
from student_train.losses.targets import SparseTargets
from student_train.worker_group import WorkerGroup, keep_freed_memory

RECORDS = (100_000, 300_000, 1_000_000, 3_000_000)
KEPT = (8, 16, 32, 64, 128)
VOCABULARIES = (16_384, 32_768, 65_536, 131_072)
ROUNDS = 3

STEP_ROWS, DATASET_ROWS = 512, 20_000
"""Rows of a step from the growing cache, and of the data set that it is read from."""

STEP_TOKENS, VOCAB, K, HIDDEN = 4096, 32_768, 64, 256
"""Of the steps in which K and V grow; answer tokens of a step, and the head's width."""

LARGEST_POWER = {"flat": 0.25, "linear": 1.15}
OUT = "STILLROOM_GROWTH"


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a step: what it is drawn against, how it should grow, and its seconds at each size."""

    name: str
    against: str
    shape: str
    sizes: Sequence[int]
    cost: Callable[[int], float]

    def measured(self) -> Line:
        """Its seconds at every size, in turn."""
        return Line(self.name, self.against, self.shape, self.sizes, [self.cost(size) for size in self.sizes])


def bench_growth() -> Iterator[Measurement]:
    """The power of each part's growth, and its cost at the smallest and at the largest size."""
    # As training does: without it each large table is fresh memory of the system.
    keep_freed_memory()
    lines = []
    with one_thread(), tempfile.TemporaryDirectory() as folder:
        for line in _lines(Path(folder)):
            lines.append(line)
            shown = ", ".join(
                f"{size:,}: {1e3 * taken:.1f} ms" for size, taken in zip(line.sizes, line.seconds, strict=True)
            )
            what = f"{line.name}, grows with {line.against} as the power of ({line.shape})"
            yield at_most(what, power(line.sizes, line.seconds), LARGEST_POWER[line.shape], note=shown)
    if OUT in os.environ:
        draw_growth(lines, Path(os.environ[OUT]))


def power(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """p of the best line through log seconds over log sizes."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def _lines(folder: Path) -> Iterator[Line]:
    seconds = [
        _feed_seconds(*_step_of(folder / "growing", keys), step_rows=STEP_ROWS)
        for keys in growing_cache(folder / "growing", records=RECORDS, rng=np.random.default_rng(0))
    ]
    yield Line("reading and laying out a step", "rows in the cache", "flat", RECORDS, seconds)
    stored = {k: _stored(folder / f"k{k}", k=k) for k in KEPT}
    rows = STEP_TOKENS // RESPONSE
    parts = (
        Part("reading and laying out a step", "K", "linear", KEPT, lambda k: _feed_seconds(*stored[k], step_rows=rows)),
        Part("head and loss", "K", "flat", KEPT, lambda k: _loss_seconds(k=k, vocab=VOCAB)),
        Part("head and loss", "V", "linear", VOCABULARIES, lambda vocab: _loss_seconds(k=K, vocab=vocab)),
        Part("dealing out, packed rows", "processes", "flat", RANKS, lambda ranks: _dealt(ranks, packs=True)),
        Part("dealing out, a row each", "processes", "flat", RANKS, lambda ranks: _dealt(ranks, packs=False)),
    )
    for part in parts:
        yield part.measured()


def _step_of(root: Path, keys: list[Table]) -> tuple[TeacherCache, CacheView]:
    """A data set of the size that an experiment has, from the middle of the cache."""
    cache = TeacherCache.open(root, TEACHER)
    some = key_bytes(keys[len(keys) // 2][: min(DATASET_ROWS, SEGMENT_ROWS)])
    return cache, cache.view(some, dataset="bench", k=SMALL_K)


def _stored(root: Path, *, k: int) -> tuple[TeacherCache, CacheView]:
    """A few steps of ordinary answers, of which k entries a token are kept."""
    cache = TeacherCache.open(root, TEACHER)
    records = zipf_rows(rows=8 * STEP_TOKENS // RESPONSE * RESPONSE, k=k, vocab=VOCAB).records(RESPONSE)
    cache.put(records, vocab=VOCAB)
    return cache, cache.view([record.key for record in records], dataset="bench", k=k)


def _feed_seconds(cache: TeacherCache, view: CacheView, *, step_rows: int) -> float:
    """A step: its rows are read from the cache, dealt out to one process and laid out as micro-batches."""
    feed = Feed(cache, view, WorkerGroup(0, 1, torch.device("cpu")), LENGTH * step_rows, with_targets=True)
    order = np.random.default_rng(1).permutation(len(view))
    batches = [order[at : at + step_rows] for at in range(0, len(order) - step_rows + 1, step_rows)]

    def epoch() -> None:
        for _ in feed.steps(batches):
            pass

    taken = best_seconds({"epoch": epoch}, rounds=ROUNDS, clock=time.process_time)["epoch"]
    return taken / len(batches)


def _loss_seconds(*, k: int, vocab: int) -> float:
    """Loss and gradients of hidden states and head at some of the positions of a step."""
    count = STEP_TOKENS // 8
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(count, HIDDEN, generator=generator).bfloat16().requires_grad_()
    head = torch.randn(vocab, HIDDEN, generator=generator).bfloat16().requires_grad_()
    ids = torch.randint(vocab // k, (count, k), generator=generator) * k + torch.arange(k)
    targets = SparseTargets(ids, torch.full((count, k), 0.9 / k).log(), torch.full((count,), 0.1).log())

    def run() -> None:
        hidden.grad = head.grad = None
        fused_divergence("forward_kl", hidden, head, targets).loss.backward()

    return best_seconds({"loss": run}, rounds=ROUNDS, clock=time.process_time)["loss"]


def _dealt(ranks: int, *, packs: bool) -> float:
    return dealt_seconds(step_lengths(), ranks=ranks, packs=packs)
