"""The cut: up to which record each participant's log counts, as a function of listed observations alone.

1. Per participant, the cut is the highest record that observed heads of more than one third of the
   *total* weight equal or descend from, along the chain that extends the base; else the base itself.
   (A third, because then one honest operator held it; not the maximum, because a liar may name anything.)
2. It stops before the lowest fork that the listed observations contain or prove, and the log is dead
   from there on. A head at or above a proven fork stands for the record before the fork: so nobody has
   to fetch the branches, of which a hostile participant may make any number.
3. A head below, and the record before the lowest proven fork, are never ignored: the observation is unusable
   until their chains are fetched, and invalid if they do not extend the base.
4. A witnessed reading is the highest value that more than one third of the total weight reports at least.

Source: PROTOCOL, "Epoch close" step 4 and "Tally".
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from contracts.model import OperatorSet
from gossip.errors import DataUnavailableError, InvalidMessageError
from gossip.log_chain import Head, Log, LogBook, RecordRange
from gossip.messages import Observation
from gossip.settlement import Base


@dataclass(frozen=True, slots=True, kw_only=True)
class CutPoint:
    """Where one log is cut, whether it is dead from there on, and the witnessed cumulative readings."""

    head: Head
    dead: bool
    witnessed_s: int
    worker_tokens: int | None
    """Of the participant's worker contract; None: not enough operators read it."""


def compute_cut(
    operators: OperatorSet, base: Base, observations: Sequence[Observation], logs: LogBook
) -> Mapping[bytes, CutPoint]:
    """Cut every log that an observation names, by node key. The observations must be of distinct operators.

    Raises:
        DataUnavailableError: records are missing; `missing` names their ranges.
        InvalidMessageError: an observation names a log or head that does not extend the base.
    """
    forks = proven_forks(observations)
    require_usable(base, observations, logs, forks)
    weights = {operator.node_key: operator.weight for operator in operators.operators}
    enough = _witness_weight(operators)
    cut = {}
    for node_key in sorted({node_key for observation in observations for node_key in observation.logs}):
        seen = [(weights[o.operator], o.logs[node_key]) for o in observations if node_key in o.logs]
        reading = base.reading(node_key)
        head, dead = reading.head, True
        if not reading.dead:
            heads = [(weight, log.head) for weight, log in seen]
            head, dead = _cut_log(enough, logs[node_key], heads, forks.get(node_key))
        cut[node_key] = CutPoint(
            head=head,
            dead=dead,
            witnessed_s=max(reading.witnessed_s, _witnessed(enough, [(w, log.witnessed_s) for w, log in seen]) or 0),
            worker_tokens=_witnessed(
                enough, [(w, log.worker_tokens) for w, log in seen if log.worker_tokens is not None]
            ),
        )
    return cut


@dataclass(frozen=True, slots=True)
class ProvenFork:
    """The lowest fork that observations prove of one log, and the records before it that they name."""

    seq: int
    before: frozenset[Head]


def proven_forks(observations: Iterable[Observation]) -> Mapping[bytes, ProvenFork]:
    """The lowest fork proven of each log, by node key."""
    lowest: dict[bytes, ProvenFork] = {}
    for fork in (fork for observation in observations for fork in observation.forks):
        before = frozenset({Head(fork.seq - 1, fork.first.prev_hash)})
        known = lowest.get(fork.node_key)
        if known is None or fork.seq < known.seq:
            lowest[fork.node_key] = ProvenFork(fork.seq, before)
        elif fork.seq == known.seq:
            lowest[fork.node_key] = ProvenFork(fork.seq, known.before | before)
    return lowest


def require_usable(
    base: Base, observations: Sequence[Observation], logs: LogBook, forks: Mapping[bytes, ProvenFork]
) -> None:
    """Return if every record is here that `observations` need, given the forks that are proven (rules 2, 3).

    Raises:
        DataUnavailableError: some are missing; `missing` names all their ranges.
        InvalidMessageError: a head lies behind the base or beside its chain, or an unknown log is named.
    """
    missing = {
        missing_range(log, head) for log, head in needed_heads(base, observations, logs, forks) if not log.holds(head)
    }
    if missing:
        raise DataUnavailableError("records behind an observation are not here yet", frozenset(missing))


