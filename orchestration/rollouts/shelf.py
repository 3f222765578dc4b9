"""The rollouts of a stage in the cache of their teacher: what was learned from is let go of, the rest held to a quota.

A stage may have thousands of them. What is done for each must not grow with those before it, so what was done and
read for them is remembered.
"""

from __future__ import annotations

from pathlib import Path

from cache.disk.roots import open_storage
from cache.disk.storage import Storage
from cache.pinning import remove_pins
from cache.upkeep.rollouts import KnownSegments, RolloutQuotaReport, enforce_rollout_quota
from student_train.handoff.rollouts import RolloutExchange


class RolloutShelf:
    """The rollouts of one stage, whose teacher has this identity, below a cache root."""

    def __init__(self, root: Path | str, *, identity: str, exchange: RolloutExchange) -> None:
        self._root, self._identity, self._exchange = root, identity, exchange
        self._known = KnownSegments()
        self._let_go = 0

    def let_go(self, *, before: int) -> None:
        """Remove the pins of the rollouts up to number `before`: nobody reads them any more.

        Raises:
            CacheError, TrainingError: one of them is damaged.
            OSError: the place refuses.
        """
        over = range(self._let_go, before)
        remove_pins(self._storage(), [self._exchange.rollout(number).view.digest for number in over])
        self._let_go = max(self._let_go, before)

    def hold_to(self, max_bytes: int) -> RolloutQuotaReport:
        """Hold all rollouts of the teacher to so many bytes; the oldest go first.

        Raises:
            CacheError: when the place cannot be read or changed.
        """
        return enforce_rollout_quota(self._storage(), identity=self._identity, max_bytes=max_bytes, known=self._known)

    def _storage(self) -> Storage:
        return open_storage(self._root, self._identity, create=False)
