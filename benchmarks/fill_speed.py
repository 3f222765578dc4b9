"""A fill against the same engine that says the same with nobody storing it, in turn in one process.

The model is the quickstart's teacher. What a fill does beside the engine's steps: it makes records, packs and commits
them, counts tokens in a ledger, reports, says that it lives. The queue is in the same process; `fill_queue` measures it
behind Ray. Beside other programs processor time says more than the clock.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.fills import fill_order, require_all
from benchmarks.measurement import Measurement, at_least

if TYPE_CHECKING:
    from cache import GenerateRequest
    from teacher_server.vllm_engine import VllmEngine

QUICKSTART = Path("configs/quickstart.yaml")
PROMPTS, TOKENS, K = 64, 32, 64
ROUNDS = 3
LEAST_RATIO = 0.95


def bench_fill_speed() -> Iterator[Measurement]:
    """The fill's rate beside that of the engine alone, by the clock and by the processor's time."""
    engine, requests, vocab = _engine()
    alone, filled = list[Took](), list[Took]()
    try:
        bare(engine, requests[:4])
        for _ in range(ROUNDS):
            alone.append(bare(engine, requests))
            with tempfile.TemporaryDirectory() as folder:
                filled.append(filling(engine, requests, vocab=vocab, root=Path(folder)))
    finally:
        engine.close()
    clock, processor = (
        {name: min(getattr(each, field) for each in tries) for name, tries in (("bare", alone), ("fill", filled))}
        for field in ("clock", "processor")
    )
    rates = {name: PROMPTS * TOKENS / seconds for name, seconds in clock.items()}
    name = f"fill of {PROMPTS} x {TOKENS} tokens, k={K}"
    yield Measurement(name, rates["fill"], "tokens/s", digits=0, peers={"the bare engine": rates["bare"]})
    yield Measurement(f"{name}, rate / the bare engine's by processor time", processor["bare"] / processor["fill"])
    yield at_least("fill's rate / that of the bare engine", clock["bare"] / clock["fill"], LEAST_RATIO)


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds by the clock, and of the processor."""

    clock: float
    processor: float


def bare(engine: VllmEngine, requests: list[GenerateRequest]) -> Took:
    """What the engine takes for all answers, which are dropped."""
    from teacher_server.requests import Asked

    engine.forget_prefixes()
    since = _now()
    for _ in engine.work(Asked(request, K) for request in requests):
        pass
    return _since(since)


def filling(engine: VllmEngine, requests: list[GenerateRequest], *, vocab: int, root: Path) -> Took:
    """What it takes for all answers, which are in a new cache then."""
    from cache import TeacherCache
    from orchestration.cluster.leases import ItemQueue
    from orchestration.fill.answers import SequenceAnswers
    from orchestration.fill.engine_loop import EngineLoop

    engine.forget_prefixes()
    cache = TeacherCache.open(root / "cache", engine.identity)
    order = fill_order(root, k=K)
    queue = ItemQueue(list(enumerate(requests)), token_budget=None)
    since = _now()
    with cache.writer(vocab=vocab, licence=None, provenance={}, encoding=order.encoding) as writer:
        EngineLoop(queue, order, SequenceAnswers(engine, writer, k=K)).work()
    took = _since(since)
    require_all(queue.progress(), rows=len(requests))
    return took


def _now() -> Took:
    return Took(time.perf_counter(), time.process_time())


def _since(before: Took) -> Took:
    now = _now()
    return Took(now.clock - before.clock, now.processor - before.processor)


def _engine() -> tuple[VllmEngine, list[GenerateRequest], int]:
    """The quickstart's teacher, its first prompts, and V. Nothing ends before its length: both sides write the same."""
    from configs.loading import load_config
    from teacher_server.environment import engine_environment

    # Before the engine's libraries are imported, which read it once.
    os.environ.update(engine_environment(load_config(QUICKSTART).runtime.teacher_engine, "cpu"))
    from cache import GenerateRequest
    from orchestration.inputs.models import materialise
    from orchestration.inputs.prompt_splits import load_prompts
    from orchestration.inputs.real_paths import resolve_paths
    from orchestration.inputs.teachers import identity_of
    from orchestration.plan.machine import lacks_bfloat16
    from teacher_server.vllm_engine import VllmEngine

    config = resolve_paths(load_config(QUICKSTART), config_dir=QUICKSTART.parent)
    files = materialise(config.teacher.model, models_root=config.runtime.models_root)
    dtype = "float32" if lacks_bfloat16() else config.teacher.dtype
    texts = load_prompts(config.data, tokenizer=files.tokenizer, stop_ids=files.stop_ids, max_new_tokens=TOKENS).splits[
        "train"
    ]
    engine = VllmEngine(
        files.directory, identity=identity_of(files, config=config, dtype=dtype), vocab=files.vocab,
        settings=config.runtime.teacher_engine, seed=1, max_logprobs=K,
    )  # fmt: skip
    return engine, [GenerateRequest(each.prompt_ids, (), TOKENS) for each in texts[:PROMPTS]], files.vocab
