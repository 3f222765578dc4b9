"""What two benchmarks of a fill share: the order that they give, and the look whether all of it was done.

The modules behind it are imported late: an engine's environment has to stand before its libraries are imported.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestration.fill.engine_loop import FillOrder, FillProgress


def fill_order(root: Path, *, k: int) -> FillOrder:
    """Write what is answered into a new cache below `root`."""
    from orchestration.fill.engine_loop import FillOrder

    return FillOrder(
        scoring=False,
        cache_root=root / "cache",
        k=k,
        commit_every_s=5.0,
        licence=None,
        provenance={},
        ledger=root / "ledger",
    )


def require_all(done: FillProgress, *, rows: int) -> None:
    """A fill that kept less was no fill to measure."""
    if done.committed_rows != rows:
        raise RuntimeError(f"the fill kept {done.committed_rows} of {rows} rows")
