"""The auditor: recomputes a settled epoch from one attester's journal, twice.

Once by the real tally, on a fresh log book that was filled in another order; once by the rules of PROTOCOL
written down as simply as can be (whole chains as lists, no incremental state). Both must give what landed.

Source: PROTOCOL, "Epoch close" step 4 and "Tally".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from pool_fixture import POOL, verdict

from contracts.model import Address, OperatorSet
from gossip.log_chain import GENESIS, Head, LogBook
from gossip.messages import Observation
from gossip.policy import WINDOW_S_MAX, PoolPolicy
from gossip.receipts import require_receipt
from gossip.records import EvidenceBody, ReceiptBody, Record, Unit, WorkBody
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
    worker_tokens: int | None
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
    read = [(weight, log.worker_tokens) for weight, log in seen if log.worker_tokens is not None]
    worker_tokens = None
    for _, value in sorted(read, key=lambda each: each[1]):
        if operators.is_witnessed(sum(weight for weight, tokens in read if tokens >= value)):
            worker_tokens = value
    forks = [fork for o in observations for fork in o.forks if fork.node_key == node_key]
    fork_seq = min((fork.seq for fork in forks), default=None)
    if reading.dead or (fork_seq is not None and fork_seq <= reading.head.seq):
        return PlainCut(head=reading.head, dead=True, witnessed_s=witnessed_s, worker_tokens=worker_tokens, counted=())
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
    return PlainCut(
        head=head, dead=fork_seq is not None, witnessed_s=witnessed_s, worker_tokens=worker_tokens, counted=counted
    )


def _chain(key: bytes, base: Head, by_hash: Mapping[bytes, Record]) -> list[Record]:
    """The records above the base up to the one of this hash, ascending."""
    chain: list[Record] = []
    while key != base.hash:
        chain.append(by_hash[key])
        key = chain[-1].prev_hash
        assert chain[-1].seq > base.seq
    return chain[::-1]


@dataclass(slots=True)
class PlainAccount:
    """What the chain paid a participant, and what was metered for it; sums of all epochs."""

    metered: int = 0
    paid: int = 0
    worker: Address | None = None
    read: int = 0
    credited: int = 0


@dataclass(slots=True)
class PlainBooks:
    """What the plain rules credited so far, for the whole pool; `take` counts one more epoch.

    Every participant has a machine of its own and no GPUs: what becomes of those who share is not recomputed here.
    """

    credited_s: dict[bytes, int]
    evidence: dict[bytes, dict[bytes, tuple[int, int]]]
    """Windows of valid evidence by node key and record."""
    counted: dict[bytes, list[Record]]
    """Every record that ever counted, by node key."""
    accounts: dict[bytes, PlainAccount]

    @classmethod
    def empty(cls) -> PlainBooks:
        return cls({}, {}, {}, {})

    def take(self, frame: EpochFrame, cuts: Mapping[bytes, PlainCut]) -> dict[Address, tuple[int, int, int]]:
        """(uptime, tokens, tasks) of this epoch by participant."""
        policy, source = frame.policy, frame.policy.work.kind
        windows = {p.node_key: self._covered(frame, p.node_key, cuts[p.node_key].counted) for p in frame.participants}
        receipted = _receipted(policy, cuts, windows)
        figures = {}
        for participant in frame.participants:
            node_key = participant.node_key
            cut, bodies = cuts[node_key], windows[node_key]
            credited_s = self.credited_s.get(node_key, 0)
            uptime_s = min(sum(_watched_s(body, source) for body in bodies), cut.witnessed_s - credited_s)
            carried_s = cut.witnessed_s - policy.work.witness_carry_s
            self.credited_s[node_key] = max(credited_s + uptime_s, carried_s)
            amounts = [amount for body in bodies for r in body.readings if r.source == source for amount in r.counters]
            tokens = sum(amount for unit, amount in amounts if unit in policy.work.token_units)
            tokens = min(tokens, policy.work.tokens_per_s_max * uptime_s)
            if policy.receipts.ceiling == "receipts":
                tokens = min(tokens, receipted[node_key])
            elif policy.receipts.ceiling == "worker-contract":
                ahead_max = policy.work.tokens_per_s_max * policy.work.witness_carry_s
                tokens = self._paid(node_key, tokens, participant.worker, cut.worker_tokens, ahead_max)
            tasks = sum(amount for unit, amount in amounts if unit == Unit.TASK) if uptime_s else 0
            figures[participant.address] = uptime_s, tokens, min(tasks, tokens // policy.work.tokens_per_task_min)
        return figures

    def _covered(self, frame: EpochFrame, node_key: bytes, counted: Sequence[Record]) -> list[WorkBody]:
        """The work among the records that are counted now, as far as evidence covers it."""
        self._append(node_key, counted)
        evidence = self.evidence.setdefault(node_key, {})
        bodies = []
        for record in counted:
            if isinstance(record.body, EvidenceBody):
                approval = verdict(frame.policy, node_key, record.body)
                assert approval is not None
                evidence[record.hash] = approval.from_s, approval.until_s
            elif isinstance(record.body, WorkBody):
                from_s, until_s = evidence.get(record.body.evidence or b"", (0, 0))
                length_s = record.body.end_s - record.body.start_s
                if from_s <= record.body.start_s and record.body.end_s <= until_s:
                    bodies += [record.body] if length_s <= frame.policy.work.window_max_s else []
        return bodies

    def _paid(self, node_key: bytes, metered: int, worker: Address | None, read: int | None, ahead_max: int) -> int:
        """What is credited now, if in all it is the less of what was metered and what was paid."""
        account = self.accounts.setdefault(node_key, PlainAccount())
        account.metered += metered
        if worker is not None and read is not None:
            if worker != account.worker:
                account.worker, account.read = worker, read
            account.paid += max(0, read - account.read)
            account.read = max(account.read, read)
        account.paid = min(account.paid, account.metered + ahead_max)
        more = min(account.metered, account.paid) - account.credited
        account.credited += more
        return more

    def _append(self, node_key: bytes, records: Sequence[Record]) -> None:
        """Each record counts once, directly after the one that counted before."""
        counted = self.counted.setdefault(node_key, [])
        for record in records:
            last = Head(counted[-1].seq, counted[-1].hash) if counted else GENESIS
            assert Head(record.seq - 1, record.prev_hash) == last, "a record counts twice, or one is left out"
            counted.append(record)


def _receipted(
    policy: PoolPolicy, cuts: Mapping[bytes, PlainCut], windows: Mapping[bytes, Sequence[WorkBody]]
) -> dict[bytes, int]:
    """Tokens by node key: of each job the first receipt. All of them hold, or the record would be none."""
    claims: dict[tuple[bytes, bytes], set[tuple[int, bytes, int]]] = {}
    for node_key, cut in cuts.items():
        bodies = [record.body for record in cut.counted if isinstance(record.body, ReceiptBody)]
        receipts = [receipt for body in bodies for receipt in body.receipts]
        for receipt in receipts[: policy.receipts.per_participant_max]:
            is_inside = any(body.start_s <= receipt.time_s < body.end_s for body in windows[node_key])
            require_receipt(POOL, node_key, receipt)
            if receipt.signer.hex() in policy.receipts.signers and is_inside:
                claims.setdefault(receipt.id, set()).add((receipt.time_s, node_key, receipt.tokens))
    found = dict.fromkeys(cuts, 0)
    for _, node_key, tokens in (min(each) for each in claims.values()):
        found[node_key] += tokens
    return found


def _watched_s(body: WorkBody, source: int) -> int:
    """The seconds of a window in which one of its sources at least was watched."""
    gaps = [reading.gap_s for reading in body.readings if reading.source == source]
    return body.end_s - body.start_s - min(gaps) if gaps else 0
