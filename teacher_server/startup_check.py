"""Before anything an engine says is kept: does it say what a plain forward pass of the same model says?

Catches rows that are shifted by a position, a prompt without its first token, a template or tokenizer of another
model, wrong weights. The rows of both ways are compared: of writing (decode) and of scoring (prefill).

What counts as agreement was measured on a 135M model in bfloat16, two prompts, against a float32 reference. The mean
of |Δ log p| over the real tokens is 0.04 nats (single tokens reach 0.5, so a maximum says nothing); it is 3 with
shifted rows (0.6 when the text is one the model is sure of), 0.6 without the first token and 0.25 with the first token
doubled. The most likely token agrees at 97 % of the positions, with shifted rows at 2 %. A model that knows nothing
gives every token the same probability, so shifted rows only show in the second figure there.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cache.protocols import Failure, Outcome, SequenceSource
from cache.records import GenerateRequest, ScoreRequest, TeacherRecord
from configs.errors import EngineError
from configs.model_files import weight_files
from teacher_server.reference import ReferenceRows

TOLERANCE_NATS = 0.15
"""Largest mean |Δ log p|: about four times the rounding of bfloat16, a quarter of a missing first token."""

LEAST_AGREEMENT = 0.5
"""Least share of positions with the same most likely token; random models in bfloat16 stay above 0.8."""

NEW_TOKENS = 8
"""Tokens that are written for each prompt."""

_SCORED_FROM = 2
"""First position of the scored part: a prompt of one token could not lose its first one."""

_SHORTEST, _LONGEST = 16, 256
"""Tokens of the check's prompts: fewer say little, more only take the reference's time."""

_LOOKED_AT = 1000
"""How many prompts of an experiment are looked at to choose from."""

_FLOAT32_BYTES = 8 * 2**30
"""Up to this size of the weights the reference computes in float32, beyond it in the engine's own dtype."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far an engine is from the reference, over `rows` positions of one way of asking it."""

    way: str
    rows: int
    mean_nats: float
    worst_nats: float
    top1: float


@dataclass(frozen=True, slots=True)
class CheckAnswers:
    """What an engine said when it was checked: its greedy answers, and its scores of the same sequences."""

    written: tuple[TeacherRecord, ...]
    scored: tuple[TeacherRecord, ...]

    @property
    def sequences(self) -> tuple[tuple[int, ...], ...]:
        """Prompt and answer of each, which a plain forward pass has to judge."""
        return tuple(tuple(record.token_ids.tolist()) for record in self.written)


def check_prompts(
    prompts: Iterable[tuple[int, ...]], *, bos_id: int | None, max_model_len: int, count: int
) -> list[tuple[int, ...]]:
    """`count` prompts for the check, made from those of an experiment (the first `_LOOKED_AT` of them).

    The longest are taken, cut to what leaves room for an answer and to `_LONGEST` tokens. Where all are shorter than
    `_SHORTEST` tokens (raw prompts of a word or two) several are joined, and repeated if need be: what the engine is
    asked does not have to make sense, it has to be long enough to show a shift.
    """
    longest = min(_LONGEST, max_model_len - NEW_TOKENS - 1)
    seen = sorted(dict.fromkeys(itertools.islice(prompts, _LOOKED_AT)), key=len, reverse=True)
    chosen = [prompt[:longest] for prompt in seen[:count]]
    if chosen and len(chosen[-1]) >= min(_SHORTEST, longest):
        return chosen
    first = () if bos_id is None else (bos_id,)
    words = [token for prompt in seen for token in prompt if token != bos_id] or list(first)
    if not words:
        return []
    joined = tuple(itertools.islice(itertools.cycle(words), _SHORTEST * count))
    parts = (joined[at : at + _SHORTEST] for at in range(0, len(joined), _SHORTEST))
    return [(*first, *part)[:longest] for part in parts]


