"""A fill under Ray in which engines fail: `python faulty_driver.py <root> left|woken|heavy`.

The pool is the real one; its engines answer without a model, and fail with answers that they have not committed. What
came of it is a line of JSON.

left: One of the first two engines stops its own process (SIGSTOP).
woken: So it does; it goes on once it was given up and before it is ended.
heavy: Engines run out of memory as long as they take more than `BEARABLE` sequences at once.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from orchestration.environment import prepare_environment

ROWS = 48
ANSWERED = 4
"""Rows that are answered, and not committed, when an engine fails."""

BEARABLE = 16

SILENT_AFTER_S = 10.0


def main(root: Path, fault: str) -> None:
    prepare_environment(ray_address=None)
    import ray
    from fill_builders import Filling, prompts, teacher_set
    from local_engines import EOS, IDENTITY, MAX_MODEL_LEN, VOCAB, fake_teacher

    from cache import TeacherCache
    from configs.errors import EngineError
    from configs.schema import EngineSettings
    from orchestration.cluster.engine_pool import EnginePool
    from orchestration.cluster.engines import EngineSpec
    from orchestration.cluster.private import cluster
    from orchestration.cluster.pulse import Life
    from orchestration.fill.answers import SequenceAnswers
    from orchestration.fill.engine_loop import EngineLoop, FillOrder
    from teacher_server import FakeTeacher
    from teacher_server.condition import FAULTS, Condition

    identity, vocab, eos, longest = IDENTITY, VOCAB, EOS, MAX_MODEL_LEN
    answered, bearable, stopped, late = ANSWERED, BEARABLE, root / "stopped", root / "late"

    @ray.remote(max_restarts=0)
    class FaultyActor:
        def __init__(self, max_sequences: int, life: Life) -> None:
            life.beat()
            self.max_sequences = max_sequences

        def ready(self) -> None:
            """It is up."""

        def close(self) -> None:
            """Nothing to end."""

        def fill(self, leases: Any, order: FillOrder) -> None:
            teacher = FakeTeacher(identity, vocab=vocab, eos_id=eos, max_model_len=longest)

            class Faulty:
                def work(self, asked: Iterable[Any]) -> Any:
                    return teacher.work(drawn(asked))

            def drawn(asked: Iterable[Any]) -> Iterator[Any]:
                for count, each in enumerate(asked):
                    if count == answered and fault == "heavy":
                        run_out()
                    elif count == answered:
                        stop_once()
                    yield each

            def run_out() -> None:
                # As the real engine dies of what goes wrong in a step.
                with Condition(FAULTS).fatal():
                    if self.max_sequences > bearable:
                        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

            def stop_once() -> None:
                try:
                    stopped.touch(exist_ok=False)
                except FileExistsError:
                    return
                stopped.write_text(str(os.getpid()))
                os.kill(os.getpid(), signal.SIGSTOP)

            cache = TeacherCache.open(order.cache_root, identity)
            try:
                with cache.writer(vocab=vocab, licence=order.licence, provenance=order.provenance) as writer:
                    EngineLoop(leases, order, SequenceAnswers(Faulty(), writer, k=order.k)).work()
            except EngineError as error:
                late.write_text(str(error))
                raise

    class FaultyPool(EnginePool):
        starts = 0
        silent_after_s = SILENT_AFTER_S

        def new_actor(self, index: int, *, life: Life, options: dict[str, Any]) -> Any:
            self.starts += index == 0
            started = FaultyActor.options(**options)  # type: ignore[attr-defined]
            return started.remote(self.spec.settings.max_sequences, life)

        def release(self) -> None:
            if fault == "woken" and self.starts == 1 and not late.exists():
                os.kill(int(stopped.read_text()), signal.SIGCONT)
                _wait_until(late.exists)
            super().release()

    spec = EngineSpec(
        root, identity, vocab=vocab, dtype="float32", quantization=None, settings=EngineSettings(count=2, cpus=1),
        max_logprobs=4, accelerator="cpu", log_dir=root / "logs",
    )  # fmt: skip
    filling, part = Filling(root / "cache"), teacher_set(prompts(ROWS))
    with cluster(address=None, gpus=0):
        pool = FaultyPool(spec)
        try:
            result = filling.fill(part, engines=pool)
            if fault != "heavy":
                gone = Path(f"/proc/{stopped.read_text()}")
                _wait_until(lambda: not gone.exists())
        finally:
            pool.release()
    records, cache = filling.records(part), TeacherCache.open(filling.root, identity)
    kept, right = {record.key: tuple(record.token_ids) for record in records}, fake_teacher()
    told: dict[str, object] = {
        "failed": len(result.failed), "starts": pool.starts, "sequences": pool.spec.settings.max_sequences, "late": late.read_text() if late.exists() else "",
        "kept": len(kept), "damage": len(cache.verify()),
        # Of every segment, so that a sequence that lies in two of them counts twice.
        "tokens": cache.stats().tokens, "tokens_of_kept": sum(len(ids) for ids in kept.values()),
        "wrong": sum(
            kept.get(said.key) != tuple(said.token_ids) for _, said in right.generate(part.requests, k=0)  # type: ignore[arg-type,union-attr]
        ),
    }  # fmt: skip
    sys.stdout.write(json.dumps(told) + "\n")


def _wait_until(holds: Any) -> None:
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
