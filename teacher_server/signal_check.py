"""Before any signal of an engine is kept: does it say what a plain forward pass of the same model says?

The engine reads two texts of different length in one batch, where one of them is padded; the plain pass reads each of
them alone. Catches padding that is looked at, positions that are shifted by it, segments of pairs that are lost, rows
that belong to another text, weights of another model.

What counts as agreement, as a share of 1 + the largest value of a signal: the states of MiniLM (6 layers) are 5e-7 off
in float32, 1e-2 in bfloat16 and 8e-4 in float16. A text of 8 tokens whose padding is looked at is 0.02 off with one
token of it, and 0.13 with 40 (the first token after the last layer; docs/log.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32

from cache.protocols import Failure
from cache.signals import SignalRecord, SignalRequest
from configs.errors import EngineError
from teacher_server.encoder import load_with_head
from teacher_server.features import TORCH_DTYPES
from teacher_server.heads import head_of

TOLERANCES: Mapping[str, float] = {"float32": 1e-4, "bfloat16": 5e-2, "float16": 1e-2}
"""How far a value may be off, as a share of 1 + the largest absolute value of its signal."""

LOOKED_AT = 2000
"""How many requests of an experiment are looked at to choose from."""

Values = Float32[np.ndarray, "P W"]


def check_requests(requests: Iterable[SignalRequest]) -> tuple[SignalRequest, ...]:
    """All that is asked about the shortest and about the longest text among the first of `requests`."""
    asked: dict[tuple[tuple[int, ...], int], list[SignalRequest]] = {}
    for request in islice(requests, LOOKED_AT):
        asked.setdefault((request.token_ids, request.split), []).append(request)
    by_length = sorted(asked, key=lambda text: len(text[0]))
    return tuple(request for text in dict.fromkeys([*by_length[:1], *by_length[-1:]]) for request in asked[text])


def plain_signals(model_dir: Path, requests: Sequence[SignalRequest], *, dtype: str) -> list[Values]:
    """What transformers says to each request, its text read alone and without padding.

    Raises:
        ModelError: the model does not load.
    """
    model, tokenizer = load_with_head(model_dir, head_of(model_dir), dtype=TORCH_DTYPES[dtype])
    pairs = "token_type_ids" in tokenizer.model_input_names
    found = []
    for request in requests:
        ids = torch.tensor([request.token_ids])
        inputs = {"input_ids": ids}
        if pairs:
            inputs["token_type_ids"] = (torch.arange(ids.shape[1])[None] >= request.split).long()
        with torch.inference_mode():
            output = model(**inputs, output_hidden_states=request.signal.name == "state")
            found.append(_said(request, output).float().numpy())
    return found


def judge_signals(
    answers: Sequence[SignalRecord | Failure], plain: Sequence[Values], *, model_dir: Path, dtype: str
) -> None:
    """Compare what an engine said with a plain pass. What it could not answer is left out, unless that is all.

    Raises:
        EngineError: they disagree, or there is nothing to compare.
    """
    compared = [(a, p) for a, p in zip(answers, plain, strict=True) if isinstance(a, SignalRecord)]
    if not compared:
        reasons = [answer.reason for answer in answers if isinstance(answer, Failure)]
        raise EngineError(
            f"{model_dir}: the engine answers nothing of its check: {reasons[0] if reasons else 'no text'}"
        )
    for answer, expected in compared:
        apart = _apart(answer.values, expected)
        if not apart <= TOLERANCES[dtype]:
            raise EngineError(
                f"{model_dir}: the engine says {answer.signal} of a text of {len(answer.token_ids)} tokens {apart:.2g} "
                f"off a plain forward pass of that text alone, where {TOLERANCES[dtype]:g} is allowed in {dtype} "
                "(shares of the largest value): nothing is kept; set teacher.dtype: float32, or choose another teacher"
            )


def _apart(found: Values, expected: Values) -> float:
    if found.shape != expected.shape:
        return float("inf")
    return float(np.abs(found - expected).max() / (1.0 + np.abs(expected).max()))


def _said(request: SignalRequest, output: object) -> torch.Tensor:
    signal = request.signal
    if signal.layer is not None:
        states: torch.Tensor = output.hidden_states[signal.layer][0].float()  # type: ignore[attr-defined]
        rows = {"first": states[:1], "last": states[-1:], "mean": states.mean(dim=0, keepdim=True)}
        return rows[signal.position or "first"]
    if signal.name == "span_logits":
        return torch.stack([output.start_logits[0], output.end_logits[0]], dim=1)  # type: ignore[attr-defined]
    logits: torch.Tensor = output.logits  # type: ignore[attr-defined]
    return logits if signal.name == "class_logits" else logits[0]
