"""The cut: up to which record each participant's log counts, as a function of listed observations alone.

1. Per participant, the cut is the highest record that observed heads of more than one third of the
   *total* weight equal or descend from, along the chain that extends the base; else the base itself.
   (A third, because then one honest operator held it; not the maximum, because a liar may name anything.)
2. It stops before the lowest fork that the listed observations contain or prove, and the log is dead
   from there on.
3. A head that cannot be resolved is never ignored: the observation is unusable until its records are
   fetched, and invalid if it does not extend the base.
4. A witnessed reading is the highest value that more than one third of the total weight reports at least.

Source: PROTOCOL, "Epoch close" step 4 and "Tally".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from contracts.model import OperatorSet
from gossip.errors import DataUnavailableError, InvalidMessageError
from gossip.log_chain import Head, Log, LogBook
from gossip.messages import Observation
from gossip.settlement import Base


@dataclass(frozen=True, slots=True, kw_only=True)
class CutPoint:
    """Where one log is cut, whether it is dead from there on, and the witnessed cumulative readings."""

    head: Head
    dead: bool
    witnessed_s: int
    worker_tokens: int


def compute_cut(
    operators: OperatorSet, base: Base, observations: Sequence[Observation], logs: LogBook
) -> Mapping[bytes, CutPoint]:
    """Cut every log that an observation names, by node key. The observations must be of distinct operators.

    Raises:
        DataUnavailableError: records are missing; `missing` names their ranges.
        InvalidMessageError: an observation names a log or head that does not extend the base.
    """
    require_usable(base, observations, logs)
    weights = {operator.node_key: operator.weight for operator in operators.operators}
    fork_seq: dict[bytes, int] = {}
    for fork in (fork for observation in observations for fork in observation.forks):
        fork_seq[fork.node_key] = min(fork.seq, fork_seq.get(fork.node_key, fork.seq))
    cut = {}
    for node_key in sorted({node_key for observation in observations for node_key in observation.logs}):
        seen = [(weights[o.operator], o.logs[node_key]) for o in observations if node_key in o.logs]
        reading = base.reading(node_key)
        head, dead = reading.head, True
        if not reading.dead:
            heads = [(weight, log.head) for weight, log in seen]
            head, dead = _cut_log(operators, logs[node_key], heads, fork_seq.get(node_key))
        cut[node_key] = CutPoint(
            head=head,
            dead=dead,
            witnessed_s=max(reading.witnessed_s, _witnessed(operators, [(w, log.witnessed_s) for w, log in seen])),
            worker_tokens=max(
                reading.worker_tokens, _witnessed(operators, [(w, log.worker_tokens) for w, log in seen])
            ),
        )
    return cut


def require_usable(base: Base, observations: Sequence[Observation], logs: LogBook) -> None:
    """Return if every record up to every observed head is here.

    Raises:
        DataUnavailableError: some are missing; `missing` names all their ranges.
        InvalidMessageError: a head lies behind the base or beside its chain, or an unknown log is named.
    """
    missing: set[object] = set()
    for observation in observations:
        for node_key, observed in observation.logs.items():
            if node_key not in logs:
                raise InvalidMessageError("observation: names a key that no participant has")
            if base.reading(node_key).dead:
                continue  # wherever its head is, it is cut at the base
            log = logs[node_key]
            if observed.head.seq < log.base.seq or log.base != base.reading(node_key).head:
                raise InvalidMessageError("observation: a head lies behind the settled base")
            if log.holds(observed.head):
                continue
            try:
                for _ in log.chain(observed.head):
                    pass
            except DataUnavailableError as error:
                missing |= error.missing
    if missing:
        raise DataUnavailableError("records behind an observation are not here yet", frozenset(missing))


def _cut_log(
    operators: OperatorSet, log: Log, heads: Sequence[tuple[int, Head]], fork_seq: int | None
) -> tuple[Head, bool]:
    """Walk from the highest observed head to the base; each record carries the weight of what descends from it."""
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
            highest = next((Head(seq, key) for key, weight in carried.items() if operators.is_witnessed(weight)), None)
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


def _witnessed(operators: OperatorSet, reports: Sequence[tuple[int, int]]) -> int:
    """The highest value that more than a third of the total weight reports at least (rule 4); else 0."""
    weight = 0
    for report_weight, value in sorted(reports, key=lambda report: -report[1]):
        weight += report_weight
        if operators.is_witnessed(weight):
            return value
    return 0
