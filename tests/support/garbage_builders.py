"""Collections that are tried dry first."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from rewriting_builders import DIGEST, storage_of

from cache.upkeep.garbage import GarbageReport, collect_garbage

DAY = 86_400.0


def sweep(root: Path, *, dry_run: bool = False, grace_s: float = 3600.0, silent_s: float = DAY) -> GarbageReport:
    """A collection, after a dry run that has to say the same and change nothing."""
    before = storage_of(root).sizes("")
    told = collect_garbage(storage_of(root), identity=DIGEST, dry_run=True, grace_s=grace_s, silent_s=silent_s)
    assert storage_of(root).sizes("") == before
    if dry_run:
        return told
    done = collect_garbage(storage_of(root), identity=DIGEST, dry_run=False, grace_s=grace_s, silent_s=silent_s)
    assert done == dataclasses.replace(told, dry_run=False)
    after = storage_of(root).sizes("")
    assert sum(before.values()) - sum(after.values()) == done.bytes
    assert set(after) <= set(before)
    return done


def removed(report: GarbageReport) -> set[str]:
    return {item.name for item in report.removed}
