"""What it takes to make rows of records of what an engine gives: through vLLM's lists, or from the arrays themselves.

No engine: rows of a step as vLLM hands them to a request's processor (vllm/v1/engine/logprobs.py), one after the other
for a sequence that is written, all at once for one that is scored, and then read as rows of a record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from vllm.logprobs import create_prompt_logprobs, create_sample_logprobs
from vllm.v1.engine.logprobs import LogprobsProcessor

from benchmarks.measurement import Measurement, at_least
from benchmarks.timing import best_seconds
from teacher_server.engine_arrays import ArrayProcessor
from teacher_server.flat_logprobs import FlatRows
from teacher_server.logprob_rows import TopkRows, topk_rows

TOKENS, K, VOCAB = 512, 64, 49_152


def bench_engine_rows() -> Iterator[Measurement]:
    """One line for writing and one for scoring."""
    outputs = {"writing": [_written(seed) for seed in range(TOKENS)], "scoring": [_scored()]}
    for way, output in outputs.items():
        contenders: dict[str, Callable[[], TopkRows | None]] = {
            name: partial(_rows, way, output, arrays=name == "arrays") for name in ("lists", "arrays")
        }
        seconds = best_seconds(contenders)
        lists, arrays = (TOKENS / seconds[name] for name in ("lists", "arrays"))
        name = f"rows of an engine, {way}, k={K}"
        yield at_least(name, arrays / 1e6, 1.0, unit="M tokens/s", peers={"through vLLM's lists": lists / 1e6})


def _rows(way: str, outputs: list[Any], *, arrays: bool) -> TopkRows | None:
    """The rows of one sequence, from the steps' outputs to the record's arrays."""
    processor: Any = LogprobsProcessor(
        tokenizer=None,
        cumulative_logprob=0.0,
        logprobs=create_sample_logprobs(flat_logprobs=True),
        prompt_logprobs=create_prompt_logprobs(flat_logprobs=True),
        num_logprobs=K,
        num_prompt_logprobs=K,
    )
    if arrays:
        processor = ArrayProcessor(processor)
    for output in outputs:
        processor.update_from_output(output)
    kept = processor.logprobs if way == "writing" else processor.prompt_logprobs
    first = 0 if way == "writing" else 1
    return topk_rows(kept if arrays else FlatRows(kept), targets=_TARGETS, k=K, vocab=VOCAB, first=first)


def _table(rows: int, *, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids, log-probabilities and ranks of some positions; the token that came is always the same."""
    noise = np.random.default_rng(seed)
    ids = noise.integers(1, VOCAB, size=(rows, K + 1), dtype=np.int32)
    ids[:, 0] = 0
    logprobs = -np.sort(noise.exponential(4.0, size=(rows, K + 1)).astype(np.float32), axis=1)
    return ids, logprobs, np.full(rows, 7, dtype=np.int32)


def _written(seed: int) -> Any:
    ids, logprobs, ranks = _table(1, seed=seed)
    return SimpleNamespace(
        new_logprobs=(ids, logprobs, ranks, None), new_prompt_logprobs_tensors=None, prompt_token_id_logprobs=None
    )


def _scored() -> Any:
    ids, logprobs, ranks = (torch.from_numpy(each) for each in _table(TOKENS, seed=0))
    return SimpleNamespace(
        new_logprobs=None, new_prompt_logprobs_tensors=(ids, logprobs, ranks), prompt_token_id_logprobs=None
    )


_TARGETS = np.zeros(TOKENS, dtype=np.int32)
