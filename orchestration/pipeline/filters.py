"""Which of a teacher's sequences a stage learns. Pure functions over records; what is left out is counted by reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from cache import TeacherRecord
from configs.stages import FilterConfig
from evaluation.text import rouge_l

Text = Callable[[tuple[int, ...]], str]


@dataclass(frozen=True, slots=True)
class Filtered:
    """The keys that stay, in their order, and how many were left out for which reason."""

    keys: tuple[bytes, ...]
    left_out: Mapping[str, int]

    def __str__(self) -> str:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.left_out.items())
        return f"{len(self.keys):,} sequences learned" + (f"; left out: {reasons}" if reasons else "")


def apply_filters(
    records: Iterable[TeacherRecord], *, filters: FilterConfig, text: Text, gold: Mapping[tuple[int, ...], str]
) -> Filtered:
    """Sift records; `text` turns response ids into words, `gold` holds the answers by prompt ids.

    The first filter that a sequence fails counts it. A prompt without a gold answer fails `min_rouge_l`.
    """
    keys: list[bytes] = []
    left_out: Counter[str] = Counter()
    seen: set[tuple[tuple[int, ...], str]] = set()
    for record in records:
        prompt = tuple(record.token_ids[: record.prompt_len].tolist())
        reason = _broken_off_or_length(record, filters=filters)
        if reason is None and (filters.drop_duplicates or filters.min_rouge_l is not None):
            answer = text(tuple(record.response_ids.tolist()))
            reads_as = prompt, " ".join(answer.lower().split())
            if filters.drop_duplicates and reads_as in seen:
                reason = "reading like another answer to the same prompt"
            elif filters.min_rouge_l is not None and rouge_l([answer], [gold.get(prompt, "")]) < filters.min_rouge_l:
                reason = f"below Rouge-L {filters.min_rouge_l:g}"
            seen.add(reads_as)
        if reason is None:
            keys.append(bytes(record.key))
        else:
            left_out[reason] += 1
    return Filtered(tuple(keys), dict(left_out))


def _broken_off_or_length(record: TeacherRecord, *, filters: FilterConfig) -> str | None:
    if filters.finish == "stop" and record.finish == "length":
        return "broken off"
    if filters.min_tokens is not None and record.response_len < filters.min_tokens:
        return f"shorter than {filters.min_tokens} tokens"
    if filters.max_tokens is not None and record.response_len > filters.max_tokens:
        return f"longer than {filters.max_tokens} tokens"
    return None
