"""A pool that settled some epochs, and the journal of one agent of it: to be audited.

What the contracts hold is written into a hand-made chain; all else is real: records, observations, evidence of software
platforms, the tally.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import contract_states
import trio
from handmade_chain import HandmadeChain
from pool_fixture import POOL, POT_NANOTON, START_S, Author, key, operator_set, participant
from pytoniq_core import Cell

from agent.audit.bundle import Bundle
from agent.audit.exporting import Exporter
from agent.devnet.layout import write_policy
from agent.journal import Journal, create_journal, open_journal
from agent.policies import Policies
from agent.verdicts import Verdicts, anchor_of
from attestation.binding import report_data
from attestation.providers.software import SoftwarePlatform, SoftwareRoot
from contracts import certificate
from contracts.chain import Block, TransactionSummary
from contracts.layout.storage import POOL as POOL_STORAGE
from contracts.layout.storage import REGISTRY as REGISTRY_STORAGE
from contracts.layout.storage import REWARDS as REWARDS_STORAGE
from contracts.model import Address, CertificateDomain, Landed, Leaf, OpenEpoch, Participant, RegistryState, Signature
from contracts.opcodes import Op
from gossip.epoch_events import Message
from gossip.log_chain import LogBook
from gossip.messages import ListedObservation, Observation, ObservedLog, make_attest, make_observation, make_proposal
from gossip.policy import WINDOW_S_MAX, parse_policy
from gossip.records import EvidenceBody, Record
from gossip.round import Round
from gossip.settlement import Base, Settlement, totals_root
from gossip.tally import EpochFrame, settle

POOL_ADDRESS = Address(0, POOL.account)
KEY = key(0)
LATE_S = 1 << 40
FINALIZED_AFTER_S, SETTLED_AFTER_S = 3, 20


class AuditScene:
    """`n` participants, all of them operators, who work `windows` windows in each epoch; key 0's journal is kept.

    `landing` may replace what settles: a pool whose operators all lie.
    """

    def __init__(
        self,
        directory: Path,
        n: int = 4,
        *,
        windows: int = 3,
        window_s: int = 10,
        epoch_s: int = 100,
        landing: Callable[[Settlement], Settlement] = lambda settlement: settlement,
    ) -> None:
        self.n, self.windows, self.window_s, self.epoch_s = n, windows, window_s, epoch_s
        self.directory = directory
        self._landing = landing
        self.text = write_policy(directory / "policy.toml", epoch_s, n)
        self.policy = parse_policy(self.text)
        root = SoftwareRoot.create(directory / "root", now_s=START_S)
        self.root = root.certificate
        self.machines = [SoftwarePlatform.create(directory / f"machine-{i}", root=root) for i in range(n)]
        self.chain = HandmadeChain()
        self.journal_file = directory / "journal.sqlite"
        create_journal(self.journal_file, node_key=KEY.public, pool=POOL)
        self.authors = [Author(i) for i in range(n)]
        self.participants = tuple(sorted((participant(i) for i in range(n)), key=lambda p: p.address))
        self.base = Base()
        self.landed = contract_states.nothing_landed()
        self.logs = LogBook(window_max_s=WINDOW_S_MAX)
        self.logs.open(p.node_key for p in self.participants)
        self.write_contracts(())
        self.chain.seal(START_S - 20)
        self.anchor = self.chain.seal(START_S - 10)
        self.chain.seal(START_S)
        trio.run(self._prove)

    async def _prove(self) -> None:
        """Everybody's first record is evidence of its own machine."""
        with closing(self.journal()) as journal:
            for author, machine in zip(self.authors, self.machines, strict=True):
                record = author.append(await self.evidence(author.i, machine, self.anchor))
                author.evidence_hash = record.hash
                journal.append([record])
                self.logs.insert(record, now_s=LATE_S)
            collateral = await self.machines[0].collateral(b"", START_S)
            journal.keep_attachment(collateral.digest, collateral.to_json())

    async def evidence(self, i: int, machine: SoftwarePlatform, anchor: Block) -> EvidenceBody:
        challenge = report_data(POOL.network, POOL.account, key(i).public, anchor.root_hash)
        quote = (await machine.quote(challenge)).quote
        return EvidenceBody(
            quote=quote,
            collateral_digest=(await machine.collateral(quote, START_S)).digest,
            gpu_digest=None,
            handshake_digest=None,
            anchor_seqno=anchor.seqno,
            anchor_root_hash=anchor.root_hash,
            anchor_time_s=anchor.time_s,
        )

    def add(self, record: Record) -> None:
        """Have everybody hold this record."""
        with closing(self.journal()) as journal:
            journal.append([record])
        self.logs.insert(record, now_s=LATE_S)

    def journal(self) -> Journal:
        return open_journal(self.journal_file, node_key=KEY.public, pool=POOL)

    # An epoch.

    def run(self, epochs: int = 1) -> None:
        for _ in range(epochs):
            self._work()
            self._settle()

    def _work(self) -> None:
        with closing(self.journal()) as journal:
            for author in self.authors:
                author.end_s = max(author.end_s, START_S + self.epoch_s * self.base.epoch)
                made = [author.work(self.window_s, tokens=100 * (author.i + 1)) for _ in range(self.windows)]
                journal.append(made)
                for record in made:
                    self.logs.insert(record, now_s=LATE_S)

    def _settle(self) -> None:
        """Close the epoch on chain and in the journal, as operators do."""
        epoch = self.base.epoch + 1
        end_s = START_S + self.epoch_s * epoch
        self.chain.seal(end_s - 5)
        opened = contract_states.open_epoch(
            epoch,
            start_s=end_s - self.epoch_s,
            end_s=end_s,
            finalized_s=end_s + FINALIZED_AFTER_S,
            pot_nanoton=POT_NANOTON,
            policy_hash=self.policy.hash,
        )
        self.write_contracts((opened,))
        for after_s in (5, 10, 15):
            self.chain.seal(end_s + after_s)
        frame = self._frame(opened)
        observations = [self._observation(i, epoch) for i in range(self.n)]
        with closing(self.journal()) as journal:
            verdicts = Verdicts(POOL, Policies(self.policy), self.root, journal)
            trio.run(self._look_up_anchors, verdicts)
            landing = self._landing(settle(frame, self.base, observations, self.logs, verdicts.verdict))
            journal.keep_messages(epoch, self._messages(frame, observations, landing), landing)
            journal.keep_landed(landing)
        self._land(landing, end_s + SETTLED_AFTER_S)
        for node_key, reading in landing.readings.items():
            self.logs.rebase(node_key, reading.head, reading.work_end_s)
        self.base = landing.base()

    async def _look_up_anchors(self, verdicts: Verdicts) -> None:
        for record in (record for author in self.authors for record in author.records):
            if isinstance(record.body, EvidenceBody):
                await verdicts.anchors.confirm(self.chain, anchor_of(record.body))

    def _frame(self, opened: OpenEpoch) -> EpochFrame:
        return EpochFrame(
            epoch=opened.epoch,
            start_s=opened.start_s,
            end_s=opened.end_s,
            pot_nanoton=opened.pot_nanoton,
            operators=operator_set(self.n),
            policy=self.policy,
            participants=self.participants,
        )

    def _observation(self, i: int, epoch: int) -> Observation:
        return make_observation(
            key(i),
            POOL,
            epoch=epoch,
            set_id=1,
            policy_hash=self.policy.hash,
            base=self.base.payload_hash,
            logs={
                key(k).public: ObservedLog(
                    head=self.logs[key(k).public].head, witnessed_s=self.epoch_s * epoch, worker_tokens=None
                )
                for k in range(self.n)
            },
            forks=self.logs.forks(),
        )

    def _messages(self, frame: EpochFrame, observations: list[Observation], landing: Settlement) -> list[Message]:
        leader = Round(frame, POOL, observe_s=0).leader_of(0)
        hashed = self._certificate(landing).hash
        proposal = make_proposal(
            key(leader),
            POOL,
            epoch=frame.epoch,
            view=0,
            set_id=1,
            listed=tuple(ListedObservation(index=i, digest=each.digest) for i, each in enumerate(observations)),
            cert_hash=hashed,
        )
        return [*observations, proposal, make_attest(KEY, POOL, epoch=frame.epoch, cert_hash=hashed)]

    @staticmethod
    def _certificate(landing: Settlement) -> Cell:
        domain = CertificateDomain(global_id=POOL.network, pool=POOL_ADDRESS, set_id=1)
        return certificate.settle_certificate(domain, landing.payload)

    # The chain.

    def _land(self, landing: Settlement, time_s: int) -> None:
        self.landed = Landed(
            epoch=landing.payload.epoch,
            payload_hash=landing.payload_hash,
            totals_root=landing.payload.totals_root,
            previous_root=self.landed.totals_root,
            total_earned_nanoton=landing.payload.total_earned_nanoton,
            settled_s=time_s,
        )
        signed = self._certificate(landing)
        signatures = [Signature(index=i, signature=key(i).sign(signed.hash)) for i in range(self.n)]
        self.chain.sent.append(
            TransactionSummary(
                hash=landing.payload_hash,
                lt=landing.payload.epoch,
                now_s=time_s,
                exit_code=0,
                action_code=0,
                in_op=Op.POOL_SUBMIT_CERTIFICATE,
                in_body=certificate.submit_body(signed, signatures),
                source=None,
                aborted=False,
            )
        )
        self.write_contracts(())
        self.chain.seal(time_s)
        self.chain.seal(time_s + 5)

    def write_contracts(self, opened: tuple[OpenEpoch, ...]) -> None:
        running = self.landed.epoch + 1 + len(opened)
        rewards = contract_states.rewards_state(
            POOL_ADDRESS,
            start_s=START_S + self.epoch_s * (running - 1),
            end_s=START_S + self.epoch_s * running,
            current_epoch=running,
            open_epochs=opened,
            open_pots_nanoton=sum(each.pot_nanoton for each in opened),
            landed=self.landed,
            running=contract_states.pinned(1, self.policy.hash),
            next=contract_states.pinned(1, self.policy.hash),
        )
        pool = contract_states.pool_state(policy_hash=self.policy.hash, operator_set=operator_set(self.n))
        self.chain.put(POOL_ADDRESS, "pool_operator", POOL_STORAGE.cell(pool))
        self.chain.put(contract_states.REWARDS, "reward_distribution", REWARDS_STORAGE.cell(rewards))
        self.chain.put(
            contract_states.REGISTRY, "participant_registry", REGISTRY_STORAGE.cell(registry_of(self.participants))
        )

    # The bundle.

    async def export(self, epoch: int) -> Bundle:
        with closing(self.journal()) as journal:
            exporter = Exporter(self.chain, journal, POOL, [self.text], self.root)
            return (await exporter.export(epoch)).bundle


