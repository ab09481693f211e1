"""A pool in TON's emulator: the contracts as shipped, driven through `contracts.layout` alone.

`Scene` sends messages, follows all that they cause, and after each one checks what must hold always
(`scene_books`): every nanoTON is accounted for, and no contract owes more than it has.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pytoniq_core import Cell

from contracts import certificate, fees, layout, proof
from contracts.commands import AcceptSet, Command, ProposeSet, Target
from contracts.devchain.accounts import AppliedTransaction
from contracts.devchain.network import DEVNET_GLOBAL_ID
from contracts.model import (
    NANO,
    Address,
    CertificateDomain,
    EpochTerms,
    Leaf,
    Operator,
    OperatorSet,
    Participant,
    PoolParams,
    PoolState,
    RegistryState,
    RewardsState,
    SettlePayload,
    Signature,
    StakeRules,
)
from contracts.opcodes import Refusal, describe_exit
from contracts.signing import SigningKey
from tests.contracts import scene_books
from tests.contracts.emulation import new_ledger

START_S = 1_800_000_000
DURATION_S = 3600
POLICY = hashlib.sha256(b"policy").digest()
STAKE = 100 * NANO
TERMS = EpochTerms(fee_bps=500, policy_hash=POLICY, max_refund_nanoton=NANO // 2, auto_distribute=True)
PARAMS = PoolParams(terms=TERMS, rules=StakeRules(min_stake_nanoton=STAKE))
_REFUSALS = frozenset(Refusal)


def account(name: str) -> Address:
    """A wallet that only this test knows; the emulator lets it send without a key."""
    return Address(0, hashlib.sha256(name.encode()).digest())


OWNER, ANYONE, GUARDIAN = account("owner"), account("anyone"), account("guardian")
PARTICIPANTS = tuple(account(f"participant {i}") for i in range(10))


def operator_keys(count: int, *, set_id: int = 1) -> list[SigningKey]:
    salt = "operator" if set_id == 1 else f"operator of {set_id}"
    return [SigningKey(hashlib.sha256(f"{salt} {i}".encode()).digest()) for i in range(count)]


def node_key(owner: Address) -> SigningKey:
    """The node key with which `Scene.register` registers this owner."""
    return SigningKey(hashlib.sha256(owner.account).digest())


@dataclass
class Sent:
    """What one message from outside caused: its transactions in order, what it moved and logged."""

    transactions: list[AppliedTransaction]
    events: list[layout.Body] = field(default_factory=list)

    @property
    def refusal(self) -> Refusal | None:
        """The refusal of the first transaction that refused; None if every one went well.

        Raises:
            AssertionError: TVM stopped, or an action failed: the contracts have no such refusal.
        """
        for transaction in self.transactions:
            if transaction.exit_code in _REFUSALS:
                return Refusal(transaction.exit_code)
            if transaction.exit_code not in (None, 0):
                raise AssertionError(f"compute phase failed with {describe_exit(transaction.exit_code)}")
            if transaction.action_code not in (None, 0):
                raise AssertionError(f"action phase failed with {transaction.action_code}")
        return None

    def at(self, address: Address) -> AppliedTransaction:
        """The first transaction of this account."""
        return next(t for t in self.transactions if t.address == address)

    def received(self, address: Address) -> int:
        """nanoTON that came to `address` out of this."""
        return sum(out.value_nanoton for t in self.transactions for out in t.out_messages if out.dest == address)


class Scene:
    """One pool with its children, in its own ledger."""

    def __init__(self) -> None:
        self.ledger = new_ledger(START_S)
        self.init = layout.pool_state_init(OWNER, 7, DURATION_S)
        self.pool = layout.address_of(self.init)
        self.keys_of: dict[int, list[SigningKey]] = {}
        self.books = scene_books.Books()
        self._children: PoolState | None = None

    # ---- sending ----

    def send(self, source: Address, dest: Address, value: int, body: Cell, *, state_init: Cell | None = None) -> Sent:
        """Deliver a message that `source` sends, and check the books after it."""
        transactions = self.ledger.send_internal(source, dest, value, body, state_init=state_init)
        sent = Sent(transactions, self.books.record(value, transactions))
        self.check()
        return sent

    def deploy(self, params: PoolParams = PARAMS, **over: Any) -> Sent:
        """pool_init; `over` are `layout.init_body`'s (registration_open, cocoon_root, metadata)."""
        body = layout.init_body(params, **over)
        return self.send(OWNER, self.pool, fees.INIT_NANOTON, body, state_init=self.init)

    def register(self, owner: Address, *, value: int | None = None, key: SigningKey | None = None, **over: Any) -> Sent:
        """Register `owner` with a node key that proves to be its; `over` are `layout.register_body`'s."""
        key = key or node_key(owner)
        proven = certificate.prove_possession(key, global_id=DEVNET_GLOBAL_ID, pool=self.pool, owner=owner)
        fields = {"stake_nanoton": STAKE, "node_key": key.public, "signature": proven} | over
        value = fields["stake_nanoton"] + fees.REGISTRATION_NANOTON if value is None else value
        return self.send(owner, self.pool, value, layout.register_body(**fields))

    def to_registry(self, body: Cell, *, source: Address = ANYONE, value: int = fees.ENTRY_NANOTON) -> Sent:
        """Any of `layout`'s messages to the registry."""
        return self.send(source, self.registry, value, body)

    def increase_stake(self, owner: Address, amount: int, *, value: int | None = None) -> Sent:
        value = amount + fees.ENTRY_NANOTON if value is None else value
        return self.to_registry(layout.increase_stake_body(amount), source=owner, value=value)

    def request_withdrawal(self, owner: Address, amount: int) -> Sent:
        return self.to_registry(layout.request_withdrawal_body(amount), source=owner)

    def cancel_withdrawal(self, owner: Address) -> Sent:
        return self.to_registry(layout.cancel_withdrawal_body(), source=owner)

    def complete_withdrawal(self, owner: Address, *, source: Address = ANYONE) -> Sent:
        return self.to_registry(layout.complete_withdrawal_body(owner), source=source)

    def heartbeat(self, owner: Address) -> Sent:
        return self.to_registry(layout.heartbeat_body(), source=owner)

    def update_worker(self, owner: Address, worker: Address | None) -> Sent:
        return self.to_registry(layout.update_worker_body(worker), source=owner)

    def rotate_node_key(
        self,
        owner: Address,
        key: SigningKey,
        *,
        signature: bytes | None = None,
        source: Address | None = None,
        value: int = fees.ENTRY_NANOTON,
    ) -> Sent:
        """Replace the node key of `owner` by `key`, which proves to be its."""
        proven = certificate.prove_possession(key, global_id=DEVNET_GLOBAL_ID, pool=self.pool, owner=owner)
        body = layout.rotate_node_key_body(key.public, proven if signature is None else signature)
        return self.to_registry(body, source=source or owner, value=value)

    def sweep_slashed(self, owner: Address, *, source: Address = ANYONE) -> Sent:
        return self.to_registry(layout.sweep_slashed_body(owner), source=source)

    def update_contribution(self, owner: Address, epoch: int, tree: proof.TotalsTree) -> Sent:
        return self.to_registry(layout.update_contribution_body(owner, epoch, tree.prove(owner)), source=owner)

    def enable_quorum(self, operators: OperatorSet, *, source: Address = OWNER) -> Sent:
        value = fees.enable_quorum_nanoton(len(operators.operators))
        return self.send(source, self.pool, value, layout.enable_quorum_body(operators))

    def apply_params(self, *, source: Address = ANYONE, value: int = fees.APPLY_NANOTON) -> Sent:
        return self.send(source, self.pool, value, layout.apply_params_body())

    def apply_upgrade(self, code: Cell, *, source: Address = ANYONE, value: int = fees.APPLY_NANOTON) -> Sent:
        return self.send(source, self.pool, value, layout.apply_upgrade_body(code))

    def guardian_pause(self, *, source: Address = GUARDIAN, value: int = fees.APPLY_NANOTON) -> Sent:
        return self.send(source, self.pool, value, layout.guardian_pause_body())

    def pay(self, nanoton: int) -> Sent:
        return self.send(ANYONE, self.rewards, nanoton, layout.receive_payment_body())

    def finalize(self) -> Sent:
        return self.send(ANYONE, self.rewards, fees.FINALIZE_NANOTON, layout.finalize_body())

    def finish_epoch(self, nanoton: int = 100 * NANO) -> int:
        """Pay into the running epoch, let it end, finalize it; its pot."""
        self.pay(nanoton)
        self.ledger.advance(max(self.ledger.now, self.state().current_end_s))
        assert self.finalize().refusal is None
        return self.state().open_epochs[-1].pot_nanoton

    def claim(self, participant: Address, tree: proof.TotalsTree, *, source: Address | None = None) -> Sent:
        body = layout.claim_body(participant, tree.prove(participant))
        return self.send(source or participant, self.rewards, fees.CLAIM_NANOTON, body)

    def push(self, participants: Sequence[Address], tree: proof.TotalsTree, *, value: int | None = None) -> Sent:
        """Pay many at once, by anyone."""
        value = fees.push_nanoton(len(participants)) if value is None else value
        return self.send(ANYONE, self.rewards, value, layout.push_body(participants, tree.prove_many(participants)))

    # ---- commanding ----

    def owner_command(self, command: Command, *, source: Address = OWNER, value: int | None = None) -> Sent:
        value = fees.owner_command_nanoton(command) if value is None else value
        return self.send(source, self.pool, value, layout.owner_command_body(command))

    def command(
        self,
        command: Command,
        signers: Sequence[int] | None = None,
        *,
        set_id: int | None = None,
        valid_until_s: int = certificate.VALID_FOREVER_S,
        value: int | None = None,
    ) -> Sent:
        """Submit a certificate of this command, by the current set unless told, signed by all unless told."""
        domain = self.domain if set_id is None else replace(self.domain, set_id=set_id)
        cell = certificate.command_certificate(domain, command, valid_until_s=valid_until_s)
        count = len(self.keys_of[domain.set_id]) if signers is None else len(signers)
        value = fees.submit_nanoton(count, command) if value is None else value
        return self.submit(cell, signers, set_id=domain.set_id, value=value)

    def act(self, command: Command) -> Sent:
        """Command as whoever commands now: the owner, or after the hand-over the current set."""
        return self.owner_command(command) if self.pool_state().phase == 0 else self.command(command)

    def submit(
        self,
        cell: Cell,
        signers: Sequence[int] | None = None,
        *,
        set_id: int | None = None,
        value: int | None = None,
        signatures: Sequence[Signature] | None = None,
        source: Address = ANYONE,
    ) -> Sent:
        """Submit a certificate with the signatures of `signers` of a set (the current one, all, unless told)."""
        keys = self.keys_of[self.domain.set_id if set_id is None else set_id]
        indexes = range(len(keys)) if signers is None else signers
        if signatures is None:
            signatures = [Signature(index=i, signature=keys[i].sign(cell.hash)) for i in indexes]
        value = fees.submit_nanoton(len(signatures)) if value is None else value
        return self.send(source, self.pool, value, certificate.submit_body(cell, signatures))

    def hand_over(self, count: int = 4, *, weight: int = 1) -> OperatorSet:
        """Enable a quorum of `count` operators of equal weight whose keys this scene holds."""
        operators = self.new_set(1, count, weight=weight)
        assert self.enable_quorum(operators).refusal is None
        return operators

    def new_set(self, set_id: int, count: int = 4, *, weight: int = 1) -> OperatorSet:
        """An operator set whose keys this scene holds from now on; not yet in charge."""
        self.keys_of[set_id] = operator_keys(count, set_id=set_id)
        operators = tuple(Operator(node_key=key.public, weight=weight) for key in self.keys_of[set_id])
        return OperatorSet(set_id=set_id, operators=operators)

    def propose_set(self, operators: OperatorSet) -> Sent:
        return self.act(ProposeSet(gov_seqno=self.gov_seqno, set_hash=layout.operator_set_cell(operators).hash))

    def accept_set(self, operators: OperatorSet, signers: Sequence[int] | None = None) -> Sent:
        return self.command(AcceptSet(operator_set=operators), signers, set_id=operators.set_id)

    def rotate(self, count: int = 4) -> OperatorSet:
        """Put the next operator set in charge: propose, wait, accept."""
        operators = self.new_set(self.domain.set_id + 1, count)
        assert self.propose_set(operators).refusal is None
        self.advance(self.pool_state().params.parameter_delay_s)
        assert self.accept_set(operators).refusal is None
        return operators

    def settle(self, leaves: Sequence[Leaf], *, set_id: int | None = None, **over: Any) -> Sent:
        """Settle the oldest open epoch, by the set that is pinned to it unless told."""
        payload = self.payload(leaves, **over)
        self.books.know(leaves, payload)
        pinned = next((epoch.set_id for epoch in self.state().open_epochs), 0)
        return self.command(payload, set_id=set_id or pinned or None)

    def settle_shares(self, earned: Mapping[Address, int]) -> proof.TotalsTree:
        """Settle the oldest open epoch with these cumulative earnings; the tree to claim from."""
        leaves = [leaf(participant, amount) for participant, amount in earned.items()]
        assert self.settle(leaves).refusal is None
        return proof.totals_tree(leaves)

    # ---- making ----

    @property
    def domain(self) -> CertificateDomain:
        """Of the current operator set; of set 1 before the hand-over."""
        operators = self.pool_state().operator_set
        set_id = 1 if operators is None else operators.set_id
        return CertificateDomain(global_id=DEVNET_GLOBAL_ID, pool=self.pool, set_id=set_id)

    @property
    def gov_seqno(self) -> int:
        """That of the next command of the pool."""
        return self.pool_state().gov_seqno + 1

    def target(self, owner: Address) -> Target:
        """The entry of `owner`, for the next command about it."""
        entry = self.participant(owner)
        return Target(participant=owner, joined_s=entry.joined_s, seqno=entry.seqno + 1)

    def certificate(self, payload: SettlePayload) -> Cell:
        return certificate.settle_certificate(self.domain, payload)

    def payload(self, leaves: Sequence[Leaf], **over: Any) -> SettlePayload:
        """The payload that settles the oldest open epoch with these leaves."""
        state = self.state()
        payload = SettlePayload(
            epoch=state.landed.epoch + 1,
            prev=state.landed.payload_hash,
            totals_root=proof.totals_tree(leaves).root_hash,
            count=len(leaves),
            total_score=sum(leaf.score for leaf in leaves),
            total_earned_nanoton=sum(leaf.earned_nanoton for leaf in leaves),
            tasks=sum(leaf.tasks for leaf in leaves),
            tokens=sum(leaf.tokens for leaf in leaves),
            policy_hash=state.open_epochs[0].policy_hash if state.open_epochs else POLICY,
            cut_root=hashlib.sha256(b"cut").digest(),
        )
        return replace(payload, **over)

    # ---- reading ----

    @property
    def rewards(self) -> Address:
        return self._known().rewards

    @property
    def registry(self) -> Address:
        return self._known().registry

    def pool_state(self) -> PoolState:
        return layout.read_pool(self._data(self.pool))

    def state(self) -> RewardsState:
        return layout.read_rewards(self._data(self.rewards))

    def registry_state(self) -> RegistryState:
        return layout.read_registry(self._data(self.registry))

    def participant(self, owner: Address) -> Participant:
        return next(p for p in self.registry_state().participants if p.address == owner)

    def balance(self, address: Address) -> int:
        return self.ledger.account(address).balance_nanoton

    def get(self, address: Address, method: str, *args: object) -> list[Any]:
        exit_code, stack = self.ledger.get_method(address, method, list(args))
        if exit_code:
            raise AssertionError(f"{method}: {Refusal(exit_code).name}")
        return stack

    def advance(self, seconds: int) -> None:
        self.ledger.advance(self.ledger.now + seconds)

    def check(self) -> None:
        """What must hold after every message: see `scene_books`."""
        data = self.ledger.account(self.pool).data
        if data is not None and data.bits[:8].tobytes() != b"\0":
            scene_books.check(self)

    def _known(self) -> PoolState:
        """The pool's state as first read: where its children stand never changes."""
        self._children = self._children or self.pool_state()
        return self._children

    def _data(self, address: Address) -> Cell:
        data = self.ledger.account(address).data
        assert data is not None, f"{address} is not active"
        return data


def leaf(participant: Address, earned: int, *, score: int = 1000) -> Leaf:
    return Leaf(
        participant=participant,
        earned_nanoton=earned,
        score=score,
        tokens=5000,
        tasks=60,
        uptime_s=3600,
        quality=900,
        reputation=500,
    )
