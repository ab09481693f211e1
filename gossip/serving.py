"""Decides which requests of peers are served, how many at once and how often, and how much memory they hold.

Every request is somebody else's wish for our work. Rules:

1. A request takes a place, per peer and overall, from its first byte to the last one of its answer.
   Strangers have few, and never those of the roster.
2. When all places are taken, the peer with the most of them loses its oldest one that does no work for us: whose
   request is not complete or waits, or whose answer has been read for `SLOW_AFTER_S`.
3. A peer of the roster has one place besides, in which only small requests with small answers are served: a sign of
   life does not stand in line. No memory is taken for small answers.
4. Requests per second: a peer of the roster waits for its turn, a stranger is refused.
5. The bytes of requests and of answers under way are bounded, per peer and overall. Those of an answer
   are taken before it is made, as if it were as long as the answer to such a request may be; what it does not need
   is given back. So a peer that asks for much and reads slowly holds up itself.
6. Where the sum is short, the answer that its peer has been reading for longest ends.

Pure: no clock, no I/O. Times are seconds of any monotonic clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum

from gossip.buckets import ByteBudget, ByteLimits, TokenBucket

MIB = 1 << 20
SLOW_AFTER_S = 3.0
"""An answer that its peer has been reading for so long gives way when others wait."""
SMALL_BYTES_MAX = 256
"""A request, and an answer, for which there is always room: a sign of life."""


class ServeRefusal(Enum):
    """Why a request is not served. The value is the counter's name."""

    PLACES = "serve_refused"
    RATE = "serve_over_rate"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeLimits:
    """Places, requests per second, and bytes, of the roster's peers and of strangers."""

    places_max: int = 128
    per_peer_max: int = 16
    strangers_max: int = 16
    per_stranger_max: int = 2
    per_s: float = 5.0
    burst: float = 200.0
    stranger_per_s: float = 5.0
    stranger_burst: float = 40.0
    stranger_request_bytes_max: int = 256 * 1024
    requests: ByteLimits = field(
        default=ByteLimits(total_max=32 * MIB, strangers_max=2 * MIB, peer_max=4 * MIB, stranger_max=MIB // 2)
    )
    answers: ByteLimits = field(
        default=ByteLimits(total_max=64 * MIB, strangers_max=12 * MIB, peer_max=8 * MIB, stranger_max=4 * MIB)
    )


@dataclass(slots=True, eq=False)
class Place:
    """One request that is served."""

    peer: bytes
    is_stranger: bool
    is_spare: bool = False
    """For a small request only (rule 3)."""
    has_given_way: bool = False
    request_bytes: int = 0
    answer_bytes: int = 0
    reading_since_s: float | None = None
    """Since when the peer has been reading the answer."""
    is_waiting: bool = True
    """Its request is not complete, or its answer is not begun: nothing is lost for us if it ends."""
    give_up: Callable[[], None] = lambda: None
    """Ends the request; the place is then to be closed as ever."""


class ServeAdmission:
    """Places of the requests that are served now."""

    def __init__(self, limits: ServeLimits) -> None:
        self._limits = limits
        self._roster: frozenset[bytes] = frozenset()
        self._places: list[Place] = []
        """But for those that gave way, oldest first."""
        self._spares: dict[bytes, Place] = {}
        self._per_peer: Counter[bytes] = Counter()
        self._rates: dict[bytes, TokenBucket] = {}
        self._requests = ByteBudget(limits.requests)
        self._answers = ByteBudget(limits.answers)

    def open(self, peer: bytes, now: float) -> Place | ServeRefusal:
        """Take a place for a request of `peer` (node key)."""
        limits = self._limits
        is_stranger = peer not in self._roster
        if self._per_peer[peer] >= (limits.per_stranger_max if is_stranger else limits.per_peer_max):
            return self._open_spare(peer)
        if is_stranger:
            if sum(place.is_stranger for place in self._places) >= limits.strangers_max:
                return ServeRefusal.PLACES
            if not self._rate(peer).take(now):
                return ServeRefusal.RATE
        if len(self._places) >= limits.places_max and (is_stranger or not self._make_room(peer, now)):
            return self._open_spare(peer)
        place = Place(peer, is_stranger)
        self._places.append(place)
        self._per_peer[peer] += 1
        return place

    def wait_s(self, place: Place, now: float) -> float:
        """Charge the request, and say how long it has to wait for its turn (0 for strangers: they were charged)."""
        return 0.0 if place.is_stranger else self._rate(place.peer).owe(now, 1.0)

    def take_request(self, place: Place, count: int) -> bool:
        """Hold the bytes of a request before they are read."""
        if place.is_stranger and count > self._limits.stranger_request_bytes_max:
            return False
        if place.is_spare and count > SMALL_BYTES_MAX:
            return False
        if not self._requests.take(place.peer, count, is_stranger=place.is_stranger):
            return False
        place.request_bytes = count
        return True

    def is_served(self, place: Place, answer_bytes_max: int) -> bool:
        """Whether a request whose answer may have so many bytes is served in this place (rule 3)."""
        return not place.is_spare or answer_bytes_max <= SMALL_BYTES_MAX

    def take_answer(self, place: Place, count: int, now: float) -> bool:
        """Hold the bytes that an answer may have; if there are none left, one that is read slowly is given up."""
        held = count if count > SMALL_BYTES_MAX else 0
        if self._answers.take(place.peer, held, is_stranger=place.is_stranger):
            place.answer_bytes, place.is_waiting = held, False
            return True
        if self._answers.allows(place.peer, count, is_stranger=place.is_stranger):
            self._give_up_slowest(now)
        return False

    def begin_answer(self, place: Place, count: int, now: float) -> None:
        """The answer is made and has `count` bytes; from now on its peer is the one to wait for."""
        held = min(count, place.answer_bytes)
        self._answers.give(place.peer, place.answer_bytes - held, is_stranger=place.is_stranger)
        place.answer_bytes, place.reading_since_s = held, now

    def close(self, place: Place) -> None:
        """Give back whatever the place holds."""
        self._requests.give(place.peer, place.request_bytes, is_stranger=place.is_stranger)
        self._answers.give(place.peer, place.answer_bytes, is_stranger=place.is_stranger)
        if place.is_spare:
            del self._spares[place.peer]
        elif not place.has_given_way:
            self._vacate(place)

    def set_roster(self, keys: Iterable[bytes]) -> None:
        """Name the peers whose places are not those of strangers; requests under way stay what they were."""
        roster = frozenset(keys)
        for moved in roster ^ self._roster:
            self._rates.pop(moved, None)
        self._roster = roster

    def forget(self, peer: bytes) -> None:
        """Drop what a peer has spent that is no longer connected."""
        self._rates.pop(peer, None)

    def held(self) -> tuple[int, int]:
        """Requests served now, and the bytes that they hold."""
        return len(self._places) + len(self._spares), self._requests.held() + self._answers.held()

    def _rate(self, peer: bytes) -> TokenBucket:
        limits = self._limits
        rate = self._rates.get(peer)
        if rate is None:
            is_stranger = peer not in self._roster
            rate = TokenBucket(
                limits.stranger_per_s if is_stranger else limits.per_s,
                limits.stranger_burst if is_stranger else limits.burst,
            )
            self._rates[peer] = rate
        return rate

    def _open_spare(self, peer: bytes) -> Place | ServeRefusal:
        if peer not in self._roster or peer in self._spares:
            return ServeRefusal.PLACES
        self._spares[peer] = Place(peer, is_stranger=False, is_spare=True)
        return self._spares[peer]

    def _make_room(self, peer: bytes, now: float) -> bool:
        """Rule 2. Who comes must have fewer places than who goes: nobody can push out those that ask little."""
        idle = [place for place in self._places if place.is_waiting or self._is_slow(place, now)]
        most = max((self._per_peer[place.peer] for place in idle), default=0)
        if most <= self._per_peer[peer]:
            return False
        self._end(next(place for place in idle if self._per_peer[place.peer] == most))
        return True

    def _give_up_slowest(self, now: float) -> None:
        slow = [place for place in self._places if self._is_slow(place, now)]
        if slow:
            self._end(min(slow, key=lambda place: place.reading_since_s or 0.0))

    def _is_slow(self, place: Place, now: float) -> bool:
        return place.reading_since_s is not None and now - place.reading_since_s >= SLOW_AFTER_S

    def _end(self, place: Place) -> None:
        place.has_given_way = True
        self._vacate(place)
        place.give_up()

    def _vacate(self, place: Place) -> None:
        self._places.remove(place)
        self._per_peer[place.peer] -= 1
        if not self._per_peer[place.peer]:
            del self._per_peer[place.peer]
