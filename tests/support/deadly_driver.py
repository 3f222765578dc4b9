"""A fill under Ray with a row at which engines kill themselves: `python deadly_driver.py <root> <marked>`.

The pool is the real one; its engines answer without a model. Rows whose prompt begins with `marked` end the process
with SIGKILL when they are drawn; with -1 every row does. What came of a fill, and of a second one, is a line of JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from orchestration.environment import prepare_environment

ROWS = 48


def main(root: Path, marked: int) -> None:
    prepare_environment(ray_address=None)
    import ray
    from fill_builders import Filling, prompts, teacher_set
    from local_engines import EOS, IDENTITY, MAX_MODEL_LEN, VOCAB

    from cache import TeacherCache
    from configs.errors import DistillError
    from configs.schema import EngineSettings
    from orchestration.cluster.engine_pool import EnginePool
    from orchestration.cluster.engines import EngineSpec
    from orchestration.cluster.private import cluster
    from orchestration.cluster.pulse import Life
    from orchestration.fill.answers import SequenceAnswers
    from orchestration.fill.engine_loop import EngineLoop, FillOrder
    from teacher_server import FakeTeacher

    identity, vocab, eos, longest = IDENTITY, VOCAB, EOS, MAX_MODEL_LEN

    @ray.remote(max_restarts=0)
    class DeadlyActor:
        def __init__(self, life: Life) -> None:
            life.beat()

        def ready(self) -> None:
            """It is up."""

        def close(self) -> None:
            """Nothing to end."""

        def fill(self, leases: Any, order: FillOrder) -> None:
            teacher = FakeTeacher(identity, vocab=vocab, eos_id=eos, max_model_len=longest)

            class Deadly:
                def work(self, asked: Iterable[Any]) -> Any:
                    return teacher.work(drawn(asked))

            def drawn(asked: Iterable[Any]) -> Iterator[Any]:
                for each in asked:
                    if marked in (-1, each.request.prompt_ids[0]):
                        os.kill(os.getpid(), signal.SIGKILL)
                    yield each

            cache = TeacherCache.open(order.cache_root, identity)
            with cache.writer(vocab=vocab, licence=order.licence, provenance=order.provenance) as writer:
                EngineLoop(leases, order, SequenceAnswers(Deadly(), writer, k=order.k)).work()

    class DeadlyPool(EnginePool):
        starts = 0

        def new_actor(self, index: int, *, life: Life, options: dict[str, Any]) -> Any:
            self.starts += index == 0
            return DeadlyActor.options(**options).remote(life)  # type: ignore[attr-defined]

    spec = EngineSpec(
        root, identity, vocab=vocab, dtype="float32", quantization=None, settings=EngineSettings(count=2, cpus=1),
        max_logprobs=4, accelerator="cpu", log_dir=root / "logs",
    )  # fmt: skip
    filling, part, told = Filling(root / "cache"), teacher_set(prompts(ROWS)), dict[str, object]()
    with cluster(address=None, gpus=0):
        pool = DeadlyPool(spec)
        try:
            result = filling.fill(part, engines=pool)
            told |= {"failed": {request.prompt_ids[0]: why for request, why in result.failed.items()}}  # type: ignore[union-attr]
            starts = pool.starts
            again = filling.fill(part, engines=pool, refused=filling.failures())
            told |= {"again": len(again.failed), "started_again": pool.starts - starts}
        except DistillError as error:
            told["error"] = f"{type(error).__name__}: {error}"
        finally:
            pool.release()
    told |= {"kept": len(filling.records(part)), "starts": pool.starts, "damage": len(filling.cache.verify())}
    told["remembered"] = sum(filling.failures().reason(request) is not None for request in part.requests)
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
