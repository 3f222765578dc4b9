"""Engines on a cluster of several machines: `python machines_driver.py <root>`.

The machines are nodes of a local cluster of Ray with GPUs that only Ray counts. The pool, its places and its fill are
the real ones; engines answer without a model. What came of it is a line of JSON.

The driver's machine has no GPU, two others have four each. One of these is ended in the middle of a fill.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from orchestration.environment import prepare_environment

ROWS = 60
ANSWERED = 5
"""Rows that are answered, and not committed, by each engine of the machine when it ends."""

GPUS = 4
MEMORY = 100 * 2**20


def main(root: Path) -> None:
    prepare_environment(ray_address=None)
    from orchestration.cluster import private

    private._set_token(root)
    import ray
    from fill_builders import Filling, prompts, teacher_set
    from local_engines import EOS, IDENTITY, MAX_MODEL_LEN, VOCAB
    from ray.cluster_utils import Cluster
    from ray.util.placement_group import placement_group_table

    from cache import TeacherCache
    from configs import ConfigError
    from configs.schema import EngineSettings
    from orchestration.cluster.engine_pool import EnginePool
    from orchestration.cluster.engines import EngineSpec
    from orchestration.cluster.places import Wanted, take_places
    from orchestration.cluster.pulse import Life
    from orchestration.fill.answers import SequenceAnswers
    from orchestration.fill.engine_loop import EngineLoop, FillOrder
    from orchestration.plan.hardware import Hardware
    from orchestration.plan.placement import Part
    from teacher_server import FakeTeacher

    identity, vocab, eos, longest = IDENTITY, VOCAB, EOS, MAX_MODEL_LEN
    answered, leaving = ANSWERED, root / "leaving"

    @ray.remote(max_restarts=0)
    class PlacedActor:
        def __init__(self, life: Life) -> None:
            life.beat()

        def ready(self) -> None:
            """It is up."""

        def close(self) -> None:
            """Nothing to end."""

        def place(self) -> tuple[str, list[int]]:
            return ray.get_runtime_context().get_node_id(), sorted(map(int, ray.get_gpu_ids()))

        def fill(self, leases: Any, order: FillOrder) -> None:
            teacher = FakeTeacher(identity, vocab=vocab, eos_id=eos, max_model_len=longest)
            here = ray.get_runtime_context().get_node_id()

            class Leaving:
                def work(self, asked: Iterable[Any]) -> Any:
                    return teacher.work(drawn(asked))

            def drawn(asked: Iterable[Any]) -> Iterator[Any]:
                for count, each in enumerate(asked):
                    if count == answered and leaving.read_text() == here:
                        (root / "full").touch()
                        # Until its machine ends.
                        time.sleep(3600)
                    yield each

            cache = TeacherCache.open(order.cache_root, identity)
            with cache.writer(vocab=vocab, licence=order.licence, provenance=order.provenance) as writer:
                EngineLoop(leases, order, SequenceAnswers(Leaving(), writer, k=order.k)).work()

    class PlacedPool(EnginePool):
        starts = 0

        def new_actor(self, index: int, *, life: Life, options: dict[str, Any]) -> Any:
            self.starts += index == 0
            return PlacedActor.options(**options).remote(life)  # type: ignore[attr-defined]

        def places(self) -> list[tuple[str, list[int]]]:
            return self.ask([actor.place.remote() for actor in self._actors])

    def pool(count: int, width: int) -> PlacedPool:
        settings = EngineSettings(count=count, tensor_parallel=width)
        return PlacedPool(
            EngineSpec(
                root, identity, vocab=vocab, dtype="float32", quantization=None, settings=settings, max_logprobs=4,
                accelerator="gpu", log_dir=root / "logs", key="runtime.teacher_engine",
            )
        )  # fmt: skip

    def counts(nodes: Iterable[str]) -> list[int]:
        return sorted(Counter(nodes).values(), reverse=True)

    def free() -> float:
        """GPUs that nobody has, once Ray has taken note of who gave some back."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            there = float(ray.cluster_resources().get("GPU", 0.0))
            if ray.available_resources().get("GPU", 0.0) == there:
                return there
            time.sleep(0.2)
        return float(ray.available_resources().get("GPU", 0.0))

    told: dict[str, Any] = {}
    hardware, head = Hardware("gpu", 2, GPUS), {"num_cpus": 4, "num_gpus": 0, "object_store_memory": MEMORY}
    cluster = Cluster()
    try:
        # Daemons take long to come up beside other work.
        with private._patience():
            cluster.add_node(**head, include_dashboard=False, node_ip_address="127.0.0.1")
            machines = [
                cluster.add_node(num_cpus=8, num_gpus=GPUS, object_store_memory=MEMORY, node_ip_address="127.0.0.1")
                for _ in range(2)
            ]
        ray.init(address=cluster.address, log_to_driver=False, configure_logging=False, job_config=private._job())

        engines = pool(4, 2)
        engines.start()
        placed = engines.places()
        told["spread"] = counts(node for node, _ in placed)
        told["planned_spread"] = Part("teacher engine", 4, 2).dealt(hardware)
        told["widths"] = [len(gpus) for _, gpus in placed]
        told["shared_gpus"] = len(placed) * 2 - len({(node, gpu) for node, gpus in placed for gpu in gpus})
        engines.release()
        told["free"] = free()

        workers = take_places(Wanted("training workers", 5, {"GPU": 1, "CPU": 1}, "PACK", "lower workers"))
        table = placement_group_table(workers.group)
        told["packed"] = counts(table["bundles_to_node_id"].values())
        told["planned_packed"] = Part("training worker", 5, 1).dealt(hardware)
        workers.release()
        told["free_again"] = free()

        # Beside four workers, which fill one machine, engines have the other.
        workers = take_places(Wanted("training workers", 4, {"GPU": 1, "CPU": 1}, "PACK", "lower workers"))
        (full,) = set(placement_group_table(workers.group)["bundles_to_node_id"].values())
        beside = pool(2, 2)
        beside.start()
        told["beside"] = [node == full for node, _ in beside.places()]
        beside.release()
        workers.release()
        free()

        two = pool(2, 3)
        two.start()
        two.release()
        free()
        try:
            pool(3, 3).start()
        except ConfigError as error:
            told["refused"] = str(error)

        # Data parallel over both machines, until one of them ends.
        filling, part = Filling(root / "cache"), teacher_set(prompts(ROWS))
        engines = pool(4, 2)
        engines.start()
        leaving.write_text(engines.places()[0][0])
        (gone,) = [each for each in machines if each.node_id == leaving.read_text()]

        def end_machine() -> None:
            while not (root / "full").exists():
                time.sleep(0.1)
            cluster.remove_node(gone, allow_graceful=False)

        ending = threading.Thread(target=end_machine, daemon=True)
        ending.start()
        result = filling.fill(part, engines=engines)
        ending.join()
        told |= {"starts": engines.starts, "up": engines.up, "failed": len(result.failed)}
        told["on"] = counts(node for node, _ in engines.places())
        engines.release()
        told["free_at_last"] = free()
        kept = filling.records(part)
        told |= {"kept": len({record.key for record in kept}), "damage": len(filling.cache.verify())}
        told["tokens"] = TeacherCache.open(filling.root, identity).stats().tokens
        told["tokens_of_kept"] = sum(len(record.token_ids) for record in kept)
    finally:
        ray.shutdown()
        cluster.shutdown()
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
