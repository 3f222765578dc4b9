"""What a cache holds, in numbers: how many rows and bytes there are, and what some of them took to get."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from cache.answers import Answers
from cache.disk.spending import Spent, together
from cache.library import Library


@dataclass(frozen=True, slots=True)
class CacheStats:
    """Counts over all sound segments; `records` counts different sequences, `bytes` what lies on disk.

    `signals` counts different signals. Tokens, and bytes a response token, are those of sequences alone; `bytes` and
    `segments` count both kinds.
    """

    records: int
    tokens: int
    response_tokens: int
    bytes: int
    segments: int
    bytes_per_token: float
    signals: int


def stats_of(library: Library) -> CacheStats:
    """Counts over all sound segments.

    Raises:
        CacheError: when the disk cannot be read.
    """
    manifests = library.manifests
    sequences = [manifest for manifest in manifests if not manifest.signals]
    response_tokens = sum(manifest.response_tokens for manifest in sequences)
    size = sum(manifest.disk_bytes for manifest in sequences)
    return CacheStats(
        records=library.sound(partial(_count, library, signals=False)),
        tokens=sum(manifest.tokens for manifest in sequences),
        response_tokens=response_tokens,
        bytes=sum(manifest.disk_bytes for manifest in manifests),
        segments=len(manifests),
        bytes_per_token=size / response_tokens if response_tokens else 0.0,
        signals=library.sound(partial(_count, library, signals=True)),
    )


def spent_on(keys: Sequence[bytes], *, k: int, library: Library, answers: Answers) -> tuple[int, Spent]:
    """Tokens of the rows that answer these keys with `k` log-probabilities, and what they took to get.

    Each row has the share of its segment's cost that it has of its tokens; what is known of none is not known.

    Raises:
        CacheError: when the disk cannot be read.
    """

    def ask() -> tuple[int, Spent]:
        entries = answers.locate(list(dict.fromkeys(keys)), k=k)
        entries = entries[entries["segment"] >= 0]
        numbers, group = np.unique(entries["segment"], return_inverse=True)
        tokens = np.bincount(group, weights=entries["length"], minlength=len(numbers))
        manifests = [library.segment(number).manifest for number in numbers.tolist()]
        shares = (
            Spent.of(manifest.provenance).share(int(part), of=manifest.tokens)
            for manifest, part in zip(manifests, tokens, strict=True)
        )
        return int(tokens.sum()), together(shares)

    return library.sound(ask)


def _count(library: Library, *, signals: bool) -> int:
    with library.disk_errors():
        return library.index.count(signals=signals)
