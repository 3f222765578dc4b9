"""What a checkpoint costs a training: how long a step waits for it, and how much slower the steps beside it are.

The contenders write the same state: one as training does, going on while the files are made durable, the other waiting
for them. The state is what ZeRO writes of a model in bfloat16 (weights, float32 copy, two moments: 14 bytes a weight),
in tensors without a model, so that the memory of a machine holds more of it. A step is a product of matrices.
`python -m benchmarks.checkpoints 1000` measures a model of so many million weights.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from benchmarks.measurement import Measurement, at_most
from student_train.training.checkpoint import Checkpoints, CheckpointState
from student_train.training.deepspeed_engine import Snapshots
from student_train.worker_group import WorkerGroup, keep_freed_memory

MILLIONS, ROUNDS = (10, 100), 2
LARGEST_TENSOR = 50_000_000
STEP_WIDTH, STEP_PRODUCTS = 1024, 8
BYTES_A_WEIGHT = 14
LARGEST_WAIT = 0.5


def bench_checkpoints(millions: tuple[int, ...] = MILLIONS) -> Iterator[Measurement]:
    """How long a step waits, and how fast it is beside the commit, at each size."""
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        dist.init_process_group("gloo", init_method=f"file://{root.resolve()}/meeting", rank=0, world_size=1)
        try:
            for size in millions:
                yield from _of_size(size, root=root)
        finally:
            dist.destroy_process_group()


def _of_size(millions: int, *, root: Path) -> Iterator[Measurement]:
    state = _state(millions * 1_000_000)
    stall, whole, beside = float("inf"), float("inf"), float("inf")
    for number in range(1, ROUNDS + 1):
        # Each leaves one checkpoint behind, which the next replaces.
        whole = min(whole, _saved(state, root=root / f"{millions}-a", step=number, at_once=False)[0])
        found = _saved(state, root=root / f"{millions}-b", step=number, at_once=True)
        if found[0] < stall:
            stall, beside = found
    name = f"a checkpoint of {millions:,} M weights ({BYTES_A_WEIGHT * millions / 1000:g} GB)"
    peers = {"until all is on disk": whole}
    yield Measurement(f"{name}: a step waits", stall, "s", peers=peers)
    yield at_most(f"{name}: a step waits, of the time until all is on disk", stall / whole, LARGEST_WAIT)
    yield Measurement(f"{name}: a step beside the commit, of one alone", beside)


def _saved(state: dict[str, Any], *, root: Path, step: int, at_once: bool) -> tuple[float, float]:
    """Seconds that a step waits for a checkpoint, and how much longer steps take until it is on disk."""
    store = Checkpoints(root, group=WorkerGroup(0, 1, torch.device("cpu")))
    writer = Snapshots(None)

    def take(folder: Path) -> list[Any]:
        (folder / "state").mkdir()
        for name, part in state.items():
            writer.save(part, str(folder / "state" / name))
        return writer.taken()

    alone, begun = _step_seconds(lambda: 4), time.perf_counter()
    store.save(_described(step), take=take)
    if not at_once:
        store.settle()
        return time.perf_counter() - begun, 1.0
    waited = time.perf_counter() - begun
    beside = _step_seconds(lambda: 1 << 30 if store.committing else 0)
    store.settle()
    return waited, beside / alone


def _step_seconds(left: Callable[[], int]) -> float:
    """The seconds of a step, over as many as `left` says again and again."""
    values = torch.ones(STEP_WIDTH, STEP_WIDTH)
    done, begun = 0, time.perf_counter()
    while done < max(left(), 1):
        for _ in range(STEP_PRODUCTS):
            values = (values @ values).clamp_(max=1.0)
        done += 1
    return (time.perf_counter() - begun) / done


def _state(weights: int) -> dict[str, Any]:
    parts = [min(LARGEST_TENSOR, weights - at) for at in range(0, weights, LARGEST_TENSOR)]
    model = {str(at): torch.ones(size, dtype=torch.bfloat16) for at, size in enumerate(parts)}
    moments = [[torch.ones(size) for size in parts] for _ in range(3)]
    return {"model_states.pt": {"module": model}, "optim_states.pt": {"optimizer_state_dict": moments}}


def _described(step: int) -> CheckpointState:
    return CheckpointState(
        step=step,
        tokens=step,
        skipped=0,
        skipped_in_a_row=0,
        world_size=1,
        zero_stage=1,
        view_digest="v",
        stage_digest="s",
        measured=(),
        pending=(),
    )


if __name__ == "__main__":
    for line in bench_checkpoints(tuple(int(size) for size in sys.argv[1:]) or MILLIONS):
        print(f"{line.what}: {line.value:.2f} {line.unit} {dict(line.peers)}", flush=True)
