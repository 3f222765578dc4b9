"""The prompts of a student that has another tokenizer than its teacher, by those of the teacher."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from cache.canonical import token_bytes, token_ids_of
from cache.rows import SpilledRows, taken
from orchestration.inputs.prompts import DIGEST, tokens_digest
from orchestration.inputs.tokenizing import Ids

_HEAD = struct.Struct("<i")
"""Of a kept pair: the tokens of the teacher's prompt."""


class OwnPrompts(Mapping[Ids, Ids]):
    """The student's prompts by the teacher's; of pairs with the same one the first counts.

    They lie in a file (`cache.rows`), and 32 bytes of each are held.
    """

    def __init__(self, pairs: Iterable[tuple[Ids, Ids]] = ()) -> None:
        """Take (the teacher's, the student's), in any order.

        Raises:
            ConfigError: there is no room for them.
        """
        self._kept, digests = SpilledRows(), bytearray()
        for theirs, own in pairs:
            digests += tokens_digest(theirs)
            self._kept.append(_HEAD.pack(len(theirs)) + token_bytes(theirs) + token_bytes(own))
        found = np.frombuffer(digests, dtype=DIGEST)
        order = np.argsort(found, kind="stable")
        first = np.ones(len(order), dtype=bool)
        first[1:] = found[order[1:]] != found[order[:-1]]
        self._rows = order[first]
        self._digests = found[self._rows]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Ids]:
        return (_pair(kept)[0] for kept in taken(self._kept, np.sort(self._rows)))

    def __getitem__(self, theirs: Ids) -> Ids:
        at = int(np.searchsorted(self._digests, np.array(tokens_digest(theirs), dtype=DIGEST)))
        if at < len(self._rows):
            known, own = _pair(self._kept[int(self._rows[at])])
            if known == theirs:
                return own
        raise KeyError(theirs)


def _pair(kept: bytes) -> tuple[Ids, Ids]:
    (count,) = _HEAD.unpack_from(kept)
    ids = token_ids_of(kept[_HEAD.size :])
    return ids[:count], ids[count:]
