"""A pool in TON's emulator: the contracts as shipped, driven through `contracts.layout` alone.

`Scene` sends messages, follows all that they cause, and after each one checks what must hold always:
every nanoTON is accounted for, and no contract owes more than it has.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pytoniq_core import Cell

from contracts import certificate, fees, layout, proof
from contracts.devchain.accounts import AppliedTransaction
from contracts.devchain.ledger import Ledger
from contracts.devchain.network import DEVNET_GLOBAL_ID
from contracts.model import (
    NANO,
    Address,
    CertificateDomain,
    Leaf,
    Operator,
    OperatorSet,
    PoolParams,
    PoolState,
    RewardsState,
    SettlePayload,
    Signature,
)
from contracts.opcodes import Refusal
from contracts.signing import SigningKey

START_S = 1_800_000_000
DURATION_S = 3600
POLICY = hashlib.sha256(b"policy").digest()
STAKE = 100 * NANO
PARAMS = PoolParams(
    fee_bps=500,
    min_stake_nanoton=STAKE,
    max_participants=1000,
    registration_open=True,
    policy_hash=POLICY,
    max_refund_nanoton=NANO // 2,
)


def account(name: str) -> Address:
    """A wallet that only this test knows; the emulator lets it send without a key."""
    return Address(0, hashlib.sha256(name.encode()).digest())


OWNER, ANYONE = account("owner"), account("anyone")
PARTICIPANTS = tuple(account(f"participant {i}") for i in range(10))


def operator_keys(count: int) -> list[SigningKey]:
    return [SigningKey(hashlib.sha256(b"operator %d" % i).digest()) for i in range(count)]


@dataclass
class Sent:
    """What one message from outside caused: its transactions in order, and what it moved."""

    transactions: list[AppliedTransaction]

    @property
    def refusal(self) -> Refusal | None:
        """The refusal of the first transaction that refused; None if every one went well."""
        for transaction in self.transactions:
            if transaction.exit_code not in (None, 0):
                return Refusal(transaction.exit_code)
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
        self.ledger = Ledger(now=START_S)
        self.init = layout.pool_state_init(OWNER, 7, DURATION_S)
        self.pool = layout.address_of(self.init)
        self.keys: list[SigningKey] = []
        self.entered = 0
        self.burnt = 0
        self.checked: list[Address] = []

    # ---- sending ----

    def send(self, source: Address, dest: Address, value: int, body: Cell, *, state_init: Cell | None = None) -> Sent:
        """Deliver a message that `source` sends, and check the books after it."""
        sent = Sent(self.ledger.send_internal(source, dest, value, body, state_init=state_init))
        self.entered += value
        for transaction in sent.transactions:
            self.burnt += transaction.fees_nanoton + sum(out.fwd_fee_nanoton for out in transaction.out_messages)
            if transaction.address not in self.checked:
                self.checked.append(transaction.address)
        self.check()
        return sent

    def deploy(self, params: PoolParams = PARAMS) -> Sent:
        return self.send(OWNER, self.pool, fees.INIT_NANOTON, layout.init_body(params), state_init=self.init)

    def register(self, owner: Address, *, value: int | None = None, **over: object) -> Sent:
        fields: dict[str, object] = {"stake_nanoton": STAKE, "node_key": hashlib.sha256(owner.account).digest()}
        fields |= over
        stake = fields["stake_nanoton"]
        assert isinstance(stake, int)
        value = stake + fees.REGISTRATION_NANOTON if value is None else value
        return self.send(owner, self.pool, value, layout.register_body(**fields))

    def enable_quorum(self, operators: OperatorSet, *, source: Address = OWNER) -> Sent:
        value = fees.enable_quorum_nanoton(len(operators.operators))
        return self.send(source, self.pool, value, layout.enable_quorum_body(operators))

    def hand_over(self, count: int = 4, *, weight: int = 1) -> OperatorSet:
        """Enable a quorum of `count` operators of equal weight whose keys this scene holds."""
        self.keys = operator_keys(count)
        operators = OperatorSet(
            set_id=1, operators=tuple(Operator(node_key=key.public, weight=weight) for key in self.keys)
        )
        assert self.enable_quorum(operators).refusal is None
        return operators

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

    def submit(
        self,
        cell: Cell,
        signers: Sequence[int] | None = None,
        *,
        value: int | None = None,
        signatures: Sequence[Signature] | None = None,
    ) -> Sent:
        """Submit a certificate with the signatures of `signers` (all of them unless told)."""
        indexes = range(len(self.keys)) if signers is None else signers
        if signatures is None:
            signatures = [Signature(index=i, signature=self.keys[i].sign(cell.hash)) for i in indexes]
        value = fees.submit_nanoton(len(signatures)) if value is None else value
        return self.send(ANYONE, self.pool, value, certificate.submit_body(cell, signatures))

    def settle(self, leaves: Sequence[Leaf], **over: object) -> Sent:
        return self.submit(self.certificate(self.payload(leaves, **over)))

    def settle_shares(self, earned: Mapping[Address, int]) -> proof.TotalsTree:
        """Settle the oldest open epoch with these cumulative earnings; the tree to claim from."""
        leaves = [leaf(participant, amount) for participant, amount in earned.items()]
        assert self.settle(leaves).refusal is None
        return proof.totals_tree(leaves)

    def claim(self, participant: Address, tree: proof.TotalsTree, *, source: Address | None = None) -> Sent:
        body = layout.claim_body(participant, tree.prove(participant))
        return self.send(source or participant, self.rewards, fees.CLAIM_NANOTON, body)

    # ---- making ----

    @property
    def domain(self) -> CertificateDomain:
        return CertificateDomain(global_id=DEVNET_GLOBAL_ID, pool=self.pool, set_id=1)

    def certificate(self, payload: SettlePayload) -> Cell:
        return certificate.settle_certificate(self.domain, payload)

    def payload(self, leaves: Sequence[Leaf], **over: object) -> SettlePayload:
        """The payload that settles the oldest open epoch with these leaves."""
        landed = self.state().landed
        payload = SettlePayload(
            epoch=landed.epoch + 1,
            prev=landed.payload_hash,
            totals_root=proof.totals_tree(leaves).root_hash,
            count=len(leaves),
            total_score=sum(leaf.score for leaf in leaves),
            total_earned_nanoton=sum(leaf.earned_nanoton for leaf in leaves),
            tasks=sum(leaf.tasks for leaf in leaves),
            tokens=sum(leaf.tokens for leaf in leaves),
            policy_hash=POLICY,
            cut_root=hashlib.sha256(b"cut").digest(),
        )
        return replace(payload, **over)

    # ---- reading ----

    @property
    def rewards(self) -> Address:
        return self.pool_state().rewards

    @property
    def registry(self) -> Address:
        return self.pool_state().registry

    def pool_state(self) -> PoolState:
        return layout.read_pool(self._data(self.pool))

    def state(self) -> RewardsState:
        return layout.read_rewards(self._data(self.rewards))

    def balance(self, address: Address) -> int:
        return self.ledger.account(address).balance_nanoton

    def get(self, address: Address, method: str, *args: object) -> list[object]:
        exit_code, stack = self.ledger.get_method(address, method, list(args))
        if exit_code:
            raise AssertionError(f"{method}: {Refusal(exit_code).name}")
        return stack

    def check(self) -> None:
        """What must hold after every message (CONTRACTS, "Tests that must exist")."""
        account = self.ledger.account(self.pool)
        if account.data is None or account.data.bits[:8].tobytes() == b"\0":
            return
        state = self.state()
        assert self.balance(self.rewards) >= state.liabilities_nanoton
        assert state.distributed_nanoton == sum(state.paid_nanoton.values())
        assert state.distributed_nanoton <= state.landed.total_earned_nanoton
        participants = layout.read_registry(self._data(self.registry))
        assert self.balance(self.registry) >= sum(p.stake_nanoton for p in participants)
        assert self.entered == self.burnt + sum(self.balance(address) for address in self.checked)

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
