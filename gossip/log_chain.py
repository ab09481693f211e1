"""Logs: every participant's uncounted records as a hash chain above the last settled cut.

Decides where a verified record stands: it extends the log, is known already, is behind the base, lacks
its predecessor, must wait, breaks a rule, or forks the log. The record's content comes from a peer.

1. A record extends the chain when `prev_hash` is the hash of a record held on it, or of the base, and
   `seq` is one more.
2. A work window starts at or after the end of the previous work record, and is at most `window_max_s` long:
   a bound that no change of policy moves, for a record that was valid once must stay so. How long a window
   may be to count is the tally's rule.
3. A window that ends, or an anchor that lies, in the future only delays its record; receive time is never
   part of validity.
4. Two different records with one (node_key, seq) are a fork. Both branches are kept (at most
   `BRANCHES_MAX` records per seq): observations may name heads on either.
5. The head is the end of the first-seen chain that extends the base without gap.
6. A log that grows faster than any honest one is delayed: above the base stand at most `UNSETTLED_BURST` records,
   and one more for each `RECORD_SPACING_S` since the base was settled; and along each branch `UNSETTLED_BYTES_MAX`,
   and `UNSETTLED_BYTES_PER_S` more, where a reading and a counter count for `ITEM_BYTES` besides what they take on the
   wire. This delays, too, and invalidates nothing, so that peers whose clocks differ agree in the end; it bounds what
   a participant can make everybody keep and check.
7. Of a log that was settled as dead nothing is held above the base: it never counts, and keeps no peer busy.

Elsewhere: signatures (`gossip.records`), which fork ends a log (`gossip.cut`), storage (the node's shell).

Source: PROTOCOL, "Words" and "Records".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

from gossip.errors import DataUnavailableError, InvalidMessageError
from gossip.records import RECORD_BYTES_MAX, CloseBody, EvidenceBody, ReceiptBody, Record, WorkBody

BRANCHES_MAX = 8
EVIDENCE_UNSETTLED_MAX = 256
"""Pieces of evidence in one log above the base."""
UNSETTLED_BURST = 4096
RECORD_SPACING_S = 2
"""An honest log grows by one record in a minute or so: this is thirty times as many."""
UNSETTLED_BYTES_MAX = 1024 * 1024
"""The records of one log above the base, where its base was just settled."""
UNSETTLED_BYTES_PER_S = 256
"""So much more with time. A window a minute makes 15, and 10,000 receipts a day 20: this is seven times as many."""
ITEM_BYTES = 64
"""A counter that takes three bytes on the wire takes seventy in memory."""
CLOCK_TOLERANCE_S = 5
OBSERVED_AHEAD_MAX_S = 30
"""How far ahead of the chain's latest block a record may be dated that an observation names."""


@dataclass(frozen=True, slots=True, order=True)
class Head:
    """The last record of a chain: its number and hash. `GENESIS` (0, zeros) is the empty log."""

    seq: int
    hash: bytes


GENESIS = Head(0, bytes(32))


@dataclass(frozen=True, slots=True)
class RecordRange:
    """Records `first`..`last` (inclusive) of one log: what to ask a peer for."""

    node_key: bytes
    first: int
    last: int


class Placement(Enum):
    EXTENDED = "extended"
    FORKED = "forked"
    KNOWN = "known"
    SETTLED = "settled"
    """At or behind the base: counted already, or never."""
    GAP = "gap"
    """Its predecessor is missing: fetch the range and offer it again."""
    EARLY = "early"
    """Its window has not ended yet, or its log grows too fast: offer it again later."""


@dataclass(frozen=True, slots=True)
class ForkProof:
    """Two signed records with one (node_key, seq): the key is dead from `seq` on."""

    first: Record
    second: Record

    @property
    def node_key(self) -> bytes:
        return self.first.node_key

    @property
    def seq(self) -> int:
        return self.first.seq


@dataclass(frozen=True, slots=True)
class _Entry:
    record: Record
    work_end_s: int
    evidence: int
    """How many pieces of evidence there are from the base up to this record."""
    size: int
    """Of the records from the base up to this one, together (rule 6)."""


