"""The auditor: recomputes a settled epoch from one attester's journal, twice.

Once by the real tally, on a fresh log book that was filled in another order; once by the rules of PROTOCOL
written down as simply as can be (whole chains as lists, no incremental state). Both must give what landed.

Source: PROTOCOL, "Epoch close" step 4 and "Tally".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from pool_fixture import verdict

from contracts.model import Address, OperatorSet
from gossip.log_chain import GENESIS, Head, LogBook
from gossip.messages import Observation
from gossip.policy import WINDOW_S_MAX
from gossip.records import EvidenceBody, Record, Unit, WorkBody
from gossip.settlement import Base, Settlement
from gossip.tally import EpochFrame, settle

ANY_TIME_S = 1 << 62


def recompute(
    frame: EpochFrame, base: Base, observations: Sequence[Observation], records: Iterable[Record], rng: Random
) -> Settlement:
    """The settlement by the real tally, with the logs filled in a random order."""
    logs = LogBook(window_max_s=WINDOW_S_MAX)
    for node_key, reading in base.readings.items():
        logs.rebase(node_key, reading.head, reading.work_end_s)
    logs.open(participant.node_key for participant in frame.participants)
    shuffled = [record for record in records if record.node_key in logs]
    rng.shuffle(shuffled)
    for record in sorted(shuffled, key=lambda record: record.seq):
        logs.insert(record, now_s=ANY_TIME_S)
    return settle(frame, base, rng.sample(observations, len(observations)), logs, verdict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainCut:
    """Where a log is cut by the plain rules, and whether it is dead from there on."""

    head: Head
    dead: bool
    witnessed_s: int
    counted: tuple[Record, ...]
    """The records from the base, exclusive, to the cut, ascending."""


def plain_cut(
    operators: OperatorSet,
    base: Base,
    observations: Sequence[Observation],
    node_key: bytes,
    by_hash: Mapping[bytes, Record],
) -> PlainCut:
    """The cut of one log: the longest chain that heads of more than a third of the weight go through."""
    reading = base.reading(node_key)
    weights = {operator.node_key: operator.weight for operator in operators.operators}
    seen = [(weights[o.operator], o.logs[node_key]) for o in observations]
    witnessed_s = reading.witnessed_s
    for value in sorted({log.witnessed_s for _, log in seen}):
        if operators.is_witnessed(sum(weight for weight, log in seen if log.witnessed_s >= value)):
            witnessed_s = max(witnessed_s, value)
    forks = [fork for o in observations for fork in o.forks if fork.node_key == node_key]
    fork_seq = min((fork.seq for fork in forks), default=None)
    if reading.dead or (fork_seq is not None and fork_seq <= reading.head.seq):
        return PlainCut(head=reading.head, dead=True, witnessed_s=witnessed_s, counted=())
    before = sorted({fork.first.prev_hash for fork in forks if fork.seq == fork_seq})
    chains: list[tuple[int, list[Record]]] = []
    for weight, log in seen:
        is_above = fork_seq is not None and log.head.seq >= fork_seq
        chains.append((weight, _chain(before[0] if is_above else log.head.hash, reading.head, by_hash)))
    chains += [(0, _chain(key, reading.head, by_hash)) for key in before]
    cut: list[Record] = []
    for number in range(max(len(chain) for _, chain in chains)):
        parents = [(weight, chain[number]) for weight, chain in chains if len(chain) > number]
        if len({record.hash for _, record in parents}) > 1:
            seq = reading.head.seq + 1 + number
            fork_seq = seq if fork_seq is None else min(fork_seq, seq)
        best = {r.hash: sum(w for w, other in parents if other.hash == r.hash) for _, r in parents}
        cut += [r for r in {r.hash: r for _, r in parents}.values() if operators.is_witnessed(best[r.hash])][:1]
    counted = tuple(record for record in cut if fork_seq is None or record.seq < fork_seq)
    head = Head(counted[-1].seq, counted[-1].hash) if counted else reading.head
    return PlainCut(head=head, dead=fork_seq is not None, witnessed_s=witnessed_s, counted=counted)


def _chain(key: bytes, base: Head, by_hash: Mapping[bytes, Record]) -> list[Record]:
    """The records above the base up to the one of this hash, ascending."""
    chain: list[Record] = []
    while key != base.hash:
        chain.append(by_hash[key])
        key = chain[-1].prev_hash
        assert chain[-1].seq > base.seq
    return chain[::-1]


@dataclass(slots=True)
class PlainBooks:
    """What the plain rules credited so far, for the whole pool; `take` counts one more epoch."""

    credited_s: dict[bytes, int]
    evidence: dict[bytes, dict[bytes, tuple[int, int]]]
    """Windows of valid evidence by node key and record."""
    counted: dict[bytes, list[Record]]
    """Every record that ever counted, by node key."""

    @classmethod
    def empty(cls) -> PlainBooks:
        return cls({}, {}, {})

    def take(self, frame: EpochFrame, cuts: Mapping[bytes, PlainCut]) -> dict[Address, tuple[int, int, int]]:
        """(uptime, tokens, tasks) of this epoch by participant."""
        figures = {}
        for participant in frame.participants:
            node_key = participant.node_key
            cut = cuts[node_key]
            self._append(node_key, cut.counted)
            evidence = self.evidence.setdefault(node_key, {})
            bodies = []
            for record in cut.counted:
                if isinstance(record.body, EvidenceBody):
                    approval = verdict(frame.policy, node_key, record.body)
                    assert approval is not None
                    evidence[record.hash] = approval.from_s, approval.until_s
                elif isinstance(record.body, WorkBody):
                    from_s, until_s = evidence.get(record.body.evidence or b"", (0, 0))
                    length_s = record.body.end_s - record.body.start_s
                    if from_s <= record.body.start_s and record.body.end_s <= until_s:
                        bodies += [record.body] if length_s <= frame.policy.work.window_max_s else []
            credited_s = self.credited_s.get(node_key, 0)
            uptime_s = min(sum(body.end_s - body.start_s for body in bodies), cut.witnessed_s - credited_s)
            carried_s = cut.witnessed_s - frame.policy.work.witness_carry_s
            self.credited_s[node_key] = max(credited_s + uptime_s, carried_s)
            tokens = sum(body.amount(frame.policy.work.token_units) for body in bodies)
            tasks = sum(body.amount((Unit.TASK,)) for body in bodies) if uptime_s else 0
            figures[participant.address] = uptime_s, min(tokens, frame.policy.work.tokens_per_s_max * uptime_s), tasks
        return figures

    def _append(self, node_key: bytes, records: Sequence[Record]) -> None:
        """Each record counts once, directly after the one that counted before."""
        counted = self.counted.setdefault(node_key, [])
        for record in records:
            last = Head(counted[-1].seq, counted[-1].hash) if counted else GENESIS
            assert Head(record.seq - 1, record.prev_hash) == last, "a record counts twice, or one is left out"
            counted.append(record)