def ask_engine(
    engine: SequenceSource,
    *,
    prompts: Sequence[tuple[int, ...]],
    stop_ids: tuple[int, ...] = (),
    expected_bos: int | None = None,
) -> CheckAnswers:
    """What an engine says of the prompts of its check: its own greedy answers, and its scores of the same sequences.

    `stop_ids` end an answer, as in the experiment. `expected_bos` is the id that every prompt must start with, once.
    Two or so prompts of at least three tokens do; longer ones make a sharper test.

    Raises:
        EngineError: a prompt is unfit, or the engine refuses one.
    """
    _check_prompts(prompts, expected_bos=expected_bos)
    asked = [GenerateRequest(prompt, stop_ids=stop_ids, max_new_tokens=NEW_TOKENS) for prompt in prompts]
    written = _in_order(engine.generate(asked, k=1), count=len(prompts))
    sequences = [tuple(record.token_ids.tolist()) for record in written]
    scored = _in_order(engine.score([ScoreRequest(each, _SCORED_FROM) for each in sequences], k=1), count=len(prompts))
    return CheckAnswers(tuple(written), tuple(scored))


def judge_engine(
    answers: CheckAnswers,
    reference: Sequence[ReferenceRows],
    *,
    model_dir: Path,
    tolerance_nats: float = TOLERANCE_NATS,
) -> tuple[Agreement, Agreement]:
    """Compare what an engine said with a plain forward pass (`reference_rows`) over `answers.sequences`.

    `tolerance_nats` is the largest mean |Δ log p| of the real tokens. Returns the figures of writing and of scoring.

    Raises:
        EngineError: naming what differs and by how much.
    """
    agreements = (_compare("writing", answers.written, reference), _compare("scoring", answers.scored, reference))
    for agreement in agreements:
        _log.info("engine check: %s", agreement)
        _judge(agreement, model_dir=model_dir, tolerance_nats=tolerance_nats)
    return agreements


def reference_dtype(model_dir: Path, *, served: str) -> str:
    """What the reference computes in: float32 for small models, for others the dtype that they are served in."""
    return "float32" if weight_bytes(model_dir) <= _FLOAT32_BYTES else served


def _check_prompts(prompts: Sequence[tuple[int, ...]], *, expected_bos: int | None) -> None:
    if not prompts or min(len(prompt) for prompt in prompts) <= _SCORED_FROM:
        raise EngineError(f"the engine check needs prompts of more than {_SCORED_FROM} tokens")
    if expected_bos is None:
        return
    for prompt in prompts:
        if prompt[0] != expected_bos:
            raise EngineError(
                f"a prompt starts with token {prompt[0]}, not with the model's first token {expected_bos}"
            )
        if prompt[1] == expected_bos:
            raise EngineError(f"a prompt starts twice with token {expected_bos}: template and tokenizer both add it")


def _in_order(outcomes: Iterable[Outcome], *, count: int) -> list[TeacherRecord]:
    records: dict[int, TeacherRecord] = {}
    for position, outcome in outcomes:
        if isinstance(outcome, Failure):
            raise EngineError(f"the engine refused a prompt of its check: {outcome.reason}")
        records[position] = outcome
    if sorted(records) != list(range(count)):
        raise EngineError(f"the engine answered {len(records)} of the {count} prompts of its check")
    return [records[position] for position in range(count)]


def _compare(way: str, records: Sequence[TeacherRecord], reference: Sequence[ReferenceRows]) -> Agreement:
    distances, agreed = [], []
    for record, rows in zip(records, reference, strict=True):
        assert record.target_logprobs is not None and record.topk_ids is not None
        first = record.prompt_len - 1
        distances.append(np.abs(record.target_logprobs - rows.target_logprobs[first:]))
        agreed.append(record.topk_ids[:, 0] == rows.best_ids[first:])
    distance = np.concatenate(distances)
    return Agreement(
        way=way,
        rows=len(distance),
        mean_nats=float(distance.mean()),
        worst_nats=float(distance.max()),
        top1=float(np.concatenate(agreed).mean()),
    )


def _judge(agreement: Agreement, *, model_dir: Path, tolerance_nats: float) -> None:
    # Written so that NaN fails.
    if agreement.mean_nats <= tolerance_nats and agreement.top1 >= LEAST_AGREEMENT:
        return
    raise EngineError(
        f"{model_dir}: when {agreement.way}, the engine is not the model that transformers loads: mean |Δ log p| "
        f"{agreement.mean_nats:.3f} nats (at most {tolerance_nats}; worst {agreement.worst_nats:.2f}), same most "
        f"likely token at {agreement.top1:.0%} of {agreement.rows} positions (at least {LEAST_AGREEMENT:.0%}); look "
        "for shifted rows, a missing first token, other weights or another dtype"
    )


def weight_bytes(model_dir: Path) -> int:
    """Bytes of a model's weight files."""
    return sum(path.stat().st_size for path in weight_files(model_dir))