def needed_heads(
    base: Base, observations: Sequence[Observation], logs: LogBook, forks: Mapping[bytes, ProvenFork]
) -> Iterator[tuple[Log, Head]]:
    """The heads whose chains `observations` need, given the forks that are proven, each with its log.

    Raises:
        InvalidMessageError: a head lies behind the base or beside it, or an unknown log is named.
    """
    for observation in observations:
        own = proven_forks([observation])
        for node_key, observed in observation.logs.items():
            if node_key not in logs:
                raise InvalidMessageError("observation: names a key that no participant has")
            reading = base.reading(node_key)
            if reading.dead:
                continue  # wherever its head is, it is cut at the base
            log = logs[node_key]
            if observed.head.seq < log.base.seq or log.base != reading.head:
                raise InvalidMessageError("observation: a head lies behind the settled base")
            lowest = forks.get(node_key) or own.get(node_key)
            needed = [head for head in own[node_key].before if head.seq >= log.base.seq] if node_key in own else []
            needed = [head for head in (*needed, observed.head) if lowest is None or head.seq < lowest.seq]
            for head in needed:
                if head.seq == log.base.seq and head != log.base:
                    raise InvalidMessageError("head: does not extend the settled base")
                yield log, head


def missing_range(log: Log, head: Head) -> RecordRange:
    """What to fetch of a log for the chain up to `head`."""
    return RecordRange(log.node_key, log.base.seq + 1, head.seq)


def _cut_log(enough: int, log: Log, heads: Sequence[tuple[int, Head]], fork: ProvenFork | None) -> tuple[Head, bool]:
    """Walk from the highest observed head to the base; each record carries the weight of what descends from it."""
    fork_seq: int | None = None
    if fork is not None:
        if fork.seq <= log.base.seq:
            return log.base, True
        # Several records before one fork are a fork themselves: all take part, the heads with the first of them.
        fork_seq, before = fork.seq, sorted(fork.before)
        heads = [(weight, head if head.seq < fork.seq else before[0]) for weight, head in heads]
        heads += [(0, head) for head in before]
    observed: dict[int, list[tuple[int, bytes]]] = {}
    for weight, head in heads:
        observed.setdefault(head.seq, []).append((weight, head.hash))
    highest: Head | None = None
    carried: dict[bytes, int] = {}
    for seq in range(max(observed), log.base.seq, -1):
        for weight, key in observed.get(seq, ()):
            carried[key] = carried.get(key, 0) + weight
        if len(carried) > 1:
            fork_seq = seq if fork_seq is None else min(fork_seq, seq)
        if highest is None:
            highest = next((Head(seq, key) for key, weight in carried.items() if weight >= enough), None)
        below: dict[bytes, int] = {}
        for key, weight in carried.items():
            parent = log.record(key).prev_hash
            below[parent] = below.get(parent, 0) + weight
        carried = below
    cut = highest or log.base
    if fork_seq is None:
        return cut, False
    for record in log.chain(cut):
        if record.seq < fork_seq:
            break
        cut = Head(record.seq - 1, record.prev_hash)
    return cut, True


def _witness_weight(operators: OperatorSet) -> int:
    """The least weight that is more than a third of the total."""
    return bisect_left(range(operators.total_weight + 1), True, key=operators.is_witnessed)


def _witnessed(enough: int, reports: Sequence[tuple[int, int]]) -> int | None:
    """The highest value that more than a third of the total weight reports at least (rule 4); None: there is none."""
    weight = 0
    for report_weight, value in sorted(reports, key=lambda report: -report[1]):
        weight += report_weight
        if weight >= enough:
            return value
    return None
