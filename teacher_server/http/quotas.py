"""How much a key may ask for in a minute: requests, and tokens that the teacher has to read or write.

A moving window: at no moment did the minute before it hold more. What the cache has costs no tokens. What has to be
asked is charged beforehand with the most that it may take, so nobody gets more by asking for much at once.
"""

from __future__ import annotations

import time

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from teacher_server.http.refusals import Refusal

SHARES = 10_000
"""A quota of tokens is counted in so many shares, each an entry in memory; charges are rounded up to whole ones."""


class Quotas:
    """The quotas of a door, the same for every key; None sets none."""

    def __init__(self, *, requests_a_minute: int | None = None, tokens_a_minute: int | None = None) -> None:
        self._window = MovingWindowRateLimiter(MemoryStorage())
        self._requests = None if requests_a_minute is None else RateLimitItemPerMinute(requests_a_minute, 1, "requests")
        self._tokens_a_minute = tokens_a_minute
        self._share = 1 if tokens_a_minute is None else -(-tokens_a_minute // SHARES)
        self._shares = (
            None if tokens_a_minute is None else RateLimitItemPerMinute(tokens_a_minute // self._share, 1, "tokens")
        )

    def count_request(self, name: str) -> None:
        """Count one request of a key.

        Raises:
            Refusal: 429, it was one too many.
        """
        if self._requests is not None and not self._window.hit(self._requests, name):
            raise self._over(self._requests, name, said=f"{self._requests.amount} requests")

    def charge(self, name: str, *, tokens: int) -> None:
        """Charge a key for what the teacher is about to be asked, also where it turns out to be busy.

        Raises:
            Refusal: 429, it does not fit into the minute; 413, it fits into none.
        """
        if self._shares is None or not tokens:
            return
        cost, said = -(-tokens // self._share), f"{self._tokens_a_minute:,} tokens"
        if cost > self._shares.amount:
            reason = f"requests: {tokens:,} tokens for the teacher are more than the {said} a minute of {name}"
            raise Refusal(413, "over_quota", reason)
        if not self._window.hit(self._shares, name, cost=cost):
            raise self._over(self._shares, name, said=said)

    def _over(self, item: RateLimitItem, name: str, *, said: str) -> Refusal:
        wait = self._window.get_window_stats(item, name).reset_time - time.time()
        return Refusal(429, "over_quota", f"{name} has used the {said} of this minute", retry_after_s=wait)
