"""RewardDistribution alone, with a state that would take long to come about, or could not.

It is the shipped code on made storage; its pool and its registry are accounts of the test.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pytoniq_core import Cell

from contracts import layout, proof
from contracts.devchain.accounts import AppliedTransaction
from contracts.layout.storage import REWARDS
from contracts.model import NANO, ZERO_HASH, Address, Landed, Leaf, OpenEpoch, PinnedTerms, RewardsState
from contracts.opcodes import Op
from tests.contracts.emulation import new_ledger
from tests.contracts.pool_scene import ANYONE, DURATION_S, START_S, TERMS, account

POOL, REGISTRY = account("lone pool"), account("lone registry")
PINNED = PinnedTerms(set_id=1, terms=TERMS)


def landed(leaves: Sequence[Leaf], **over: Any) -> Landed:
    """The settlement of epoch 1, with these leaves."""
    fields: dict[str, Any] = {
        "epoch": 1,
        "payload_hash": bytes(31) + b"\1",
        "totals_root": proof.totals_tree(leaves).root_hash,
        "previous_root": ZERO_HASH,
        "total_earned_nanoton": sum(leaf.earned_nanoton for leaf in leaves),
        "settled_s": START_S,
    }
    return Landed(**fields | over)


def open_epochs(count: int, pot: int = NANO, pinned: PinnedTerms = PINNED) -> tuple[OpenEpoch, ...]:
    """Epochs 2, 3, ... that wait for their settlement."""
    return tuple(
        OpenEpoch(
            epoch=2 + i,
            start_s=START_S,
            end_s=START_S,
            pot_nanoton=pot,
            fee_nanoton=0,
            finalized_s=START_S,
            pinned=pinned,
        )
        for i in range(count)
    )


def made_state(last: Landed, **over: Any) -> RewardsState:
    """Running terms and next terms are `PINNED`; what is not told is zero."""
    epochs: tuple[OpenEpoch, ...] = over.get("open_epochs", ())
    fields: dict[str, Any] = {
        "pool": POOL,
        "registry": REGISTRY,
        "current_epoch": last.epoch + 1 + len(epochs),
        "current_start_s": START_S,
        "current_end_s": START_S + DURATION_S,
        "epoch_duration_s": DURATION_S,
        "running": PINNED,
        "next": PINNED,
        "received_nanoton": 0,
        "carried_nanoton": 0,
        "open_pots_nanoton": sum(epoch.pot_nanoton for epoch in epochs),
        "pending_fees_nanoton": 0,
        "received_before_nanoton": 0,
        "distributed_nanoton": sum(over.get("paid_nanoton", {}).values()),
        "fees_collected_nanoton": 0,
        "open_epochs": epochs,
        "landed": last,
        "paid_nanoton": {},
    }
    return RewardsState(**fields | over)


class LoneRewards:
    """One contract of this state. It holds what it owes and `own_nanoton` (which may be negative) more."""

    def __init__(self, state: RewardsState, *, own_nanoton: int = NANO) -> None:
        self.ledger = new_ledger(START_S)
        init = layout.state_init(layout.code("reward_distribution"), REWARDS.cell(state))
        self.address = layout.address_of(init)
        value = state.liabilities_nanoton + own_nanoton
        first = self.ledger.send_internal(ANYONE, self.address, value, layout.top_up_body(), state_init=init)
        assert first[0].exit_code == 0
        self._made = self.ledger.take_changes().accounts

    def begin_again(self) -> None:
        """Put the contract back to how it was made; the time goes on."""
        self.ledger.restore(self._made, lt=self.ledger.lt)

    def send(self, source: Address, value: int, body: Cell) -> AppliedTransaction:
        """The contract's own transaction; what it causes elsewhere is carried out too."""
        return self.ledger.send_internal(source, self.address, value, body)[0]

    def relay(self, payload: Cell, kind: int, value: int = NANO // 10, **over: Any) -> AppliedTransaction:
        """What the pool relays."""
        fields = {"submitter": ANYONE, "attached": value, "set_id": 1, "kind": kind, "payload": payload}
        return self.send(POOL, value, layout.body_cell(Op.POOL_RELAY_CERTIFICATE, **fields | over))

    @property
    def balance(self) -> int:
        return self.ledger.account(self.address).balance_nanoton

    def state(self) -> RewardsState:
        data = self.ledger.account(self.address).data
        assert data is not None
        return layout.read_rewards(data)
