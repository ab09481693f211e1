"""Decides what a peer may cost us: gossip messages per origin, connections per address, dials per peer.

Everything here is counted, nothing is trusted: an origin is charged only after its signature was
checked, so nobody spends the allowance of somebody else. Rules:

1. A message is charged to its origin, not to whoever forwards it; an origin of the roster has its
   own allowance, all others together share one, so that fresh keys buy nothing.
2. Work before the signature check is charged to the forwarder, with a wider allowance.
3. A connection counts against its IP address until its key turns out to be in the roster; the
   others compete for a fixed number of places, so strangers never displace the roster.
4. Of two connections with one peer exactly one survives, and both ends choose the same.

Pure: no clock, no randomness, no I/O. Times are seconds of any monotonic clock; state is bounded by
the roster, the connected peers and the configured limits. Who stands behind a key is decided elsewhere.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum


class Refusal(Enum):
    """Why something was not let in. The value is the counter's name."""

    ORIGIN_RATE = "gossip_over_origin_rate"
    FORWARDER_RATE = "gossip_over_forwarder_rate"
    PER_ADDRESS = "connection_over_address_limit"
    HANDSHAKES = "connection_over_handshake_limit"
    STRANGERS = "connection_over_stranger_limit"


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageLimits:
    """Allowances for gossip: messages per second that refill, and the burst that may gather."""

    origin_per_s: float = 40.0
    origin_burst: float = 200.0
    forwarder_per_s: float = 400.0
    forwarder_burst: float = 1000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """Inbound connections: unproven handshakes at once, per IP address, and peers outside the roster."""

    handshakes_max: int = 64
    per_address_max: int = 16
    strangers_max: int = 32


class MessageAdmission:
    """Token buckets over the origins and forwarders of gossip messages."""

    def __init__(self, limits: MessageLimits) -> None:
        self._limits = limits
        self._roster: frozenset[bytes] = frozenset()
        self._origins: dict[bytes, TokenBucket] = {}
        self._strangers = TokenBucket(limits.origin_per_s, limits.origin_burst)
        self._forwarders: dict[bytes, TokenBucket] = {}

    def admit_forwarder(self, forwarder: bytes, now: float) -> Refusal | None:
        """Charge one message to the connected peer that handed it over, before any costly check."""
        bucket = self._forwarders.get(forwarder)
        if bucket is None:
            bucket = TokenBucket(self._limits.forwarder_per_s, self._limits.forwarder_burst)
            self._forwarders[forwarder] = bucket
        return None if bucket.take(now) else Refusal.FORWARDER_RATE

    def admit_origin(self, origin: bytes, now: float) -> Refusal | None:
        """Charge one message to the key whose signature on it was found valid."""
        bucket = self._strangers
        if origin in self._roster:
            bucket = self._origins.get(origin) or self._origins.setdefault(
                origin, TokenBucket(self._limits.origin_per_s, self._limits.origin_burst)
            )
        return None if bucket.take(now) else Refusal.ORIGIN_RATE

    def set_roster(self, keys: Iterable[bytes]) -> None:
        """Name the origins with an allowance of their own; what the remaining ones have spent is kept."""
        self._roster = frozenset(keys)
        self._origins = {key: bucket for key, bucket in self._origins.items() if key in self._roster}

    def forget_forwarder(self, forwarder: bytes) -> None:
        """Drop the state of a peer that is no longer connected (a full reconnect costs it more than it gains)."""
        self._forwarders.pop(forwarder, None)


class TokenBucket:
    """`burst` tokens that refill at `rate_per_s`; starts full."""

    __slots__ = ("_burst", "_rate_per_s", "_tokens", "_updated_s")

    def __init__(self, rate_per_s: float, burst: float) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._tokens = burst
        self._updated_s: float | None = None

    def take(self, now: float) -> bool:
        """Spend one token if there is one."""
        self._refill(now)
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def wait_s(self, now: float) -> float:
        """Seconds from `now` until `take` succeeds: 0 if it would succeed at once."""
        self._refill(now)
        return max(0.0, (1.0 - self._tokens) / self._rate_per_s)

    def _refill(self, now: float) -> None:
        # A clock that stands still or steps back refills nothing; it never takes tokens away.
        elapsed_s = 0.0 if self._updated_s is None else max(0.0, now - self._updated_s)
        self._tokens = min(self._burst, self._tokens + elapsed_s * self._rate_per_s)
        self._updated_s = now


