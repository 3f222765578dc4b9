"""What a process of an engine does that holds some of the layers (`pipeline_parallel`)."""

from __future__ import annotations

from typing import Any


def make_room_between_stages(worker: Any) -> None:
    """Make the buffer into which a stage takes the hidden states of the one before it.

    vLLM makes it in the pass by which it measures a GPU's memory. On a CPU that pass is left out where nothing is
    compiled, and the first request ends the stage (`sync_and_gather_intermediate_tensors`, 0.32). `worker` is vLLM's
    own, in its process.
    """
    runner = worker.model_runner
    make = getattr(runner.get_model(), "make_empty_intermediate_tensors", None)
    if make is not None and getattr(runner, "intermediate_tensors", None) is None:
        runner.intermediate_tensors = make(
            batch_size=runner.max_num_tokens, dtype=runner.model_config.dtype, device=runner.device
        )
