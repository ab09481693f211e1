"""Decides when a peer has done enough wrong to be ignored, or turned away for a while.

Every fault costs points, points come back with time, and whoever has none left pays. Rules:

1. A fault is what the peer itself did: a byte that no peer of ours sends, too many requests. What it
   merely passed on, and what turns out wrong only with knowledge of the pool, is no fault.
2. A peer of the roster is never turned away: the pool needs it, and a bug of ours must not split the
   pool. Badly signed messages mute it: its gossip is not looked at until points have come back. Anything
   else that we do not understand may be a newer version of ours, and costs it nothing but its own stream.
3. A stranger pays with its address, because keys cost nothing: its connections are closed and the
   address is refused to strangers, for a time that doubles with each repetition.
4. Refusals are few and forgotten: at most `entries_max` addresses, the oldest first.

Pure: no clock, no I/O. Times are seconds of any monotonic clock. What an address is: `address_group`.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

from gossip.buckets import TokenBucket


class Fault(Enum):
    """What a peer did wrong: the counter's name, and the points it costs."""

    OVER_RATE = ("fault_over_rate", 1)
    INVALID_MESSAGE = ("fault_invalid_message", 1)
    MALFORMED = ("fault_malformed", 4)
    SLOW = ("fault_slow", 4)
    VIOLATION = ("fault_violation", 20)

    def __init__(self, counter: str, points: int) -> None:
        self.counter = counter
        self.points = points


@dataclass(frozen=True, slots=True, kw_only=True)
class ConductLimits:
    """Points of a peer and how fast they come back; how long an address is refused, at first and at most."""

    points: float = 20.0
    points_per_s: float = 0.2
    refused_s: float = 60.0
    refused_max_s: float = 3600.0
    entries_max: int = 4096


@dataclass(slots=True)
class _Refused:
    until_s: float
    lasts_s: float


class Conduct:
    """Points of the roster's peers and of strangers' addresses.

    `on_refused(node key)` is told of a stranger that has to go.
    """

    def __init__(self, limits: ConductLimits, on_refused: Callable[[bytes], None] = lambda node_key: None) -> None:
        self._limits = limits
        self._on_refused = on_refused
        self._roster: frozenset[bytes] = frozenset()
        self._points: OrderedDict[bytes | str, TokenBucket] = OrderedDict()
        self._refused: OrderedDict[str, _Refused] = OrderedDict()

    def blame(self, node_key: bytes, address: str, fault: Fault, now: float) -> None:
        """Charge a fault to the peer with this key, which is came from `address` (an IP as text, or empty)."""
        if node_key in self._roster and fault is not Fault.INVALID_MESSAGE:
            return
        # Without an address it is one that we dialled, and that left the roster: it is muted.
        subject = node_key if node_key in self._roster or not address else address_group(address)
        bucket = self._points.setdefault(subject, TokenBucket(self._limits.points_per_s, self._limits.points))
        self._points.move_to_end(subject)
        while len(self._points) > self._limits.entries_max:
            self._points.popitem(last=False)
        if not bucket.take(now, fault.points) or bucket.is_empty(now):
            bucket.drain(now)
            if isinstance(subject, str):
                self._refuse(subject, now)
                self._on_refused(node_key)

    def is_muted(self, node_key: bytes, now: float) -> bool:
        """Whether this peer of the roster has no points left: its gossip is not worth a signature check."""
        bucket = self._points.get(node_key)
        return bucket is not None and bucket.is_empty(now)

    def is_refused(self, address: str, now: float) -> bool:
        """Whether strangers from this address (an IP as text) are turned away now."""
        refused = self._refused.get(address_group(address))
        return refused is not None and now < refused.until_s

    def in_roster(self, node_key: bytes) -> bool:
        return node_key in self._roster

    def set_roster(self, keys: Iterable[bytes]) -> None:
        """Name the peers that are never turned away."""
        self._roster = frozenset(keys)

    def _refuse(self, group: str, now: float) -> None:
        earlier = self._refused.pop(group, None)
        if earlier is not None and now < earlier.until_s:  # several connections of one attack
            self._refused[group] = earlier
            return
        lasts_s = self._limits.refused_s
        if earlier is not None and now < earlier.until_s + self._limits.refused_max_s:
            lasts_s = min(self._limits.refused_max_s, 2 * earlier.lasts_s)
        self._refused[group] = _Refused(now + lasts_s, lasts_s)
        while len(self._refused) > self._limits.entries_max:
            self._refused.popitem(last=False)


def address_group(address: str) -> str:
    """What one party can hold many of at no cost counts as one: an IPv4 address, a /64 of IPv6."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return str(ipaddress.IPv6Network((ip, 64), strict=False).network_address)
    return str(ip)
