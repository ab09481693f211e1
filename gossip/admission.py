"""Decides what a peer may cost us: gossip messages per origin, connections per address, dials per peer.

Everything here is counted, nothing is trusted: an origin is charged only after its signature was
checked, so nobody spends the allowance of somebody else. Rules:

1. A message is charged to its origin, not to whoever forwards it; an origin of the roster has its
   own allowance, all others together share one, so that fresh keys buy nothing.
2. Work before the signature check is charged to the forwarder: the roster's widely, a stranger's tightly.
3. A connection counts against its address until its key turns out to be in the roster; the others
   compete for a fixed number of places, so strangers never displace the roster. Short of places, the
   stranger that said nothing for longest goes, and of the handshakes one of the busiest address.
4. An address from which the roster came before is not held up by what other addresses do.
5. Of two connections with one peer exactly one survives, and both ends choose the same.

Pure: no clock, no randomness, no I/O. Times are seconds of any monotonic clock; state is bounded by
the roster, the connected peers and the configured limits. Who stands behind a key is decided elsewhere;
what a peer did wrong, and what follows, in `gossip.conduct`; what its requests may cost, in `gossip.serving`.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum

from gossip.buckets import TokenBucket
from gossip.conduct import Conduct, address_group

ADDRESSES_MAX = 4096
"""Addresses of which is remembered how fast they connect, and that the roster came from."""
IDLE_AFTER_S = 30.0
"""A stranger that said nothing for so long gives way to another."""


class Refusal(Enum):
    """Why something was not let in. The value is the counter's name."""

    ORIGIN_RATE = "gossip_over_origin_rate"
    ORIGIN_BYTES = "gossip_over_origin_bytes"
    FORWARDER_RATE = "gossip_over_forwarder_rate"
    MUTED = "gossip_of_muted_peer"
    PER_ADDRESS = "connection_over_address_limit"
    ADDRESS_RATE = "connection_over_address_rate"
    RATE = "connection_over_rate"
    HANDSHAKES = "connection_over_handshake_limit"
    PER_KEY = "connection_over_key_limit"
    ROSTER = "connection_over_roster_limit"
    STRANGERS = "connection_over_stranger_limit"
    CONDUCT = "connection_of_refused_address"


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageLimits:
    """Allowances for gossip: messages and bytes per second that refill, and the burst that may gather."""

    origin_per_s: float = 40.0
    origin_burst: float = 200.0
    origin_bytes_per_s: float = 256.0 * 1024
    origin_bytes_burst: float = 4096.0 * 1024
    strangers_per_s: float = 5.0
    strangers_burst: float = 50.0
    forwarder_per_s: float = 400.0
    forwarder_burst: float = 1000.0
    stranger_forwarder_per_s: float = 20.0
    stranger_forwarder_burst: float = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """Inbound connections: unproven handshakes at once and per second, per address, per key, and by standing."""

    handshakes_max: int = 64
    per_s: float = 50.0
    burst: float = 200.0
    per_address_max: int = 16
    per_address_per_s: float = 2.0
    per_address_burst: float = 64.0
    per_key_max: int = 3
    roster_max: int = 2048
    strangers_max: int = 32


class MessageAdmission:
    """Token buckets over the origins and forwarders of gossip messages."""

    def __init__(self, limits: MessageLimits) -> None:
        self._limits = limits
        self._roster: frozenset[bytes] = frozenset()
        self._origins: dict[bytes, _Allowance] = {}
        self._strangers = self._allowance(limits.strangers_per_s, limits.strangers_burst)
        self._forwarders: dict[bytes, TokenBucket] = {}

    def admit_forwarder(self, forwarder: bytes, now: float) -> Refusal | None:
        """Charge one message to the connected peer that handed it over, before any costly check."""
        limits = self._limits
        bucket = self._forwarders.get(forwarder)
        if bucket is None:
            bucket = (
                TokenBucket(limits.forwarder_per_s, limits.forwarder_burst)
                if forwarder in self._roster
                else TokenBucket(limits.stranger_forwarder_per_s, limits.stranger_forwarder_burst)
            )
            self._forwarders[forwarder] = bucket
        return None if bucket.take(now) else Refusal.FORWARDER_RATE

    def admit_origin(self, origin: bytes, size: int, now: float) -> Refusal | None:
        """Charge one message of `size` bytes to the key whose signature on it was found valid."""
        limits = self._limits
        allowance = self._strangers
        if origin in self._roster:
            allowance = self._origins.get(origin) or self._origins.setdefault(
                origin, self._allowance(limits.origin_per_s, limits.origin_burst)
            )
        if not allowance.messages.take(now):
            return Refusal.ORIGIN_RATE
        return None if allowance.size.take(now, size) else Refusal.ORIGIN_BYTES

    def set_roster(self, keys: Iterable[bytes]) -> None:
        """Name the peers with an allowance of their own; what the remaining origins have spent is kept."""
        roster = frozenset(keys)
        for moved in roster ^ self._roster:
            self._forwarders.pop(moved, None)
        self._roster = roster
        self._origins = {key: allowance for key, allowance in self._origins.items() if key in roster}

    def forget_forwarder(self, forwarder: bytes) -> None:
        """Drop the state of a peer that is no longer connected (a full reconnect costs it more than it gains)."""
        self._forwarders.pop(forwarder, None)

    def _allowance(self, per_s: float, burst: float) -> _Allowance:
        limits = self._limits
        return _Allowance(TokenBucket(per_s, burst), TokenBucket(limits.origin_bytes_per_s, limits.origin_bytes_burst))


@dataclass(slots=True)
class _Allowance:
    messages: TokenBucket
    size: TokenBucket


