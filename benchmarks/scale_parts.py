"""What stands in for disk, hardware and work in `benchmarks.scale`: a store in memory, evidence, records."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence

from benchmarks.samples import READINGS
from contracts.model import NANO, Address, Participant
from contracts.signing import SigningKey
from gossip.coverage import Approval
from gossip.epoch_events import Message
from gossip.messages import Observation
from gossip.policy import PoolPolicy
from gossip.records import EvidenceBody, PoolId, Record, WorkBody, make_record
from gossip.settlement import Settlement

POOL = PoolId(-217, hashlib.sha256(b"scale").digest())
START_S = 1_800_000_000
RECORDS = 4
LATE = 1
"""So many of a participant's records come after the observations, while the epoch closes."""
WORK_S = 60


class MemoryStore:
    """What `gossip.store` asks of a store, as far as one epoch's close needs it."""

    def __init__(self) -> None:
        self._records: dict[bytes, dict[int, bytes]] = {}
        self._observations: dict[bytes, bytes] = {}

    def append(self, records: Sequence[Record]) -> None:
        for record in records:
            self._records.setdefault(record.node_key, {})[record.seq] = record.wire

    def records(self, node_key: bytes, first: int, last: int) -> Iterator[bytes]:
        held = self._records.get(node_key, {})
        yield from (held[seq] for seq in range(first, last + 1) if seq in held)

    def keep_messages(self, _epoch: int, messages: Sequence[Message], _outcome: Settlement | None = None) -> None:
        self._observations |= {m.digest: m.wire for m in messages if isinstance(m, Observation)}

    def observation(self, digest: bytes) -> bytes | None:
        return self._observations.get(digest)

    def attachment(self, _digest: bytes) -> bytes:
        return b""

    def keep_landed(self, settlement: Settlement) -> None: ...

    def checkpoint(self, _payload_hash: bytes) -> None: ...

    def last_landed(self) -> None: ...

    def all_records(self) -> Sequence[bytes]:
        return ()

    def messages(self, _epoch: int) -> Sequence[tuple[str, bytes]]:
        return ()

    def outcomes(self) -> Sequence[Settlement]:
        return ()

    def witness(self) -> Mapping[bytes, int]:
        return {}


def approve(_policy: PoolPolicy, node_key: bytes, body: EvidenceBody) -> Approval:
    """A verdict for nothing: every quote holds."""
    return Approval(from_s=body.anchor_time_s, until_s=body.anchor_time_s + 172_800, machine=node_key)


def make_participant(key: SigningKey) -> Participant:
    """An entry in the registry for this node key."""
    owner = Address(0, hashlib.sha256(key.public).digest())
    return Participant(address=owner, node_key=key.public, stake_nanoton=100 * NANO, joined_s=START_S - 86_400)


def write_log(key: SigningKey) -> list[Record]:
    """A log: evidence, then work."""
    began_s = START_S - 86_400
    evidence = EvidenceBody(
        quote=bytes(5_000),
        collateral_digest=bytes(32),
        gpu_digest=None,
        handshake_digest=None,
        anchor_seqno=1,
        anchor_root_hash=bytes(32),
        anchor_time_s=began_s,
    )
    records = [make_record(key, POOL, 1, bytes(32), evidence)]
    for number in range(1, RECORDS):
        body = WorkBody(
            start_s=began_s + WORK_S * number,
            end_s=began_s + WORK_S * (number + 1),
            readings=READINGS,
            evidence=records[0].hash,
        )
        records.append(make_record(key, POOL, number + 1, records[-1].hash, body))
    return records
