"""What the cache saves an experiment: what its rows that are there took when they were bought, or would cost now."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cache import ScoreRequest, TeacherCache
from cache.answers import Request
from cache.disk.key_objects import KEY, Keys, key_bytes, one_of_each
from cache.disk.spending import Spent, together
from cache.rows import taken
from configs.doors import TokenPrice
from evaluation.cost import Saved
from orchestration.plan.requests import FillPlan, SetPlan

if TYPE_CHECKING:
    from orchestration.plan.signal_requests import SignalPlan

ROWS_AT_ONCE = 65_536
"""Rows of which the cache is asked together."""


def saved_by_cache(plan: FillPlan, *, cache: TeacherCache, price: TokenPrice | None = None) -> Saved:
    """What the rows of the plan that the cache holds took, and what they would cost of a teacher with this `price`.

    What several sets want is counted once. Gold answers and plain text that are kept as text cost nobody anything.

    Raises:
        CacheError: the cache cannot be read.
    """
    held = [part for part in map(partial(_held, cache=cache), plan.sets) if len(part.keys)]
    keys = np.concatenate([np.empty(0, dtype=KEY), *(part.keys for part in held)])
    wanted = one_of_each(keys, limits=np.zeros(len(keys), dtype=np.int64))
    tokens, known, paid, first = 0, list[Spent](), 0.0, 0
    for part in held:
        own = wanted[(wanted >= first) & (wanted < first + len(part.keys))] - first
        first += len(part.keys)
        for block in np.split(own, range(ROWS_AT_ONCE, len(own), ROWS_AT_ONCE)):
            count, spent = cache.spent(key_bytes(part.keys[block]), k=part.k)
            tokens, known = tokens + count, [*known, spent]
            if price is not None:
                read = int(part.read[block].sum())
                paid += price.cost(read=read, written=count - read)
    total = together(known)
    return Saved(tokens, total.gpu_seconds, total.joules, paid)


@dataclass(frozen=True, slots=True)
class _Held:
    """The keys of what the cache holds of a set, with how many tokens the teacher read for each."""

    keys: Keys
    read: NDArray[np.int64]
    k: int


def _held(part: SetPlan, *, cache: TeacherCache) -> _Held:
    sequences, missing = part.sequences, part.missing
    keys, read = bytearray(), array("q")
    if sequences.source == "teacher" or sequences.k > 0:
        lacking = np.concatenate([missing.written, missing.scored])
        held = np.setdiff1d(np.arange(len(sequences.requests)), lacking)
        for block in np.split(held, range(ROWS_AT_ONCE, len(held), ROWS_AT_ONCE)):
            asked = list(taken(sequences.requests, block))
            for key, request in zip(cache.lookup(asked, k=sequences.k), asked, strict=True):
                if key is not None:
                    keys += key
                    read.append(_read(request))
    return _Held(np.frombuffer(keys, dtype=KEY), np.array(read, dtype=np.int64), sequences.k)


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