@dataclass(slots=True, eq=False)
class ConnectionSlot:
    """One inbound connection's place: first by address, then (once proven) by key."""

    address: str
    """What `address_group` makes of the IP."""
    evict: Callable[[], None]
    """Called, at most once, when somebody else needs the place; the slot is then to be closed as ever."""
    heard_s: float
    node_key: bytes | None = None
    stranger: bool | None = None
    """None until the handshake proved a key."""


class ConnectionAdmission:
    """Places for inbound connections."""

    def __init__(self, limits: ConnectionLimits, conduct: Conduct) -> None:
        self._limits = limits
        self._conduct = conduct
        self._roster: frozenset[bytes] = frozenset()
        self._rate = TokenBucket(limits.per_s, limits.burst)
        self._per_address: Counter[str] = Counter()
        self._address_rates: OrderedDict[str, TokenBucket] = OrderedDict()
        self._per_key: Counter[bytes] = Counter()
        self._of_roster = 0
        self._handshakes: list[ConnectionSlot] = []
        self._strangers: list[ConnectionSlot] = []
        self._known: OrderedDict[str, None] = OrderedDict()
        """Addresses that a peer of the roster came from (rule 4)."""

    def open(self, ip: str, now: float, evict: Callable[[], None] = lambda: None) -> ConnectionSlot | Refusal:
        """Take a place for a connection that was just accepted from `ip` (as text)."""
        limits, address = self._limits, address_group(ip)
        # A refused address still gets one handshake at a time: a peer of the roster may live there, too.
        if self._per_address[address] >= (1 if self._conduct.is_refused(ip, now) else limits.per_address_max):
            return Refusal.PER_ADDRESS
        if not self._address_rate(address).take(now):
            return Refusal.ADDRESS_RATE
        if address not in self._known and not self._rate.take(now):
            return Refusal.RATE
        if len(self._handshakes) >= limits.handshakes_max and not self._evict_handshake(address):
            return Refusal.HANDSHAKES
        slot = ConnectionSlot(address, evict, now)
        self._handshakes.append(slot)
        self._per_address[address] += 1
        return slot

    def prove(self, slot: ConnectionSlot, node_key: bytes, now: float) -> Refusal | None:
        """Note the key that the handshake proved. A refused slot must still be closed."""
        limits = self._limits
        if slot in self._handshakes:
            self._handshakes.remove(slot)
        slot.node_key, slot.heard_s, slot.stranger = node_key, now, node_key not in self._roster
        self._per_key[node_key] += 1
        if not slot.stranger:
            # Many peers of a roster may share one address; their keys already bound their number.
            self._release_address(slot.address)
            self._of_roster += 1
            self._remember(slot.address)
            if self._of_roster > limits.roster_max:
                return Refusal.ROSTER
        else:
            self._strangers.append(slot)
            if self._conduct.is_refused(slot.address, now):
                return Refusal.CONDUCT
            if len(self._strangers) > limits.strangers_max and not self._evict_stranger(now):
                return Refusal.STRANGERS
        return Refusal.PER_KEY if self._per_key[node_key] > limits.per_key_max else None

    def heard(self, node_key: bytes, now: float) -> None:
        """Note that this peer sent something of use: of strangers the idle ones go first."""
        for slot in self._strangers:
            if slot.node_key == node_key:
                slot.heard_s = now

    def address_of(self, node_key: bytes) -> str:
        """The address that a connected stranger came from; empty if it is none."""
        return next((slot.address for slot in self._strangers if slot.node_key == node_key), "")

    def close(self, slot: ConnectionSlot) -> None:
        """Give the place back."""
        if slot in self._handshakes:
            self._handshakes.remove(slot)
        if slot in self._strangers:
            self._strangers.remove(slot)
        if slot.stranger is False:
            self._of_roster -= 1
        else:
            self._release_address(slot.address)
        if slot.node_key is not None:
            self._per_key[slot.node_key] -= 1
            if not self._per_key[slot.node_key]:
                del self._per_key[slot.node_key]

    def set_roster(self, keys: Iterable[bytes]) -> None:
        """Name the keys that never compete for a place: who is connected and joins gives its place back."""
        self._roster = frozenset(keys)
        for slot in [slot for slot in self._strangers if slot.node_key in self._roster]:
            self._strangers.remove(slot)
            slot.stranger = False
            self._of_roster += 1
            self._release_address(slot.address)

    def _evict_handshake(self, newcomer: str) -> bool:
        """Make room: of the address with most unproven handshakes the oldest one goes; never one of the newcomer's."""
        counts = Counter(slot.address for slot in self._handshakes)
        evictable = [slot for slot in self._handshakes if slot.address != newcomer and slot.address not in self._known]
        if not evictable:
            return False
        slot = max(evictable, key=lambda slot: counts[slot.address])  # the first of several: the oldest
        self._handshakes.remove(slot)
        slot.evict()
        return True

    def _evict_stranger(self, now: float) -> bool:
        slot = min(self._strangers, key=lambda slot: slot.heard_s)
        if now - slot.heard_s < IDLE_AFTER_S:
            return False
        self._strangers.remove(slot)
        slot.evict()
        return True

    def _address_rate(self, address: str) -> TokenBucket:
        limits = self._limits
        rate = self._address_rates.setdefault(address, TokenBucket(limits.per_address_per_s, limits.per_address_burst))
        self._address_rates.move_to_end(address)
        while len(self._address_rates) > ADDRESSES_MAX:
            self._address_rates.popitem(last=False)
        return rate

    def _remember(self, address: str) -> None:
        self._known[address] = None
        self._known.move_to_end(address)
        while len(self._known) > ADDRESSES_MAX:
            self._known.popitem(last=False)

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
