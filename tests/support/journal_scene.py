"""A journal with something in every table, as an agent of a pool of two leaves it behind."""

from __future__ import annotations

import hashlib
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pool_fixture import POOL, Author, evidence, fill, frame, key, log_book, verdict

from agent.config import Config
from agent.journal import Journal, create_journal, open_journal
from agent.meter.work import MeterState, WorkWindow, encode_state
from agent.pending import encode_pending
from agent.setup import Answers, init_agent
from gossip.cut import CutPoint
from gossip.log_chain import GENESIS
from gossip.messages import ListedObservation, ObservedLog, make_attest, make_observation, make_proposal
from gossip.settlement import Base, Settlement
from gossip.tally import tally

KEY = key(0)
OWN = {"node_key": KEY.public, "pool": POOL}
COLLATERAL = [b"collateral of %d" % i for i in range(2)]
WORK_RECORDS = 30
EPOCHS = 3


def answers() -> Answers:
    """What `gpupool init` is told."""
    return Answers(
        network=POOL.network,
        pool=f"0:{POOL.account.hex()}",
        policy_file="policy.toml",
        liteservers=[("127.0.0.1", 4924, "hyHNnrPKZZSDpEw1IqKwbe28T1OFoFGjRDjJ8yTXPuE=")],
        work={"engine": {"url": "http://127.0.0.1:8000/metrics"}},
        attestation={"provider": "software", "software_dir": "platform", "software_root_file": "root.der"},
    )


def own_config(folder: Path) -> Config:
    """The config of the agent whose key is `KEY`, and its journal, empty."""
    folder.mkdir()
    key_file = folder / "node.key"
    key_file.touch(mode=0o600)
    key_file.write_bytes(
        Ed25519PrivateKey.from_private_bytes(KEY.seed).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return init_agent(folder, answers()).config


def window(number: int) -> bytes:
    return encode_pending(WorkWindow(start_s=number, end_s=number + 1, readings=()))


def attest_evidence(author: Author, collateral: bytes, **changes: object) -> None:
    """Have the author's next record name this collateral."""
    body = replace(evidence(), collateral_digest=hashlib.sha256(collateral).digest(), **changes)
    author.evidence_hash = author.append(body).hash


def settle_at_heads(authors: list[Author], epoch: int, base: Base) -> Settlement:
    """The settlement of an epoch in which all records so far count."""
    logs = log_book(len(authors))
    for author in authors:
        fill(logs, author.records)
        reading = base.reading(key(author.i).public)
        logs.rebase(key(author.i).public, reading.head, reading.work_end_s)
    cut = {
        key(author.i).public: CutPoint(head=author.head, dead=False, witnessed_s=100 * epoch, worker_tokens=0)
        for author in authors
    }
    return tally(frame(len(authors), epoch), base, cut, logs, verdict)


def fill_journal(journal: Journal) -> list[Author]:
    """Write records, attachments, messages, settlements, witness, meter and windows; returns the logs' authors."""
    authors = [Author(0), Author(1)]
    journal.begin_run(b"r" * 16, 1, b"p" * 16, "0.1.0")
    for author, collateral in zip(authors, COLLATERAL, strict=True):
        journal.keep_attachment(hashlib.sha256(collateral).digest(), collateral)
        attest_evidence(author, collateral)
    base = Base()
    for epoch in range(1, EPOCHS + 1):
        for author in authors:
            for _ in range(WORK_RECORDS // EPOCHS):
                author.work()
        settlement = settle_at_heads(authors, epoch, base)
        journal.keep_messages(epoch, close_messages(epoch), settlement)
        _append(journal, authors)
        journal.keep_landed(settlement)
        base = settlement.base()
    for author in authors:
        author.work()
    _append(journal, authors)
    journal.keep_messages(EPOCHS + 1, (), settle_at_heads(authors, EPOCHS + 1, base))
    journal.keep_witness({key(i).public: 300 + i for i in range(2)})
    journal.keep_meter("engine", encode_state(MeterState(start_s=1, cursor_s=2)), [window(1), window(2)])
    return authors


def _append(journal: Journal, authors: list[Author]) -> None:
    head = journal.own_head()
    for record in authors[0].records[head.seq if head is not None else 0 :]:
        journal.append_own(record)
    journal.append(authors[1].records)


def close_messages(epoch: int) -> tuple[object, ...]:
    observation = make_observation(
        KEY,
        POOL,
        epoch=epoch,
        set_id=1,
        policy_hash=bytes(32),
        base=bytes(32),
        logs={KEY.public: ObservedLog(head=GENESIS, witnessed_s=0, worker_tokens=0)},
        forks=(),
    )
    listed = (ListedObservation(index=0, digest=observation.digest),)
    proposal = make_proposal(KEY, POOL, epoch=epoch, view=0, set_id=1, listed=listed, cert_hash=bytes(32))
    attests = [make_attest(key(i), POOL, epoch=epoch, cert_hash=bytes(32)) for i in range(2)]
    return (observation, proposal, *attests)


def written_journal(path: Path) -> Path:
    """A journal at `path` with something in every table, closed."""
    create_journal(path, **OWN)
    with closing(open_journal(path, **OWN)) as journal:
        fill_journal(journal)
    return path


def contents(path: Path) -> dict[str, object]:
    """All that the journal at `path` answers."""
    with closing(open_journal(path, **OWN)) as journal:
        return {
            "records": list(journal.all_records()),
            "messages": [journal.messages(epoch) for epoch in range(1, EPOCHS + 2)],
            "landed": journal.last_landed(),
            "outcomes": journal.outcomes(),
            "attachments": [journal.attachment(hashlib.sha256(each).digest()) for each in COLLATERAL],
            "witness": journal.witness(),
            "meter": journal.meter("engine"),
            "window": journal.next_window(),
            "waiting": journal.windows_waiting(),
        }
