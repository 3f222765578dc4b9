"""A fill with signals under Ray: `python signal_driver.py <root> <model> <trouble>`, with engines of that model.

With `lost` one engine is killed once something is committed, with `nothing` all goes well; with `wrong` the check is
told of another model. What came of it is a line of JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import psutil

from orchestration.environment import prepare_environment

TEXTS, TOKENS = 1500, 48


def main(root: Path, model_dir: Path, trouble: str) -> None:
    prepare_environment(ray_address=None)
    from local_engines import IDENTITY
    from local_signals import UNLIMITED, SignalFilling
    from signal_builders import CLASSES

    from cache import Signal
    from configs.errors import DistillError
    from configs.schema import EngineSettings
    from orchestration.cluster.private import cluster
    from orchestration.cluster.signal_engines import SignalPool, SignalSpec, plain_apart
    from orchestration.fill.ledger import Ledger
    from orchestration.inputs.task_texts import ReadExample
    from orchestration.plan.signal_requests import SignalSet
    from teacher_server.signal_check import check_requests

    filling = SignalFilling(root / "cache")
    lengths = [TOKENS - at % 7 for at in range(TEXTS)]
    texts = tuple(
        ReadExample(
            (*(4 + (at + 3 * place) % 5 for place in range(n - 2)), at % 97, at // 97), n, (), (), (), cut=False
        )
        for at, n in enumerate(lengths)
    )
    part = SignalSet("train", texts, (CLASSES, Signal("state", layer=1, position="mean")))
    ledger = Ledger(filling.ledger)
    spec = SignalSpec(model_dir, IDENTITY, EngineSettings(count=2, cpus=1), "cpu", root / "logs")
    told: dict[str, object] = {}

    def kill_one() -> None:
        store = SignalFilling(root / "cache").cache
        while not store.stats().signals:
            time.sleep(0.05)
            store.refresh()
        os.kill(max(_engines()), signal.SIGKILL)

    with cluster(address=None, gpus=0):
        pool = SignalPool(spec, clock=ledger)
        try:
            pool.check(
                check_requests(part.requests),
                plain=None if trouble != "wrong" else lambda job: [2 * v for v in plain_apart(job)],
            )
            told["engines"] = len(_engines())
            if trouble == "lost":
                threading.Thread(target=kill_one, daemon=True).start()
            result = filling.fill(part, engines=pool, budgets=UNLIMITED, commit_every_s=0.0)
            told |= {"rows": result.rows, "failed": len(result.failed), "tokens": result.teacher_tokens}
        except DistillError as error:
            told["error"] = f"{type(error).__name__}: {error}"
        finally:
            pool.release()
            ledger.close()
    told |= {"kept": len(filling.records(part)), "text_tokens": sum(lengths)}
    told["gpu_seconds"] = ledger.counts().teacher_gpu_seconds
    told["damage"] = len(filling.cache.verify())
    sys.stdout.write(json.dumps(told) + "\n")


def _engines() -> list[int]:
    """The processes of this driver that hold a model."""
    children = psutil.Process().children(recursive=True)
    return [child.pid for child in children if any("SignalActor" in part for part in child.cmdline())]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
