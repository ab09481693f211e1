"""Records verified and stored per second, against the bare Ed25519 verification rate of the same run.

"stored" is the whole path of a peer's batch: parse, canonical form, pool, signature, place in the log, one
durable transaction per batch (the journal's own: synchronous=FULL, on whatever disk holds the temporary folder). The
reference verifies the same signatures over the same bytes, and nothing else.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import trio

from agent.devnet.layout import write_policy
from agent.journal import create_journal, open_journal
from benchmarks.samples import READINGS
from contracts import signing
from contracts.signing import SigningKey
from gossip.node import Node, open_node
from gossip.policy import PoolPolicy, parse_policy
from gossip.records import EvidenceBody, PoolId, Record, WorkBody, make_record

AUTHORS = 20
RECORDS = 6_000
BATCH = 100
START_S = 1_700_000_000
EPOCH_S = 604_800
POOL = PoolId(-217, bytes(range(32)))


def run() -> Iterator[dict[str, Any]]:
    written = _records()
    bare = _bare_rate(written)
    stored = _stored_rate(written)
    yield {
        "records": len(written),
        "batch": BATCH,
        "record_bytes": len(written[-1].wire),
        "stored_per_s": round(stored),
        "reference": "libsodium verification of the same signatures, nothing else",
        "reference_per_s": round(bare),
        "ratio": round(stored / bare, 2),
    }


def _records() -> list[Record]:
    """Logs of `AUTHORS` participants, interleaved as they would arrive."""
    keys = [SigningKey(bytes([i]) * 32) for i in range(1, AUTHORS + 1)]
    heads = [(0, bytes(32))] * AUTHORS
    written = []
    for number in range(RECORDS):
        i = number % AUTHORS
        start_s = START_S + 60 * heads[i][0]
        body = WorkBody(
            start_s=start_s,
            end_s=start_s + 60,
            readings=READINGS,
            evidence=bytes(32),
        )
        record = make_record(keys[i], POOL, heads[i][0] + 1, heads[i][1], body)
        heads[i] = (record.seq, record.hash)
        written.append(record)
    return written


def _bare_rate(written: Sequence[Record]) -> float:
    started = time.perf_counter()
    for record in written:
        signing.verify(record.node_key, record.signed, record.signature)
    return len(written) / (time.perf_counter() - started)


def _stored_rate(written: Sequence[Record]) -> float:
    wires = [record.wire for record in written]
    batches = [wires[i : i + BATCH] for i in range(0, len(wires), BATCH)]
    own = SigningKey(bytes([99]) * 32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.sqlite"
        create_journal(path, node_key=own.public, pool=POOL)
        journal = open_journal(path, node_key=own.public, pool=POOL)
        node = open_node(
            own,
            POOL,
            parse_policy(write_policy(Path(folder) / "policy.toml", EPOCH_S, AUTHORS)),
            journal,
            _no_verdict,
            participants=sorted({record.node_key for record in written}),
            now_s=lambda: int(time.time()),
        )
        started = time.perf_counter()
        trio.run(_take, node, batches)
        elapsed = time.perf_counter() - started
        assert node.placed["extended"] == len(written)
        journal.close()
    return len(written) / elapsed


async def _take(node: Node, batches: Sequence[Sequence[bytes]]) -> None:
    for batch in batches:
        await node.take_records(batch)


def _no_verdict(_policy: PoolPolicy, _node_key: bytes, _body: EvidenceBody) -> None:
    return None
