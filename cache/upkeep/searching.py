"""Finding stored rows by their tokens, those of replaced segments included, with what names them once they are gone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

import numpy as np
from jaxtyping import Int32

from cache.disk.key_objects import key_bytes
from cache.disk.manifests import DamagedObject, read_manifest
from cache.disk.storage import Storage
from cache.erasures import asked_name, held_name
from cache.upkeep.garbage import place_errors
from cache.upkeep.raw_columns import RawSegment, listed

Match = Callable[[Int32[np.ndarray, " T"]], bool]
"""Whether token ids hold what is looked for."""


def find_matches(storage: Storage, *, identity: str, match: Match) -> dict[bytes, frozenset[str]]:
    """All stored rows whose tokens (prompt and response) match: by key, the names that an erasure gives them.

    A prompt that was answered with what matches is named with its answer: it may be answered so again.

    Raises:
        CacheError: when the place cannot be read, or is of another format or teacher.
    """
    found, prompts, answers = dict[bytes, frozenset[str]](), dict[bytes, str](), set[bytes]()
    with place_errors(storage):
        for uuid in sorted(listed(storage, "manifests")):
            # What cannot be read now is missing to everybody; `forget` deletes what is set aside.
            with suppress(DamagedObject, FileNotFoundError):
                segment = RawSegment(storage, read_manifest(storage, uuid, identity=identity))
                answers.update(key_bytes(segment.tables().generations["sequence"]))
                for key, names, prompt in _matches(segment, match):
                    found[key], prompts[key] = names, prompt
    return {key: found[key] | ({prompts[key]} if key in answers else set()) for key in sorted(found)}


def _matches(segment: RawSegment, match: Match) -> Iterator[tuple[bytes, frozenset[str], str]]:
    """Key, names of what holds it, and name of the prompt as one that was asked."""
    tables = segment.tables()
    tokens, offsets = segment.column("token_ids"), segment.column("token_offsets").tolist()
    places = zip(tables.entries["row"].tolist(), tables.entries["prompt_len"].tolist(), strict=True)
    for key, (row, prompt_len) in zip(key_bytes(tables.keys), places, strict=True):
        ids = tokens[offsets[row] : offsets[row + 1]]
        if match(ids):
            prompt = ids[:prompt_len]
            holding = [ids, prompt] if match(prompt) else [ids]
            yield key, frozenset(map(held_name, holding)), asked_name(prompt)