def registry_of(participants: tuple[Participant, ...]) -> RegistryState:
    return RegistryState(
        pool=POOL_ADDRESS,
        rewards=None,
        rules=None,
        paused_until_s=0,
        count=len(participants),
        active_count=len(participants),
        total_stake_nanoton=sum(p.stake_nanoton for p in participants),
        total_pending_nanoton=0,
        slashed_nanoton=0,
        counters_seqno=0,
        roots={},
        participants=participants,
    )


def inflated(settlement: Settlement) -> Settlement:
    """What lying operators would let land: the first leaf has another's earnings, too."""
    first, second, *others = settlement.leaves
    leaves = (
        replace(first, earned_nanoton=first.earned_nanoton + second.earned_nanoton, tokens=first.tokens + 1),
        replace(second, earned_nanoton=0),
        *others,
    )
    return relanded(settlement, leaves)


def relanded(settlement: Settlement, leaves: tuple[Leaf, ...]) -> Settlement:
    """The same with other leaves, as consistent as what lands."""
    payload = replace(
        settlement.payload,
        totals_root=totals_root(leaves),
        tokens=sum(leaf.tokens for leaf in leaves),
        total_earned_nanoton=sum(leaf.earned_nanoton for leaf in leaves),
    )
    return Settlement(payload=payload, leaves=leaves, readings=settlement.readings)
