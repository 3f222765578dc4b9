"""The check of an engine in one process: it is asked, a plain forward pass is made, and the two are compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cache.protocols import SequenceSource
from teacher_server.reference import reference_rows
from teacher_server.startup_check import Agreement, ask_engine, judge_engine, reference_dtype


def check_engine(
    engine: SequenceSource,
    *,
    model_dir: Path,
    prompts: Sequence[tuple[int, ...]],
    stop_ids: tuple[int, ...] = (),
    expected_bos: int | None = None,
) -> tuple[Agreement, Agreement]:
    """What an engine pool does with each of its engines; the figures of writing and of scoring."""
    answers = ask_engine(engine, prompts=prompts, stop_ids=stop_ids, expected_bos=expected_bos)
    dtype = reference_dtype(model_dir, served=engine.identity.dtype)
    return judge_engine(answers, reference_rows(model_dir, answers.sequences, dtype=dtype), model_dir=model_dir)
