"""One process of a real gang: `python gang_worker.py <job file> <function>`, with the usual RANK and friends set.

Runs the function of this module of that name on the pickled arguments and pickles what it returns beside the job file.
"""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cache.records import TeacherRecord
from configs.schema import StageConfig, TrainingSettings
from student_train.batching import collate
from student_train.gang import join_gang
from student_train.model import TORCH_DTYPES, StudentModule, load_decoder

ROOT = Path(__file__).resolve().parents[2]


def engine_steps(
    model_dir: Path, stage: StageConfig, settings: TrainingSettings, vocab: int, plan: list[list[list[list[TeacherRecord]]]]
) -> tuple[list[Any], dict[str, Tensor] | None]:
    """Optimiser steps straight on the engine; `plan[step][rank]` is a list of micro-batches. Outcomes and weights."""
    gang = join_gang("cpu")
    from student_train.deepspeed_engine import DeepSpeedEngine

    decoder = load_decoder(model_dir, dtype=TORCH_DTYPES[stage.dtype])
    engine = DeepSpeedEngine(StudentModule(decoder, stage=stage, vocab=vocab), stage=stage, settings=settings, gang=gang)
    outcomes = []
    for step in plan:
        rounds = max(len(batches) for batches in step)
        mine = [collate(rows, with_targets=True) for rows in step[gang.rank]]
        mine += [collate([], with_targets=True)] * (rounds - len(mine))
        tokens = sum(row.response_len for batches in step for rows in batches for row in rows)
        outcomes.append(engine.step(mine, global_tokens=tokens, learning_rate=stage.learning_rate))
    return outcomes, engine.whole_weights(decoder.model)


def run_gang(
    function: str, args: tuple[object, ...], *, folder: Path, world_size: int, env: dict[str, str] | None = None
) -> list[Any]:
    """Run a function of this module in `world_size` processes; what each of them returned, or None if it was killed."""
    folder.mkdir(parents=True, exist_ok=True)
    job = folder / "job.pickle"
    job.write_bytes(pickle.dumps(args))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    base = os.environ | {"WORLD_SIZE": str(world_size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    base |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | (env or {})
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(job), function],
            env=base | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(world_size)
    ]
    try:
        outputs = [process.communicate(timeout=240)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output
    return [pickle.loads((folder / f"result-{rank}.pickle").read_bytes()) for rank in range(world_size)]


def main() -> None:
    torch.set_num_threads(1)
    job = Path(sys.argv[1])
    args = pickle.loads(job.read_bytes())
    result = globals()[sys.argv[2]](*args)
    job.with_name(f"result-{os.environ['RANK']}.pickle").write_bytes(pickle.dumps(result))


if __name__ == "__main__":
    main()
