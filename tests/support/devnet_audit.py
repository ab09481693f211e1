"""An auditor of a finished dev network: recomputes every settlement from the agents' journals.

It trusts no agent: it takes the records, observations and proposals that they kept, verifies each signature,
computes each epoch's settlement anew from the base before it, and says which payload hash follows.

Pots stand on chain only, and the chain is gone by then: they are taken from the report that is audited, so a
wrong pot there shows as a settlement that cannot be recomputed, or as books that do not add up.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent.config import Config, load_config
from agent.identity import load_key
from agent.policies import load_policies
from attestation.collateral import Collateral
from attestation.evidence import Attachments, Evidence, appraise_evidence
from attestation.policy import AttestationPolicy
from contracts.model import Operator, OperatorSet, Participant, ParticipantStatus
from contracts.wallet import wallet_address
from gossip.coverage import Approval, Verdict
from gossip.errors import DataUnavailableError, InvalidMessageError
from gossip.log_chain import LogBook, Placement
from gossip.messages import Observation, Proposal
from gossip.policy import WINDOW_S_MAX, PoolPolicy
from gossip.records import EvidenceBody, PoolId, parse_record, verify_record
from gossip.settlement import Base, Settlement
from gossip.tally import EpochFrame, settle
from gossip.wire import parse_message

LATE_S = 1 << 40


def audit(directory: Path, report: dict[str, Any]) -> list[str]:
    """Payload hashes (hex) of all settled epochs, recomputed in order; what went wrong ends the list in words."""
    configs = [load_config(path) for path in sorted(directory.glob("agent-*/agent.toml"))]
    policy, table = load_policies(configs[0]).in_force, configs[0].pool
    pool = PoolId(table.global_id, table.contract.account)
    participants = _participants(configs, pool)
    journals = [sqlite3.connect(config.journal_file) for config in configs]
    verdict = _appraiser(journals, pool, (directory / "tdx-root" / "root.der").read_bytes())
    logs = LogBook(window_max_s=WINDOW_S_MAX)
    logs.open(p.node_key for p in participants)
    rows = {row for journal in journals for row in journal.execute("SELECT wire FROM record")}
    for record in sorted((verify_record(parse_record(wire, pool)) for (wire,) in rows), key=lambda r: r.seq):
        assert logs.insert(record, now_s=LATE_S) in (Placement.EXTENDED, Placement.KNOWN)
    base = Base()
    hashes: list[str] = []
    for books, landed in zip(report["books"]["epochs"], report["settlements"], strict=True):
        frame = EpochFrame(
            epoch=landed["epoch"],
            end_s=0,
            pot_nanoton=books["pot_nanoton"],
            operators=OperatorSet(
                set_id=1, operators=tuple(Operator(node_key=p.node_key, weight=1) for p in participants)
            ),
            policy=policy,
            participants=participants,
        )
        outcomes = _outcomes(journals, frame, base, logs, verdict, pool)
        settlement = outcomes.get(landed["payload_hash"])
        if settlement is None:
            return [*hashes, f"epoch {landed['epoch']}: none of {sorted(outcomes)} landed"]
        fault = _fault(books, base, settlement)
        if fault is not None:
            return [*hashes, f"epoch {landed['epoch']}: {fault}"]
        hashes.append(landed["payload_hash"])
        base = settlement.base()
        for node_key, reading in base.readings.items():
            logs.rebase(node_key, reading.head, reading.work_end_s)
    return hashes


def _outcomes(
    journals: Sequence[sqlite3.Connection],
    frame: EpochFrame,
    base: Base,
    logs: LogBook,
    verdict: Verdict,
    pool: PoolId,
) -> dict[str, Settlement]:
    """What follows from each proposal that some agent kept, by payload hash (hex)."""
    question = "SELECT kind, wire FROM message WHERE epoch = ?"
    wires = {row for journal in journals for row in journal.execute(question, (frame.epoch,))}
    messages = [parse_message(kind, wire, pool) for kind, wire in wires]  # raises unless the signatures hold
    observations = {message.digest: message for message in messages if isinstance(message, Observation)}
    operators = {operator.node_key for operator in frame.operators.operators}
    outcomes = {}
    for proposal in (message for message in messages if isinstance(message, Proposal)):
        listed = [observations.get(item.digest) for item in proposal.listed]
        known = [each for each in listed if each is not None and each.operator in operators]
        if len(known) != len(listed) or not frame.operators.is_quorum(len({each.operator for each in known})):
            continue  # nobody could follow it
        try:
            settlement = settle(frame, base, known, logs, verdict)
        except (DataUnavailableError, InvalidMessageError):
            continue
        outcomes[settlement.payload_hash.hex()] = settlement
    return outcomes


def _fault(books: dict[str, Any], base: Base, settlement: Settlement) -> str | None:
    """What of an epoch's books disagrees with its settlement, or None."""
    before = sum(base.earned_nanoton.values())
    total = sum(leaf.earned_nanoton for leaf in settlement.leaves)
    if total != settlement.payload.total_earned_nanoton:
        return "the leaves do not sum up to the payload's total"
    if books["earned_nanoton"] != total - before:
        return "the books say other earnings than the settlement"
    if books["pot_nanoton"] != books["earned_nanoton"] + books["dust_nanoton"]:
        return "the pot is not what was earned and the dust"
    return None


def _participants(configs: Sequence[Config], pool: PoolId) -> tuple[Participant, ...]:
    """The registry as the dev network made it: everybody with the same stake, operators of weight 1."""
    found = [
        Participant(
            address=wallet_address(load_key(config.resolve("wallet.key")).public, "v5r1", global_id=pool.network),
            node_key=load_key(config.resolve("node.key")).public,
            stake_nanoton=0,
            status=ParticipantStatus.ACTIVE,
            reputation=500,
            joined_s=0,
        )
        for config in configs
    ]
    return tuple(sorted(found, key=lambda p: p.address))


def _appraiser(journals: Sequence[sqlite3.Connection], pool: PoolId, root: bytes) -> Verdict:
    held = {d: b for journal in journals for d, b in journal.execute("SELECT digest, body FROM attachments")}

    def verdict(policy: PoolPolicy, node_key: bytes, body: EvidenceBody) -> Approval | None:
        evidence = Evidence(
            quote=body.quote,
            collateral_digest=body.collateral_digest,
            gpu_digest=body.gpu_digest,
            handshake_digest=body.handshake_digest,
            anchor_seqno=body.anchor_seqno,
            anchor_root_hash=body.anchor_root_hash,
            anchor_time_s=body.anchor_time_s,
        )
        appraisal = appraise_evidence(
            evidence,
            Attachments(collateral=Collateral.from_json(held[body.collateral_digest])),
            AttestationPolicy.from_mapping(policy.attestation),
            network=pool.network,
            pool=pool.account,
            node_key=node_key,
            root=root,
        )
        return Approval(from_s=appraisal.valid_from_s, until_s=appraisal.valid_until_s, machine=appraisal.machine)

    return verdict