class Log:
    """One participant's records above `base`; `base_work_end_s` is the end of its last counted window.

    `settled_s` is when the base was settled (rule 6); 0, not known, delays nothing.
    """

    __slots__ = ("_by_hash", "_by_seq", "base", "base_work_end_s", "fork", "head", "is_dead", "node_key", "settled_s")

    def __init__(self, node_key: bytes, settled_s: int = 0) -> None:
        self.node_key = node_key
        self.fork: ForkProof | None = None
        self.is_dead = False
        self.settled_s = settled_s
        self._start(GENESIS, 0)

    def _start(self, base: Head, base_work_end_s: int) -> None:
        self.base = base
        self.base_work_end_s = base_work_end_s
        self.head = base
        self._by_hash: dict[bytes, _Entry] = {}
        self._by_seq: dict[int, list[bytes]] = {}

    def place(self, record: Record, *, now_s: int, window_max_s: int) -> Placement:
        """Where a verified record would stand; nothing changes. Arguments and errors as for `insert`."""
        if self.knows(record.hash):
            return Placement.KNOWN
        if self.is_dead or record.seq <= self.base.seq:
            return Placement.SETTLED
        previous_end_s = self._work_end_before(record)
        if previous_end_s is None:
            return Placement.GAP
        _require_window(record, previous_end_s, window_max_s)
        if isinstance(record.body, EvidenceBody) and self._evidence_before(record) >= EVIDENCE_UNSETTLED_MAX:
            raise InvalidMessageError(f"evidence: more than {EVIDENCE_UNSETTLED_MAX} pieces that are not settled")
        if _dated_s(record) > now_s + CLOCK_TOLERANCE_S or self._is_too_fast(self._entry(record), now_s):
            return Placement.EARLY
        siblings = len(self._by_seq.get(record.seq, ()))
        if siblings >= BRANCHES_MAX:
            raise InvalidMessageError(f"record: more than {BRANCHES_MAX} of one number")
        return Placement.FORKED if siblings else Placement.EXTENDED

    def insert(self, record: Record, *, now_s: int, window_max_s: int) -> Placement:
        """Place a verified record; `now_s` is the local clock, `window_max_s` the longest that a window may be.

        Raises:
            InvalidMessageError: the record breaks rule 1, 2 or 4, or follows a CLOSE.
        """
        placement = self.place(record, now_s=now_s, window_max_s=window_max_s)
        if placement in (Placement.EXTENDED, Placement.FORKED):
            self._keep(record)
        return placement

    def head_by(self, now_s: int) -> Head:
        """The last record up to the head that others hold by `now_s`, the chain's time: what an observation may name.

        Of a host whose clock is fast the own records are dated ahead, and wait everywhere else (rule 3); so do those
        of a host that writes too much (rule 6).
        """
        head = self.head
        while head.seq > self.base.seq:
            entry = self._by_hash[head.hash]
            if _dated_s(entry.record) <= now_s + OBSERVED_AHEAD_MAX_S and not self._is_too_fast(entry, now_s):
                break
            head = Head(head.seq - 1, entry.record.prev_hash)
        return head

    def seq_wanted(self, now_s: int) -> int:
        """The highest number to ask for by now: so far no record above the head is early by rule 6, however large."""
        room = self._size_max(now_s) - self._size(self.head.hash)
        return min(self._seq_max(now_s), self.head.seq + max(0, room) // RECORD_BYTES_MAX)

    def _seq_max(self, now_s: int) -> int:
        return self.base.seq + UNSETTLED_BURST + max(0, now_s - self.settled_s) // RECORD_SPACING_S

    def _size_max(self, now_s: int) -> int:
        return UNSETTLED_BYTES_MAX + UNSETTLED_BYTES_PER_S * max(0, now_s - self.settled_s)

    def _is_too_fast(self, entry: _Entry, now_s: int) -> bool:
        return entry.record.seq > self._seq_max(now_s) or entry.size > self._size_max(now_s)

    def _size(self, key: bytes) -> int:
        return self._by_hash[key].size if key in self._by_hash else 0

    def _keep(self, record: Record) -> None:
        siblings = self._by_seq.setdefault(record.seq, [])
        if siblings and (self.fork is None or record.seq < self.fork.seq):
            self.fork = ForkProof(self._by_hash[siblings[0]].record, record)
        siblings.append(record.hash)
        self._by_hash[record.hash] = self._entry(record)
        if self.head.hash == record.prev_hash:
            self.head = Head(record.seq, record.hash)

    def _entry(self, record: Record) -> _Entry:
        """The record as it would be held, its predecessor being held here."""
        body = record.body
        return _Entry(
            record,
            work_end_s=body.end_s if isinstance(body, WorkBody) else self._work_end_before(record) or 0,
            evidence=self._evidence_before(record) + isinstance(body, EvidenceBody),
            size=self._size(record.prev_hash) + size_of(record),
        )

    def chain(self, head: Head) -> Iterator[Record]:
        """Yield the records from `head` down to just above the base (newest first).

        Raises:
            DataUnavailableError: the chain does not reach the base through records held here; `missing`
                names the range to fetch.
            InvalidMessageError: the chain ends beside the base.
        """
        seq, key = head.seq, head.hash
        while seq > self.base.seq:
            entry = self._by_hash.get(key)
            if entry is None or entry.record.seq != seq:
                missing = RecordRange(self.node_key, self.base.seq + 1, seq)
                raise DataUnavailableError(f"records up to {seq} are not here", frozenset({missing}))
            yield entry.record
            seq, key = seq - 1, entry.record.prev_hash
        if Head(seq, key) != self.base:
            raise InvalidMessageError("head: does not extend the settled base")

    def work_end_s(self, head: Head) -> int:
        """End of the last work window at or before `head` (which must be held here, or be the base)."""
        return self.base_work_end_s if head == self.base else self._by_hash[head.hash].work_end_s

    def knows(self, key: bytes) -> bool:
        """Whether the record of this hash is held, or is the base itself."""
        return key in self._by_hash or key == self.base.hash

    def holds(self, head: Head) -> bool:
        """Whether the chain from the base up to `head` is here without gap."""
        return head == self.base or (head.hash in self._by_hash and self._by_hash[head.hash].record.seq == head.seq)

    def record(self, key: bytes) -> Record:
        """The record of this hash, which must be held here."""
        return self._by_hash[key].record

    def held(self, seq: int) -> tuple[Record, ...]:
        """The records of this number: none, one, or several after a fork."""
        return tuple(self._by_hash[key].record for key in self._by_seq.get(seq, ()))

    def rebase(self, cut: Head, work_end_s: int, *, is_dead: bool = False) -> None:
        """Make `cut` the base: forget what is at or behind it, and what does not descend from it (or all: rule 7)."""
        self.is_dead = is_dead
        kept = [entry.record for entry in self._by_hash.values() if not is_dead and entry.record.seq > cut.seq]
        self._start(cut, work_end_s)
        if self.fork is not None and self.fork.seq > cut.seq and not is_dead:
            self.fork = None  # found again, if it descends from the cut: one beside it proves nothing of this log
        for record in sorted(kept, key=lambda record: record.seq):
            if self._work_end_before(record) is not None:
                self._keep(record)

    def __len__(self) -> int:
        return len(self._by_hash)

    def _work_end_before(self, record: Record) -> int | None:
        """End of the last work window before `record`, or None when its predecessor is not on the chain."""
        if record.prev_hash == self.base.hash and record.seq == self.base.seq + 1:
            return self.base_work_end_s
        parent = self._by_hash.get(record.prev_hash)
        if parent is None:
            return None
        if parent.record.seq + 1 != record.seq:
            raise InvalidMessageError("record: its number does not follow its predecessor's")
        if isinstance(parent.record.body, CloseBody):
            raise InvalidMessageError("record: the log was closed before it")
        return parent.work_end_s

    def _evidence_before(self, record: Record) -> int:
        parent = self._by_hash.get(record.prev_hash)
        return 0 if parent is None else parent.evidence


class LogBook:
    """The logs of all participants, by node key. Only keys that were `open`ed are held: memory is bounded."""

    def __init__(self, *, window_max_s: int) -> None:
        self.window_max_s = window_max_s
        self.settled_s = 0
        """When the base of all logs was settled (Unix seconds); 0: not known, which delays nothing."""
        self._logs: dict[bytes, Log] = {}

    def __getitem__(self, node_key: bytes) -> Log:
        return self._logs[node_key]

    def __contains__(self, node_key: object) -> bool:
        return node_key in self._logs

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._logs)

    def __len__(self) -> int:
        return sum(len(log) for log in self._logs.values())

    def open(self, node_keys: Iterable[bytes]) -> None:
        """Start an empty log for each key that has none yet."""
        for node_key in node_keys:
            self._logs.setdefault(node_key, Log(node_key, self.settled_s))

    def date(self, settled_s: int) -> None:
        """Note when the base of all logs was settled (Unix seconds, as the chain has it)."""
        if settled_s != self.settled_s:
            self.settled_s = settled_s
            for log in self._logs.values():
                log.settled_s = settled_s

    def insert(self, record: Record, *, now_s: int) -> Placement:
        """Place a verified record in its participant's log.

        Raises:
            InvalidMessageError: no registered participant has this key, or the record breaks a rule.
        """
        log = self._logs.get(record.node_key)
        if log is None:
            raise InvalidMessageError(f"record: no participant of the pool has the key {record.node_key.hex()}")
        return log.insert(record, now_s=now_s, window_max_s=self.window_max_s)

    def rebase(self, node_key: bytes, cut: Head, work_end_s: int, *, is_dead: bool = False) -> None:
        """Make `cut` the base of this key's log, which is started if there is none; `is_dead`: it ends there."""
        self.open((node_key,))
        self._logs[node_key].rebase(cut, work_end_s, is_dead=is_dead)

    def forks(self) -> tuple[ForkProof, ...]:
        """The lowest fork known of each forked log."""
        return tuple(log.fork for log in self._logs.values() if log.fork is not None)


def _require_window(record: Record, previous_end_s: int, window_max_s: int) -> None:
    body = record.body
    if isinstance(body, WorkBody):
        if body.start_s < previous_end_s:
            raise InvalidMessageError("work: the window starts before the previous one ended")
        if body.end_s - body.start_s > window_max_s:
            raise InvalidMessageError(f"work: the window is longer than {window_max_s} s")


def size_of(record: Record) -> int:
    """What a record counts for by rule 6, in bytes: at most `RECORD_BYTES_MAX`."""
    readings = record.body.readings if isinstance(record.body, WorkBody) else ()
    return len(record.wire) + ITEM_BYTES * sum(1 + len(reading.counters) for reading in readings)


def _dated_s(record: Record) -> int:
    """The time before which no honest node can have written the record."""
    match record.body:
        case WorkBody(end_s=end_s):
            return end_s
        case EvidenceBody(anchor_time_s=time_s):
            return time_s
        case ReceiptBody(receipts):
            return max(receipt.time_s for receipt in receipts)
        case _:
            return 0
