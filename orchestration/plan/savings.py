"""What the cache saves an experiment: what its rows that are there took when they were bought, or would cost now."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cache import ScoreRequest, TeacherCache
from cache.answers import Request
from cache.disk.spending import Spent, together
from configs.doors import TokenPrice
from evaluation.cost import Saved
from orchestration.plan.requests import FillPlan

if TYPE_CHECKING:
    from orchestration.plan.signal_requests import SignalPlan


def saved_by_cache(plan: FillPlan, *, cache: TeacherCache, price: TokenPrice | None = None) -> Saved:
    """What the rows of the plan that the cache holds took, and what they would cost of a teacher with this `price`.

    What several sets want is counted once. Gold answers and plain text that are kept as text cost nobody anything.

    Raises:
        CacheError: the cache cannot be read.
    """
    tokens, known, paid, counted = 0, list[Spent](), 0.0, set[bytes]()
    for part in plan.sets:
        sequences = part.sequences
        if sequences.source != "teacher" and sequences.k == 0:
            continue
        lacking = [*part.missing.generate, *(at for at, _ in part.missing.score)]
        held = np.setdiff1d(np.arange(len(sequences.requests)), np.array(lacking, dtype=np.int64)).tolist()
        asked = [sequences.requests[at] for at in held]
        keys = cache.lookup(asked, k=sequences.k)
        found = {key: request for key, request in zip(keys, asked, strict=True) if key and key not in counted}
        counted.update(found)
        count, spent = cache.spent(list(found), k=sequences.k)
        tokens, known = tokens + count, [*known, spent]
        if price is not None:
            read = sum(map(_read, found.values()))
            paid += price.cost(read=read, written=count - read)
    total = together(known)
    return Saved(tokens, total.gpu_seconds, total.joules, paid)


def saved_signals(plan: SignalPlan, *, cache: TeacherCache) -> Saved:
    """What the signals of the plan that the cache holds took when they were bought, whoever bought them."""
    requests = list(dict.fromkeys(plan.requests))
    lacking = set(cache.signals.missing(requests))
    held = [request for at, request in enumerate(requests) if at not in lacking]
    tokens, spent = cache.spent(cache.signals.keys(held), k=0)
    return Saved(tokens, spent.gpu_seconds, spent.joules)


def _read(request: Request) -> int:
    """Tokens that the teacher reads to answer; the others of a row it writes."""
    return len(request.token_ids) if isinstance(request, ScoreRequest) else len(request.prompt_ids)
