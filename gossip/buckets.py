"""Counts what may be used up: tokens that come back with time, and bytes that are held for a while.

Pure: no clock, no I/O. Times are seconds of any monotonic clock.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass


class TokenBucket:
    """`burst` tokens that refill at `rate_per_s`; starts full."""

    __slots__ = ("_burst", "_rate_per_s", "_tokens", "_updated_s")

    def __init__(self, rate_per_s: float, burst: float) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._tokens = burst
        self._updated_s: float | None = None

    def take(self, now: float, count: float = 1.0) -> bool:
        """Spend `count` tokens if there are so many."""
        self._refill(now)
        if self._tokens < count:
            return False
        self._tokens -= count
        return True

    def wait_s(self, now: float, count: float = 1.0) -> float:
        """Seconds from `now` until `take` succeeds: 0 if it would succeed at once."""
        self._refill(now)
        return max(0.0, (count - self._tokens) / self._rate_per_s)

    def owe(self, now: float, count: float) -> float:
        """Spend `count` tokens, if need be ahead of time; returns how many seconds ahead."""
        self._refill(now)
        self._tokens -= count
        return max(0.0, -self._tokens / self._rate_per_s)

    def is_empty(self, now: float) -> bool:
        """Whether less than one token is left."""
        self._refill(now)
        return self._tokens < 1.0

    def drain(self, now: float) -> None:
        """Spend all that is left."""
        self._refill(now)
        self._tokens = min(self._tokens, 0.0)

    def _refill(self, now: float) -> None:
        # A clock that stands still or steps back refills nothing; it never takes tokens away.
        elapsed_s = 0.0 if self._updated_s is None else max(0.0, now - self._updated_s)
        self._tokens = min(self._burst, self._tokens + elapsed_s * self._rate_per_s)
        self._updated_s = now


class SharedBytes:
    """A sum of bytes that several parts of one node add to."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ByteLimits:
    """Bytes held at once: by everybody, by all strangers, by one peer of the roster, by one stranger."""

    total_max: int
    strangers_max: int
    peer_max: int
    stranger_max: int


class ByteBudget:
    """Bytes held on behalf of peers."""

    def __init__(self, limits: ByteLimits) -> None:
        self._limits = limits
        self._held: Counter[bytes] = Counter()
        self._strangers = 0
        self._total = 0

    def take(self, peer: bytes, count: int, *, is_stranger: bool) -> bool:
        """Hold `count` bytes more for this peer, if every limit allows it."""
        limits = self._limits
        if not self.allows(peer, count, is_stranger=is_stranger) or self._total + count > limits.total_max:
            return False
        self._held[peer] += count
        self._total += count
        self._strangers += count * is_stranger
        return True

    def allows(self, peer: bytes, count: int, *, is_stranger: bool) -> bool:
        """Whether the peer's own limits allow `count` bytes more."""
        limits = self._limits
        if self._held[peer] + count > (limits.stranger_max if is_stranger else limits.peer_max):
            return False
        return not is_stranger or self._strangers + count <= limits.strangers_max

    def give(self, peer: bytes, count: int, *, is_stranger: bool) -> None:
        """Hold `count` bytes less; `is_stranger` as when they were taken."""
        self._held[peer] -= count
        self._total -= count
        self._strangers -= count * is_stranger
        if not self._held[peer]:
            del self._held[peer]

    def held(self) -> int:
        """Bytes held now."""
        return self._total
