"""An auditor of a finished dev network: recomputes every settlement from the agents' journals.

It trusts no agent: it takes the records, observations and proposals that they kept, computes each epoch's
settlement anew from the base before it, and says which payload hash follows.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from agent.config import load_config
from agent.daemon import load_policy
from agent.identity import load_key
from attestation.collateral import Collateral
from attestation.evidence import Evidence, appraise_evidence
from attestation.policy import AttestationPolicy
from contracts.model import Operator, OperatorSet, Participant, ParticipantStatus
from contracts.wallet import wallet_address
from gossip.errors import DataUnavailableError, InvalidMessageError
from gossip.log_chain import LogBook, Placement
from gossip.messages import Proposal
from gossip.records import EvidenceBody, PoolId, parse_record, verify_record
from gossip.settlement import Base
from gossip.tally import EpochFrame, settle
from gossip.wire import parse_message

LATE_S = 1 << 40


def audit(directory: Path, report: dict[str, Any]) -> list[str]:
    """Payload hashes (hex) of all settled epochs, recomputed in order."""
    configs = [load_config(path) for path in sorted(directory.glob("agent-*/agent.toml"))]
    policy, pool = load_policy(configs[0]), PoolId(configs[0].pool.global_id, configs[0].pool.contract.account)
    root = (directory / "tdx-root" / "root.der").read_bytes()
    participants = []
    for config in configs:
        wallet = load_key(config.resolve("wallet.key")).public
        participants.append(
            Participant(
                address=wallet_address(wallet, "v5r1", global_id=pool.network),
                node_key=load_key(config.resolve("node.key")).public,
                stake_nanoton=0,
                status=ParticipantStatus.ACTIVE,
                reputation=500,
                joined_s=0,
            )
        )
    participants.sort(key=lambda p: p.address)
    operators = OperatorSet(set_id=1, operators=tuple(Operator(node_key=p.node_key, weight=1) for p in participants))
    journals = [sqlite3.connect(config.journal_file) for config in configs]
    rows = {row for journal in journals for row in journal.execute("SELECT wire FROM record")}
    records = sorted((verify_record(parse_record(wire, pool)) for (wire,) in rows), key=lambda r: r.seq)
    collateral = {d: b for journal in journals for d, b in journal.execute("SELECT digest, body FROM collateral")}

    def verdict(node_key: bytes, body: EvidenceBody) -> tuple[int, int] | None:
        evidence = Evidence(
            quote=body.quote,
            gpu_report=body.gpu_report,
            collateral_digest=body.collateral_digest,
            anchor_seqno=body.anchor_seqno,
            anchor_root_hash=body.anchor_root_hash,
            anchor_time_s=body.anchor_time_s,
        )
        appraisal = appraise_evidence(
            evidence,
            Collateral.from_json(collateral[body.collateral_digest]),
            AttestationPolicy.from_mapping(policy.attestation),
            network=pool.network,
            pool=pool.account,
            node_key=node_key,
            root=root,
        )
        return appraisal.valid_from_s, appraisal.valid_until_s

    logs = LogBook(window_max_s=policy.work.window_max_s)
    logs.open(p.node_key for p in participants)
    for record in records:
        assert logs.insert(record, now_s=LATE_S) in (Placement.EXTENDED, Placement.KNOWN)
    base = Base()
    hashes = []
    for books in report["books"]["epochs"]:
        epoch = books["epoch"]
        frame = EpochFrame(
            epoch=epoch,
            end_s=0,
            pot_nanoton=books["pot_nanoton"],
            operators=operators,
            policy=policy,
            participants=tuple(participants),
        )
        wires = {row for j in journals for row in j.execute("SELECT kind, wire FROM message WHERE epoch = ?", (epoch,))}
        messages = [parse_message(kind, wire, pool) for kind, wire in wires]
        observations = {m.digest: m for m in messages if not isinstance(m, Proposal) and hasattr(m, "digest")}
        landed = next(each["payload_hash"] for each in report["settlements"] if each["epoch"] == epoch)
        outcomes = {}
        for proposal in (m for m in messages if isinstance(m, Proposal)):
            try:
                listed = [observations[item.digest] for item in proposal.listed]
                settlement = settle(frame, base, listed, logs, verdict)
            except (KeyError, DataUnavailableError, InvalidMessageError):
                continue  # a proposal that nobody could follow
            outcomes[settlement.payload_hash.hex()] = settlement
        hashes.append(landed if landed in outcomes else f"none of {sorted(outcomes)}")
        base = outcomes[landed].base()
        for node_key, reading in base.readings.items():
            logs.rebase(node_key, reading.head, reading.work_end_s)
    return hashes
