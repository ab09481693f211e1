"""An auditor of a finished dev network: recomputes every settlement from the agents' journals.

It trusts no agent: it takes the records, observations and proposals that they kept, verifies each signature,
computes each epoch's settlement anew from the base before it, and says which payload hash follows.

Pots stand on chain only, and the chain is gone by then: they are taken from the report that is audited, so a
wrong pot there shows as a settlement that cannot be recomputed, or as books that do not add up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from agent.config import Config, load_config
from agent.identity import load_key
from agent.journal_file import connect_reading
from agent.policies import load_policies
from agent.verdicts import approval_of
from attestation.collateral import Collateral
from attestation.evidence import Attachments, Evidence, appraise_evidence
from attestation.policy import AttestationPolicy
from contracts import layout
from contracts.devchain.cocoon_worker import stand_in_init
from contracts.model import Address, Operator, OperatorSet, Participant, ParticipantStatus
from contracts.wallet import wallet_address
from gossip.coverage import Approval, Verdict
from gossip.epoch_events import Message
from gossip.errors import DataUnavailableError, InvalidMessageError
from gossip.log_chain import LogBook, Placement
from gossip.messages import Observation, Proposal
from gossip.policy import WINDOW_S_MAX, PoolPolicy
from gossip.records import EvidenceBody, PoolId, Record, parse_record, verify_record
from gossip.settlement import Base, Settlement
from gossip.tally import EpochFrame, settle
from gossip.wire import parse_message

LATE_S = 1 << 40


def audit(directory: Path, report: dict[str, Any]) -> list[str]:
    """Payload hashes (hex) of all settled epochs, recomputed in order; what went wrong ends the list in words."""
    auditor = Auditor(directory)
    auditor.read()
    assert not auditor.forked
    hashes: list[str] = []
    for books, landed in zip(report["books"]["epochs"], report["settlements"], strict=True):
        try:
            auditor.follow(landed["epoch"], bytes.fromhex(landed["payload_hash"]), books)
        except AuditError as error:
            return [*hashes, f"epoch {landed['epoch']}: {error}"]
        hashes.append(landed["payload_hash"])
    return hashes


class AuditError(Exception):
    """What landed is not what follows from the journals."""


class Auditor:
    """Recomputes epoch after epoch; what it read stays, so that the journals may forget it meanwhile."""

    def __init__(self, directory: Path) -> None:
        self.configs = [load_config(path) for path in sorted(directory.glob("agent-*/agent.toml"))]
        self._policy, table = load_policies(self.configs[0]).in_force, self.configs[0].pool
        self.pool = PoolId(table.global_id, table.contract.account)
        self.participants = _participants(self.configs, self.pool)
        self._root = (directory / "tdx-root" / "root.der").read_bytes()
        self._wires: set[bytes] = set()
        self.records: dict[bytes, dict[int, Record]] = {}
        """All that was ever read, by node key and number; of a fork, the first that was read."""
        self.forked: set[bytes] = set()
        """Node keys that signed two records of one number."""
        self._messages: dict[int, set[tuple[str, bytes]]] = {}
        self._attachments: dict[bytes, bytes] = {}
        self.logs = LogBook(window_max_s=WINDOW_S_MAX)
        self.logs.open(p.node_key for p in self.participants)
        self.base = Base()

    def read(self) -> None:
        """Take in what the journals hold now, also while their agents run.

        Raises:
            AuditError: a record lacks its predecessor.
        """
        wires: set[bytes] = set()
        for config in self.configs:
            with closing(connect_reading(config.journal_file)) as journal:
                wires.update(wire for (wire,) in journal.execute("SELECT wire FROM record"))
                for epoch, kind, wire in journal.execute("SELECT epoch, kind, wire FROM message"):
                    self._messages.setdefault(epoch, set()).add((kind, wire))
                self._attachments.update(journal.execute("SELECT digest, body FROM attachments"))
        new = wires - self._wires
        self._wires |= new
        for record in sorted((verify_record(parse_record(wire, self.pool)) for wire in new), key=lambda r: r.seq):
            if self.records.setdefault(record.node_key, {}).setdefault(record.seq, record) is not record:
                self.forked.add(record.node_key)
            if self.logs.insert(record, now_s=LATE_S) in (Placement.GAP, Placement.EARLY):
                raise AuditError(f"record {record.seq} of {record.node_key.hex()[:16]} lacks the one before it")

    def observations(self, epoch: int) -> list[Observation]:
        """All observations of an epoch that were read; their signatures hold."""
        return [message for message in self._parsed(epoch) if isinstance(message, Observation)]

    def follow(self, epoch: int, payload_hash: bytes, books: Mapping[str, Any]) -> Settlement:
        """Recompute the next epoch, which is the base from then on.

        Raises:
            AuditError: something else landed, or its books say something else.
        """
        frame = EpochFrame(
            epoch=epoch,
            start_s=-1,  # when it was decides nothing under a dev network's policy
            end_s=0,
            pot_nanoton=books["pot_nanoton"],
            operators=OperatorSet(
                set_id=1, operators=tuple(Operator(node_key=p.node_key, weight=1) for p in self.participants)
            ),
            policy=self._policy,
            participants=self.participants,
        )
        verdict = _appraiser(self._attachments, self.pool, self._root)
        outcomes = _outcomes(self._parsed(epoch), frame, self.base, self.logs, verdict)
        settlement = outcomes.get(payload_hash)
        if settlement is None:
            raise AuditError(f"none of {sorted(each.hex() for each in outcomes)} landed")
        fault = _fault(books, self.base, settlement)
        if fault is not None:
            raise AuditError(fault)
        self.base = settlement.base()
        for node_key, reading in self.base.readings.items():
            self.logs.rebase(node_key, reading.head, reading.work_end_s)
        return settlement

    def _parsed(self, epoch: int) -> list[Message]:
        # Parsing checks the signature.
        return [parse_message(kind, wire, self.pool) for kind, wire in self._messages.get(epoch, ())]


def _outcomes(
    messages: Sequence[Message], frame: EpochFrame, base: Base, logs: LogBook, verdict: Verdict
) -> dict[bytes, Settlement]:
    """What follows from each proposal that some agent kept, by payload hash."""
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
        outcomes[settlement.payload_hash] = settlement
    return outcomes


def _fault(books: Mapping[str, Any], base: Base, settlement: Settlement) -> str | None:
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

    def wallet_of(path: Path) -> Address:
        return wallet_address(load_key(path).public, "v5r1", global_id=pool.network)

    proxy = configs[0].path.parents[1] / "proxy.key"
    found = [
        Participant(
            address=wallet_of(config.resolve("wallet.key")),
            worker=_worker(wallet_of(config.resolve("wallet.key")), proxy, wallet_of) if proxy.exists() else None,
            node_key=load_key(config.resolve("node.key")).public,
            stake_nanoton=0,
            status=ParticipantStatus.ACTIVE,
            reputation=500,
            joined_s=0,
        )
        for config in configs
    ]
    return tuple(sorted(found, key=lambda p: p.address))


def _worker(owner: Address, proxy: Path, wallet_of: Callable[[Path], Address]) -> Address:
    """The contract of an owner's Cocoon worker with the one proxy that a dev network has."""
    init = stand_in_init(owner=owner, proxy=wallet_of(proxy), proxy_public_key=load_key(proxy).public)
    return layout.address_of(init)


def _appraiser(held: Mapping[bytes, bytes], pool: PoolId, root: bytes) -> Verdict:
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
        return approval_of(appraisal)

    return verdict