@dataclass(slots=True, eq=False)
class ConnectionSlot:
    """One inbound connection's place: first by address, then (once proven) by key."""

    address: str
    node_key: bytes | None = None
    stranger: bool | None = None
    """None until the handshake proved a key."""


class ConnectionAdmission:
    """Places for inbound connections."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self._limits = limits
        self._roster: frozenset[bytes] = frozenset()
        self._per_address: Counter[str] = Counter()
        self._handshakes = 0
        self._strangers: list[ConnectionSlot] = []

    def open(self, address: str) -> ConnectionSlot | Refusal:
        """Take a place for a connection that was just accepted from `address` (an IP, as text)."""
        if self._handshakes >= self._limits.handshakes_max:
            return Refusal.HANDSHAKES
        if self._per_address[address] >= self._limits.per_address_max:
            return Refusal.PER_ADDRESS
        self._handshakes += 1
        self._per_address[address] += 1
        return ConnectionSlot(address)

    def prove(self, slot: ConnectionSlot, node_key: bytes) -> Refusal | None:
        """Note the key that the handshake proved. A refused slot must still be closed."""
        self._handshakes -= 1
        slot.node_key, slot.stranger = node_key, node_key not in self._roster
        if not slot.stranger:
            # Many peers of a roster may share one address; their keys already bound their number.
            self._release_address(slot.address)
            return None
        self._strangers.append(slot)
        return Refusal.STRANGERS if len(self._strangers) > self._limits.strangers_max else None

    def close(self, slot: ConnectionSlot) -> None:
        """Give the place back."""
        if slot.stranger is None:
            self._handshakes -= 1
        if slot.stranger is not False:
            self._release_address(slot.address)
        if slot.stranger:
            self._strangers.remove(slot)

    def set_roster(self, keys: Iterable[bytes]) -> None:
        """Name the keys that never compete for a place: who is connected and joins gives its place back."""
        self._roster = frozenset(keys)
        for slot in [slot for slot in self._strangers if slot.node_key in self._roster]:
            self._strangers.remove(slot)
            slot.stranger = False
            self._release_address(slot.address)

    def _release_address(self, address: str) -> None:
        self._per_address[address] -= 1
        if not self._per_address[address]:
            del self._per_address[address]


class SeenMessages:
    """Message ids seen within the last `ttl_s` seconds, at most `entries_max` of them."""

    def __init__(self, ttl_s: float, entries_max: int) -> None:
        self._ttl_s = ttl_s
        self._entries_max = entries_max
        self._seen: OrderedDict[bytes, float] = OrderedDict()

    def __contains__(self, message_id: bytes) -> bool:
        return message_id in self._seen

    def __len__(self) -> int:
        return len(self._seen)

    def add(self, message_id: bytes, now: float) -> None:
        """Note an id, and let go of what is older than the time to live or too much."""
        self._seen[message_id] = now
        self._seen.move_to_end(message_id)
        while self._seen:
            oldest_s = next(iter(self._seen.values()))
            if len(self._seen) <= self._entries_max and now - oldest_s <= self._ttl_s:
                return
            self._seen.popitem(last=False)


@dataclass(slots=True)
class Backoff:
    """Waiting times between dials of one peer: doubling from `base_s` to `cap_s`, for ever."""

    base_s: float = 0.5
    cap_s: float = 30.0
    _attempts: int = field(default=0, init=False)

    def next_s(self, jitter: float) -> float:
        """The next wait. `jitter` in [0, 1) picks the upper half of it, so that peers do not dial in step."""
        # The exponent is capped too: 2.0 ** 1024 overflows after a long absence.
        wait_s = min(self.cap_s, self.base_s * 2.0 ** min(self._attempts, 32))
        self._attempts += 1
        return wait_s * (0.5 + jitter / 2)

    def reset(self) -> None:
        """Start over: the peer was reached and stayed."""
        self._attempts = 0


def dials_first(own_key: bytes, peer_key: bytes) -> bool:
    """Whether this end dials at once; the other end gives it a head start, so that rarely both dial."""
    return own_key < peer_key


def keeps_newer(own_key: bytes, peer_key: bytes, *, older_outbound: bool, newer_outbound: bool) -> bool:
    """Which of two live connections with one peer survives: True for the newer one.

    Two of one direction: whoever dialled has lost the older (a restart without farewell), so the newer.
    Crossed dials: the one that the smaller key dialled; both ends see that alike.
    """
    if older_outbound == newer_outbound:
        return True
    return newer_outbound == dials_first(own_key, peer_key)
