"""Fetching: which peer is asked for what next, when many things are wanted at once.

Decides that from what is wanted, which peers are connected and how earlier requests went. Pure: the caller brings
time (seconds) and randomness. What is wanted may not exist: any operator may name a head or a digest of nothing.

1. At most `FETCHES_MAX` requests are under way, one to a peer: one that is slow or silent holds up nothing else. One
   that failed, or took longer than `SLOW_S` and brought nothing, is asked again only after `SHUN_S`, or if there is no
   other.
2. What a decision waits for comes first, and what was merely heard of takes at most half of the places; of that, what
   operators announced comes first.
3. Ranges of many logs go in one request, first only what lies above the heads that are here. If that does not bring
   it, a branch may begin anywhere: then the whole range is fetched, one at a time in all.
4. What several peers did not have is asked for ever more seldom.
5. Hints (an observation that somebody has, a record whose predecessor is missing, an attachment) are worth a few
   requests; after that they are forgotten, for anti-entropy brings the same. Each source, and each log, has its own
   share of them, and those who are no operators have a small one together. Who turns out not to have what it said
   loses its share.

Elsewhere: asking and taking over (`gossip.pull`).

Source: docs/adr/0022.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TypeAlias

from gossip.epoch_events import ObjectId
from gossip.log_chain import Log, RecordRange
from gossip.sync import RANGES_MAX

FETCHES_MAX = 8
"""Requests for what is wanted that are under way at once."""
SHUN_S = 60.0
SLOW_S = 3.0
"""An answer that took longer and brought nothing is as bad as none."""
BACKOFF_S = 0.25
BACKOFF_MAX_S = 30.0
"""The longest wait before something is asked for again that several peers did not have."""
RANGES_SHARED = 32
"""So many ranges are not worth another request to another peer."""
PATIENCE = 6
"""So many peers are asked at once, before the waits begin to grow."""
NOTICES_PER_OPERATOR_MAX = 64
"""Observations that one operator said it has, and that are not fetched yet; more are named at the next pull."""
NOTICES_PER_OUTSIDER_MAX = 16
"""The same, of a peer that is no operator."""
NOTICES_OF_OUTSIDERS_MAX = 256
"""The same, of all of these peers together."""
ANNOUNCED_PER_OPERATOR_MAX = 4
"""Observations that one operator may announce in an epoch; an honest one makes one."""
NOTICE_TRIES = 3
ATTACHMENT_TRIES = 12
"""So many peers in a row did not have what new evidence names: its record comes again by anti-entropy."""
GAP_SPACING_S = 10
"""Between two requests for what is missing before new records of one log."""

Item: TypeAlias = RecordRange | ObjectId

NOTHING: Mapping[Item, bytes | None] = MappingProxyType({})


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
        """Digests of observations that are not here, by who said that it has them."""
        self._announced: dict[bytes, set[bytes]] = {}
        """By operator: digests of observations that are not here, and that it announced as its own."""
        self._announcements: Counter[bytes] = Counter()
        self._outsiders: set[bytes] = set()
        self._attachments: dict[bytes, frozenset[bytes]] = {}
        """By node key: the digests for which its next record waits."""
        self._gaps: dict[bytes, RecordRange] = {}
        self._gap_asked_s: dict[bytes, int] = {}

    def __bool__(self) -> bool:
        return bool(self._announced or self.notices or self._attachments or self._gaps)

    def note_announced(self, digest: bytes, maker: bytes) -> None:
        """Operator `maker` announces an observation of its own; after a few in one epoch, it is not listened to."""
        if self._announcements[maker] < ANNOUNCED_PER_OPERATOR_MAX:
            self._announcements[maker] += 1
            self._announced.setdefault(maker, set()).add(digest)

    @property
    def announced(self) -> dict[bytes, bytes]:
        """Digests that were announced, by the first operator that did: another may say so of one that it lacks."""
        return {digest: maker for maker in reversed(self._announced) for digest in self._announced[maker]}

    def note_observation(self, digest: bytes, source: bytes, *, is_operator: bool) -> None:
        """`source` has an observation that is not here; beyond its share it is forgotten."""
        known = self.notices.get(digest)
        if known is not None and not (is_operator and known in self._outsiders):
            return
        own = sum(holder == source for holder in self.notices.values())
        if not is_operator:
            self._outsiders.add(source)
            if sum(holder in self._outsiders for holder in self.notices.values()) >= NOTICES_OF_OUTSIDERS_MAX:
                return
        if own < (NOTICES_PER_OPERATOR_MAX if is_operator else NOTICES_PER_OUTSIDER_MAX):
            self.notices[digest] = source

    def forget_notice(self, digest: bytes) -> None:
        """It is here by now, or was asked for often enough."""
        self.notices.pop(digest, None)
        left = {maker: digests - {digest} for maker, digests in self._announced.items()}
        self._announced = {maker: digests for maker, digests in left.items() if digests}

    def disappoint(self, digest: bytes, peer: bytes) -> None:
        """`peer` does not have this observation; if it said that it has, nothing else is believed that it said."""
        if self.notices.get(digest) == peer or digest in self._announced.get(peer, ()):
            self._announced.pop(peer, None)
            self.notices = {kept: source for kept, source in self.notices.items() if source != peer}

    def note_attachments(self, node_key: bytes, missing: frozenset[bytes]) -> None:
        """The next record of this log waits for these."""
        self._attachments[node_key] = missing

    @property
    def attachments(self) -> frozenset[ObjectId]:
        """What new evidence names and is not here."""
        wanted = frozenset[bytes]().union(*self._attachments.values())
        return frozenset(ObjectId(kind="attachment", id=digest) for digest in wanted)

    def forget_attachment(self, digest: bytes) -> None:
        """It is here by now, or was asked for often enough."""
        waiting = {node_key: wanted - {digest} for node_key, wanted in self._attachments.items()}
        self._attachments = {node_key: wanted for node_key, wanted in waiting.items() if wanted}

    def note_gap(self, log: Log, seq: int, now_s: int) -> None:
        """Record `seq` came, and its predecessor is not in `log`; one range of each log is kept, now and then."""
        is_ahead = seq > log.head.seq + 1
        if is_ahead:
            first, last = log.head.seq + 1, min(seq, log.seq_wanted(now_s))
        else:
            first, last = log.base.seq + 1, seq  # it may be of any branch above the base
        if first <= last and abs(now_s - self._gap_asked_s.get(log.node_key, 0)) >= GAP_SPACING_S:
            self._gaps[log.node_key] = RecordRange(log.node_key, first, last)

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
        self._outsiders.clear()
        self._announcements.clear()
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
        *,
        announced: Mapping[Item, bytes | None] = NOTHING,
    ) -> list[Fetch]:
        """The requests to make now.

        `heard_of` are items besides, each with a peer that should have it, if any is; `announced` go before them.
        """
        heard_of = {**heard_of, **announced}
        items = [item for item in wanted if isinstance(item, (RecordRange, ObjectId))]
        decisive = frozenset(items)
        known = decisive | heard_of.keys()
        self._tried = {item: tried for item, tried in self._tried.items() if item in known}
        self._shunned_until_s = {peer: until for peer, until in self._shunned_until_s.items() if until > now_s}
        drafts = self._drafts(items, now_s, is_hint=False)
        drafts += self._drafts([item for item in announced if item not in decisive], now_s, is_hint=True)
        others = [item for item in heard_of if item not in decisive and item not in announced]
        drafts += self._drafts(others, now_s, is_hint=True)
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
            self.shun(fetch.peer, now_s)
        for item in fetch.items:
            tried = self._tried.setdefault(item, _Tried())
            if has_brought:
                tried.times = 0
            elif fetch.is_hint or not has_failed:  # what a decision waits for may be asked of the next peer at once
                tried.times += 1
                tried.not_before_s = now_s + min(BACKOFF_MAX_S, BACKOFF_S * 2 ** max(0, tried.times - PATIENCE))

    def shun(self, peer: bytes, now_s: float) -> None:
        """Ask others for a while."""
        self._shunned_until_s[peer] = now_s + SHUN_S

    def good(self, peers: Sequence[bytes], now_s: float) -> Sequence[bytes]:
        """Those of `peers` that are not shunned; all, if all of them are."""
        return [peer for peer in peers if self._shunned_until_s.get(peer, now_s) <= now_s] or peers

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
