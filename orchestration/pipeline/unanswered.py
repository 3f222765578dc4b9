"""Setting rows aside of which a teacher could answer nothing: once each, with the reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from cache import GenerateRequest, ScoreRequest
from cache.answers import Request
from cache.erasures import FORGOTTEN
from orchestration.inputs.prompts import Prompt, PromptSet, PromptTable, Rejected
from orchestration.plan.requests import SequenceSet


def without_refused(prompts: PromptSet, sets: Sequence[SequenceSet], *, failed: Mapping[Request, str]) -> PromptSet:
    """The prompts without those of which the teacher could answer nothing, and what it could not answer set aside.

    A row is set aside once, however many samples of it were asked. One that has at least one of its sequences stays.
    """
    if not failed:
        return prompts
    refused: dict[tuple[int, ...], list[str]] = {}
    splits, set_aside = {}, []
    # Windows of plain text begin with one token, which says nothing about the prompts that do.
    windows = {
        request: (split, at)
        for split, rows in prompts.plain.items()
        for at, request in _windows(rows)
        if request in failed
    }
    for request, reason in failed.items():
        if request in windows:
            split, at = windows[request]
            set_aside.append(Rejected(f"plain-{split}", at, reason, ""))
        else:
            refused.setdefault(_prompt_of(request), []).append(reason)
    about = {each for part in sets for each in part.requests if _prompt_of(each) in refused}
    wanted = Counter(map(_prompt_of, about))
    for split, rows in prompts.splits.items():
        kept = PromptTable()
        for row in rows:
            reasons, asked = refused.get(row.asked_ids, []), wanted[row.asked_ids]
            if reasons:
                share = f" ({len(reasons)} of its {asked} sequences)" if asked > 1 else ""
                # What is to be gone must not stand in a run directory.
                text = "" if FORGOTTEN in reasons else row.text
                set_aside.append(Rejected(split, row.row, reasons[0] + share, text))
            if not reasons or len(reasons) < asked:
                kept.append(row)
        splits[split] = kept
    return replace(prompts, splits=splits, rejected=(*prompts.rejected, *set_aside))


def _windows(rows: Sequence[Prompt]) -> Iterator[tuple[int, Request]]:
    """What is asked about each window of plain text, with the number of its text."""
    return ((each.row, ScoreRequest(each.prompt_ids + (each.gold_ids or ()), 1)) for each in rows)


def _prompt_of(request: Request) -> tuple[int, ...]:
    return request.prompt_ids if isinstance(request, GenerateRequest) else request.token_ids[: request.prompt_len]
