"""Fetching: which peer is asked for what next, when many things are wanted at once.

Decides that from what is wanted, which peers are connected and how earlier requests went. Pure: the caller brings
time (seconds) and randomness. What is wanted may not exist: any operator may name a head or a digest of nothing.

1. At most `FETCHES_MAX` requests are under way, one to a peer: one that is slow or silent holds up nothing else. Such
   a peer is asked again only after `SHUN_S`, or if there is no other.
2. What a decision waits for comes first, and what was merely heard of takes at most half of the places.
3. Ranges of many logs go in one request, first only what lies above the heads that are here. If that does not bring
   it, a branch may begin anywhere: then the whole range is fetched, one at a time in all.
4. What several peers did not have is asked for ever more seldom.
5. Hints (an observation that somebody has, a record whose predecessor is missing) are worth a few requests; after
   that they are forgotten, for anti-entropy brings the same. Each source, and each log, has its own share of them.

Elsewhere: asking and taking over (`gossip.pull`).

Source: docs/adr/0022.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from gossip.epoch_events import ObjectId
from gossip.log_chain import Log, RecordRange
from gossip.sync import RANGES_MAX

FETCHES_MAX = 8
"""Requests for what is wanted that are under way at once."""
SHUN_S = 60.0
BACKOFF_S = 0.25
BACKOFF_MAX_S = 30.0
"""The longest wait before something is asked for again that several peers did not have."""
RANGES_SHARED = 32
"""So many ranges are not worth another request to another peer."""
PATIENCE = 6
"""So many peers are asked at once, before the waits begin to grow."""
NOTICES_MAX = 1024
"""Observations that were heard of and are not fetched yet."""
NOTICES_PER_PEER_MAX = 256
"""Of these, what one peer said that it has."""
ANNOUNCED_PER_OPERATOR_MAX = 4
"""Observations that one operator may announce in an epoch; an honest one makes one."""
NOTICE_TRIES = 3
GAP_SPACING_S = 10
"""Between two requests for what is missing before new records of one log."""

Item: TypeAlias = RecordRange | ObjectId


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """Ask `peer` for these: one object, or ranges. `is_whole`: all of a range, and page by page."""

    peer: bytes = b""
    items: tuple[Item, ...]
    is_whole: bool = False
    is_hint: bool = False


@dataclass(slots=True)
class _Tried:
    times: int = 0
    not_before_s: float = 0.0


class Hints:
    """What is worth asking for, though no decision waits for it (rule 5)."""

    def __init__(self) -> None:
        self.notices: dict[bytes, bytes] = {}
        """Digests of observations that are not here, by who has them."""
        self._announced: Counter[bytes] = Counter()
        self._gaps: dict[bytes, RecordRange] = {}
        self._gap_asked_s: dict[bytes, int] = {}

    def __bool__(self) -> bool:
        return bool(self.notices or self._gaps)

    def note_announced(self, digest: bytes, maker: bytes) -> None:
        """`maker` announces an observation of its own; after a few in one epoch, it is not listened to any more."""
        if self._announced[maker] < ANNOUNCED_PER_OPERATOR_MAX:
            self._announced[maker] += 1
            self.note_observation(digest, maker)

    def note_observation(self, digest: bytes, source: bytes) -> None:
        """`source` has an observation that is not here; beyond the limits it is forgotten."""
        if len(self.notices) < NOTICES_MAX and sum(s == source for s in self.notices.values()) < NOTICES_PER_PEER_MAX:
            self.notices.setdefault(digest, source)

    def note_gap(self, log: Log, seq: int, now_s: int) -> None:
        """Record `seq` came, and its predecessor is not in `log`; one range of each log is kept, now and then."""
        if abs(now_s - self._gap_asked_s.get(log.node_key, 0)) >= GAP_SPACING_S:
            is_ahead = seq > log.head.seq + 1
            first = log.head.seq + 1 if is_ahead else log.base.seq + 1  # else it may be of any branch above the base
            self._gaps[log.node_key] = RecordRange(log.node_key, first, seq)

    def take_gaps(self, now_s: int) -> tuple[RecordRange, ...]:
        """The ranges to ask for now, in one request; they are not kept."""
        taken = tuple(self._gaps.values())[:RANGES_MAX]
        for missing in taken:
            del self._gaps[missing.node_key]
            self._gap_asked_s[missing.node_key] = now_s
        return taken

    def forget_notices(self) -> None:
        """Another epoch closes now."""
        self.notices.clear()
        self._announced.clear()


class FetchPlan:
    """Whom to ask for what (rules 1 to 4); it remembers what is under way, and how peers and items did."""

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw
        self._under_way: dict[bytes, Fetch] = {}
        """By peer."""
        self._shunned_until_s: dict[bytes, float] = {}
        self._tried: dict[Item, _Tried] = {}

    def next(
        self,
        wanted: Iterable[object],
        heard_of: Mapping[Item, bytes | None],
        peers: Sequence[bytes],
        now_s: float,
    ) -> list[Fetch]:
        """The requests to make now. `heard_of` are items besides, each with a peer that should have it, if any is."""
        items = [item for item in wanted if isinstance(item, (RecordRange, ObjectId))]
        decisive = frozenset(items)
        known = decisive | heard_of.keys()
        self._tried = {item: tried for item, tried in self._tried.items() if item in known}
        self._shunned_until_s = {peer: until for peer, until in self._shunned_until_s.items() if until > now_s}
        drafts = self._drafts(items, now_s, is_hint=False)
        drafts += self._drafts([item for item in heard_of if item not in decisive], now_s, is_hint=True)
        made: list[Fetch] = []
        for draft in drafts:
            peer = self._pick(peers, heard_of.get(draft.items[0]))
            hints = sum(fetch.is_hint for fetch in self._under_way.values())
            if peer is None or len(self._under_way) >= FETCHES_MAX or (draft.is_hint and 2 * hints >= FETCHES_MAX):
                break
            self._under_way[peer] = replace(draft, peer=peer)
            made.append(self._under_way[peer])
        return made

    def done(self, fetch: Fetch, now_s: float, *, has_brought: bool, has_failed: bool = False) -> None:
        """Note how a request went: whether it brought anything new, or `has_failed` in the peer."""
        del self._under_way[fetch.peer]
        if has_failed:
            self._shunned_until_s[fetch.peer] = now_s + SHUN_S
        for item in fetch.items:
            tried = self._tried.setdefault(item, _Tried())
            if has_brought:
                tried.times = 0
            elif fetch.is_hint or not has_failed:  # what a decision waits for may be asked of the next peer at once
                tried.times += 1
                tried.not_before_s = now_s + min(BACKOFF_MAX_S, BACKOFF_S * 2 ** max(0, tried.times - PATIENCE))

    def tries(self, item: Item) -> int:
        """How many peers in a row did not have it."""
        return self._tried[item].times if item in self._tried else 0

    def _drafts(self, items: Sequence[Item], now_s: float, *, is_hint: bool) -> list[Fetch]:
        """What to ask for; peers are not chosen yet."""
        busy = {item for fetch in self._under_way.values() for item in fetch.items}
        due = [item for item in dict.fromkeys(items) if item not in busy and self._is_due(item, now_s)]
        self._draw.shuffle(due)
        ranges = [item for item in due if isinstance(item, RecordRange)]
        plain = [item for item in ranges if self.tries(item) % 2 == 0]
        share = min(RANGES_MAX, max(RANGES_SHARED, -(-len(plain) // FETCHES_MAX)))
        drafts = [Fetch(items=tuple(plain[at : at + share])) for at in range(0, len(plain), share)]
        if not any(fetch.is_whole for fetch in self._under_way.values()):
            drafts += [Fetch(items=(item,), is_whole=True) for item in ranges if self.tries(item) % 2][:1]
        drafts += [Fetch(items=(item,)) for item in due if isinstance(item, ObjectId)]
        self._draw.shuffle(drafts)  # what does not exist must not keep its place before what does
        return [replace(draft, is_hint=is_hint) for draft in drafts]

    def _is_due(self, item: Item, now_s: float) -> bool:
        return item not in self._tried or self._tried[item].not_before_s <= now_s

    def _pick(self, peers: Sequence[bytes], preferred: bytes | None) -> bytes | None:
        free = [peer for peer in peers if peer not in self._under_way]
        if preferred in free and preferred not in self._shunned_until_s:
            return preferred
        good = [peer for peer in free if peer not in self._shunned_until_s]
        return self._draw.choice(good or free) if free else None
