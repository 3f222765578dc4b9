"""Which rows and generations are answered by others, over all segments of a teacher.

The rules are those of `cache.index`: of one sequence the largest k wins, then the oldest segment, and its finish is the
smallest of all its rows; of one generation a request gets the oldest entry that reaches far enough. So an entry that
reaches no further than an older one is never asked for.

Only keys that stand in more than one place matter, and they are few. They are found by their first eight bytes over
all key objects, which are read one at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from cache.disk.key_objects import FINISHES, KEY, Keys, KeyTables, Prefixes, Table, key_prefixes

SEQUENCE = np.dtype(
    [
        ("key", KEY),
        ("segment", "<i8"),
        ("position", "<i8"),
        ("k", "<i8"),
        ("finish", "u1"),
        ("winner", "<i8"),
        ("winner_k", "<i8"),
        ("winner_finish", "u1"),
    ]
)
"""A row of a sequence that has several: where it stands, and the segment (itself, if it wins), k and finish of the
winner. Segments are numbered by age."""

STANDING = np.dtype([("key", KEY), ("segment", "<i8"), ("position", "<i8"), ("reach", "<i8"), ("keeper", "<i8")])
"""An entry of a generation that has several: `keeper` is the segment of an older entry that reaches as far, -1 when
there is none and the entry is needed."""

ENDLESS = 2**32
"""The reach of a completion that stopped by itself; response lengths are smaller."""

_STOPPED = FINISHES.index("stop")

Load = Callable[[int], KeyTables]


def reaches(generations: Table) -> Table:
    """How many new tokens each generation serves."""
    return np.where(generations["finish"] == _STOPPED, ENDLESS, generations["response_len"].astype(np.int64))


def shared_rows(count: int, load: Load) -> tuple[Table, Table]:
    """All sequences [SEQUENCE] and generations [STANDING] that stand in more than one place, ordered by segment.

    Segments are numbered 0 ... count - 1 by age, the oldest first; `load` reads the key object of one.
    """
    sequences, generations = [], []
    for number in range(count):
        tables = load(number)
        sequences.append(key_prefixes(tables.keys))
        generations.append(key_prefixes(tables.generations["key"]))
    twice = _repeated(sequences), _repeated(generations)
    if not len(twice[0]) and not len(twice[1]):
        return np.empty(0, SEQUENCE), np.empty(0, STANDING)
    rows, entries = [], []
    for number in range(count):
        # A segment whose keys nobody shares need not be read again.
        if _among(sequences[number], twice[0]).any() or _among(generations[number], twice[1]).any():
            tables = load(number)
            rows.append(_sequence_rows(tables, number, _among(sequences[number], twice[0])))
            entries.append(_generation_rows(tables, number, _among(generations[number], twice[1])))
    return _with_winners(np.concatenate(rows)), _with_keepers(np.concatenate(entries))


def _repeated(prefixes: Sequence[Prefixes]) -> Prefixes:
    joined = np.sort(np.concatenate([*prefixes, np.empty(0, dtype=np.uint64)]))
    return np.unique(joined[1:][joined[1:] == joined[:-1]])


def _among(prefixes: Prefixes, some: Prefixes) -> Table:
    """Which prefixes [n] are among `some`, which is sorted."""
    if not len(some):
        return np.zeros(len(prefixes), dtype=bool)
    at = np.minimum(np.searchsorted(some, prefixes), len(some) - 1)
    found: Table = some[at] == prefixes
    return found


def _sequence_rows(tables: KeyTables, number: int, here: Table) -> Table:
    found = np.zeros(int(here.sum()), dtype=SEQUENCE)
    found["key"], found["segment"], found["position"] = tables.keys[here], number, np.flatnonzero(here)
    found["k"], found["finish"] = tables.entries["k"][here], tables.entries["finish"][here]
    return found


def _generation_rows(tables: KeyTables, number: int, here: Table) -> Table:
    found = np.zeros(int(here.sum()), dtype=STANDING)
    found["key"], found["segment"] = tables.generations["key"][here], number
    found["position"], found["reach"] = np.flatnonzero(here), reaches(tables.generations)[here]
    return found


def _with_winners(rows: Table) -> Table:
    group, starts, rows = _grouped(rows, rows["key"], (rows["segment"], -rows["k"]))
    winners = rows[starts][group]
    rows["winner"], rows["winner_k"] = winners["segment"], winners["k"]
    rows["winner_finish"] = winners["finish"]
    return rows


def _with_keepers(entries: Table) -> Table:
    group, starts, entries = _grouped(entries, entries["key"], (entries["position"], entries["segment"]))
    if not len(entries):
        return entries
    # The reach so far within each group, as one running maximum: groups are numbered in ascending order.
    ranked = group * (4 * ENDLESS) + entries["reach"]
    best = np.maximum.accumulate(ranked)
    needed = np.ones(len(entries), dtype=bool)
    needed[1:] = ranked[1:] > best[:-1]
    needed[starts] = True
    # An entry that is not needed is covered by the last needed one before it, which is of the same group.
    last = np.maximum.accumulate(np.where(needed, np.arange(len(entries)), 0))
    entries["keeper"] = np.where(needed, -1, entries["segment"][last])
    return entries


def _grouped(rows: Table, keys: Keys, order: tuple[Table, ...]) -> tuple[Table, Table, Table]:
    """Rows of one key after the other, in this order within: (number of the group, where each begins, the rows)."""
    _, group = np.unique(keys, return_inverse=True)
    ranking = np.lexsort((*order, group))
    group = group[ranking]
    return group, np.flatnonzero(np.diff(group, prepend=-1)), rows[ranking]
